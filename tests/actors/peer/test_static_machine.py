"""A static peer against a plain tunnel: it follows its peer, believes nobody else, and ends by our side only."""

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch.contract import OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES, Sealed
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.events import Connected, Ended
from exeunt.actors.peer.static_machine import StaticConnection
from exeunt.actors.peer.way import Way
from exeunt.actors.wireguard import PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import ipv4_packet, public_key
from exeunt.actors.wireguard.timing import REJECT_AFTER_TIME_S

OURS, THEIRS = b"\x22" * 32, b"\x11" * 32
HOME = Way("192.0.2.1", ("198.51.100.2", 4500))
CAFE = Way("192.0.2.1", ("203.0.113.7", 1024))
SENT, SINCE = 100.0, 1000.0


def tunnel(private: bytes, peer: bytes, *, initiator: bool, prefix: int) -> Tunnel:
    return Tunnel(
        private_key=private,
        peer_public_key=public_key(peer),
        initiator=initiator,
        allocate_index=PrefixedIndices(prefix),
        rng=random.Random(1),
        wall_clock_ns=lambda: 1_800_000_000 * 10**9,
    )


class Pair:
    """Their plain tunnel, our machine, and the way that theirs takes now."""

    def __init__(self, *, initiator: bool = False) -> None:
        self.now = SINCE
        self.way = HOME
        self.theirs = tunnel(THEIRS, OURS, initiator=True, prefix=1)
        self.ours = StaticConnection(tunnel(OURS, THEIRS, initiator=initiator, prefix=2))
        self.sent: list[tuple[Way | None, bytes]] = []
        self.received: list[bytes] = []
        """By them."""

    def connect(self) -> None:
        self.theirs.connect(self.now)
        self.settle()

    def settle(self) -> None:
        quiet = False
        while not quiet:
            quiet = True
            while (datagram := self.theirs.poll_transmit()) is not None:
                quiet = False
                self.give(datagram)
            while (datagram := self.ours.poll_transmit()) is not None:
                quiet = False
                self.sent.append((self.ours.way, datagram))
                packet = self.theirs.handle_datagram(datagram, self.now)
                if packet is not None:
                    self.received.append(packet)

    def give(self, *datagrams: bytes, way: Way | None = None) -> list[bytes]:
        """Give us datagrams that came one way; return the packets for the device."""
        spans, at = array("I"), 0
        for datagram in datagrams:
            spans.extend((at, len(datagram)))
            at += len(datagram)
        out = memoryview(bytearray(at + OUT_BYTES_EACH * len(datagrams)))
        buffer = memoryview(bytearray(b"".join(datagrams)))
        frames = self.ours.handle_datagrams(buffer, spans, out, way or self.way, self.now, coalesce=False)
        return [bytes(out[start + VNET_BYTES : end]) for start, end, _ in frames]

    def data(self, fill: int = 0) -> bytes:
        datagram = self.theirs.encapsulate(ipv4_packet(fill=fill), self.now)
        assert datagram is not None
        return datagram


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.connect()
    return made


def test_it_waits_answers_and_carries_both_ways() -> None:
    pair = Pair()
    assert (pair.ours.state, pair.ours.way, pair.ours.poll_transmit()) == ("connecting", None, None)
    pair.connect()
    assert (pair.ours.state, pair.ours.way) == ("established", HOME)
    assert isinstance(pair.ours.poll_event(), Connected)
    assert pair.ours.poll_event() is None
    assert pair.give(pair.data(1), pair.data(2)) == [ipv4_packet(fill=1), ipv4_packet(fill=2)]
    sealed = pair.ours.handle_packet(ipv4_packet(fill=3), pair.now)
    assert sealed is not None
    assert pair.theirs.handle_datagram(sealed, pair.now) == ipv4_packet(fill=3)


def test_it_follows_its_peer_and_answers_where_it_is_now(pair: Pair) -> None:
    pair.give(pair.data(), way=CAFE)
    assert pair.ours.way == CAFE
    pair.way = HOME
    pair.now += 200
    pair.connect()
    assert pair.ours.way == HOME
    assert pair.sent[-1][0] == HOME


