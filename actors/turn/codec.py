"""STUN messages (RFC 8489 section 5) and ChannelData (RFC 8656 section 12.4) on the wire, for a server.

The layout of single values (XOR-ed addresses, error codes, integrity, fingerprint) is aioice's. The frame
around them is read here, for three reasons that matter on the server's side: a request may carry one
attribute several times (CreatePermission names a list of peers), unknown attributes must be seen to be
refused (420), and every way in which a hostile datagram can be wrong must end in the one exception
`MalformedError`.
"""

import hmac
import struct
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from aioice import stun

T = TypeVar("T")
Address = tuple[str, int]
"""An IP address in text form and a UDP port."""

HEADER_BYTES: Final = 20
CHANNEL_HEADER_BYTES: Final = 4
MAX_ATTRIBUTES: Final = 128  # far more than any message needs; CreatePermission may name a hundred peers
MAX_USERNAME_BYTES: Final = 508  # RFC 8489 section 14.3: "less than 509 bytes"

# Attribute types: RFC 8489 section 18.3, RFC 8656 section 18, RFC 5780 section 7.
CHANGE_REQUEST: Final = 0x0003
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
CHANNEL_NUMBER: Final = 0x000C
LIFETIME: Final = 0x000D
XOR_PEER_ADDRESS: Final = 0x0012
DATA: Final = 0x0013
REALM: Final = 0x0014
NONCE: Final = 0x0015
XOR_RELAYED_ADDRESS: Final = 0x0016
REQUESTED_ADDRESS_FAMILY: Final = 0x0017
REQUESTED_TRANSPORT: Final = 0x0019
MESSAGE_INTEGRITY_SHA256: Final = 0x001C
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028
RESPONSE_ORIGIN: Final = 0x802B
OTHER_ADDRESS: Final = 0x802C

# Types below this must be understood by whoever reads the message (RFC 8489 section 14).
COMPREHENSION_OPTIONAL: Final = 0x8000
# PRIORITY and USE-CANDIDATE are ICE's: harmless in a Binding request that an agent sends to its STUN server.
# EVEN-PORT, DONT-FRAGMENT and RESERVATION-TOKEN are left out: RFC 8656 section 7.2 lets a server answer 420.
UNDERSTOOD: Final = frozenset(
    {
        *(USERNAME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, REALM, NONCE, PRIORITY, USE_CANDIDATE),
        *(CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS, DATA, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT),
    }
)


class MalformedError(ValueError):
    """A datagram, or a value in it, that is not what RFC 8489 says."""


class Message(msgspec.Struct, frozen=True):
    """A STUN message as it was read: attributes as bytes, in order, without those after the integrity."""

    method: stun.Method
    kind: stun.Class
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...]
    covered: bytes | None = None
    """What MESSAGE-INTEGRITY covers; None when there is none."""

    def first(self, attribute: int) -> bytes | None:
        """Answer the first value of an attribute, which is the one that counts (RFC 8489 section 14)."""
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def text(self, attribute: int, limit: int) -> str | None:
        """Answer an attribute as text of at most ``limit`` bytes; raises `MalformedError`."""
        value = self.first(attribute)
        if value is None:
            return None
        if len(value) > limit:
            raise MalformedError("A text is longer than the standard allows.")
        return _decoded(value.decode)

    def number(self, attribute: int) -> int | None:
        """Answer an attribute of four bytes as a number; raises `MalformedError`."""
        value = self.first(attribute)
        if value is None:
            return None
        if len(value) != 4:
            raise MalformedError("A number is not four bytes long.")
        return int.from_bytes(value)

    def addresses(self, attribute: int) -> list[Address]:
        """Answer every XOR-ed address given for an attribute, in order; raises `MalformedError`."""
        return [self._address(value) for kind, value in self.attributes if kind == attribute]

    def plain_address(self, attribute: int) -> Address | None:
        """Answer an address that is not XOR-ed, such as OTHER-ADDRESS; raises `MalformedError`."""
        value = self.first(attribute)
        return None if value is None else _decoded(lambda: stun.unpack_address(value))

    def _address(self, value: bytes) -> Address:
        return _decoded(lambda: stun.unpack_xor_address(value, self.transaction_id))

    def unknown_required(self, *also_understood: int) -> list[int]:
        """Answer the comprehension-required attributes that this server doesn't know, each once."""
        required = dict.fromkeys(kind for kind, _ in self.attributes if kind < COMPREHENSION_OPTIONAL)
        return [kind for kind in required if kind not in UNDERSTOOD and kind not in also_understood]

    def is_authentic(self, key: bytes) -> bool:
        """Check MESSAGE-INTEGRITY against ``key`` (RFC 8489 section 14.5)."""
        claimed = self.first(MESSAGE_INTEGRITY)
        if claimed is None or self.covered is None:
            return False
        return hmac.compare_digest(claimed, stun.message_integrity(self.covered, key))


