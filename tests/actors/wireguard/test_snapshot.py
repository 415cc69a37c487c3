"""A tunnel goes on in another process: no packet is lost, no nonce repeated, no replay let in, nothing forgotten."""

import random

import msgspec
import pytest

from exeunt.actors.wireguard import DropReason, HandshakeCompleted, PrefixedIndices, Tunnel
from exeunt.actors.wireguard.snapshot import COUNTER_MARGIN, TunnelSnapshot
from exeunt.actors.wireguard.testing import SIDES, Side, TunnelPair, ipv4_packet, public_key
from exeunt.actors.wireguard.timing import REPLAY_WINDOW_PACKETS
from exeunt.actors.wireguard.wire import MessageType, classify, decode_transport_header

WILL = ipv4_packet(60, fill=9)


def other(side: Side) -> Side:
    return "gateway" if side == "client" else "client"


def succeed(pair: TunnelPair, side: Side) -> TunnelSnapshot:
    """Put a successor in a side's place, by way of bytes, as between processes."""
    document = msgspec.msgpack.encode(pair.tunnels[side].snapshot())
    snapshot = msgspec.msgpack.decode(document, type=TunnelSnapshot)
    successor = Tunnel(
        private_key=pair.private_keys[side],
        peer_public_key=public_key(pair.private_keys[other(side)]),
        preshared_key=b"\x07" * 32,
        initiator=side == "client",
        allocate_index=PrefixedIndices(40 + SIDES.index(side)),
        rng=random.Random(5),
        wall_clock_ns=lambda: 1_800_000_000 * 10**9 + int(pair.now * 10**9),
    )
    successor.resume(snapshot, pair.now)
    pair.tunnels[side] = successor
    if side == "client":
        pair.client = successor
    else:
        pair.gateway = successor
    return snapshot


@pytest.fixture
def pair() -> TunnelPair:
    pair = TunnelPair()
    pair.connect()
    pair.send("client", ipv4_packet(fill=1))
    pair.send("gateway", ipv4_packet(fill=2))
    return pair


@pytest.mark.parametrize("side", SIDES)
def test_packets_go_on_both_ways_without_a_handshake(pair: TunnelPair, side: Side) -> None:
    handshakes = len(pair.events["client"])
    succeed(pair, side)
    pair.send("client", ipv4_packet(fill=3))
    pair.send("gateway", ipv4_packet(fill=4))
    assert pair.received["gateway"][-1] == ipv4_packet(fill=3)
    assert pair.received["client"][-1] == ipv4_packet(fill=4)
    assert len(pair.events["client"]) == handshakes
    assert not any(tunnel.drops[DropReason.REPLAYED_PACKET] for tunnel in pair.tunnels.values())


def test_no_counter_is_used_again_and_what_is_under_way_still_arrives(pair: TunnelPair) -> None:
    late = pair.client.encapsulate(ipv4_packet(fill=7), pair.now)
    assert late is not None
    succeed(pair, "client")
    fresh = pair.client.encapsulate(ipv4_packet(fill=8), pair.now)
    assert fresh is not None
    assert decode_transport_header(fresh)[1] == decode_transport_header(late)[1] + 1 + COUNTER_MARGIN
    assert pair.gateway.handle_datagram(fresh, pair.now) == ipv4_packet(fill=8)
    assert pair.gateway.handle_datagram(late, pair.now) == ipv4_packet(fill=7)
    assert COUNTER_MARGIN < REPLAY_WINDOW_PACKETS


def test_what_was_received_before_is_a_replay_after(pair: TunnelPair) -> None:
    recorded = [data for side, data in pair.carried if side == "client" and classify(data) is MessageType.TRANSPORT]
    initiation = next(data for _, data in pair.carried if classify(data) is MessageType.INITIATION)
    succeed(pair, "gateway")
    pair.now += 1
    for datagram in recorded:
        assert pair.gateway.handle_datagram(datagram, pair.now) is None
    assert pair.gateway.drops[DropReason.REPLAYED_PACKET] == len(recorded)
    pair.gateway.handle_datagram(initiation, pair.now)
    assert pair.gateway.drops[DropReason.REPLAYED_INITIATION] == 1


def test_the_last_will_is_the_same_one(pair: TunnelPair) -> None:
    before = pair.client.seal_last_will(WILL, pair.now)
    succeed(pair, "client")
    assert pair.client.seal_last_will(ipv4_packet(64), pair.now) == before


def test_the_session_grows_old_and_is_renewed_as_if_nothing_had_been(pair: TunnelPair) -> None:
    pair.advance(100)
    succeed(pair, "client")
    pair.advance(25)
    pair.send("client", ipv4_packet(fill=5))
    assert sum(isinstance(event, HandshakeCompleted) for event in pair.events["client"]) == 2
    pair.send("gateway", ipv4_packet(fill=6))
    assert pair.received["client"][-1] == ipv4_packet(fill=6)


def test_all_three_sessions_are_handed_over() -> None:
    pair = TunnelPair()
    pair.connect()
    pair.send("client", ipv4_packet(fill=1))
    old = pair.client.encapsulate(ipv4_packet(fill=2), pair.now)
    pair.advance(121)
    pair.lost = lambda datagram: classify(datagram) is MessageType.RESPONSE
    pair.send("client", ipv4_packet(fill=3))  # asks for a new session, whose response is lost: it waits as `next`
    snapshot = succeed(pair, "gateway")
    assert snapshot.next is not None
    assert snapshot.current is not None
    assert old is not None
    assert pair.gateway.handle_datagram(old, pair.now) == ipv4_packet(fill=2)
    pair.lost = lambda _: False
    pair.advance(6)
    pair.send("client", ipv4_packet(fill=4))
    assert pair.received["gateway"][-1] == ipv4_packet(fill=4)


def test_packets_that_waited_for_a_handshake_wait_on() -> None:
    pair = TunnelPair()
    pair.cut = {"client"}
    pair.send("client", ipv4_packet(fill=1))
    pair.advance(1)
    succeed(pair, "client")
    pair.cut = set()
    pair.settle()
    assert pair.received["gateway"] == [ipv4_packet(fill=1)]


def test_what_it_has_counted_goes_on(pair: TunnelPair) -> None:
    before = pair.client
    succeed(pair, "client")
    assert pair.client is not before
    assert (pair.client.rx_bytes, pair.client.tx_bytes) == (before.rx_bytes, before.tx_bytes)
    assert pair.client.last_received_at == before.last_received_at
    assert pair.client.handshake_age_s(pair.now + 2) == pytest.approx(2)
    assert pair.client.local_indices == before.local_indices
    assert pair.client.poll_timeout() == before.poll_timeout()


def test_a_snapshot_shows_no_key(pair: TunnelPair) -> None:
    snapshot = pair.client.snapshot()
    assert snapshot.current is not None
    for text in (repr(snapshot), repr(snapshot.current)):
        assert repr(snapshot.current.keys.send_key)[2:10] not in text