def test_nobody_else_moves_it(pair: Pair) -> None:
    good = pair.data()
    pair.give(good)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    stranger = tunnel(b"\x33" * 32, OURS, initiator=True, prefix=1)
    stranger.connect(pair.now)
    initiation = stranger.poll_transmit()
    assert initiation is not None
    sent = len(pair.sent)
    for hostile in (good, forged, initiation, b"", bytes(148), b"\x04\x00\x00\x00" + bytes(40)):
        assert pair.give(hostile, way=CAFE) == []
        pair.settle()
    assert pair.ours.way == HOME
    assert len(pair.sent) == sent, "nobody is answered who has proven nothing"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_whatever_strangers_send_changes_nothing(datagrams: list[bytes]) -> None:
    pair = Pair()
    pair.connect()
    assert pair.give(*datagrams, way=CAFE) == []
    assert (pair.ours.way, pair.ours.state, pair.ours.poll_transmit()) == (HOME, "established", None)


def test_silence_is_no_ending(pair: Pair) -> None:
    pair.ours.poll_event()
    for _ in range(20):
        timeout = pair.ours.poll_timeout()
        if timeout is None:
            break
        pair.now = timeout[0]
        pair.ours.handle_timeout(pair.now)
    pair.now += 2 * REJECT_AFTER_TIME_S
    pair.ours.handle_timeout(pair.now)
    assert (pair.ours.state, pair.ours.way, pair.ours.poll_event()) == ("established", HOME, None)
    pair.connect()
    assert pair.give(pair.data(5)) == [ipv4_packet(fill=5)]


def test_one_that_can_be_called_is_called_again_until_it_answers() -> None:
    pair = Pair(initiator=True)
    pair.ours.handle_endpoint(CAFE.address, pair.now)
    assert pair.ours.way == Way("", CAFE.address)
    assert pair.ours.poll_transmit() is not None
    timeout = pair.ours.poll_timeout()
    assert timeout is not None
    pair.now = timeout[0]
    pair.ours.handle_timeout(pair.now)
    pair.way = CAFE
    datagram = pair.ours.poll_transmit()
    assert datagram is not None
    pair.theirs.handle_datagram(datagram, pair.now)
    pair.settle()
    assert (pair.ours.state, pair.ours.way) == ("established", CAFE)


def test_a_name_that_is_looked_up_late_does_not_move_it(pair: Pair) -> None:
    pair.ours.handle_endpoint(CAFE.address, pair.now)
    assert pair.ours.way == HOME


def test_when_we_have_moved_the_peer_is_told_by_a_handshake(pair: Pair) -> None:
    pair.now += 10
    pair.ours.handle_moved(pair.now)
    pair.settle()
    assert (Way("", HOME.address), 148) in [(way, len(datagram)) for way, datagram in pair.sent]
    assert pair.give(pair.data(7)) == [ipv4_packet(fill=7)]


def test_after_the_end_nothing_goes_in_or_out(pair: Pair) -> None:
    pair.ours.poll_event()
    late = pair.data()
    pair.ours.handle_close(Cause.ACCESS_REVOKED, Initiator.PORTAL, {"why": "so"})
    pair.ours.handle_close(Cause.SHUTTING_DOWN, Initiator.US, {})
    assert pair.ours.poll_event() == Ended(
        cause=Cause.ACCESS_REVOKED,
        initiated_by=Initiator.PORTAL,
        evidence={"why": "so"},
        detection_ms=None,
        acknowledged=None,
    )
    assert pair.give(late) == []
    pair.theirs.connect(pair.now + 10)
    pair.settle()
    assert pair.ours.handle_packet(ipv4_packet(), pair.now) is None
    frame = memoryview(bytearray(bytes(VNET_BYTES) + ipv4_packet()))
    train, spans = memoryview(bytearray(TRAIN_BYTES)), array("I", (0, len(frame)))
    assert pair.ours.handle_frames(frame, spans, train, pair.now) == [Sealed(0, 0, 0)]
    assert (pair.ours.poll_transmit(), pair.ours.poll_timeout(), pair.ours.poll_event()) == (None, None, None)


def test_a_successor_goes_on_with_the_session(pair: Pair) -> None:
    snapshot, way = pair.ours.tunnel.snapshot(), pair.ours.way
    pair.ours = StaticConnection(tunnel(OURS, THEIRS, initiator=False, prefix=2))
    pair.ours.resume(snapshot, way, pair.now)
    assert (pair.ours.state, pair.ours.way) == ("established", HOME)
    assert pair.give(pair.data(9)) == [ipv4_packet(fill=9)]
    assert pair.ours.poll_event() is None
