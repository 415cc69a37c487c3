"""Why a datagram or a packet went no further. Counted, never raised: the network may send us anything."""

import enum
from collections.abc import Mapping
from types import MappingProxyType


class DropReason(enum.StrEnum):
    """One name per way to lose a packet."""

    NOT_WIREGUARD = "not_wireguard"
    """Neither type nor size fit any message."""
    BAD_MAC1 = "bad_mac1"
    """A handshake message from someone who does not know our public key."""
    UNDER_LOAD = "under_load"
    """A handshake message answered with a cookie reply instead."""
    RATE_LIMITED = "rate_limited"
    """More handshake messages than one peer or one address may have."""
    BAD_HANDSHAKE = "bad_handshake"
    """A handshake message that does not authenticate as this peer's."""
    REPLAYED_INITIATION = "replayed_initiation"
    """An initiation whose timestamp is not above the last one's."""
    UNEXPECTED_RESPONSE = "unexpected_response"
    """A response to no initiation that is under way."""
    BAD_COOKIE_REPLY = "bad_cookie_reply"
    """A cookie reply that answers nothing we sent."""
    UNKNOWN_INDEX = "unknown_index"
    """Data for a session that is gone or never was."""
    EXPIRED_SESSION = "expired_session"
    """Data under a session past its time or its message limit."""
    BAD_TAG = "bad_tag"
    """Data that does not authenticate."""
    REPLAYED_PACKET = "replayed_packet"
    """Data seen before, or too far behind."""
    BAD_INNER_PACKET = "bad_inner_packet"
    """Authenticated data that is not an IP packet: the peer's fault."""
    QUEUE_OVERFLOW = "queue_overflow"
    """The oldest packet, pushed out of the queue that waits for a handshake."""
    QUEUE_ABANDONED = "queue_abandoned"
    """A packet still queued when the handshake was given up."""


class DropCounts:
    """Counts drops by reason."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[DropReason, int] = {}  # most tunnels drop nothing

    def add(self, reason: DropReason, count: int = 1) -> None:
        """Count a drop."""
        if count:
            self._counts[reason] = self._counts.get(reason, 0) + count

    def snapshot(self) -> Mapping[DropReason, int]:
        """Return the counts so far as a read-only copy; every reason is present."""
        return MappingProxyType(dict.fromkeys(DropReason, 0) | self._counts)
