"""Frames and bursts in a connection: what waits, what comes before an end and after it, and what is idle."""

from tests.actors.batch.oracle import LONE, Tcp, frame_of, packets_of
from tests.actors.peer.pair import ConnectionPair

from exeunt.actors.device.waiting import WAITING_PACKETS
from exeunt.actors.endings import Cause
from exeunt.actors.peer.control_packet import Goodbye, encode_control
from exeunt.actors.wireguard.testing import Side, ipv4_packet

WHOLE = Tcp(payload=bytes(range(250)) * 20, flags=0x18)
FRAME = frame_of(WHOLE, 1000)
PACKETS = packets_of(WHOLE, 1000)
IDLE_S = 30.0


def sealed(pair: ConnectionPair, side: Side, packet: bytes) -> bytes:
    datagram = pair.connections[side].tunnel.encapsulate(packet, pair.now)
    assert datagram is not None
    return datagram


def goodbye(pair: ConnectionPair, side: Side) -> bytes:
    said = Goodbye(reason="signed_out", identifier=b"\x01" * 8)
    return sealed(pair, side, encode_control(said))


def test_a_frame_waits_packet_by_packet_for_the_first_handshake() -> None:
    pair = ConnectionPair()
    assert not pair.send_frame("client", FRAME)
    pair.connect()
    assert pair.packets["gateway"] == PACKETS


def test_of_frames_that_wait_the_newest_packets_are_kept() -> None:
    pair = ConnectionPair()
    for number in range(WAITING_PACKETS):
        pair.send_frame("client", LONE + ipv4_packet(60, fill=number % 250))
    pair.send_frame("client", FRAME)
    pair.connect()
    assert len(pair.packets["gateway"]) == WAITING_PACKETS
    assert pair.packets["gateway"][-len(PACKETS) :] == PACKETS


def test_then_it_goes_at_once() -> None:
    pair = ConnectionPair()
    pair.connect()
    assert pair.send_frame("client", FRAME)
    assert pair.send_frame("gateway", FRAME)
    pair.advance(1)
    assert pair.packets == {"client": PACKETS, "gateway": PACKETS}


def test_after_the_end_nothing_goes_and_nothing_comes() -> None:
    pair = ConnectionPair()
    pair.connect()
    late = sealed(pair, "client", ipv4_packet())
    pair.close("gateway")
    assert not pair.send_frame("gateway", FRAME)
    pair.deliver("gateway", late)
    assert pair.packets["gateway"] == []
    pair.advance(5)
    assert pair.packets["client"] == []
    assert [one.cause for one in pair.endings("gateway")] == [Cause.SIGNED_OUT]


def test_what_came_before_a_goodbye_of_the_same_burst_is_delivered_and_what_came_after_it_is_not() -> None:
    pair = ConnectionPair()
    pair.connect()
    before, after = (sealed(pair, "client", ipv4_packet(fill=number)) for number in (1, 2))
    said = goodbye(pair, "client")
    sent = len(pair.carried)
    pair.deliver_burst("gateway", [before, said, after])
    assert pair.packets["gateway"] == [ipv4_packet(fill=1)]
    assert pair.gateway.state == "lingering"
    assert len(pair.carried) == sent + 1, "it is acknowledged"
    pair.deliver_burst("gateway", [sealed(pair, "client", ipv4_packet(fill=3)), goodbye(pair, "client")])
    assert pair.packets["gateway"] == [ipv4_packet(fill=1)]
    assert len(pair.carried) == sent + 2, "and its repetition is, too"


def test_control_packets_are_no_traffic_and_never_reach_the_device() -> None:
    pair = ConnectionPair()
    pair.connect()
    assert pair.client.handle_ping(7, pair.now)
    pair.settle()
    pair.advance(1)
    assert [pong.token for pong in pair.pongs("client")] == [7]
    assert pair.packets == {"client": [], "gateway": []}


def test_something_that_only_looks_like_a_control_packet_is_delivered() -> None:
    pair = ConnectionPair()
    pair.connect()
    fragment = bytearray(ipv4_packet(60))
    fragment[6] = 255
    pair.deliver_burst("gateway", [sealed(pair, "client", bytes(fragment)), sealed(pair, "client", PACKETS[0])])
    assert pair.packets["gateway"] == [bytes(fragment), PACKETS[0]]


def test_frames_in_both_directions_put_off_the_idle_end() -> None:
    for sender in ("client", "gateway"):
        pair = ConnectionPair(idle_after_s=IDLE_S)
        pair.connect()
        pair.advance(IDLE_S - 5)
        assert pair.send_frame(sender, FRAME)
        pair.advance(IDLE_S - 5)
        assert pair.client.state == "established"
        pair.advance(10)
        assert [one.cause for one in pair.endings("client")] == [Cause.IDLE]


def test_a_frame_that_is_never_answered_is_a_doubt() -> None:
    """As a packet: what was sent counts for the verdict on a silent peer."""
    pair = ConnectionPair()
    pair.connect()
    pair.advance(1)
    pair.lost = lambda side, _datagram: side == "gateway"
    pair.send_frame("client", FRAME)
    pair.advance(40)
    assert [one.cause for one in pair.endings("client")] == [Cause.NETWORK_LOST]
