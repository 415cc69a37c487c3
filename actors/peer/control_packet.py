"""Control packets: what two peers tell each other inside the tunnel, beside the traffic.

A control packet is an inner IPv6 packet that no network stack can produce: from `::` to `::`, next header 255, hop
limit 0. An 8-byte header follows, whose first byte is the event type, then the event's payload. The WireGuard session
that carries it authenticates it; nothing else does.

    type   event                  payload
    0, 1   assigned IPs, domain   known from another data plane; recognised and ignored
    2      goodbye                empty, or version u8, reason u8, flags u16, identifier 8 B, elapsed_ms u32, text
    0x45   goodbye acknowledged   identifier 8 B
    0x46   probe                  identifier 8 B, timestamp u64
    0x47   probe reply            the same, echoed

All integers are big-endian. These are events, not requests: delivery is not guaranteed, so who needs it repeats, and
receivers are idempotent by the identifier. Unknown types are ignored, so either side may be newer. Of the goodbye's
flags bit 0 says that it is a last will: sealed while all was well, and sent by somebody else, so that its elapsed time
means nothing. Other flags, and reserved bytes, are sent as zero and not read. A later version of the goodbye may append
to its payload; the fields of version 1 stay.
"""

import enum
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, cast, get_args

import msgspec

GoodbyeReason: TypeAlias = Literal[
    "unspecified",
    "signed_out",
    "shutting_down",
    "idle",
    "replaced",
    "access_revoked",
    "access_expired",
    "worker_crashed",
    "supervisor_died",
    "device_lost",
    "protocol_error",
    "portal_denied",
]

REASON_CODES: Mapping[GoodbyeReason, int] = MappingProxyType(
    {
        "unspecified": 0,
        "signed_out": 1,
        "shutting_down": 2,
        "idle": 3,
        "replaced": 4,
        "access_revoked": 5,
        "access_expired": 6,
        "worker_crashed": 7,
        "supervisor_died": 8,
        "device_lost": 9,
        "protocol_error": 10,
        "portal_denied": 11,
    }
)
"""On the wire for ever: a code is never reused and never changes its meaning."""

IDENTIFIER_BYTES = 8
TEXT_BYTES_MAX = 200
PROTOCOL_VERSION = 1

_REASONS: dict[int, GoodbyeReason] = {code: reason for reason, code in REASON_CODES.items()}

_IPV6 = struct.Struct(">IHBB16s16s")
_IPV6_VERSION_WORD = 6 << 28
_NEXT_HEADER = 255
_NEXT_HEADER_AT = 6
_HEADER = struct.Struct(">B7x")
_CONTROL_BYTES = _IPV6.size + _HEADER.size
_GOODBYE = struct.Struct(">BBH8sI")
_PROBE = struct.Struct(">8sQ")
_ELAPSED_MS_MAX = 2**32 - 1
_LAST_WILL = 1

_MARK = bytes([_NEXT_HEADER])
_BOTH_UNSPECIFIED = bytes(32)


class EventType(enum.IntEnum):
    """First byte of the control header."""

    ASSIGNED_IPS = 0
    DOMAIN_STATUS = 1
    GOODBYE = 2
    GOODBYE_ACKNOWLEDGED = 0x45
    PROBE = 0x46
    PROBE_REPLY = 0x47


class Goodbye(msgspec.Struct, frozen=True, kw_only=True):
    """The sender ends the connection, and says why.

    `elapsed_ms` is the time since the sender first said this goodbye: a receiver that hears a repetition knows how long
    the news took, without synchronised clocks. An `identifier` of zeros, as in a goodbye with an empty payload, asks
    for no acknowledgement. `text` is for people; at most 200 bytes of UTF-8 travel. A `last_will` was sealed before
    anything had happened: nobody is there to be acknowledged to, and how long the news took is not known.
    """

    reason: GoodbyeReason
    identifier: bytes = bytes(IDENTIFIER_BYTES)
    elapsed_ms: int = 0
    text: str = ""
    last_will: bool = False

    @property
    def wants_acknowledgement(self) -> bool:
        """Whether the sender waits for a `GoodbyeAcknowledged` with its identifier."""
        return any(self.identifier)


class GoodbyeAcknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """The goodbye with this identifier arrived; the sender need not repeat it."""

    identifier: bytes


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Are you there? The timestamp is the sender's own business."""

    identifier: bytes
    timestamp: int


class ProbeReply(msgspec.Struct, frozen=True, kw_only=True):
    """Yes. Both fields as they were in the probe."""

    identifier: bytes
    timestamp: int


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """An event of another data plane, which means nothing here."""

    name: Literal["assigned_ips", "domain_status"]


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a later version: ignore it."""

    event_type: int


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """A control packet that breaks its own format, although the peer authenticated it: count it."""

    event_type: int | None
    evidence: str


ControlEvent: TypeAlias = Goodbye | GoodbyeAcknowledged | Probe | ProbeReply
ControlPacket: TypeAlias = ControlEvent | Foreign | Unknown | Malformed


def goodbye_reason(cause: str) -> GoodbyeReason:
    """Return a cause's name as a goodbye can carry it: itself, or `unspecified` where the table has no code for it."""
    return cast("GoodbyeReason", cause) if cause in get_args(GoodbyeReason) else "unspecified"