def family_of(host: str) -> int:
    """Answer 4 or 6 for an address in text form."""
    return 6 if ":" in host else 4


def is_channel_data(datagram: bytes) -> bool:
    """Tell ChannelData from STUN by the first two bits, 01 (RFC 8656 section 12)."""
    return len(datagram) >= CHANNEL_HEADER_BYTES and datagram[0] & 0xC0 == 0x40


def parse_channel_data(datagram: bytes) -> tuple[int, bytes]:
    """Split ChannelData into channel number and payload; raises `MalformedError`. There may be padding."""
    channel, length = struct.unpack_from("!HH", datagram)
    end = CHANNEL_HEADER_BYTES + length
    if len(datagram) < end:
        raise MalformedError("ChannelData is shorter than it says.")
    return channel, datagram[CHANNEL_HEADER_BYTES:end]


def channel_data(channel: int, payload: bytes) -> bytes:
    """Frame ``payload`` (at most 65,535 bytes) for a channel."""
    return struct.pack("!HH", channel, len(payload)) + payload


def parse(datagram: bytes) -> Message:
    """Read a STUN message; raises `MalformedError` for anything else, and for a wrong FINGERPRINT."""
    if len(datagram) < HEADER_BYTES:
        raise MalformedError("The datagram is shorter than a STUN header.")
    kind, length, cookie = struct.unpack_from("!HHI", datagram)
    if kind & 0xC000 or cookie != stun.COOKIE or length % 4 or len(datagram) != HEADER_BYTES + length:
        raise MalformedError("The datagram has no STUN header.")
    attributes, covered = _attributes(datagram)
    return Message(
        method=_decoded(lambda: stun.Method(kind & 0x3EEF)),
        kind=stun.Class(kind & 0x0110),
        transaction_id=datagram[8:HEADER_BYTES],
        attributes=tuple(attributes),
        covered=covered,
    )


def _attributes(datagram: bytes) -> tuple[list[tuple[int, bytes]], bytes | None]:
    found: list[tuple[int, bytes]] = []
    covered: bytes | None = None
    position = HEADER_BYTES
    while position < len(datagram):
        kind, length = struct.unpack_from("!HH", datagram, position)  # lengths are multiples of 4: always there
        value = datagram[position + 4 : position + 4 + length]
        if len(value) != length:
            raise MalformedError("An attribute is longer than its message.")
        if len(found) >= MAX_ATTRIBUTES:
            raise MalformedError("There are more attributes than any message needs.")
        if kind == FINGERPRINT:
            # RFC 8489 section 14.7: it is the last attribute, whatever follows it is not looked at.
            if value != struct.pack("!I", stun.message_fingerprint(datagram[:position])):
                raise MalformedError("The fingerprint does not match.")
            break
        if covered is None:  # what follows the integrity is not authenticated: RFC 8489 section 14.5
            found.append((kind, value))
            if kind == MESSAGE_INTEGRITY:
                covered = datagram[:position]
        position += 4 + length + stun.padding_length(length)
    return found, covered


def encode(
    method: stun.Method,
    kind: stun.Class,
    transaction_id: bytes,
    attributes: list[tuple[int, bytes]],
    key: bytes | None = None,
) -> bytes:
    """Write a message, with MESSAGE-INTEGRITY under ``key`` if there is one, and always with FINGERPRINT."""
    body = b"".join(_attribute(attribute, value) for attribute, value in attributes)
    message = struct.pack("!HHI12s", method | kind, len(body), stun.COOKIE, transaction_id) + body
    if key is not None:
        message = _longer(message, _attribute(MESSAGE_INTEGRITY, stun.message_integrity(message, key)))
    fingerprint = struct.pack("!I", stun.message_fingerprint(message))
    return _longer(message, _attribute(FINGERPRINT, fingerprint))


def xor_address(address: Address, transaction_id: bytes) -> bytes:
    """Write an address as the value of an XOR-…-ADDRESS attribute (RFC 8489 section 14.2)."""
    return stun.pack_xor_address(address, transaction_id)


def plain_address(address: Address) -> bytes:
    """Write an address as the value of an attribute that is not XOR-ed (RFC 8489 section 14.1)."""
    return stun.pack_address(address)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(stun.padding_length(len(value)))


def _longer(message: bytes, attribute: bytes) -> bytes:
    longer = message + attribute
    return stun.set_body_length(longer, len(longer) - HEADER_BYTES)


def _decoded(decode: Callable[[], T]) -> T:
    try:
        return decode()
    except (ValueError, struct.error) as error:  # includes UnicodeDecodeError
        raise MalformedError(str(error)) from error
