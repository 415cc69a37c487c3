"""Frames and bursts in a tunnel: the same outcome as packet by packet, whatever comes in between."""

import random
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.batch.oracle import LONE, Tcp, frame_of, packets_of

from exeunt.actors.batch.contract import MAX_DATAGRAMS, OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES
from exeunt.actors.wireguard import DropReason, Limits, Tunnel
from exeunt.actors.wireguard.runs import runs_of
from exeunt.actors.wireguard.testing import SIDES, Side, TunnelPair, ipv4_packet
from exeunt.actors.wireguard.timing import REJECT_AFTER_MESSAGES, REKEY_AFTER_TIME_S
from exeunt.actors.wireguard.wire import CHANNEL_BYTES, decode_transport_header

WHOLE = Tcp(payload=bytes(range(250)) * 40, flags=0x18)
GSO_SIZE = 1000
PACKETS = packets_of(WHOLE, GSO_SIZE)


def connected(limits: Limits | None = None) -> TunnelPair:
    pair = TunnelPair(limits=limits)
    pair.connect()
    return pair


def frame(content: bytes) -> memoryview:
    return memoryview(bytearray(content))


def seal(tunnel: Tunnel, content: bytes, now: float, channel: int | None = None) -> list[bytes]:
    train = memoryview(bytearray(TRAIN_BYTES))
    sealed = tunnel.seal_frame(frame(content), train, now, channel)
    assert sealed is not None
    train = train[: sealed.total]
    return [bytes(train[at : at + sealed.stride]) for at in range(0, sealed.total, sealed.stride or 1)]


def spans_of(datagrams: Sequence[bytes]) -> "tuple[memoryview, array[int]]":
    spans, at = array("I"), 0
    for datagram in datagrams:
        spans.extend((at, len(datagram)))
        at += len(datagram)
    return frame(b"".join(datagrams)), spans


def take(tunnel: Tunnel, datagrams: Sequence[bytes], now: float, *, coalesce: bool = False) -> list[bytes]:
    """Give a tunnel a burst; return the frames in it."""
    buffer, spans = spans_of(datagrams)
    out = memoryview(bytearray(len(buffer) + OUT_BYTES_EACH * len(datagrams)))
    frames = tunnel.handle_datagrams(buffer, spans, out, now, coalesce=coalesce)
    return [bytes(out[start:end]) for start, end, _ in frames]


def packets_in(frames: Sequence[bytes]) -> list[bytes]:
    return [one[VNET_BYTES:] for one in frames]


def other(side: Side) -> Side:
    return "gateway" if side == "client" else "client"


@pytest.mark.parametrize("side", SIDES)
def test_a_frame_goes_through(side: Side) -> None:
    pair = connected()
    datagrams = seal(pair.tunnels[side], frame_of(WHOLE, GSO_SIZE), pair.now)
    receiver = pair.tunnels[other(side)]
    assert packets_in(take(receiver, datagrams, pair.now)) == PACKETS
    assert take(receiver, datagrams, pair.now) == []
    assert receiver.drops[DropReason.REPLAYED_PACKET] == len(PACKETS)


def test_merged_it_is_the_frame_that_it_was() -> None:
    pair = connected()
    datagrams = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert take(pair.gateway, datagrams, pair.now, coalesce=True) == [frame_of(WHOLE, GSO_SIZE)]


def test_it_is_the_same_as_packet_by_packet() -> None:
    """Datagrams, counters, bytes and timers; and what is sealed one way is opened the other way."""
    whole, single = connected(), connected()
    datagrams = seal(whole.client, frame_of(WHOLE, GSO_SIZE), whole.now)
    one_by_one = [single.client.encapsulate(packet, single.now) for packet in PACKETS]
    assert [decode_transport_header(one)[1] for one in datagrams] == list(range(1, len(PACKETS) + 1))
    assert list(map(len, datagrams)) == [len(one or b"") for one in one_by_one]
    assert whole.client.tx_bytes == single.client.tx_bytes
    assert whole.client.poll_timeout() == single.client.poll_timeout()
    opened = [whole.gateway.handle_datagram(datagram, whole.now) for datagram in datagrams]
    assert opened == PACKETS
    assert packets_in(take(single.gateway, [one for one in one_by_one if one], single.now)) == PACKETS
    assert whole.gateway.rx_bytes == single.gateway.rx_bytes == whole.client.tx_bytes
    assert whole.gateway.poll_timeout() == single.gateway.poll_timeout()
    assert whole.gateway.last_received_at == single.gateway.last_received_at == whole.now


