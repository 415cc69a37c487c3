"""The portal-link actor: keeps the link up, tells its owner what the portal says, says what it is told to say."""

from __future__ import annotations

import os
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from exeunt.runtime import Actor, Later, Refused, receive
from exeunt.runtime.messages import LastWords

from ..succession import hands_over, inherit_if_any, leave
from .actor_messages import (
    PortalAskEvidence,
    PortalClaim,
    PortalDenied,
    PortalEvidence,
    PortalJoined,
    PortalLeave,
    PortalLeft,
    PortalLinkStarted,
    PortalLost,
    PortalReset,
    PortalSaid,
    PortalSay,
)
from .events import LinkDenied, LinkDown, LinkEvent, LinkJoined, LinkMessage
from .io import Link
from .messages import FromPeer, Join, LastWill, LiveConnection
from .static import Listener


class LinkLegacy(msgspec.Struct, frozen=True):
    """What a portal link leaves to its successor."""

    connections: tuple[LiveConnection, ...]
    """What the next join claims as alive."""
    unsaid: tuple[FromPeer, ...]
    wanted: bool
    """Whether there is to be a link: nobody has left or closed it."""


class PortalLink(Actor):
    """The websocket to the portal."""

    def __init__(
        self,
        *,
        url: str,
        token_file: str,
        name: str,
        external_id: str,
        public_key: bytes,
        owner: str,
        listener: dict[str, Any] | None = None,
    ) -> None:
        """`token_file` holds the bearer token; `owner` is told `PortalLinkStarted`, `PortalJoined`, `PortalSaid`,
        `PortalLost`, `PortalDenied`; `listener` is a `Listener`'s fields.
        """
        super().__init__()
        self._url = url
        self._token_file = token_file
        self._join = Join(
            name=name,
            external_id=external_id,
            public_key=public_key,
            version=version("exeunt"),
            listener=msgspec.convert(listener, Listener | None, builtin_types=(bytes,)),
        )
        self._owner = owner
        self._connections: tuple[LiveConnection, ...] = ()

    def on_start(self) -> None:
        """Connect."""
        token = Path(self._token_file).read_text(encoding="utf-8").strip()
        self._link = Link(self._url, token, self._join, on_event=self._on_event, rng=random.Random(os.urandom(8)))  # noqa: S311
        left = inherit_if_any(self, LinkLegacy)
        if left is not None:
            self._claim(left.connections)
            for message in left.unsaid:
                self._link.send(message)
        else:  # perhaps a predecessor crashed: joining without a claim would have the portal end what lives
            self.node.ref(self._owner).tell(PortalLinkStarted())
        if left is None or left.wanted:
            self._link.start()

    async def on_stop(self) -> None:
        """Close the socket; a successor opens another one."""
        if hands_over(self):
            wanted = self._link.state not in ("leaving", "left", "closed")
            leave(self, LinkLegacy(self._connections, self._link.take_unsaid() if wanted else (), wanted))
        await self._link.close()

    async def on_crash(self, failure: object) -> None:
        """Close the socket."""
        await self._link.close()

    @receive(PortalSay)
    def on_say(self, message: PortalSay) -> None:
        """Send it, or hold it until the link is up."""
        self._link.send(message.message, message.join)

    @receive(LastWords)
    def on_last_words(self, message: LastWords) -> None:
        """A worker has died: pass its connections' last wills on (see `peer.will`)."""
        for connection, datagram in message.words.items():
            self._link.send(LastWill(connection=connection, datagram=datagram))

    @receive(PortalClaim)
    def on_claim(self, message: PortalClaim) -> None:
        """Remember what the next join claims as alive."""
        self._claim(
            tuple(
                LiveConnection(connection=connection, peer_id=peer_id, resource_ids=tuple(resource_ids))
                for connection, (peer_id, resource_ids) in message.connections.items()
            )
        )

    @receive(PortalLeave)
    async def on_leave(self, message: PortalLeave) -> PortalLeft:
        """Leave, and say whether the portal knows."""
        if self._link.state == "closed":
            raise Refused("closed", "the link to the portal is closed")
        return PortalLeft(await self._link.leave(message.reason, message.timeout_s))

    @receive(PortalAskEvidence)
    def on_ask_evidence(self, message: PortalAskEvidence) -> Later:
        """Ask the portal, and go on meanwhile."""
        return Later(self._ask_evidence(message))

    @receive(PortalReset)
    def on_reset(self, _message: PortalReset) -> None:
        """Connect anew."""
        self._link.reset()

    def _claim(self, connections: tuple[LiveConnection, ...]) -> None:
        self._connections = connections
        self._link.set_connections(connections)

    async def _ask_evidence(self, message: PortalAskEvidence) -> PortalEvidence:
        return PortalEvidence(await self._link.evidence(message.connection, message.timeout_s))

    def _on_event(self, event: LinkEvent) -> None:
        owner = self.node.ref(self._owner)
        match event:
            case LinkJoined(joined=joined):
                owner.tell(PortalJoined(joined, self._link.counters.joins))
            case LinkMessage(message=message):
                owner.tell(PortalSaid(message))
            case LinkDown():
                owner.tell(PortalLost(event.reason, event.was_joined, event.retry_s))
            case LinkDenied():
                owner.tell(PortalDenied(event.reason, event.requires_sign_in))
            case _:
                pass
