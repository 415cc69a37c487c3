"""The packet sealed ahead: one for a session, under a counter that nothing else uses, taken like any other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.wireguard import DropReason, Limits
from exeunt.actors.wireguard.handshake import TransportKeys
from exeunt.actors.wireguard.session import Session
from exeunt.actors.wireguard.testing import SIDES, Side, TunnelPair, ipv4_packet
from exeunt.actors.wireguard.timing import LAST_WILL_MESSAGES, REJECT_AFTER_MESSAGES, REPLAY_WINDOW_PACKETS
from exeunt.actors.wireguard.wire import decode_transport_header

WILL = ipv4_packet(60, fill=9)


def connected(limits: Limits | None = None) -> TunnelPair:
    pair = TunnelPair(limits=limits)
    pair.connect()
    return pair


def sealed(pair: TunnelPair, side: Side, packet: bytes = WILL) -> bytes:
    datagram = pair.tunnels[side].seal_last_will(packet, pair.now)
    assert datagram is not None
    return datagram


def test_its_counter_is_the_topmost_that_any_receiver_accepts() -> None:
    """Linux and wireguard-go refuse counters from REJECT_AFTER_MESSAGES on."""
    _, counter = decode_transport_header(sealed(connected(), "client"))
    assert counter == REJECT_AFTER_MESSAGES - 1 == 2**64 - 2**13 - 2


@pytest.mark.parametrize("side", SIDES)
def test_the_other_side_takes_it_once_and_nothing_older_after_it(side: Side) -> None:
    pair = connected()
    late = pair.tunnels[side].encapsulate(ipv4_packet(fill=1), pair.now)
    assert late is not None
    receiver = pair.gateway if side == "client" else pair.client
    will = sealed(pair, side)
    assert receiver.handle_datagram(will, pair.now) == WILL
    assert receiver.handle_datagram(will, pair.now) is None
    assert receiver.handle_datagram(late, pair.now) is None
    assert receiver.drops[DropReason.REPLAYED_PACKET] == 2


def test_sealing_it_is_no_sending() -> None:
    pair = connected()
    before = (pair.client.tx_bytes, pair.client.last_sent_at, pair.client.poll_timeout())
    sealed(pair, "client")
    assert (pair.client.tx_bytes, pair.client.last_sent_at, pair.client.poll_timeout()) == before
    assert pair.client.poll_transmit() is None


def test_a_session_has_one_whatever_is_asked_for_later() -> None:
    pair = connected()
    first = sealed(pair, "client")
    assert sealed(pair, "client", ipv4_packet(64, fill=7)) == first


def test_a_new_session_has_a_new_one() -> None:
    pair = connected(Limits(rekey_timeout_s=0.1))
    first = sealed(pair, "client")
    pair.advance(1.0)
    pair.client.connect(pair.now)
    pair.settle()
    second = sealed(pair, "client")
    assert second != first
    assert pair.gateway.handle_datagram(second, pair.now) == WILL
    assert pair.gateway.handle_datagram(first, pair.now) == WILL  # the previous session still receives


def test_there_is_none_without_a_session() -> None:
    pair = TunnelPair()
    assert pair.client.seal_last_will(WILL, pair.now) is None
    pair.connect()
    assert pair.client.seal_last_will(WILL, pair.now + 180.0) is None


def test_ordinary_packets_stop_below_it() -> None:
    pair = connected(Limits(rekey_after_messages=5, reject_after_messages=10))
    pair.cut = {"client", "gateway"}  # the handshake that this asks for is never answered
    will = sealed(pair, "client")
    for _ in range(20):
        pair.send("client", ipv4_packet())
    counters = [decode_transport_header(data)[1] for side, data in pair.carried if side == "client" and data[0] == 4]
    assert counters == list(range(10 - LAST_WILL_MESSAGES))
    assert decode_transport_header(will)[1] == 9


def test_the_leap_leaves_room_in_the_replay_window() -> None:
    """The reserved counters must not reach over the window, or the limit's own room for it would be used up."""
    assert LAST_WILL_MESSAGES < REPLAY_WINDOW_PACKETS


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["data", "will", "other will"]), max_size=60))
def test_no_counter_is_used_twice_for_different_datagrams(steps: list[str]) -> None:
    limits = Limits(rekey_after_messages=5, reject_after_messages=30)
    session = Session(TransportKeys(b"\x01" * 32, b"\x02" * 32, 1, 2), limits, initiated=True, now=0.0)
    by_counter: dict[int, set[bytes]] = {}
    for step in steps:
        if step == "data":
            if not session.can_seal(1.0):
                continue
            datagram = session.seal(ipv4_packet())
        else:
            datagram = session.seal_last_will(WILL if step == "will" else ipv4_packet(64))
        counter = decode_transport_header(datagram)[1]
        assert counter < limits.reject_after_messages
        seen = by_counter.setdefault(counter, set())
        assert step != "data" or not seen
        seen.add(datagram)
    assert all(len(datagrams) == 1 for datagrams in by_counter.values())
