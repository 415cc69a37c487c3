"""What is kept on disk, and what is not."""

import sqlite3
import stat
from pathlib import Path

import pytest

from exeunt.clients.portal import administration, observed, tokens
from exeunt.clients.portal.addresses import MAX_NUMBER, host_and_port, resource_address, tunnel_addresses
from exeunt.clients.portal.errors import AlreadyExists, InvalidValue, NotFound
from exeunt.clients.portal.schema import STEPS
from exeunt.clients.portal.store import SessionEvent, Store
from exeunt.clients.portal.versions import compatible

from .conftest import UNIX, Rig


def test_tokens_are_kept_hashed_only(rig: Rig) -> None:
    files = b"".join(path.read_bytes() for path in rig.path.parent.glob("portal.db*"))
    for made in (rig.client_made, rig.gateway_made):
        secret = made.token.partition("_")[2]
        assert len(secret) == 43
        assert secret.encode() not in files
        assert made.id.encode() in files


def test_a_token_signs_in_its_peer_and_nothing_like_it_does(rig: Rig) -> None:
    token = rig.client_made.token
    identity = rig.store.authenticate(token)
    assert identity is not None
    assert (identity.kind, identity.peer_id) == ("client", rig.client_made.id)
    other = rig.gateway_made.token
    swapped = token.partition("_")[0] + "_" + other.partition("_")[2]
    for wrong in (token[:-1], token + "A", token.swapcase(), swapped, "gateway" + token[6:], "", "client."):
        assert rig.store.authenticate(wrong) is None


def test_equal_secrets_would_have_different_digests() -> None:
    text, stored = tokens.issue("client")
    assert tokens.matches(text, stored)
    assert not tokens.matches(text, tokens.StoredToken(stored.id, "gateway", stored.salt, stored.digest))
    assert not tokens.matches(text, tokens.StoredToken(stored.id, "client", b"s" * 16, stored.digest))


def test_the_file_is_nobody_elses_business(rig: Rig) -> None:
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o600


def test_changes_by_others_are_noticed_and_ones_own_are_not(rig: Rig) -> None:
    before = rig.store.change_number()
    rig.store.record(SessionEvent(UNIX, "lost", "client-0", ""))
    assert rig.store.change_number() == before
    administration.add_client(rig.admin, "new", now_unix=UNIX)
    assert rig.store.change_number() != before


def test_a_database_survives_and_is_not_set_up_twice(rig: Rig) -> None:
    rig.admin.close()
    rig.admin = Store(rig.path)
    assert rig.admin.directory() == rig.store.directory()
    with pytest.raises(AlreadyExists):
        administration.initialize(rig.admin, rig.path, UNIX)
    assert len(rig.admin.tokens()) == 2


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    database.close()
    with pytest.raises(sqlite3.DatabaseError, match="newer"):
        Store(path)


def test_peers_get_addresses_of_their_own_which_are_never_reused(rig: Rig) -> None:
    made = [administration.add_client(rig.admin, f"c{number}", now_unix=UNIX) for number in range(5)]
    addresses = [peer.address_ipv4 for peer in (rig.gateway_made, rig.client_made, *made)]
    assert addresses == [f"100.64.0.{number}" for number in range(1, 8)]
    assert made[-1].address_ipv6 == "fd65:7865:756e::7"
    assert tunnel_addresses(MAX_NUMBER)[0] == "100.95.255.254"
    for number in (0, MAX_NUMBER + 1):
        with pytest.raises(ValueError, match="no tunnel address"):
            tunnel_addresses(number)


def test_names_are_taken_once_and_mistakes_change_nothing(rig: Rig) -> None:
    with pytest.raises(AlreadyExists):
        administration.add_client(rig.admin, "client-1", now_unix=UNIX)
    with pytest.raises(AlreadyExists):
        administration.add_resource(rig.admin, "web", "10.0.0.0/8", site=None)
    with pytest.raises(NotFound):
        administration.add_resource(rig.admin, "mail", "10.0.0.0/8", site=None, clients=("nobody",))
    for name in ("", "a:b", " a", "a\n", "\x1b[2J"):
        with pytest.raises(InvalidValue):
            administration.add_site(rig.admin, name)
    administration.add_site(rig.admin, "second")
    with pytest.raises(InvalidValue, match="several sites"):
        administration.add_gateway(rig.admin, "g", site=None, now_unix=UNIX)
    assert [row.name for row in administration.resources(rig.admin)] == ["web"]


def test_a_resource_for_some_is_for_nobody_else(rig: Rig) -> None:
    administration.add_client(rig.admin, "other", now_unix=UNIX)
    row = administration.add_resource(rig.admin, "mail", "10.21.0.0/24", site=None, clients=("other",))
    assert row.clients == ("other",)
    assert not row.for_everyone
    assert administration.resources(rig.admin)[1].clients == ("client-1", "other")


@pytest.mark.parametrize("text", ["10.20.0.1/24", "100.64.0.0/16", "fd65:7865:756e::/96", "example.com", "", "::/129"])
def test_what_cannot_be_a_resource(rig: Rig, text: str) -> None:
    with pytest.raises(InvalidValue):
        administration.add_resource(rig.admin, "bad", text, site=None)


def test_what_can_be_a_resource() -> None:
    assert resource_address("10.20.0.10") == "10.20.0.10/32"
    assert resource_address("2001:DB8::/32") == "2001:db8::/32"
    assert resource_address("0.0.0.0/0") == "0.0.0.0/0"


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:0", "host:65536", "::1:3478", "[host]:1", "h:１"])
def test_what_is_no_relay_address(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # one of several texts
        host_and_port(text)


def test_relays_are_removed_by_address_or_id(rig: Rig) -> None:
    row = administration.add_relay(rig.admin, "relay.example:3478", "a shared secret of ours")
    assert administration.relays(rig.admin) == [row]
    with pytest.raises(AlreadyExists):
        administration.add_relay(rig.admin, "relay.example:3478", "a shared secret of ours")
    assert administration.remove_relay(rig.admin, "relay.example:3478") == [row]
    with pytest.raises(NotFound):
        administration.remove_relay(rig.admin, "relay.example:3478")
    with pytest.raises(InvalidValue):
        administration.add_relay(rig.admin, "relay.example:3478", "short")
    assert "secret" not in repr(rig.admin.directory().relays)


def test_old_session_events_are_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeunt.clients.portal.store.KEPT_EVENTS", 3)
    for number in range(5):
        rig.store.record(SessionEvent(UNIX, "lost", rig.client_made.id, str(number)))
    rows = observed.sessions(rig.admin, 10, running=True).events
    assert [row.detail for row in rows] == ["4", "3", "2"]
    assert rows[0].peer == "client-1"
    assert rows[0].at == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.2.3", "1.9.0", True),
        ("1.2.3", "2.2.3", False),
        ("0.1.0", "0.1.9", True),
        ("0.1.0", "0.2.0", False),
        ("dev", "dev", True),
        ("dev", "1.0.0", False),
        ("0.1.0", "0.1", True),
    ],
)
def test_versions(one: str, other: str, expected: bool) -> None:
    assert compatible(one, other) is expected
    assert compatible(other, one) is expected
