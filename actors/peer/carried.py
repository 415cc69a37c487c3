"""A connection whose ordinary packets may go by a lane (`batch.lanes`): what it says, and is told, of that. Pure.

It moves as ever: what is in the books is what each packet would have told it, only a moment later.
"""

from __future__ import annotations

from ..batch.lanes import Books
from ..wireguard.session import Session
from .machine import Connection


class CarriedConnection(Connection):
    """The machine, with books."""

    @property
    def session_in_use(self) -> Session | None:
        """The session that ordinary packets may go by without coming by here, as long as this does not change."""
        return self.tunnel.current if self.state == "established" else None

    def handle_books(self, books: Books, now: float) -> None:
        """Take note of what went by its lane."""
        self.tunnel.handle_books(books, now)
        if self._liveness is not None:
            for at in filter(None, (books.received_before_at, books.received_at)):
                self._liveness.handle_alive(at)
            if books.unanswered_at:
                self._liveness.handle_sent(books.unanswered_at)
        self._idle.last_traffic_at = max(self._idle.last_traffic_at, books.sent_at, books.delivered_at)
        self._drain_tunnel(now)
