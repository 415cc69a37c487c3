"""A tunnel without time: handshakes in both roles, data, loss, reordering, replay."""

import random

import pytest

from exeunt.actors.wireguard import (
    DropReason,
    HandshakeCompleted,
    Limits,
    MessageType,
    PrefixedIndices,
    Tunnel,
    classify,
)
from exeunt.actors.wireguard.testing import Side, TunnelPair, ipv4_packet, public_key


def kinds(pair: TunnelPair) -> list[tuple[Side, MessageType | None]]:
    return [(side, classify(datagram)) for side, datagram in pair.carried]


@pytest.mark.parametrize("preshared_key", [bytes(32), b"\x55" * 32])
def test_connect_takes_three_messages(preshared_key: bytes) -> None:
    pair = TunnelPair(preshared_key=preshared_key)
    pair.connect()
    assert kinds(pair) == [
        ("client", MessageType.INITIATION),
        ("gateway", MessageType.RESPONSE),
        ("client", MessageType.TRANSPORT),
    ]
    assert [len(datagram) for _, datagram in pair.carried] == [148, 92, 32]
    (client_event,), (gateway_event,) = pair.events["client"], pair.events["gateway"]
    assert isinstance(client_event, HandshakeCompleted)
    assert isinstance(gateway_event, HandshakeCompleted)
    assert (client_event.role, client_event.initiations) == ("initiator", 1)
    assert gateway_event.role == "responder"
    assert (client_event.local_index, client_event.remote_index) == (
        gateway_event.remote_index,
        gateway_event.local_index,
    )
    assert pair.client.handshake_age_s(pair.now + 3) == pytest.approx(3)


def test_data_goes_both_ways_padded_on_the_wire_and_exact_inside() -> None:
    pair = TunnelPair()
    pair.connect()
    for size in (20, 21, 64, 1399, 1400):
        pair.send("client", ipv4_packet(size, fill=1))
        pair.send("gateway", ipv4_packet(size, fill=2))
    assert [len(packet) for packet in pair.received["gateway"]] == [20, 21, 64, 1399, 1400]
    assert pair.received["client"] == [ipv4_packet(size, fill=2) for size in (20, 21, 64, 1399, 1400)]
    assert all(len(datagram) % 8 == 0 for _, datagram in pair.carried[3:])
    assert pair.client.tx_bytes == sum(len(d) for side, d in pair.carried if side == "client")
    assert pair.gateway.rx_bytes == pair.client.tx_bytes
    assert pair.gateway.tx_bytes == pair.client.rx_bytes
    assert not any(pair.client.drops.values())
    assert not any(pair.gateway.drops.values())


def test_the_first_packets_wait_for_the_handshake_and_keep_their_order() -> None:
    pair = TunnelPair()
    packets = [ipv4_packet(60, fill=number) for number in range(5)]
    for packet in packets:
        assert pair.client.encapsulate(packet, pair.now) is None
    assert pair.client.queued_packets == 5
    pair.settle()
    assert pair.received["gateway"] == packets
    assert kinds(pair).count(("client", MessageType.INITIATION)) == 1
    assert len(pair.carried) == 2 + 5  # the data confirms the session, no keepalive needed


def test_the_queue_is_bounded_and_loses_the_oldest() -> None:
    pair = TunnelPair(limits=Limits(queued_packets=3))
    for number in range(5):
        pair.client.encapsulate(ipv4_packet(60, fill=number), pair.now)
    assert pair.client.drops[DropReason.QUEUE_OVERFLOW] == 2
    pair.settle()
    assert pair.received["gateway"] == [ipv4_packet(60, fill=number) for number in (2, 3, 4)]


def test_the_responder_sends_nothing_before_it_has_heard_under_the_new_keys() -> None:
    pair = TunnelPair()
    pair.lost = lambda datagram: classify(datagram) is MessageType.TRANSPORT
    pair.connect()
    assert pair.client.can_send(pair.now)
    assert not pair.gateway.can_send(pair.now)
    assert pair.gateway.encapsulate(ipv4_packet(), pair.now) is None
    pair.settle()
    assert pair.received["client"] == []
    assert pair.events["gateway"] == []

    pair.lost = lambda _: False
    pair.send("client", ipv4_packet(fill=9))
    assert pair.received["gateway"] == [ipv4_packet(fill=9)]
    assert pair.received["client"] == [ipv4_packet()]
    assert len(pair.events["gateway"]) == 1


