"""Answerers on real sockets: what they answer Python would have, to the byte; what is not ordinary stays as it was."""

from __future__ import annotations

import math
import random
import socket
import time
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import MAX_DATAGRAMS, OUT_BYTES_EACH, native
from exeunt.actors.batch.answers import Answerer
from exeunt.actors.batch.lanes import Lanes
from exeunt.actors.ice import Credentials
from exeunt.actors.ice.ancillary import SOL_UDP, UDP_SEGMENT, prepare, prepare_trains
from exeunt.actors.ice.checks import MAX_NOMINATIONS
from exeunt.actors.ice.packing import Packing, Role
from exeunt.actors.ice.rest import packed_remote

from .test_lanes import waiting

CHARACTERS = st.sampled_from("ABCXYZabcxyz019+/")
NAMES = st.text(CHARACTERS, min_size=4, max_size=40)
PASSWORDS = st.text(CHARACTERS, min_size=22, max_size=64)
IDS = st.binary(min_size=12, max_size=12)
HOSTS = ("127.0.0.1", "::1")
CONTROLLING = Role(controlling=True, tie_breaker=0x0102030405060708)


class Ends(NamedTuple):
    """The credentials of both: ours, whose checks are answered, and the peer's."""

    here: Credentials
    there: Credentials


def ends_of(ours: str, theirs: str, our_password: str, their_password: str) -> Ends:
    return Ends(
        Credentials(
            local_username=ours, local_password=our_password, remote_username=theirs, remote_password=their_password
        ),
        Credentials(
            local_username=theirs, local_password=their_password, remote_username=ours, remote_password=our_password
        ),
    )


ENDS = st.builds(ends_of, NAMES, NAMES, PASSWORDS, PASSWORDS)
SOME = ends_of("ours", "theirs12", "o" * 22, "t" * 24)


class Bench:
    """A socket that answers, and the peer's."""

    def __init__(self, kernel: native.NativeKernel, host: str) -> None:
        assert kernel.lanes is not None
        self.lanes: Lanes = kernel.lanes()
        self.host = host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.ours, self.theirs, self.others = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(3))
        for one in (self.ours, self.theirs, self.others):
            one.bind((host, 0))
            one.setblocking(False)
        prepare(self.ours)
        prepare_trains(self.ours)
        for one in (self.theirs, self.others):
            one.connect(self.ours.getsockname())
        self.buffer = memoryview(bytearray(3 * 65_536))
        self.out = memoryview(bytearray(len(self.buffer) + MAX_DATAGRAMS * OUT_BYTES_EACH))

    @property
    def source(self) -> tuple[str, int]:
        host, port = self.theirs.getsockname()[:2]
        return host, port

    def open(self, ends: Ends, like: bytes, **other: Any) -> Answerer:
        """Begin to answer checks that are like this one."""
        remote = packed_remote(self.source)
        how: dict[str, Any] = {
            "owner": "session",
            "key": ends.here.local_password.encode(),
            "asked": like[20:-32],
            "nominates": True,
            "nominations": b"",
            "descriptor": self.ours.fileno(),
            "remote": remote,
            "local": socket.inet_pton(self.ours.family, self.host),
            "heard_at": 1.0,
            "quiet_s": 6.0,
        }
        answerer = self.lanes.answer(**how | other)
        assert answerer is not None
        return answerer

    def read(self, *, lonely: bool = False) -> tuple[list[bytes], int, int]:
        """Read; return what is left, how many readings there were, and how the last one ended."""
        end, reads, error, runs, data, rest, noted = self.lanes.receive(
            self.ours.fileno(), self.buffer, 0, 64, lonely, self.out
        )
        assert (data, rest, noted) == (0, None, [])
        left: list[bytes] = []
        for _, spans, _, _ in runs:
            places = array("I", spans)
            left += [bytes(self.buffer[at : at + size]) for at, size in zip(places[::2], places[1::2], strict=True)]
            assert max(places[::2]) < end
        assert end > 0 or not left
        return left, reads, error

    def come(self, *datagrams: bytes) -> list[bytes]:
        """Have them come from the peer; return what is left."""
        for one in datagrams:
            self.theirs.send(one)
        return self.read()[0]

    def answers(self) -> list[bytes]:
        """What the peer was sent."""
        return list(waiting(self.theirs))

    def close(self) -> None:
        for one in (self.ours, self.theirs, self.others):
            one.close()


