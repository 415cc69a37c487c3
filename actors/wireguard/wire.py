"""The four WireGuard messages, as bytes and as records.

Every message opens with a little-endian 32-bit type (1 to 4; the upper three bytes are reserved and zero). Three of the
four have one fixed size, so type and size together tell a WireGuard datagram from anything else that shares the socket:
a STUN message that starts with 0x01 never has 0x00 next, all others start with 0x00, and TURN channel data starts with
0x40 to 0x4F.

Sizes and offsets are those of the WireGuard paper (Donenfeld, NDSS 2017), section 5.4.
"""

import enum
import struct

import msgspec

INITIATION_BYTES = 148
RESPONSE_BYTES = 92
COOKIE_REPLY_BYTES = 64
TRANSPORT_HEADER_BYTES = 16
TAG_BYTES = 16
MAC_BYTES = 16
KEEPALIVE_BYTES = TRANSPORT_HEADER_BYTES + TAG_BYTES
"""A transport message with nothing inside: the smallest there is."""
CHANNEL_BYTES = 4
"""TURN's ChannelData header (RFC 8656 section 12.4), which may stand before a message; it is not WireGuard's."""

_TYPE = struct.Struct("<I")
_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
_TRANSPORT = struct.Struct("<IIQ")
_INITIATION_BODY = struct.Struct("<II32s48s28s")
_RESPONSE_BODY = struct.Struct("<III32s16s")


class MessageType(enum.IntEnum):
    """The first byte of a WireGuard datagram."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4


_FIXED_BYTES = {
    MessageType.INITIATION: INITIATION_BYTES,
    MessageType.RESPONSE: RESPONSE_BYTES,
    MessageType.COOKIE_REPLY: COOKIE_REPLY_BYTES,
}


class Initiation(msgspec.Struct, frozen=True):
    """First handshake message, initiator to responder (paper 5.4.2)."""

    sender: int
    ephemeral: bytes
    encrypted_static: bytes
    encrypted_timestamp: bytes


class Response(msgspec.Struct, frozen=True):
    """Second handshake message, responder to initiator (paper 5.4.3)."""

    sender: int
    receiver: int
    ephemeral: bytes
    encrypted_nothing: bytes


class CookieReply(msgspec.Struct, frozen=True):
    """A responder under load asks for proof of the sender's address (paper 5.4.7)."""

    receiver: int
    nonce: bytes
    encrypted_cookie: bytes


def classify(datagram: bytes | memoryview) -> MessageType | None:
    """Name the WireGuard message that a datagram has the form of, or None when it is something else.

    Reads the type word and the size only; says nothing about authenticity.
    """
    size = len(datagram)
    if size < KEEPALIVE_BYTES:
        return None
    (word,) = _TYPE.unpack_from(datagram)
    if word == MessageType.TRANSPORT:
        return MessageType.TRANSPORT
    for kind, fixed_bytes in _FIXED_BYTES.items():
        if word == kind and size == fixed_bytes:
            return kind
    return None


def receiver_index(datagram: bytes | memoryview) -> int | None:
    """Return whose session index a datagram is addressed to, or None for an initiation or a foreign datagram."""
    match classify(datagram):
        case MessageType.RESPONSE:
            return int(_RESPONSE.unpack(datagram)[2])
        case MessageType.COOKIE_REPLY | MessageType.TRANSPORT:
            return int(_TRANSPORT.unpack_from(datagram)[1])
        case _:
            return None


def encode_initiation(message: Initiation) -> bytes:
    """Return the first 116 bytes of an initiation: all but the two MACs."""
    return _INITIATION_BODY.pack(
        MessageType.INITIATION,
        message.sender,
        message.ephemeral,
        message.encrypted_static,
        message.encrypted_timestamp,
    )


def decode_initiation(datagram: bytes | memoryview) -> Initiation:
    """Read a datagram that `classify` named an initiation; the MACs are checked elsewhere."""
    _, sender, ephemeral, static, timestamp, _, _ = _INITIATION.unpack(datagram)
    return Initiation(sender, ephemeral, static, timestamp)


def encode_response(message: Response) -> bytes:
    """Return the first 60 bytes of a response: all but the two MACs."""
    return _RESPONSE_BODY.pack(
        MessageType.RESPONSE, message.sender, message.receiver, message.ephemeral, message.encrypted_nothing
    )


def decode_response(datagram: bytes | memoryview) -> Response:
    """Read a datagram that `classify` named a response; the MACs are checked elsewhere."""
    _, sender, receiver, ephemeral, nothing, _, _ = _RESPONSE.unpack(datagram)
    return Response(sender, receiver, ephemeral, nothing)


def encode_cookie_reply(message: CookieReply) -> bytes:
    """Return the 64 bytes of a cookie reply, which carries no MACs."""
    return _COOKIE_REPLY.pack(MessageType.COOKIE_REPLY, message.receiver, message.nonce, message.encrypted_cookie)


def decode_cookie_reply(datagram: bytes | memoryview) -> CookieReply:
    """Read a datagram that `classify` named a cookie reply."""
    _, receiver, nonce, cookie = _COOKIE_REPLY.unpack(datagram)
    return CookieReply(receiver, nonce, cookie)


def handshake_sender(datagram: bytes | memoryview) -> int:
    """Return the sender's index of an initiation or a response: the receiver of a cookie reply to it."""
    return int(_TRANSPORT.unpack_from(datagram)[1])


def encode_transport_header(receiver: int, counter: int) -> bytes:
    """Return the 16 bytes in front of a transport message's ciphertext (paper 5.4.6)."""
    return _TRANSPORT.pack(MessageType.TRANSPORT, receiver, counter)


def decode_transport_header(datagram: bytes | memoryview) -> tuple[int, int]:
    """Return (receiver index, counter) of a datagram that `classify` named a transport message."""
    _, receiver, counter = _TRANSPORT.unpack_from(datagram)
    return receiver, counter
