"""Deposits as bytes, what a register keeps of them, and when everything is said."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.runtime.last_words import (
    MAX_BYTES,
    MAX_WORDS,
    REPEATS_AT_S,
    CloseChannel,
    Deposit,
    OpenChannel,
    Recital,
    Register,
    Told,
    Withdraw,
    WithdrawAll,
    Words,
    decode,
    encode,
)


def words(key: str = "a", payload: bytes = b"bye", **fields: Any) -> Words:
    return msgspec.structs.replace(Words(key=key, channel="1", payload=payload), **fields)


@pytest.mark.parametrize(
    "deposit",
    [
        words(),
        words(destination=("192.0.2.1", 4500), source="192.0.2.2"),
        words(destination=("2001:db8::1", 4500), source="fe80::1%eth0"),
        words(told=Told("n/w/link", b"told")),
        words(channel="", payload=b"", told=Told("n/w/link", b"told")),
        Withdraw(key="a"),
        WithdrawAll(),
        OpenChannel(channel="1"),
        CloseChannel(channel="1"),
    ],
)
def test_what_is_encoded_is_decoded(deposit: Deposit) -> None:
    assert decode(encode(deposit)) == deposit


@pytest.mark.parametrize(
    "fields",
    [
        {"destination": ("example.org", 4500)},  # would be looked up
        {"destination": ("192.0.2.1", 0)},
        {"destination": ("192.0.2.1", 1 << 16)},
        {"destination": ("192.0.2.1", -1)},
        {"destination": ("", 4500)},
        {"source": "localhost"},
        {"payload": b""},
        {"channel": ""},  # nobody is told either
        {"told": Told("link", b"told")},
        {"told": Told("n/w/link", b"")},
        {"told": Told("n/w/link", bytes(1473))},
        {"payload": b"", "told": Told("n/w/link", b"told")},
    ],
)
def test_words_that_could_not_be_said_are_not_taken(fields: dict[str, Any]) -> None:
    assert decode(encode(words(**fields))) is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(message: bytes) -> None:
    decode(message)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5), st.lists, max_leaves=20))
def test_no_document_raises(document: object) -> None:
    try:
        message = msgspec.msgpack.encode({"type": "put", "key": document, "channel": "1", "payload": b"x"})
    except OverflowError:
        return  # msgpack has no such number
    found = decode(message)
    assert found is None or isinstance(found, Words)


def test_later_words_of_a_key_take_the_place_of_earlier_ones() -> None:
    register = Register()
    register.put(words("a", b"1"))
    register.put(words("b", b"22"))
    register.put(words("a", b"333"))
    assert {key: one.payload for key, one in register.words.items()} == {"b": b"22", "a": b"333"}
    assert register.bytes_total == 5
    register.withdraw("b")
    register.withdraw("b")
    assert register.bytes_total == 3
    register.withdraw_all()
    assert (register.words, register.bytes_total) == ({}, 0)


def test_there_is_room_for_so_many_words_and_no_more() -> None:
    register = Register()
    for number in range(MAX_WORDS + 3):
        register.put(words(str(number)))
    assert len(register.words) == MAX_WORDS
    assert register.refused_total == 3
    register.put(words("0", b"again"))  # what is replaced makes room
    assert register.words["0"].payload == b"again"


def test_there_is_room_for_so_many_bytes_and_no_more() -> None:
    register = Register()
    size = 1400
    for number in range(MAX_BYTES // size + 5):
        register.put(words(str(number), bytes(size)))
    assert register.bytes_total <= MAX_BYTES < register.bytes_total + size
    assert register.refused_total == 5


def test_words_without_room_do_not_leave_older_ones_in_their_place() -> None:
    """Whoever replaced a goodbye must not have the outdated one said."""
    register = Register()
    register.put(words("mine", b"old"))
    number = 0
    while register.refused_total == 0:
        register.put(words(str(number), bytes(1000)))
        number += 1
    register.put(words("mine", bytes(1400)))
    assert "mine" not in register.words


@given(st.lists(st.tuples(st.sampled_from(["put", "withdraw"]), st.sampled_from("abc"), st.binary(min_size=1))))
def test_the_bytes_are_always_those_of_the_words(steps: list[tuple[str, str, bytes]]) -> None:
    register = Register()
    for step, key, payload in steps:
        if step == "put":
            register.put(words(key, payload))
        else:
            register.withdraw(key)
        assert register.bytes_total == sum(len(one.payload) for one in register.words.values())


def test_everything_is_said_at_once_and_again_in_growing_gaps() -> None:
    recital = Recital(died_at=50.0)
    rounds: list[float] = []
    while (due := recital.poll_timeout()) is not None:
        assert not recital.handle_timeout(due - 0.001)
        assert recital.handle_timeout(due)
        rounds.append(due - 50.0)
    assert rounds == pytest.approx(list(REPEATS_AT_S))
    assert (len(rounds), rounds[0], round(rounds[-1], 6)) == (8, 0.0, 0.2)
    gaps = [after - before for before, after in itertools.pairwise(rounds)]
    assert gaps == sorted(gaps)
    assert not recital.handle_timeout(99.0)


def test_a_round_that_is_late_is_one_round() -> None:
    recital = Recital(died_at=0.0)
    assert recital.handle_timeout(10.0)
    assert recital.said == 1