@pytest.fixture(scope="module")
def kernel() -> native.NativeKernel:
    found = native.load()
    if found is None or found.lanes is None:
        pytest.skip("no native kernel with lanes")
    return found


@pytest.fixture(params=HOSTS)
def bench(kernel: native.NativeKernel, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kernel, request.param)
    yield made
    made.close()


@pytest.fixture(scope="module", params=HOSTS)
def shared(kernel: native.NativeKernel, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kernel, request.param)
    yield made
    made.close()


def check(number: int, ends: Ends = SOME, role: Role = CONTROLLING, *, nominate: bool = True) -> bytes:
    return Packing(ends.there).request(number.to_bytes(12, "big"), role, nominate=nominate)


@settings(max_examples=200)
@given(ends=ENDS, tie_breaker=st.integers(0, 2**64 - 1), controlling=st.booleans(), ids=st.lists(IDS, max_size=4))
def test_answers_are_those_of_python(
    shared: Bench, ends: Ends, tie_breaker: int, controlling: bool, ids: list[bytes]
) -> None:
    peer, us = Packing(ends.there), Packing(ends.here)
    requests = [peer.request(one, Role(controlling, tie_breaker), nominate=True) for one in (b"first of all", *ids)]
    answerer = shared.open(ends, requests[0], nominates=controlling)
    left = shared.come(*requests)
    shared.lanes.answer_no_more(answerer)
    assert left == []
    assert shared.answers() == [us.success(one, shared.source) for one in (b"first of all", *ids)]
    assert all(us.read_request(one) is not None for one in requests)
    assert answerer.books()[0] == len(requests)
    wanted = list(dict.fromkeys((b"first of all", *ids))) if controlling else []
    assert answerer.nominations() == b"".join(wanted)


@settings(max_examples=300)
@given(
    nominate=st.booleans(),
    spoils=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=2),
    ends=st.tuples(st.integers(0, 3), st.binary(max_size=5)),
    repairs=st.booleans(),
)
def test_what_python_would_not_answer_at_once_is_left(
    shared: Bench, nominate: bool, spoils: list[tuple[int, int]], ends: tuple[int, bytes], repairs: bool
) -> None:
    cut, more = ends
    true = check(7)
    spoiled = bytearray(check(8, nominate=nominate))
    for position, change in spoils:
        spoiled[position % len(spoiled)] ^= change
    datagram = bytes(spoiled[: len(spoiled) - cut]) + more
    if repairs:  # only the length is right again
        datagram = datagram[:2] + (len(datagram) - 20).to_bytes(2, "big") + datagram[4:]
    answerer = shared.open(SOME, true)
    left = shared.come(datagram)
    shared.lanes.answer_no_more(answerer)
    reader = Packing(SOME.here)
    request = reader.read_request(datagram)
    is_ordinary = request is not None and reader.asked == (true[20:-32], True)
    assert left == ([] if is_ordinary else [datagram])
    assert shared.answers() == ([Packing(SOME.here).success(datagram[8:20], shared.source)] if is_ordinary else [])
    assert answerer.books()[0] == is_ordinary


def test_other_requests_of_the_peer_are_left(bench: Bench) -> None:
    bench.open(SOME, check(0))
    for other in (
        check(1, nominate=False),
        check(1, role=Role(controlling=False, tie_breaker=5)),
        check(1, role=Role(controlling=True, tie_breaker=5)),
        check(1, ends_of("ours", "another1", "o" * 22, "t" * 24)),
        check(1, ends_of("ourselves", "theirs12", "o" * 22, "t" * 24)),
        check(1, ends_of("ours", "theirs12", "p" * 22, "t" * 24)),
        Packing(SOME.here).success(bytes(12), bench.source),
    ):
        assert bench.come(other) == [other]
    assert bench.answers() == []
    assert bench.come(check(2)) == []


