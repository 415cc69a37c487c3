"""A tunnel on paper: what a successor needs to go on with it in another process of this host.

Keys, counters and replay windows of the sessions; when things happened; the newest timestamps of both sides. What is
left out costs a repetition at most: a handshake under way (its ephemeral key cannot leave the library that made it),
and a cookie. Times are the monotonic clock's, which all processes of a host share.

It holds secrets: it goes through memory only, never to a disk or a log.
"""

import msgspec

from .handshake import TransportKeys

COUNTER_MARGIN = 1024
"""Counters that a successor leaves out. Nothing was sent under them, if the snapshot was taken after the last packet;
should a caller get that wrong, up to so many packets do no harm. It is well within the receiver's replay window, so
packets that are still under way are taken."""


class SessionSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of transport keys, and how far they have been used."""

    keys: TransportKeys
    initiated: bool
    established_at: float
    expires_at: float
    send_counter: int
    highest: int
    """The highest counter received, or -1."""
    words: tuple[int, ...]
    """The replay window's ring."""
    will: bytes | None
    """The one packet that was sealed under the reserved counter: there must not be another."""

    def __repr__(self) -> str:
        """Never show a key in a log or a traceback."""
        return f"SessionSnapshot({self.keys!r})"


class TunnelSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel between two packets."""

    previous: SessionSnapshot | None
    current: SessionSnapshot | None
    next: SessionSnapshot | None
    timers: dict[str, float]
    """When each timer is due, by its name."""
    queue: tuple[bytes, ...]
    """Inner packets that wait for a handshake."""
    sent_timestamp_ns: int
    """Of our latest initiation: a successor's must be above it."""
    received_timestamp: bytes
    """Of the peer's latest initiation: one that is not above it is a replay."""
    rx_bytes: int
    tx_bytes: int
    last_received_at: float | None
    last_sent_at: float | None
    handshake_at: float | None

    def __repr__(self) -> str:
        """Never show a packet in a log or a traceback."""
        return "TunnelSnapshot()"
