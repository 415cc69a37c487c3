"""Three places for sessions: previous, current and next, so that a rekey loses no packet in flight.

The initiator of a handshake knows, with the response in hand, that both sides have the keys: its new session is current
at once, the old one stays for stragglers. The responder cannot know whether its response arrived: its new session waits
as next, and is used for sending only after a first packet under it came in (WireGuard paper, sections 5.1 and 6.4).

    initiator has response    current → previous, new → current; a waiting next → previous instead
    responder has answered    new → next; previous is dropped, as is an older next
    first packet under next   current → previous, next → current
"""

from collections.abc import Iterator

from .session import Session
from .snapshot import TunnelSnapshot
from .timing import Limits


class KeySlots:
    """The up to three sessions of one tunnel."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the sessions that can still receive."""
        return (session for session in (self.current, self.next, self.previous) if session is not None)

    def find(self, local_index: int) -> Session | None:
        """Return the session with this receiver index."""
        current = self.current
        if current is not None and current.local_index == local_index:
            return current
        for session in self:
            if session.local_index == local_index:
                return session
        return None

    def add_initiated(self, session: Session) -> None:
        """Take in a session whose handshake we began and the peer has answered."""
        self.previous = self.next or self.current
        self.next = None
        self.current = session

    def add_responded(self, session: Session) -> None:
        """Take in a session whose handshake the peer began and we have just answered."""
        self.next = session
        self.previous = None

    def confirm(self, session: Session) -> bool:
        """Note a packet received under a session; True when that was the proof that made it current."""
        if session is not self.next:
            return False
        self.previous = self.current
        self.current = session
        self.next = None
        return True

    def drop_expired(self, now: float) -> bool:
        """Forget the keys of sessions past their time; True when the current one was among them."""
        had_current = self.current is not None
        if self.previous is not None and now >= self.previous.expires_at:
            self.previous = None
        if self.current is not None and now >= self.current.expires_at:
            self.current = None
        if self.next is not None and now >= self.next.expires_at:
            self.next = None
        return had_current and self.current is None

    def next_expiry(self) -> float | None:
        """Return when `drop_expired` will next have something to do."""
        return min((session.expires_at for session in self), default=None)

    def resume(self, snapshot: TunnelSnapshot, limits: Limits) -> None:
        """Take in the sessions of a predecessor."""
        kept = (snapshot.previous, snapshot.current, snapshot.next)
        sessions = (None if one is None else Session.resumed(one, limits) for one in kept)
        self.previous, self.current, self.next = sessions
