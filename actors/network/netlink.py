"""Netlink's grammar, as far as nf_tables needs it: a stream of messages, each a header and attributes.

A message is ``nlmsghdr`` (length, type, flags, sequence, port), here always followed by ``nfgenmsg``
(family, version, resource id), then attributes: length, type, value, padded to four bytes. An attribute whose
value is attributes again says so with the bit NLA_F_NESTED. Headers are in the host's byte order, nf_tables'
integers in network order.

Only encoding and decoding; the socket is `exeunt.actors.network.nftables`. Source: RFC 3549 sections 2.2 and
2.3; Linux, include/uapi/linux/netlink.h and netfilter/nfnetlink.h.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
NLMSGERR_ATTR_MSG = 1  # extended acknowledgement: a sentence from the kernel
NLM_F_CAPPED = 0x100  # the refused request is not echoed in the acknowledgement, only its header
NLM_F_ACK_TLVS = 0x200

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")


class Message(NamedTuple):
    """One message as it was received."""

    kind: int
    flags: int
    sequence: int
    body: bytes
    """What follows ``nlmsghdr``."""


class Refusal(NamedTuple):
    """The content of an NLMSG_ERROR message. ``errno`` zero is an acknowledgement."""

    errno: int
    sentence: str
    """The kernel's own explanation, often empty."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute: header, value, padding.

    Raises:
        ValueError: the value does not fit the 16-bit length.
    """
    size = _ATTRIBUTE.size + len(value)
    if size > 0xFFFF:
        raise ValueError(f"a netlink attribute holds at most 65531 bytes, not {len(value)}")
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def nested(kind: int, *members: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(members))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network order; negative values in two's complement (verdicts, priorities)."""
    return attribute(kind, (value & 0xFFFF_FFFF).to_bytes(4, "big"))


def be64(kind: int, value: int) -> bytes:
    """A 64-bit attribute in network order."""
    return attribute(kind, value.to_bytes(8, "big"))


def text(kind: int, value: str) -> bytes:
    """A string attribute, closed by NUL."""
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, sequence: int, family: int, resource: int, *attributes: bytes) -> bytes:
    """One whole nfnetlink message. ``resource`` is the resource id (host order here, network order there)."""
    body = _GENERIC.pack(family, 0, socket.htons(resource)) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def parse_messages(data: bytes) -> Iterator[Message]:
    """The messages in one received datagram. The kernel sends it, so a broken rest is simply the end."""
    position = 0
    while position + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, position)
        if size < _HEADER.size or position + size > len(data):
            return
        yield Message(kind, flags, sequence, data[position + _HEADER.size : position + size])
        position += (size + 3) & ~3


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Attribute type to value; of attributes that repeat, the last one."""
    found: dict[int, bytes] = {}
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, position)
        if size < _ATTRIBUTE.size or position + size > len(data):
            break
        found[kind & NLA_TYPE_MASK] = data[position + _ATTRIBUTE.size : position + size]
        position += (size + 3) & ~3
    return found


def parse_refusal(received: Message) -> Refusal:
    """Read an NLMSG_ERROR message with its extended acknowledgement."""
    number = -int.from_bytes(received.body[:4], sys.byteorder, signed=True)
    sentence = ""
    if received.flags & NLM_F_ACK_TLVS:
        echoed_bytes = _HEADER.size
        if not received.flags & NLM_F_CAPPED and len(received.body) >= 8:
            echoed_bytes = int.from_bytes(received.body[4:8], sys.byteorder)
        told = parse_attributes(received.body[4 + echoed_bytes :]).get(NLMSGERR_ATTR_MSG, b"")
        sentence = told.rstrip(b"\0").decode(errors="replace")
    return Refusal(number, sentence)


def generic_attributes(received: Message) -> dict[int, bytes]:
    """The attributes behind the ``nfgenmsg`` of an nfnetlink message."""
    return parse_attributes(received.body[_GENERIC.size :])


def native32(value: int) -> bytes:
    """Four bytes in the host's order, as nf_tables keeps conntrack states and marks in its registers."""
    return struct.pack("=I", value)
