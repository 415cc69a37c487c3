"""Which actor or worker a person means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.runtime.control import ControlError
from exeunt.runtime.targets import Target, find

ADDRESSES = ["n/w1/a", "n/w1/host", "n/w2/host", "n/w2/w1"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a", Target("actor", "n/w1/a")),
        ("w1/a", Target("actor", "n/w1/a")),
        ("n/w2/host", Target("actor", "n/w2/host")),
        ("w2/w1", Target("actor", "n/w2/w1")),
        ("w2", Target("worker", "w2")),
        ("w1/", Target("worker", "w1")),
    ],
)
def test_enough_of_an_address_is_enough(text: str, meant: Target) -> None:
    assert find(text, ADDRESSES, ["w1", "w2"]) == meant


@pytest.mark.parametrize(
    ("text", "several"),
    [("host", "n/w1/host, n/w2/host"), ("w1", "w1/ (the worker), n/w2/w1")],
)
def test_too_little_lists_what_it_may_mean(text: str, several: str) -> None:
    with pytest.raises(ControlError) as error:
        find(text, ADDRESSES, ["w1", "w2"])
    assert (error.value.code, error.value.message) == ("ambiguous_actor", f"{text} may mean {several}.")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("hots", "Did you mean n/w2/host"),
        ("w3", "Did you mean w"),
        ("zebra", "exeunt ps lists"),
        ("", "exeunt ps lists"),
    ],
)
def test_who_is_unknown_gets_the_closest(text: str, hint: str) -> None:
    with pytest.raises(ControlError) as error:
        find(text, ADDRESSES, ["w1", "w2"])
    assert error.value.code == "no_such_actor"
    assert (error.value.hint or "").startswith(hint)


def test_without_workers_a_name_is_an_actors() -> None:
    assert find("w1", ADDRESSES) == Target("actor", "n/w2/w1")


NAMES = st.sampled_from("abc")


@given(st.lists(st.tuples(NAMES, NAMES), unique=True, min_size=1))
def test_a_full_address_is_never_ambiguous(places: list[tuple[str, str]]) -> None:
    addresses = [f"n/{worker}/{name}" for worker, name in places]
    for address in addresses:
        assert find(address, addresses, [worker for worker, _ in places]).name == address
