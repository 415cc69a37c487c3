"""How long nobody has needed a connection. Pure.

Only traffic counts: probes, keepalives and handshakes keep a connection alive, but nobody needs it for those. The
deadline is not moved with each packet; when it comes, it is looked at what has happened since.
"""

from __future__ import annotations


class Idle:
    """When a connection that nobody needs is to end. All times are seconds of one monotonic clock."""

    def __init__(self, after_s: float | None) -> None:
        """`after_s` without traffic it ends; None: never."""
        self._after_s = after_s
        self._due_at: float | None = None
        self.last_traffic_at = 0.0
        """To be set with each packet, or with many."""

    def begin(self, now: float) -> None:
        """It can be used from now on."""
        self.last_traffic_at = now
        if self._after_s is not None:
            self._due_at = now + self._after_s

    def handle_timeout(self, now: float) -> float | None:
        """Return for how long it has not been needed, if that is the end."""
        if self._due_at is None or self._after_s is None or now < self._due_at:
            return None
        self._due_at = self.last_traffic_at + self._after_s
        return now - self.last_traffic_at if now >= self._due_at else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why."""
        return None if self._due_at is None else (self._due_at, "idle")
