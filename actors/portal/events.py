"""What the link machine tells: facts to the session (`LinkEvent`), orders to the socket (`SocketCommand`)."""

from typing import Literal

import msgspec

from .messages import FromPortal, Joined

LinkState = Literal["disconnected", "connecting", "joining", "joined", "leaving", "left", "closed"]


class LinkJoined(msgspec.Struct, frozen=True):
    """The portal confirmed the join; `joined` is the whole state and replaces what was known."""

    joined: Joined


class LinkMessage(msgspec.Struct, frozen=True):
    """The portal said something that concerns the session (not heartbeats, `Left`, `Disconnect`)."""

    message: FromPortal


class LinkDown(msgspec.Struct, frozen=True):
    """The link was lost, or (`was_joined` false) one more try failed; the next try comes in `retry_s`."""

    reason: str
    was_joined: bool = True
    retry_s: float = 0.0


class LinkDenied(msgspec.Struct, frozen=True):
    """The portal will not have us. The link is closed and does not try again."""

    reason: str
    requires_sign_in: bool


class LinkLeft(msgspec.Struct, frozen=True):
    """The leave is over: the portal acknowledged it, or the deadline or a loss came first.

    Unless it was a loss, ends of connections can still be reported.
    """

    acknowledged: bool


LinkEvent = LinkJoined | LinkMessage | LinkDown | LinkDenied | LinkLeft


class OpenSocket(msgspec.Struct, frozen=True):
    """Open a new websocket; what an earlier one still reports does not count."""


class SendFrame(msgspec.Struct, frozen=True):
    """Send one text frame."""

    frame: str


class CloseSocket(msgspec.Struct, frozen=True):
    """Send what is queued, then close the websocket."""


SocketCommand = OpenSocket | SendFrame | CloseSocket
