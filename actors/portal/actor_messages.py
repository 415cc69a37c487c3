"""What the portal link tells its owner, and is told."""

from __future__ import annotations

from exeunt.runtime import Message

from .messages import Evidence, FromPeer, FromPortal, Joined


class PortalLinkStarted(Message, frozen=True):
    """The link begins, and knows of no connection that it could claim."""


class PortalJoined(Message, frozen=True):
    """The portal confirmed the join: the whole state."""

    joined: Joined
    join: int
    """Which join of this link it is."""


class PortalSaid(Message, frozen=True):
    """The portal said something."""

    message: FromPortal


class PortalLost(Message, frozen=True):
    """The link is down; it is being tried again."""

    reason: str
    was_joined: bool
    retry_s: float


class PortalDenied(Message, frozen=True):
    """The portal will not have us; the link does not try again."""

    reason: str
    requires_sign_in: bool


class PortalSay(Message, frozen=True):
    """Say this to the portal, now or when the link is up."""

    message: FromPeer
    join: int | None = None
    """For a request: the latest join that its maker knows of. After a later one it is made again."""


class PortalClaim(Message, frozen=True):
    """Live connections (connection id to peer id and resource ids), to be claimed at the next join."""

    connections: dict[str, tuple[str, tuple[str, ...]]]


class PortalLeave(Message, frozen=True):
    """Say goodbye to the portal; answered by `PortalLeft`."""

    reason: str
    timeout_s: float


class PortalLeft(Message, frozen=True):
    """Whether the portal acknowledged it in time."""

    acknowledged: bool


class PortalReset(Message, frozen=True):
    """The network changed: connect anew."""


class PortalAskEvidence(Message, frozen=True):
    """What does the portal know of this connection? Answered by `PortalEvidence`."""

    connection: str
    timeout_s: float


class PortalEvidence(Message, frozen=True):
    """What the portal says, or None: the link is down, or the portal did not answer in time."""

    evidence: Evidence | None


MESSAGES: tuple[type[Message], ...] = (
    PortalLinkStarted,
    PortalJoined,
    PortalSaid,
    PortalLost,
    PortalDenied,
    PortalSay,
    PortalClaim,
    PortalLeave,
    PortalLeft,
    PortalReset,
    PortalAskEvidence,
    PortalEvidence,
)