def test_the_gateway_waits_for_the_client_unless_told_to_connect() -> None:
    pair = TunnelPair()
    pair.send("gateway", ipv4_packet())
    assert pair.carried == []
    assert pair.gateway.poll_timeout() is None
    pair.gateway.connect(pair.now)
    pair.settle()
    assert kinds(pair)[0] == ("gateway", MessageType.INITIATION)
    assert pair.received["client"] == [ipv4_packet()]
    assert isinstance(pair.events["client"][0], HandshakeCompleted)
    assert pair.events["client"][0].role == "responder"


def test_two_handshakes_at_once_leave_a_tunnel_that_works() -> None:
    pair = TunnelPair()
    pair.client.connect(pair.now)
    pair.gateway.connect(pair.now)
    pair.settle()
    pair.send("client", ipv4_packet(fill=1))
    pair.send("gateway", ipv4_packet(fill=2))
    assert pair.received["gateway"] == [ipv4_packet(fill=1)]
    assert pair.received["client"] == [ipv4_packet(fill=2)]
    # Crossing on the wire: each side has the other's initiation before any response.
    pair.now += 10
    pair.client.connect(pair.now)
    pair.gateway.connect(pair.now)
    ours, theirs = pair.client.poll_transmit(), pair.gateway.poll_transmit()
    assert ours is not None
    assert theirs is not None
    pair.gateway.handle_datagram(ours, pair.now)
    pair.client.handle_datagram(theirs, pair.now)
    pair.settle()
    pair.send("client", ipv4_packet(fill=3))
    pair.send("gateway", ipv4_packet(fill=4))
    assert pair.received["gateway"][-1] == ipv4_packet(fill=3)
    assert pair.received["client"][-1] == ipv4_packet(fill=4)


def test_an_attempt_overtaken_by_the_peers_handshake_is_over() -> None:
    pair = TunnelPair()
    pair.client.connect(pair.now)
    assert pair.client.poll_transmit() is not None  # lost
    pair.gateway.connect(pair.now)
    pair.settle()
    assert pair.client.can_send(pair.now)
    assert len(pair.client.local_indices) == 1
    pair.advance(100)
    assert [side for side, kind in kinds(pair) if kind is MessageType.INITIATION] == ["gateway"]
    pair.connect()
    assert len(pair.events["client"]) == 2


def test_connecting_again_makes_a_new_session_and_loses_nothing_in_flight() -> None:
    pair = TunnelPair()
    pair.connect()
    late = pair.client.encapsulate(ipv4_packet(fill=1), pair.now)
    late_back = pair.gateway.encapsulate(ipv4_packet(fill=2), pair.now)
    assert late is not None
    assert late_back is not None
    pair.now += 1
    pair.connect()
    assert len(pair.events["client"]) == 2
    assert pair.gateway.handle_datagram(late, pair.now) == ipv4_packet(fill=1)
    assert pair.client.handle_datagram(late_back, pair.now) == ipv4_packet(fill=2)


def test_connect_does_nothing_while_an_attempt_is_under_way() -> None:
    pair = TunnelPair()
    for _ in range(3):
        pair.client.connect(pair.now)
    assert pair.client.poll_transmit() is not None
    assert pair.client.poll_transmit() is None


def test_reordered_packets_arrive_and_replayed_ones_do_not() -> None:
    pair = TunnelPair()
    pair.connect()
    datagrams = [pair.client.encapsulate(ipv4_packet(fill=n), pair.now) for n in range(50)]
    order = list(range(50))
    random.Random(3).shuffle(order)
    for number in order:
        datagram = datagrams[number]
        assert datagram is not None
        assert pair.gateway.handle_datagram(memoryview(datagram), pair.now) == ipv4_packet(fill=number)
        assert pair.gateway.handle_datagram(datagram, pair.now) is None
    assert pair.gateway.drops[DropReason.REPLAYED_PACKET] == 50