def test_a_channel_is_put_before_each_and_is_not_counted() -> None:
    pair, plain = connected(), connected()
    datagrams = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now, channel=0x4000)
    seal(plain.client, frame_of(WHOLE, GSO_SIZE), plain.now)
    assert all(one[:2] == b"\x40\0" for one in datagrams)
    assert pair.client.tx_bytes == plain.client.tx_bytes
    assert packets_in(take(pair.gateway, [one[CHANNEL_BYTES:] for one in datagrams], pair.now)) == PACKETS


def test_without_a_session_nothing_happens() -> None:
    pair = TunnelPair()
    train = memoryview(bytearray(TRAIN_BYTES))
    content = frame(frame_of(WHOLE, GSO_SIZE))
    assert pair.client.seal_frame(content, train, pair.now) is None
    assert bytes(content) == frame_of(WHOLE, GSO_SIZE)
    assert pair.client.poll_transmit() is None
    assert pair.client.queued_packets == 0


def test_a_frame_never_reaches_the_counter_of_the_last_will() -> None:
    limits = Limits(reject_after_messages=MAX_DATAGRAMS + 1_000, rekey_after_messages=100)
    pair = connected(limits)
    train = memoryview(bytearray(TRAIN_BYTES))
    sealed = 0
    while (done := pair.client.seal_frame(frame(LONE + ipv4_packet()), train, pair.now)) is not None:
        sealed += done.datagrams
    assert 0 < sealed <= 1_000, "the session has not room for any frame more"
    assert pair.client.can_send(pair.now), "but for packets"
    will = pair.client.seal_last_will(ipv4_packet(fill=9), pair.now)
    assert will is not None
    assert pair.gateway.handle_datagram(will, pair.now) == ipv4_packet(fill=9)


def test_a_malformed_frame_uses_no_counter() -> None:
    pair = connected()
    assert seal(pair.client, LONE + bytes(40), pair.now) == []
    (datagram,) = seal(pair.client, LONE + ipv4_packet(), pair.now)
    assert decode_transport_header(datagram)[1] == 1


def test_a_frame_renews_an_old_session_and_a_burst_does() -> None:
    pair = connected()
    pair.now += REKEY_AFTER_TIME_S + 1
    datagrams = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert pair.client.poll_transmit() is not None, "an initiation"
    assert pair.client.poll_transmit() is None, "and one only"
    take(pair.gateway, datagrams, pair.now)
    assert pair.gateway.poll_transmit() is None, "it is not the gateway's to renew"


def test_a_burst_confirms_a_session_and_what_waited_is_sent() -> None:
    pair = TunnelPair()
    pair.lost = lambda datagram: datagram[0] == 4
    pair.connect()
    assert pair.gateway.encapsulate(ipv4_packet(fill=5), pair.now) is None
    datagrams = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert packets_in(take(pair.gateway, datagrams, pair.now)) == PACKETS
    answer = pair.gateway.poll_transmit()
    assert answer is not None
    assert pair.client.handle_datagram(answer, pair.now) == ipv4_packet(fill=5)
    assert pair.gateway.poll_event() is not None


