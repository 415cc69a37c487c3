"""Time-limited credentials."""

import pytest

from exeunt.actors.turn import credentials
from exeunt.actors.turn.credentials import expiry_unix, identifier_of, password_for


def test_the_name_carries_expiry_and_identifier() -> None:
    username, password = credentials("secret", "alice:phone", 1_000.9, 60)
    assert username == "1060:alice:phone"
    assert expiry_unix(username) == 1060
    assert identifier_of(username) == "alice:phone"
    assert password == password_for("secret", username)


def test_the_password_is_that_of_other_implementations() -> None:
    # printf %s 1433895918:ninefingers | openssl dgst -sha1 -hmac north -binary | base64
    assert password_for("north", "1433895918:ninefingers") == "jy8hTxmOO7UtEKXqSkSlvakPVYA="


@pytest.mark.parametrize("username", ["", ":", "alice", ":alice", "-1:a", "1.5:a", "1e9:a", "9" * 13 + ":a", "١:a"])
def test_a_name_without_an_expiry_has_none(username: str) -> None:
    assert expiry_unix(username) is None


@pytest.mark.parametrize(("secret", "identifier", "lifetime_s"), [("", "a", 1), ("s", "", 1), ("s", "a", 0)])
def test_nonsense_is_refused(secret: str, identifier: str, lifetime_s: int) -> None:
    with pytest.raises(ValueError, match="TURN credential"):
        credentials(secret, identifier, 0, lifetime_s)