def test_a_replayed_initiation_is_refused_and_changes_nothing() -> None:
    pair = TunnelPair()
    pair.connect()
    initiation = pair.carried[0][1]
    pair.now += 1
    before = (pair.gateway.local_indices, pair.gateway.last_received_at, pair.gateway.poll_timeout())
    pair.gateway.handle_datagram(initiation, pair.now)
    assert pair.gateway.drops[DropReason.REPLAYED_INITIATION] == 1
    assert pair.gateway.poll_transmit() is None
    assert (pair.gateway.local_indices, pair.gateway.last_received_at, pair.gateway.poll_timeout()) == before


def test_an_older_initiation_that_arrives_late_is_refused() -> None:
    pair = TunnelPair()
    pair.client.connect(pair.now)
    older = pair.client.poll_transmit()
    assert older is not None
    pair.advance(6)
    assert pair.client.can_send(pair.now)
    pair.gateway.handle_datagram(older, pair.now)
    assert pair.gateway.drops[DropReason.REPLAYED_INITIATION] == 1


def test_a_late_response_to_an_earlier_initiation_is_refused() -> None:
    pair = TunnelPair()
    pair.cut = {"gateway"}
    pair.connect()
    first_response = pair.carried[-1][1]
    pair.advance(6)
    pair.client.handle_datagram(first_response, pair.now)
    assert pair.client.drops[DropReason.UNEXPECTED_RESPONSE] == 1
    assert not pair.client.can_send(pair.now)


def test_initiations_of_one_peer_are_limited_in_rate() -> None:
    pair = TunnelPair()
    pair.connect()
    pair.now += 0.001
    pair.client.connect(pair.now)
    pair.settle()
    assert pair.gateway.drops[DropReason.RATE_LIMITED] == 1


def test_another_peer_with_the_right_public_key_of_ours_gets_no_answer() -> None:
    pair = TunnelPair()
    stranger = Tunnel(
        private_key=b"\x33" * 32,
        peer_public_key=public_key(pair.private_keys["gateway"]),
        preshared_key=b"\x07" * 32,
        initiator=True,
        allocate_index=PrefixedIndices(9),
        rng=random.Random(1),
    )
    stranger.connect(pair.now)
    initiation = stranger.poll_transmit()
    assert initiation is not None
    assert pair.gateway.handle_datagram(initiation, pair.now) is None
    assert pair.gateway.poll_transmit() is None
    assert pair.gateway.last_received_at is None
    assert pair.gateway.drops[DropReason.BAD_HANDSHAKE] == 1


def test_a_different_preshared_key_never_connects() -> None:
    pair = TunnelPair()
    other = TunnelPair(preshared_key=b"\x08" * 32)
    pair.client.connect(pair.now)
    initiation = pair.client.poll_transmit()
    assert initiation is not None
    other.gateway.handle_datagram(initiation, pair.now)
    response = other.gateway.poll_transmit()
    assert response is not None
    pair.client.handle_datagram(response, pair.now)
    assert pair.client.drops[DropReason.BAD_HANDSHAKE] == 1
    assert not pair.client.can_send(pair.now)


def test_authenticated_rubbish_is_counted_and_goes_nowhere() -> None:
    pair = TunnelPair()
    pair.connect()
    pair.send("client", b"not an IP packet")
    assert pair.received["gateway"] == []
    assert pair.gateway.drops[DropReason.BAD_INNER_PACKET] == 1
    assert pair.gateway.last_received_at == pair.now


def test_an_index_of_a_live_session_is_not_given_twice() -> None:
    indices = iter([7, 7, 8, 8, 7, 9])
    tunnel = Tunnel(
        private_key=b"\x11" * 32,
        peer_public_key=public_key(b"\x22" * 32),
        initiator=True,
        allocate_index=lambda: next(indices),
        rng=random.Random(1),
    )
    tunnel.connect(0)
    assert tunnel.local_indices == {7}
    tunnel.handle_timeout(6)
    assert tunnel.local_indices == {8}


def test_misuse_raises() -> None:
    pair = TunnelPair()
    with pytest.raises(ValueError, match="header"):
        pair.client.encapsulate(b"", pair.now)
    with pytest.raises(ValueError, match="positive"):
        TunnelPair(persistent_keepalive_s=0)
    with pytest.raises(ValueError, match=r"rekey_after_time_s < last_chance_s"):
        Limits(rekey_after_time_s=170)
    with pytest.raises(ValueError, match="rekey_timeout_s < rekey_attempt_time_s"):
        Limits(rekey_attempt_time_s=5)
