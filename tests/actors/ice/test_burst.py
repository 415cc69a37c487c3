"""Splitting and giving away a burst, without sockets."""

import struct
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.ice import Address
from exeunt.actors.ice.ancillary import Arrival
from exeunt.actors.ice.burst import Burst, spans_of
from exeunt.actors.ice.channel_burst import ChannelBurst
from exeunt.actors.ice.demultiplexer import Demultiplexer

HERE, THERE, ELSEWHERE = "192.0.2.1", ("198.51.100.7", 7), ("198.51.100.8", 8)
STUN = b"\x01\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12


def data(prefix: int, tag: int, length: int = 48) -> bytes:
    return struct.pack("<BxxxI", 4, prefix << 8 | 1) + bytes([tag]) * (length - 8)


class Taker:
    """An agent and a session; keeps a copy of what it is given, and then scribbles over it, as it may."""

    def __init__(self, *, fails: bool = False) -> None:
        self.batches: list[tuple[list[bytes], Address, int]] = []
        self.stun: list[bytes] = []
        self._fails = fails

    @property
    def datagrams(self) -> list[bytes]:
        return [datagram for batch, _, _ in self.batches for datagram in batch]

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        self.stun.append(datagram)

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        assert host == HERE
        self.take_relayed(buffer, spans, source, ecn)
        if self._fails:
            raise RuntimeError("a fault of its own")

    def take_relayed(self, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        batch: list[bytes] = []
        for at, length in zip(spans[::2], spans[1::2], strict=True):
            batch.append(bytes(buffer[at : at + length]))
            buffer[at : at + length] = bytes(length)
        self.batches.append((batch, source, ecn))

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Nobody says so."""


class Rig:
    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.table = Demultiplexer(self.counters)
        self.burst = Burst(self.table, self.counters)
        self.buffer = memoryview(bytearray(65_536))
        self.at = 0

    def agent(self, prefix: int | None, *, fails: bool = False) -> Taker:
        agent = Taker(fails=fails)
        self.table.add_agent(agent)
        self.table.know(THERE, agent, proven=True)
        if prefix is not None:
            self.table.claim(prefix, agent)
        return agent

    def arrive(self, *datagrams: bytes, source: Address = THERE, ecn: int = 0) -> None:
        """One call's worth: a datagram, or a train."""
        joined = b"".join(datagrams)
        self.buffer[self.at : self.at + len(joined)] = joined
        segment = len(datagrams[0]) if len(datagrams) > 1 else 0
        self.burst.take(self.buffer, self.at, len(joined), Arrival(HERE, segment, ecn), source)
        self.at += len(joined)


@given(st.integers(0, 9), st.integers(1, 3_000), st.integers(1, 100))
def test_spans_are_where_the_datagrams_are(at: int, size: int, segment: int) -> None:
    starts = range(at, at + size, segment)
    expected = [number for start in starts for number in (start, min(segment, at + size - start))]
    assert list(spans_of(at, size, segment)) == expected


def test_each_agent_is_given_its_datagrams_once_and_in_order() -> None:
    rig = Rig()
    one, two = rig.agent(1), rig.agent(2)
    rig.arrive(data(1, 1), data(1, 2), data(1, 3, 40))
    rig.arrive(data(2, 4))
    rig.arrive(data(1, 5))
    assert one.batches == two.batches == []
    rig.burst.deliver()
    assert one.batches == [([data(1, 1), data(1, 2), data(1, 3, 40), data(1, 5)], THERE, 0)]
    assert two.batches == [([data(2, 4)], THERE, 0)]
    rig.burst.deliver()
    assert len(one.batches) == 1


@pytest.mark.parametrize("length", [48, 49])
@pytest.mark.parametrize(
    "odd", [data(1, 9, 40), data(2, 9, 40), STUN, STUN[:7], STUN[:1], data(2, 9, 48), data(2, 9, 49)]
)
@pytest.mark.parametrize("at", [1, 3])
def test_what_follows_more_of_its_kind_is_looked_at_all_the_same(length: int, odd: bytes, at: int) -> None:
    """The trains of one source are known by what came before; what is in them goes where it would go by itself."""
    rig, alone = Rig(), Rig()
    takers, others = [rig.agent(1), rig.agent(2)], [alone.agent(1), alone.agent(2)]
    arrival, sent = Arrival(HERE, length), [data(1, number, length) for number in range(4)]
    mixed = [*sent[:at], odd] if len(odd) < length else [*sent[:at], odd[:length], *sent[at:]]
    for train in (sent, sent, mixed, sent[:1], sent):
        joined = b"".join(train)
        rig.buffer[rig.at : rig.at + len(joined)] = joined
        assert rig.burst.take(rig.buffer, rig.at, len(joined), arrival, THERE)
        rig.at += len(joined)
        for datagram in train:
            alone.arrive(datagram)
    rig.burst.deliver()
    alone.burst.deliver()
    for taker, other in zip(takers, others, strict=True):
        assert (taker.datagrams, taker.stun) == (other.datagrams, other.stun)
    assert sum(len(taker.datagrams) for taker in takers) >= 13 + at
    assert rig.counters == alone.counters


@pytest.mark.parametrize(
    ("datagram", "waits"),
    [
        (STUN, True),
        (data(1, 1, 32), True),
        (data(1, 1, 48), False),
        (b"\x01\x00\x00\x00" + bytes(144), True),
        (struct.pack("<III", 2, 0, 1 << 8).ljust(92, b"\x00"), True),
        (struct.pack("<II", 3, 1 << 8).ljust(64, b"\x00"), True),
    ],
)
def test_what_idle_peers_send_may_wait(datagram: bytes, waits: bool) -> None:
    rig = Rig()
    rig.agent(1)
    rig.buffer[: len(datagram)] = datagram
    spans = array("I", (0, len(datagram))).tobytes()
    assert rig.burst.take(rig.buffer, 0, len(datagram), Arrival(HERE), THERE) is not waits
    assert rig.burst.take_run(rig.buffer, datagram[:8], spans, Arrival(HERE), THERE) is not waits


def test_what_is_one_agents_alone_is_given_at_once() -> None:
    rig = Rig()
    agent = rig.agent(1)
    payload = data(1, 1) + data(1, 2)
    rig.buffer[: len(payload)] = payload
    spans = array("I", (0, 48, 48, 48)).tobytes()

    def give(head: bytes, host: str | None = HERE) -> bool | None:
        return rig.burst.give_run(rig.buffer, head, spans, Arrival(host, 0, 1), THERE)

    assert give(data(7, 1)[:8]) is None, "nobody's"
    assert give(STUN[:8]) is None
    assert give(data(1, 1)[:8], host=None) is None
    assert agent.batches == []
    assert give(data(1, 1)[:8]) is True
    assert agent.batches == [([data(1, 1), data(1, 2)], THERE, 1)]
    rig.burst.deliver()
    assert len(agent.batches) == 1
    rig.arrive(data(1, 3))
    assert give(data(1, 1)[:8]) is None, "what came before has still to be given"


def test_where_source_or_mark_changes_another_batch_begins() -> None:
    rig = Rig()
    agent = rig.agent(1)
    rig.arrive(data(1, 1))
    rig.arrive(data(1, 2), ecn=3)
    rig.arrive(data(1, 3), source=ELSEWHERE, ecn=3)
    rig.arrive(data(1, 4), data(1, 5))
    rig.burst.deliver()
    assert [(source, ecn) for _, source, ecn in agent.batches] == [(THERE, 0), (THERE, 3), (ELSEWHERE, 3), (THERE, 0)]
    assert agent.datagrams == [data(1, tag) for tag in (1, 2, 3, 4, 5)]


def test_a_check_at_the_end_of_a_train_is_heard_at_once() -> None:
    rig = Rig()
    agent = rig.agent(1)
    rig.table.expect_answer(b"t" * 12, agent, 0.0)
    rig.arrive(data(1, 1), data(1, 2), STUN)
    assert agent.stun == [STUN]
    rig.burst.deliver()
    assert agent.datagrams == [data(1, 1), data(1, 2)]


def test_a_train_of_several_is_told_apart() -> None:
    rig = Rig()
    one, two = rig.agent(1), rig.agent(2)
    rig.arrive(data(1, 1), data(2, 2), data(1, 3), data(9, 4))
    rig.burst.deliver()
    assert (one.datagrams, two.datagrams) == ([data(1, 1), data(1, 3)], [data(2, 2)])
    assert rig.counters["data_for_nobody"] == 1


def test_who_is_offered_an_initiation_cannot_spoil_it_for_another() -> None:
    rig = Rig()
    one, two = rig.agent(1), rig.agent(2)
    initiation = b"\x01\x00\x00\x00" + b"i" * 144
    rig.arrive(initiation)
    rig.burst.deliver()
    assert one.datagrams == two.datagrams == [initiation]


def test_a_fault_costs_the_others_nothing() -> None:
    rig = Rig()
    one, two = rig.agent(1, fails=True), rig.agent(2)
    rig.arrive(data(1, 1))
    rig.arrive(data(2, 2))
    with pytest.raises(RuntimeError, match="of its own"):
        rig.burst.deliver()
    assert (one.datagrams, two.datagrams) == ([data(1, 1)], [data(2, 2)])
    rig.burst.deliver()
    assert len(two.batches) == 1


PIECES = st.lists(
    st.binary(min_size=1, max_size=24) | st.builds(data, st.integers(0, 3), st.integers(0, 9)), max_size=9
)


@given(st.lists(st.tuples(PIECES, st.integers(0, 3))))
def test_whatever_the_kernel_merges_all_of_it_arrives_in_order(trains: list[tuple[list[bytes], int]]) -> None:
    rig = Rig()
    plain = rig.agent(None)
    owners = [rig.agent(prefix) for prefix in (1, 2)]
    sent: list[bytes] = []
    for pieces, ecn in trains:
        train: list[bytes] = []
        for piece in pieces:  # only equal ones are merged, and the last may be shorter
            if train and len(piece) > len(train[0]):
                break
            train.append(piece)
            if len(piece) < len(train[0]):
                break
        if train:
            rig.arrive(*train, ecn=ecn)
            sent += train
    rig.burst.deliver()
    for prefix, owner in enumerate(owners, 1):
        assert owner.datagrams == [one for one in sent if len(one) == 48 and one == data(prefix, one[-1])]
    others = [one for one in sent if not (len(one) == 48 and one[0] == 4 and one[5] in (1, 2))]
    assert plain.datagrams == others


# Through a relay


PEER, OTHER = ("203.0.113.1", 1), ("203.0.113.2", 2)


def framed(number: int, payload: bytes, *, padded: bool = False) -> bytes:
    return struct.pack("!HH", number, len(payload)) + payload + bytes(-len(payload) % 4 if padded else 0)


class RelayRig:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.taker = Taker()
        self.counters: Counter[str] = Counter()
        self.burst = ChannelBurst({0x4000: PEER, 0x4001: OTHER}, self.messages.append, self.counters)
        self.burst.on_data = self.taker.take_relayed

    def arrive(self, *messages: bytes, ecn: int = 0) -> None:
        joined = b"".join(messages)
        segment = len(messages[0]) if len(messages) > 1 else 0
        self.burst.take(memoryview(bytearray(b"??" + joined)), 2, len(joined), segment, ecn)
        self.burst.deliver()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("last", [40, 45, 50])
def test_headers_are_taken_off_a_train(padded: bool, last: int) -> None:
    rig = RelayRig()
    payloads = [data(1, 1, 50), data(1, 2, 50), data(1, 3, last)]
    rig.arrive(*(framed(0x4000, payload, padded=padded) for payload in payloads), ecn=1)
    assert rig.taker.batches == [(payloads, PEER, 1)]


def test_peers_and_messages_in_a_train_are_told_apart() -> None:
    rig = RelayRig()
    check = framed(0x4000, STUN[:2] + (28).to_bytes(2, "big") + STUN[4:] + bytes(28))
    one, two = data(1, 1), data(2, 2)
    rig.arrive(framed(0x4000, one), framed(0x4001, two), check, framed(0x4002, one), framed(0x4000, one))
    assert rig.taker.batches == [([one], PEER, 0), ([two], OTHER, 0), ([one], PEER, 0)]
    assert rig.messages == [check]
    assert rig.counters["malformed_turn"] == 1
    rig.arrive(b"\x01\x01" + bytes(18))
    rig.arrive(b"")
    assert rig.messages[1:] == [b"\x01\x01" + bytes(18), b""]


@pytest.mark.parametrize("spoiled", [0, 1])
def test_a_length_that_is_not_true_costs_one_message(spoiled: int) -> None:
    rig = RelayRig()
    messages = [framed(0x4000, data(1, tag)) for tag in range(3)]
    lie = bytearray(messages[spoiled * 2])
    lie[2:4] = b"\xff\xff"
    messages[spoiled * 2] = bytes(lie)
    rig.arrive(*messages)
    assert len(rig.taker.datagrams) == 2
    assert rig.counters["malformed_turn"] == 1


@given(st.binary(max_size=300), st.integers(0, 80))
def test_no_train_from_a_server_is_too_strange(noise: bytes, segment: int) -> None:
    rig = RelayRig()
    for start in (noise, framed(0x4000, data(1, 1)) + noise):
        rig.burst.take(memoryview(bytearray(start)), 0, len(start), segment, 0)
        rig.burst.deliver()
    assert all(source in (PEER, OTHER) for _, source, _ in rig.taker.batches)