def test_what_comes_from_elsewhere_or_to_elsewhere_is_left(bench: Bench) -> None:
    answerer = bench.open(SOME, check(0))
    bench.others.send(check(1))
    assert bench.read()[0] == [check(1)]
    bench.lanes.answer_no_more(answerer)
    elsewhere = "127.0.0.9" if bench.host == "127.0.0.1" else "::2"
    for other in (
        {"local": socket.inet_pton(bench.ours.family, elsewhere)},
        {"descriptor": bench.others.fileno()},
    ):
        answerer = bench.open(SOME, check(0), **other)
        assert bench.come(check(2)) == [check(2)]
        bench.lanes.answer_no_more(answerer)
    assert bench.answers() == []


def test_what_comes_behind_something_left_is_left_in_that_reading(bench: Bench) -> None:
    bench.open(SOME, check(0))
    third = ends_of("third", "theirs12", "h" * 22, "t" * 24)
    bench.open(third, check(0, third))
    spoiled = bytearray(check(2))
    spoiled[-1] ^= 1
    came = (check(1), bytes(spoiled), check(3), check(4, third))
    assert bench.come(*came) == [bytes(spoiled), check(3)]
    assert [one[8:20] for one in bench.answers()] == [came[0][8:20], came[3][8:20]]
    assert bench.come(check(5)) == []


def test_others_are_left_where_they_were_in_order(bench: Bench) -> None:
    bench.open(SOME, check(0))
    data = b"\4\0\0\0" + bytes(60)
    assert bench.come(data, check(1), data, b"", check(2), b"noise", check(3)) == [data, data, b"", b"noise"]
    assert len(bench.answers()) == 3


def test_a_train_of_checks_is_taken_one_by_one(bench: Bench) -> None:
    answerer = bench.open(SOME, check(0))
    spoiled = bytearray(check(2))
    spoiled[-1] ^= 1
    for train, left in (
        ((check(1), check(2), check(3)), []),
        ((check(4), bytes(spoiled), check(5)), [bytes(spoiled), check(5)]),
    ):
        size = len(train[0])
        bench.theirs.sendmsg([b"".join(train)], [(SOL_UDP, UDP_SEGMENT, array("H", [size]))])
        assert bench.read()[0] == left
    assert len(bench.answers()) == answerer.books()[0] == 4


def test_data_of_a_train_stays_where_its_last_datagram_is_answered(bench: Bench) -> None:
    """The kernel merges by length alone, so a check can be the end of a train of data."""
    bench.open(SOME, check(0))
    data = b"\4\0\0\0" + bytes(len(check(0)) - 4)
    bench.theirs.send(data)
    bench.theirs.sendmsg([data + check(1)], [(SOL_UDP, UDP_SEGMENT, array("H", [len(data)]))])
    assert bench.read()[0] == [data, data]
    assert len(bench.answers()) == 1


def test_a_lonely_check_is_all_that_is_read(bench: Bench) -> None:
    bench.open(SOME, check(0))
    for number in (1, 2):
        bench.theirs.send(check(number))
    assert bench.read(lonely=True) == ([], 1, 0)
    left, reads, error = bench.read()
    assert (left, reads, error != 0) == ([], 1, True)


def test_what_is_refused_is_left_and_not_noted(bench: Bench) -> None:
    answerer = bench.open(SOME, check(0))
    bench.ours.connect(bench.theirs.getsockname())
    bench.ours.shutdown(socket.SHUT_WR)
    assert bench.come(check(1), check(2)) == [check(1), check(2)]
    assert answerer.books() == (0, 0.0, 1.0)
    assert answerer.nominations() == b""


def test_a_closed_one_answers_nothing_and_keeps_its_books(bench: Bench) -> None:
    answerer = bench.open(SOME, check(0))
    assert bench.come(check(1)) == []
    for _ in range(2):
        bench.lanes.answer_no_more(answerer)
    assert bench.come(check(2)) == [check(2)]
    assert answerer.books()[0] == 1
    assert answerer.nominations() == check(1)[8:20]
    bench.open(SOME, check(0))


