"""Netlink's grammar: what is written is what the kernel's headers say, what is read may be anything."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.network import netlink


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    assert netlink.attribute(7, b"hello") == struct.pack("=HH", 9, 7) + b"hello\0\0\0"
    assert netlink.attribute(7, b"") == struct.pack("=HH", 4, 7)


def test_integers_are_in_network_order() -> None:
    assert netlink.be32(1, 258) == struct.pack("=HH", 8, 1) + b"\0\0\1\2"
    assert netlink.be32(1, -3) == struct.pack("=HH", 8, 1) + b"\xff\xff\xff\xfd"
    assert netlink.be64(1, 1) == struct.pack("=HH", 12, 1) + bytes(7) + b"\1"


def test_nesting_is_marked() -> None:
    assert netlink.nested(2, netlink.text(1, "ab")) == struct.pack("=HHHH", 12, 0x8002, 7, 1) + b"ab\0\0"


def test_a_value_too_long_for_its_length_is_refused() -> None:
    with pytest.raises(ValueError, match="65531"):
        netlink.attribute(1, bytes(65_532))


def test_a_message_reads_back() -> None:
    data = netlink.message(0xA00, 5, 42, 1, 10, netlink.text(1, "table"), netlink.be32(2, 3))
    (received,) = netlink.parse_messages(data)
    assert (received.kind, received.flags, received.sequence) == (0xA00, 5, 42)
    assert received.body[:4] == b"\1\0\0\x0a"
    assert netlink.generic_attributes(received) == {1: b"table\0", 2: b"\0\0\0\3"}


def test_a_refusal_carries_the_kernels_sentence() -> None:
    body = struct.pack("=i", -17) + bytes(16) + netlink.text(netlink.NLMSGERR_ATTR_MSG, "no such thing")
    flags = netlink.NLM_F_CAPPED | netlink.NLM_F_ACK_TLVS
    refusal = netlink.parse_refusal(netlink.Message(netlink.NLMSG_ERROR, flags, 1, body))
    assert refusal == netlink.Refusal(17, "no such thing")


@settings(max_examples=10_000, deadline=None)
@given(st.binary(max_size=96), st.integers(0, 40))
def test_broken_messages_end_the_reading_and_nothing_else(data: bytes, size: int) -> None:
    if len(data) >= 16:  # a plausible length makes the reader look further
        data = struct.pack("=IH", size, netlink.NLMSG_ERROR) + data[6:]
    for received in netlink.parse_messages(data):
        assert len(received.body) <= len(data) - 16
        netlink.parse_refusal(received)
        assert all(len(value) <= len(received.body) for value in netlink.generic_attributes(received).values())
