"""Reading inner headers: right on whole packets, None on anything else, no exception ever."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.device import IpHeader, read_header


def ipv4(payload: bytes = b"", *, options: bytes = b"", protocol: int = 17) -> bytes:
    total_bytes = 20 + len(options) + len(payload)
    head = bytes([0x40 | (5 + len(options) // 4), 0]) + total_bytes.to_bytes(2, "big")
    return head + bytes([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]) + options + payload


def ipv6(payload: bytes = b"", *, next_header: int = 58) -> bytes:
    source, destination = ipaddress.IPv6Address("fd00::1"), ipaddress.IPv6Address("fd00::2")
    head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([next_header, 64])
    return head + source.packed + destination.packed + payload


def test_an_ipv4_header_is_read() -> None:
    expected = IpHeader(4, b"\x0a\0\0\1", b"\x0a\0\0\2", 17, 25)
    assert read_header(ipv4(b"hello")) == expected
    assert read_header(memoryview(ipv4(b"hello"))) == expected
    assert read_header(bytearray(ipv4(b"hello"))) == expected


def test_an_ipv6_header_is_read() -> None:
    header = read_header(ipv6(b"hello"))
    assert header is not None
    assert ipaddress.ip_address(header.source) == ipaddress.ip_address("fd00::1")
    assert ipaddress.ip_address(header.destination) == ipaddress.ip_address("fd00::2")
    assert (header.version, header.protocol, header.total_bytes) == (6, 58, 45)


def test_a_control_packet_is_told_by_its_header() -> None:
    packet = b"\x60\0\0\0\0\x08\xff\0" + bytes(32) + b"\2" + bytes(7)
    assert read_header(packet) == IpHeader(6, bytes(16), bytes(16), 255, 48)


def test_padding_is_not_counted() -> None:
    header = read_header(ipv4(b"hello") + bytes(7))
    assert header is not None
    assert header.total_bytes == 25


@pytest.mark.parametrize("packet", [ipv4(b"hello"), ipv4(b"x", options=bytes(8)), ipv6(b"hello"), ipv6()])
def test_every_truncation_is_refused(packet: bytes) -> None:
    assert read_header(packet) is not None
    assert all(read_header(packet[:size]) is None for size in range(len(packet)))


@pytest.mark.parametrize("first_byte", [0x00, 0x44, 0x4F, 0x50, 0x70, 0xFF])
def test_a_wrong_version_or_header_length_is_refused(first_byte: int) -> None:
    assert read_header(bytes([first_byte]) + ipv4(bytes(20))[1:]) is None


@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([0x45, 0x46, 0x60, None]))
def test_hostile_bytes_never_raise_and_never_lie_about_length(packet: bytes, first_byte: int | None) -> None:
    if first_byte is not None and packet:
        packet = bytes([first_byte]) + packet[1:]
    header = read_header(packet)
    if header is not None:
        assert 20 <= header.total_bytes <= len(packet)
        assert len(header.source) == len(header.destination) == (4 if header.version == 4 else 16)
