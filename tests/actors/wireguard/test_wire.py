"""What is a WireGuard datagram, whose is it, and the packet inside."""

import pytest

from exeunt.actors import wireguard
from exeunt.actors.wireguard import MessageType, PrefixedIndices, classify, peek_static, receiver_index
from exeunt.actors.wireguard.inner import pad, unpad
from exeunt.actors.wireguard.testing import TunnelPair, ipv4_packet, public_key


def test_all_public_names_exist() -> None:
    assert sorted(wireguard.__all__) == sorted(set(wireguard.__all__))
    assert all(hasattr(wireguard, name) for name in wireguard.__all__)
    assert len(wireguard.__all__) <= 20


def test_classify_goes_by_type_and_size() -> None:
    assert classify(b"\x01\0\0\0" + bytes(144)) is MessageType.INITIATION
    assert classify(b"\x02\0\0\0" + bytes(88)) is MessageType.RESPONSE
    assert classify(b"\x03\0\0\0" + bytes(60)) is MessageType.COOKIE_REPLY
    assert classify(memoryview(b"\x04\0\0\0" + bytes(28))) is MessageType.TRANSPORT


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x04\0\0\0",
        b"\x04\0\0\0" + bytes(27),
        b"\x01\0\0\0" + bytes(143),
        b"\x02\0\0\0" + bytes(144),
        b"\x04\x01\0\0" + bytes(28),
        b"\x05\0\0\0" + bytes(60),
        b"\0\x01\0\x50\x21\x12\xa4\x42" + bytes(92),  # STUN binding request
        b"\x01\x01\0\x50\x21\x12\xa4\x42" + bytes(140),  # STUN success response of an initiation's size
        b"\x40\0\0\x80" + bytes(128),  # TURN channel data
    ],
)
def test_everything_else_is_not_wireguard(datagram: bytes) -> None:
    assert classify(datagram) is None
    assert receiver_index(datagram) is None


def test_a_demultiplexer_finds_the_tunnel() -> None:
    pair = TunnelPair()
    pair.connect()
    pair.send("client", ipv4_packet())
    initiation, response, keepalive, data = (datagram for _, datagram in pair.carried)
    gateway_key = pair.private_keys["gateway"]
    assert peek_static(gateway_key, initiation) == public_key(pair.private_keys["client"])
    assert receiver_index(initiation) is None
    assert {receiver_index(keepalive), receiver_index(data)} == pair.gateway.local_indices
    assert {receiver_index(response)} == pair.client.local_indices
    assert PrefixedIndices.prefix_of(receiver_index(data) or 0) == 2


def test_peeking_shows_nothing_to_others() -> None:
    pair = TunnelPair()
    pair.connect()
    initiation, response = pair.carried[0][1], pair.carried[1][1]
    assert peek_static(pair.private_keys["client"], initiation) is None
    assert peek_static(pair.private_keys["gateway"], response) is None
    for position in (10, 50, 100, 120):  # index, static, timestamp, first MAC: all under the first MAC
        broken = bytearray(initiation)
        broken[position] ^= 1
        assert peek_static(pair.private_keys["gateway"], bytes(broken)) is None


def test_indices_carry_their_prefix_and_come_round() -> None:
    indices = PrefixedIndices(0xABCDEF)
    seen = [indices() for _ in range(256)]
    assert len(set(seen)) == 256
    assert {PrefixedIndices.prefix_of(index) for index in seen} == {0xABCDEF}
    assert indices() == seen[0]
    with pytest.raises(ValueError, match="24 bits"):
        PrefixedIndices(1 << 24)


def test_padding_goes_to_16_bytes_but_not_beyond_the_mtu() -> None:
    assert len(pad(bytes(60), 1400)) == 64
    assert len(pad(bytes(64), 1400)) == 64
    assert len(pad(bytes(1399), 1400)) == 1400
    assert len(pad(bytes(1401), 1400)) == 1401


def test_unpadding_trusts_the_ip_header_within_the_bytes_there_are() -> None:
    ipv4 = ipv4_packet(61)
    ipv6 = b"\x60\0\0\0\0\x03" + bytes(34) + b"abc"
    assert unpad(pad(ipv4, 1400)) == ipv4
    assert unpad(pad(ipv6, 1400)) == ipv6
    assert unpad(ipv4[:60]) is None
    assert unpad(ipv6[:42]) is None
    assert unpad(b"\x45\0\0\x13" + bytes(40)) is None  # shorter than its own header
    assert unpad(b"\x50" + bytes(60)) is None
    assert unpad(b"\x45") is None
    assert unpad(b"") is None