def is_control(packet: bytes | memoryview) -> bool:
    """Say whether an inner packet is a control packet: next header 255, `::` to `::`. Cheap enough for every packet."""
    return packet[6:7] == _MARK and packet[8:40] == _BOTH_UNSPECIFIED and packet[0] >> 4 == 6


def has_control_mark(buffer: memoryview, at: int) -> bool:
    """Say whether a packet that begins there may be a control packet: enough to pass over nearly all others."""
    return buffer[at + _NEXT_HEADER_AT] == _NEXT_HEADER


def encode_control(event: ControlEvent) -> bytes:
    """Return the inner packet that carries an event. A text too long for it is cut at a character.

    Raises:
        ValueError: an identifier is not 8 bytes, a number does not fit, or the reason has no code.
    """
    match event:
        case Goodbye():
            return _packet(EventType.GOODBYE, _encode_goodbye(event))
        case GoodbyeAcknowledged():
            return _packet(EventType.GOODBYE_ACKNOWLEDGED, _checked(event.identifier))
        case Probe():
            return _packet(EventType.PROBE, _encode_probe(event))
        case ProbeReply():
            return _packet(EventType.PROBE_REPLY, _encode_probe(event))


def decode_control(packet: bytes | memoryview) -> ControlPacket | None:
    """Read a control packet, or return None for an ordinary packet. Never raises."""
    if not is_control(packet):
        return None
    _, payload_bytes, *_ = _IPV6.unpack_from(packet)
    if len(packet) < _CONTROL_BYTES:
        return Malformed(event_type=None, evidence="shorter than its header")
    event_type = packet[_IPV6.size]
    if payload_bytes != len(packet) - _IPV6.size:
        return Malformed(event_type=event_type, evidence="payload length contradicts the packet's")
    payload = bytes(packet[_CONTROL_BYTES:])
    match event_type:
        case EventType.ASSIGNED_IPS:
            return Foreign(name="assigned_ips")
        case EventType.DOMAIN_STATUS:
            return Foreign(name="domain_status")
        case EventType.GOODBYE:
            return _decode_goodbye(payload)
        case EventType.GOODBYE_ACKNOWLEDGED if len(payload) == IDENTIFIER_BYTES:
            return GoodbyeAcknowledged(identifier=payload)
        case EventType.PROBE | EventType.PROBE_REPLY if len(payload) == _PROBE.size:
            identifier, timestamp = _PROBE.unpack(payload)
            kind = Probe if event_type == EventType.PROBE else ProbeReply
            return kind(identifier=identifier, timestamp=timestamp)
        case EventType.GOODBYE_ACKNOWLEDGED | EventType.PROBE | EventType.PROBE_REPLY:
            return Malformed(event_type=event_type, evidence="payload has the wrong size")
        case _:
            return Unknown(event_type=event_type)


def _packet(event_type: int, payload: bytes) -> bytes:
    length = _HEADER.size + len(payload)
    ipv6 = _IPV6.pack(_IPV6_VERSION_WORD, length, _NEXT_HEADER, 0, bytes(16), bytes(16))
    return ipv6 + _HEADER.pack(event_type) + payload


def _checked(identifier: bytes) -> bytes:
    if len(identifier) != IDENTIFIER_BYTES:
        message = f"an identifier has {IDENTIFIER_BYTES} bytes"
        raise ValueError(message)
    return identifier


def _encode_probe(probe: Probe | ProbeReply) -> bytes:
    if not 0 <= probe.timestamp < 2**64:
        raise ValueError("a probe's timestamp is an unsigned 64-bit number")
    return _PROBE.pack(_checked(probe.identifier), probe.timestamp)


def _encode_goodbye(event: Goodbye) -> bytes:
    code = REASON_CODES.get(event.reason)
    if code is None:
        message = f"no goodbye can say {event.reason!r}"
        raise ValueError(message)
    if event.elapsed_ms < 0:
        raise ValueError("elapsed time is not negative")
    elapsed_ms = min(event.elapsed_ms, _ELAPSED_MS_MAX)
    # Cutting inside a character leaves a broken tail, which "ignore" removes.
    text = event.text.encode("utf-8", "replace")[:TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()
    flags = _LAST_WILL if event.last_will else 0
    return _GOODBYE.pack(PROTOCOL_VERSION, code, flags, _checked(event.identifier), elapsed_ms) + text


def _decode_goodbye(payload: bytes) -> Goodbye | Malformed:
    if not payload:
        return Goodbye(reason="unspecified")
    if len(payload) < _GOODBYE.size:
        return Malformed(event_type=EventType.GOODBYE, evidence="goodbye cut short")
    version, code, flags, identifier, elapsed_ms = _GOODBYE.unpack_from(payload)
    text = ""
    if version == PROTOCOL_VERSION:
        tail = payload[_GOODBYE.size :]
        if len(tail) > TEXT_BYTES_MAX:
            return Malformed(event_type=EventType.GOODBYE, evidence="goodbye text too long")
        text = _printable(tail.decode("utf-8", "replace"))
    return Goodbye(
        reason=_REASONS.get(code, "unspecified"),
        identifier=identifier,
        elapsed_ms=elapsed_ms,
        text=text,
        last_will=bool(flags & _LAST_WILL),
    )


def _printable(text: str) -> str:
    """Replace control characters: the text ends up on terminals, and who wrote it is not us."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
