"""Who is here.

A session is one websocket. It belongs to the peer whose token opened it, and it counts as the peer's
presence from its join on. A peer has one session at a time: a newer one replaces the older, which is
usually the same device coming back before we noticed that it had gone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from exeunt.actors.portal.messages import Join, PeerKind

from .directory import Identity

RATE_PER_S = 50.0
"""Messages. A restarted gateway with 250 clients sends about this much for a few seconds."""
BURST = 1000.0
"""A gateway with 500 clients that leaves reports as many endings at once; a storm of wishes may come just before."""


@dataclass(slots=True)
class Session:
    """One websocket's state."""

    id: int
    identity: Identity
    opened_at: float
    last_seen: float
    join: Join | None = None
    leaving: bool = False
    """The peer said goodbye: it is no longer chosen, and its end is not a loss."""
    leaving_reason: str = ""
    relays_fresh_until: float = 0.0
    _budget: float = BURST
    _budget_at: float = field(init=False)
    _warned: bool = False

    def __post_init__(self) -> None:
        self._budget_at = self.opened_at

    @property
    def peer_id(self) -> str:
        """Whose session it is."""
        return self.identity.peer_id

    @property
    def kind(self) -> PeerKind:
        """Client or gateway."""
        return self.identity.kind

    def spend(self, now: float) -> bool:
        """Take one message from the rate limit's token bucket. False: there was none."""
        self._budget = min(BURST, self._budget + (now - self._budget_at) * RATE_PER_S)
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        self._warned = False
        return True

    def warn_once(self) -> bool:
        """Whether to say that the limit was hit: once for each time that it is, or the answers would be a
        flood.
        """
        warned, self._warned = self._warned, True
        return not warned


class Presence:
    """All sessions, and which of them is whose."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._present: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, session: Session) -> None:
        """A websocket was opened; its peer is not present before `join`."""
        self._sessions[session.id] = session

    def get(self, session_id: int) -> Session | None:
        """A session that is still open."""
        return self._sessions.get(session_id)

    def join(self, session: Session, join: Join) -> Session | None:
        """The peer is present from now on. Returns the session that this one replaces."""
        session.join = join
        before = self._present.get(session.peer_id)
        self._present[session.peer_id] = session
        return before

    def remove(self, session: Session) -> bool:
        """A session is over. Whether that ended its peer's presence."""
        self._sessions.pop(session.id, None)
        if self._present.get(session.peer_id) is not session:
            return False
        del self._present[session.peer_id]
        return True

    def of(self, peer_id: str) -> Session | None:
        """The session of a peer that is present."""
        return self._present.get(peer_id)
