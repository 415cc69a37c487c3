"""What the parts of the portal machine have decided, in order, until somebody carries it out."""

from collections import deque

from exeunt.actors.portal.messages import FromPortal, PeerKind

from .events import CloseSession, Fact, FactKind, Output, SessionFact, TellEvidence, Transmit
from .presence import ANSWERS, Presence


class Outputs:
    """Two queues: for the sessions, and for the record."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self.transmits: deque[Output] = deque()
        self.facts: deque[Fact] = deque()

    def send(self, session_id: int, message: FromPortal) -> None:
        """To a session, which may answer."""
        session = self._presence.get(session_id)
        if session is not None:
            session.earn(ANSWERS.get(type(message), 0))
        self.transmits.append(Transmit(session_id, message))

    def send_peer(self, peer_id: str, message: FromPortal) -> bool:
        """To a peer, if it is present."""
        session = self._presence.of(peer_id)
        if session is None:
            return False
        self.send(session.id, message)
        return True

    def close(self, session_id: int, code: int, reason: str) -> None:
        """Close a session after what it was sent."""
        self.transmits.append(CloseSession(session_id, code, reason))

    def tell_evidence(self, session_id: int, ref: int, connection_id: str, peer_id: str) -> None:
        """To a session: what the record has on a connection."""
        self.transmits.append(TellEvidence(session_id, ref, connection_id, peer_id))

    def tell(
        self, kind: FactKind, peer_kind: PeerKind, peer_id: str, detail: str = "", *, connection_id: str = ""
    ) -> None:
        """For the record."""
        self.facts.append(SessionFact(kind, peer_kind, peer_id, detail, connection_id))

    def note(self, fact: Fact) -> None:
        """For the record, without a line in the log."""
        self.facts.append(fact)
