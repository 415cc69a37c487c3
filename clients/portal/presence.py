"""Who is here.

A session is one websocket. It belongs to the peer whose token opened it, and it counts as the peer's
presence from its join on. A peer has one session at a time: a newer one replaces the older, which is
usually the same device coming back before we noticed that it had gone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from exeunt.actors.portal.messages import (
    Authorize,
    FromPortal,
    IceRestarted,
    Join,
    PeerGone,
    PeerKind,
    RevokeAccess,
)

from .directory import Identity

RATE_PER_S = 50.0
"""Messages of one peer on its own account."""
BURST = 1000.0
"""So many at once: a gateway with 500 clients whose network has changed wants as many restarts."""

ANSWERS: Mapping[type[FromPortal], int] = MappingProxyType(
    {
        Authorize: 12,  # the answer, candidates as they are found, at last the end
        IceRestarted: 8,
        PeerGone: 2,
        RevokeAccess: 2,
    }
)
"""How many messages a gateway may send on account of one that it was sent: what the portal itself asks for is no
flood. Clients earn nothing; what they ask for has their own limit.
"""
ANSWERS_OF_CONNECTION = 4
"""The same for each of its connections, when what it is sent or claims concerns them all."""
EARNED_LIMIT = 100_000.0
"""Some thousands of connections' worth."""


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
    _earned: float = 0.0
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
        """Take one message from what was earned, or else from the rate limit's token bucket. False: neither has one."""
        self._budget = min(BURST, self._budget + (now - self._budget_at) * RATE_PER_S)
        self._budget_at = now
        if self._earned >= 1:
            self._earned -= 1
        elif self._budget >= 1:
            self._budget -= 1
        else:
            return False
        self._warned = False
        return True

    def earn(self, messages: int) -> None:
        """Allow a gateway so many messages more."""
        if self.kind == "gateway":
            self._earned = min(self._earned + messages, EARNED_LIMIT)

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