def test_books_have_the_last_two_times(bench: Bench) -> None:
    heard_at = time.monotonic() - 5
    answerer = bench.open(SOME, check(0), heard_at=heard_at)
    assert answerer.books() == (0, 0.0, heard_at)
    began = time.monotonic()
    bench.come(check(1))
    _, before, first = answerer.books()
    assert before == heard_at
    assert began <= first <= time.monotonic()
    bench.come(check(2), check(3))
    answered, before, last = answerer.books()
    assert answered == 3
    assert first < before < last


def test_who_has_nominated_is_known_as_far_as_python_knows_it(bench: Bench) -> None:
    told = [number.to_bytes(12, "big") for number in range(60)]
    answerer = bench.open(SOME, check(0), nominations=b"".join(told))
    came = [check(number) for number in (59, 3, 60, 61, 60, *range(100, 110), 100)]
    for one in came:
        assert bench.come(one) == []
    new = [*told, *(number.to_bytes(12, "big") for number in (60, 61, *range(100, 110)))]
    assert answerer.nominations() == b"".join(new[-MAX_NOMINATIONS:])


def test_without_use_candidate_nobody_nominates(bench: Bench) -> None:
    answerer = bench.open(SOME, check(0, nominate=False), nominates=False, nominations=b"twelve bytes")
    assert bench.come(check(1, nominate=False)) == []
    assert answerer.nominations() == b"twelve bytes"


def test_who_falls_silent_is_told(bench: Bench) -> None:
    assert bench.lanes.silent_by(time.monotonic()) == ([], math.inf)
    now = time.monotonic()
    many = [ends_of(f"user{number}", "theirs12", "o" * 22, "t" * 24) for number in range(3)]
    answerers = [
        bench.open(one, check(0, one), owner=number, heard_at=now - 5 + number, quiet_s=6.0)
        for number, one in enumerate(many)
    ]
    assert bench.lanes.silent_by(now) == ([], now - 5 + 6.0)
    silent, due = bench.lanes.silent_by(now + 2.5)
    assert (sorted(silent), due) == ([0, 1], now - 5 + 2 + 6.0)
    bench.come(check(1, many[0]))
    silent, due = bench.lanes.silent_by(now + 3.5)
    assert sorted(silent) == [1, 2]
    assert due == answerers[0].books()[2] + 6.0


def test_what_makes_no_sense_is_refused(bench: Bench) -> None:
    bench.open(SOME, check(0))
    other = ends_of("other", "theirs12", "o" * 22, "t" * 24)
    for ends, wrong in (
        (SOME, {}),
        (other, {"key": bytes(65)}),
        (other, {"asked": b""}),
        (other, {"asked": check(0, other)[20:36]}),
        (other, {"asked": check(0, other)[20:-32] + bytes(100)}),
        (other, {"nominations": bytes(11)}),
        (other, {"nominations": bytes(12 * 65)}),
        (other, {"local": bytes(5)}),
        (other, {"remote": bytes(22 if bench.host == "127.0.0.1" else 10)}),
        (other, {"remote": bytes(23)}),
    ):
        with pytest.raises(ValueError, match=r"."):
            bench.open(ends, check(0, ends), **wrong)
    with pytest.raises(TypeError):
        bench.lanes.answer_no_more("nothing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_thousand_find_each_their_own(bench: Bench) -> None:
    rng = random.Random(1)
    many = [
        ends_of(f"u{number:07}", f"peer{number:04}", f"{rng.getrandbits(120):030d}", "t" * 24) for number in range(1000)
    ]
    for one in many:
        bench.open(one, check(0, one), owner=one)
    for number in rng.sample(range(1000), 50):
        assert bench.come(check(number, many[number])) == []
        assert bench.answers() == [Packing(many[number].here).success(number.to_bytes(12, "big"), bench.source)]
