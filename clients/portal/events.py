"""What the portal machine tells: messages for sessions, and facts for the record."""

from typing import Literal

import msgspec

from exeunt.actors.portal.messages import FromPortal, PeerKind
from exeunt.actors.portal.reports import EndingReport
from exeunt.actors.portal.static import Listener

FactKind = Literal[
    "signed_in",
    "left",
    "lost",
    "replaced",
    "revoked",
    "authorized",
    "access_revoked",
    "ice_restarted",
    "ended",
    "last_will",
]

ClosedHow = Literal["reset", "closed", "silent", "not_reading", "not_joined", "portal_stopping"]
"""How a websocket came to its end: `reset` when its TCP connection did without a close frame, `closed` with one; the
others are the portal's own doing."""


class Transmit(msgspec.Struct, frozen=True):
    """Send a message on a session."""

    session: int
    message: FromPortal


class CloseSession(msgspec.Struct, frozen=True):
    """Close a session's websocket, after what was transmitted before. `code` as in RFC 6455 section 7.4."""

    session: int
    code: int
    reason: str


class TellEvidence(msgspec.Struct, frozen=True):
    """Look up what is known of a connection, and send as `Evidence` what this peer may know of it."""

    session: int
    ref: int
    connection: str
    peer_id: str


Output = Transmit | CloseSession | TellEvidence


class SessionFact(msgspec.Struct, frozen=True):
    """Something that happened to a peer, worth a line in the log and in `admin sessions`."""

    kind: FactKind
    peer_kind: PeerKind
    peer_id: str
    detail: str = ""
    connection: str = ""


class ConnectionMade(msgspec.Struct, frozen=True):
    """The portal knows of a connection that it did not know of."""

    connection: str
    client_id: str
    gateway_id: str


class EndReported(msgspec.Struct, frozen=True):
    """An end of a connection says how it ended; whether it is an end of it, the record must check."""

    connection: str
    peer_id: str
    cause: str
    report: EndingReport | None


class ListenerKnown(msgspec.Struct, frozen=True):
    """A gateway says where it listens for static peers; None: it doesn't."""

    gateway_id: str
    listener: Listener | None


Fact = SessionFact | ConnectionMade | EndReported | ListenerKnown
