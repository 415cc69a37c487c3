"""Whatever the network sends: no exception, and no change but a counter, unless it authenticates."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.wireguard import CookieChecker, DropReason, Tunnel, classify, peek_static, receiver_index
from exeunt.actors.wireguard.mac import mac1_key
from exeunt.actors.wireguard.noise import keyed_mac
from exeunt.actors.wireguard.testing import TunnelPair, ipv4_packet, public_key

Observed: TypeAlias = tuple[object, ...]

GATEWAY_MAC1_KEY = mac1_key(public_key(b"\x22" * 32))
CLIENT_MAC1_KEY = mac1_key(public_key(b"\x11" * 32))

HEADS = st.sampled_from([b"", b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"])
SIZES = st.sampled_from([0, 4, 28, 60, 64, 88, 92, 144, 148, 200])


def joined(head: bytes, body: bytes) -> bytes:
    return head + body


def sized(head: bytes, size: int, seed: bytes) -> bytes:
    return head + (seed * 50)[:size]


ANYTHING = st.builds(joined, HEADS, st.binary(max_size=80))
RIGHT_SIZE = st.builds(sized, HEADS, SIZES, st.binary(min_size=4, max_size=8))


def observe(tunnel: Tunnel, now: float) -> Observed:
    return (
        tunnel.poll_transmit(),
        tunnel.poll_event(),
        tunnel.poll_timeout(),
        tunnel.local_indices,
        tunnel.last_received_at,
        tunnel.last_sent_at,
        tunnel.rx_bytes,
        tunnel.tx_bytes,
        tunnel.queued_packets,
        tunnel.can_send(now),
    )


def busy_pair() -> TunnelPair:
    """A pair with a session on both sides, data seen, and a client in the middle of another handshake."""
    pair = TunnelPair()
    pair.connect()
    pair.send("client", ipv4_packet())
    pair.send("gateway", ipv4_packet())
    pair.advance(1)
    pair.client.connect(pair.now)
    assert pair.client.poll_transmit() is not None
    return pair


PAIR = busy_pair()
GENUINE = [datagram for _, datagram in PAIR.carried]


GATE = CookieChecker(public_key(b"\x22" * 32), handshakes_per_second=0)


def assert_ignored(tunnel: Tunnel, datagram: bytes, now: float = PAIR.now) -> None:
    before = observe(tunnel, now)
    drops = sum(tunnel.drops.values())
    assert tunnel.handle_datagram(datagram, now, b"source") is None
    assert observe(tunnel, now) == before
    assert sum(tunnel.drops.values()) == drops + 1


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.one_of(ANYTHING, RIGHT_SIZE), st.sampled_from([b"", bytes(6), bytes(18)]))
def test_arbitrary_datagrams_change_nothing(datagram: bytes, source: bytes) -> None:
    classify(datagram)
    receiver_index(datagram)
    peek_static(b"\x22" * 32, datagram)
    GATE.admit(datagram, source, 1.0)
    assert_ignored(PAIR.client, datagram)
    assert_ignored(PAIR.gateway, datagram)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(
    st.sampled_from(GENUINE),
    st.binary(min_size=2, max_size=6),
    st.booleans(),
    st.sampled_from([(PAIR.client, CLIENT_MAC1_KEY), (PAIR.gateway, GATEWAY_MAC1_KEY)]),
)
def test_genuine_datagrams_with_flipped_bits_change_nothing(
    datagram: bytes, flips: bytes, sign_again: bool, receiver: tuple[Tunnel, bytes]
) -> None:
    """Also with a correct first MAC: anyone who knows the public key can make one."""
    broken = bytearray(datagram)
    for position, mask in zip(flips[::2], flips[1::2], strict=False):
        broken[position % len(broken)] ^= mask
    tunnel, key = receiver
    if sign_again and len(broken) in {92, 148}:
        broken[-32:-16] = keyed_mac(key, bytes(broken[:-32]))
    assert_ignored(tunnel, bytes(broken))


@pytest.mark.parametrize("message", ["initiation", "response", "data"])
def test_each_single_byte_of_a_message_counts(message: str) -> None:
    """Break a message that would be accepted, byte by byte, under a correct first MAC; then accept it whole."""
    pair = TunnelPair()
    if message == "data":
        pair.connect()
    fresh = pair.client.encapsulate(ipv4_packet(), pair.now) if message == "data" else None
    receiver, key, start = pair.gateway, GATEWAY_MAC1_KEY, 4
    if message != "data":
        pair.client.connect(pair.now)
        fresh = pair.client.poll_transmit()
    assert fresh is not None
    if message == "response":
        pair.gateway.handle_datagram(fresh, pair.now)
        fresh = pair.gateway.poll_transmit()
        receiver, key = pair.client, CLIENT_MAC1_KEY
    if message != "data":
        start = 8  # the sender's index is covered by the first MAC only; the handshake's transcript does not contain it
    assert fresh is not None
    body_bytes = len(fresh) if message == "data" else len(fresh) - 32
    for position in [*range(4), *range(start, body_bytes)]:
        broken = bytearray(fresh)
        broken[position] ^= 0x80
        if message != "data":
            broken[-32:-16] = keyed_mac(key, bytes(broken[:-32]))
        assert_ignored(receiver, bytes(broken), pair.now)
    received = receiver.rx_bytes
    receiver.handle_datagram(fresh, pair.now)
    assert receiver.rx_bytes == received + len(fresh)


@pytest.mark.parametrize("datagram", GENUINE, ids=[str(number) for number in range(len(GENUINE))])
def test_every_genuine_datagram_is_refused_a_second_time(datagram: bytes) -> None:
    assert_ignored(PAIR.client, datagram)
    assert_ignored(PAIR.gateway, datagram)


@pytest.mark.parametrize("low_order", [bytes(32), b"\1" + bytes(31)])
def test_an_ephemeral_key_of_low_order_is_a_bad_handshake(low_order: bytes) -> None:
    body = GENUINE[0][:8] + low_order + GENUINE[0][40:116]
    forged = body + keyed_mac(GATEWAY_MAC1_KEY, body) + bytes(16)
    before = PAIR.gateway.drops[DropReason.BAD_HANDSHAKE]
    assert_ignored(PAIR.gateway, forged)
    assert PAIR.gateway.drops[DropReason.BAD_HANDSHAKE] == before + 1
    assert peek_static(b"\x22" * 32, forged) is None


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["client", "gateway", "wait", "cut", "heal"]), st.floats(0, 60)), max_size=12
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(ACTIONS)
def test_any_history_leaves_a_tunnel_that_recovers(actions: list[tuple[str, float]]) -> None:
    pair = TunnelPair()
    serve: dict[str, Callable[[], None]] = {
        "client": lambda: pair.send("client", ipv4_packet()),
        "gateway": lambda: pair.send("gateway", ipv4_packet()),
        "wait": lambda: None,
        "cut": lambda: pair.cut.update({"client", "gateway"}),
        "heal": pair.cut.clear,
    }
    for action, seconds in actions:
        serve[action]()
        pair.advance(seconds)
    pair.cut.clear()
    pair.advance(20)
    pair.send("client", ipv4_packet(fill=77))
    pair.advance(120)  # at worst the silence is noticed, and the next packet goes through a new session
    pair.send("client", ipv4_packet(fill=78))
    pair.advance(20)
    pair.send("gateway", ipv4_packet(fill=79))
    assert ipv4_packet(fill=78) in pair.received["gateway"]
    assert ipv4_packet(fill=79) in pair.received["client"]
