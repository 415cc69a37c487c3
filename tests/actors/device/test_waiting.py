"""Packets that wait: the newest are kept, in order, and a SYN that is said again is kept once."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.device.waiting import WaitingPackets, opening_of

SYN, SYN_ACK, ACK, RST = 0x02, 0x12, 0x10, 0x04


def tcp(*, port: int = 40000, sequence: int = 1, flags: int = SYN, options: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", port, 80, sequence, 0, (5 + len(options) // 4) << 4, flags, 1024, 0, 0) + options


def ipv4(payload: bytes, *, protocol: int = 6, fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    total = words * 4 + len(payload)
    addresses = bytes([100, 64, 0, 1, 10, 0, 0, 1])
    return (
        struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 7, fragment, 64, protocol, 0) + addresses + options + payload
    )


def ipv6(payload: bytes, *, next_header: int = 6) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + bytes(range(32)) + payload


@pytest.mark.parametrize("wrap", [ipv4, ipv6])
def test_a_syn_that_is_said_again_replaces_itself(wrap: Callable[[bytes], bytes]) -> None:
    waiting = WaitingPackets(10)
    first, again = wrap(tcp(options=b"\x08\x0a\x00\x00")), wrap(tcp(options=b"\x08\x0a\x00\x01"))
    other = wrap(tcp(port=40001))
    for packet in (first, other, again):
        waiting.put(packet)
    assert waiting.take_all() == [again, other]
    assert len(waiting) == 0


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(tcp(flags=SYN_ACK)),
        ipv4(tcp(flags=ACK)),
        ipv4(tcp(flags=SYN | RST)),
        ipv4(tcp(), protocol=17),
        ipv4(tcp(), fragment=0x2000),
        ipv4(tcp(), fragment=0x0001),
        ipv6(tcp(), next_header=17),
        ipv6(tcp(flags=ACK)),
        ipv4(tcp()[:19]),
        ipv6(tcp()[:19]),
    ],
)
def test_whatever_else_is_repeated_is_kept_as_often_as_it_comes(packet: bytes) -> None:
    waiting = WaitingPackets(10)
    waiting.put(packet)
    waiting.put(packet)
    assert waiting.take_all() == [packet, packet]


def test_the_header_may_have_options() -> None:
    assert opening_of(ipv4(tcp(), options=bytes(8))) == opening_of(ipv4(tcp()))
    assert opening_of(ipv4(tcp(sequence=2))) != opening_of(ipv4(tcp()))


def test_beyond_the_capacity_the_oldest_goes() -> None:
    waiting = WaitingPackets(3)
    packets = [ipv4(bytes([number]), protocol=17) for number in range(5)]
    for packet in packets:
        waiting.put(packet)
    assert waiting.dropped_total == 2
    assert waiting.take_all() == packets[2:]


def test_a_flood_of_one_syn_drives_nothing_out() -> None:
    waiting = WaitingPackets(2)
    data = ipv4(b"x", protocol=17)
    waiting.put(data)
    for _ in range(100):
        waiting.put(ipv4(tcp()))
    assert waiting.take_all() == [data, ipv4(tcp())]
    assert waiting.dropped_total == 0


@given(st.binary(min_size=1, max_size=90))
def test_garbage_is_kept_or_dropped_and_never_raises(packet: bytes) -> None:
    waiting = WaitingPackets(1)
    waiting.put(packet)
    assert waiting.take_all() == [packet]
