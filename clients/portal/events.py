"""What the portal machine tells: messages for sessions, and facts for the record."""

from typing import Literal

import msgspec

from exeunt.actors.portal.messages import FromPortal, PeerKind

FactKind = Literal["signed_in", "left", "lost", "replaced", "revoked", "authorized", "access_revoked", "ended"]


class Transmit(msgspec.Struct, frozen=True):
    """Send a message on a session."""

    session: int
    message: FromPortal


class CloseSession(msgspec.Struct, frozen=True):
    """Close a session's websocket, after what was transmitted before. `code` as in RFC 6455 section 7.4."""

    session: int
    code: int
    reason: str


Output = Transmit | CloseSession


class SessionFact(msgspec.Struct, frozen=True):
    """Something that happened to a peer, worth a line in the log and in `admin sessions`."""

    kind: FactKind
    peer_kind: PeerKind
    peer_id: str
    detail: str = ""