def test_a_handshake_in_the_middle_of_a_burst_takes_effect_there() -> None:
    """Data under the old keys, an initiation, data again: all is taken, and the initiation answered."""
    pair = connected()
    before, after = (seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now) for _ in range(2))
    pair.now += 10
    pair.client.connect(pair.now)
    initiation = pair.client.poll_transmit()
    assert initiation is not None
    arrived = take(pair.gateway, [*before, initiation, *after], pair.now)
    assert packets_in(arrived) == PACKETS * 2
    response = pair.gateway.poll_transmit()
    assert response is not None
    old = seal(pair.gateway, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert packets_in(take(pair.client, [*old, response, *old], pair.now)) == PACKETS
    new = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert packets_in(take(pair.gateway, new, pair.now)) == PACKETS
    assert pair.gateway.handshakes_total == 2


def test_each_loss_is_counted_by_its_reason() -> None:
    pair = connected()
    good = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    forged = good[3][:-1] + bytes([good[3][-1] ^ 1])
    unknown = good[4][:4] + b"\xff\xff\xff\xff" + good[4][8:]
    nonsense = pair.client.encapsulate(b"\x77" * 60, pair.now) or b""
    burst = [good[0], good[1], good[1], good[2], forged, unknown, b"", b"x" * 31, good[5], nonsense]
    assert packets_in(take(pair.gateway, burst, pair.now)) == [PACKETS[0], PACKETS[1], PACKETS[2], PACKETS[5]]
    drops = pair.gateway.drops
    assert {reason: count for reason, count in drops.items() if count} == {
        DropReason.REPLAYED_PACKET: 1,
        DropReason.BAD_TAG: 1,
        DropReason.UNKNOWN_INDEX: 1,
        DropReason.NOT_WIREGUARD: 2,
        DropReason.BAD_INNER_PACKET: 1,
    }


def test_nothing_is_opened_after_the_session_nor_beyond_its_counters() -> None:
    pair = connected()
    datagrams = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    beyond = datagrams[0][:8] + REJECT_AFTER_MESSAGES.to_bytes(8, "little") + datagrams[0][16:]
    assert take(pair.gateway, [beyond], pair.now) == []
    assert pair.gateway.drops[DropReason.EXPIRED_SESSION] == 1
    pair.now += 181
    assert take(pair.gateway, datagrams, pair.now) == []
    assert pair.gateway.drops[DropReason.EXPIRED_SESSION] == 1 + len(datagrams)


def test_a_keepalive_is_no_data() -> None:
    pair = connected()
    pair.advance(0.5)
    before = pair.gateway.poll_timeout()
    pair.client._send_keepalive(pair.now)  # pyright: ignore[reportPrivateUsage]
    keepalive = pair.client.poll_transmit()
    assert keepalive is not None
    assert take(pair.gateway, [keepalive], pair.now) == []
    assert pair.gateway.poll_timeout() == before, "it asks for no keepalive in turn"
    assert pair.gateway.last_received_at == pair.now


def test_a_successor_goes_on_sealing_and_opening() -> None:
    pair = connected()
    sent = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    take(pair.gateway, sent, pair.now)
    successor = TunnelPair().gateway
    successor.resume(pair.gateway.snapshot(), pair.now)
    assert take(successor, sent, pair.now) == [], "what its predecessor opened is a replay"
    more = seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert packets_in(take(successor, more, pair.now)) == PACKETS
    back = seal(successor, frame_of(WHOLE, GSO_SIZE), pair.now)
    assert packets_in(take(pair.client, back, pair.now)) == PACKETS


def test_a_burst_longer_than_a_kernel_takes_at_once_is_taken_in_parts() -> None:
    pair = connected()
    datagrams = [one for _ in range(MAX_DATAGRAMS + 5) for one in seal(pair.client, LONE + ipv4_packet(20), pair.now)]
    _, spans = spans_of(datagrams)
    assert [len(run) // 2 for _, run in runs_of(frame(b"".join(datagrams)), spans)] == [MAX_DATAGRAMS, 5]
    assert len(take(pair.gateway, datagrams, pair.now)) == MAX_DATAGRAMS + 5


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_whatever_order_loss_and_repetition_do_each_packet_comes_once(rng: random.Random, bursts: int) -> None:
    pair = connected()
    sent = [one for _ in range(5) for one in seal(pair.client, frame_of(WHOLE, GSO_SIZE), pair.now)]
    arriving = [rng.choice(sent) for _ in range(100)] + [b"\x04" + rng.randbytes(rng.randrange(80)) for _ in range(5)]
    rng.shuffle(arriving)
    size = -(-len(arriving) // bursts)
    received = [
        packet
        for at in range(0, len(arriving), size)
        for packet in packets_in(take(pair.gateway, arriving[at : at + size], pair.now))
    ]
    assert len(received) == len({one for one in arriving if one in sent})
    assert set(received) <= set(PACKETS)
