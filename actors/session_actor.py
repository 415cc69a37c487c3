"""The session actor: the front door of a session. It stands while the event loop works, and answers when that is
gone.
"""

from __future__ import annotations

import logging

import msgspec

from exeunt.runtime import Actor, ActorDead, AskTimeout, Later, Refused, Terminated, receive

from .endings import Cause
from .messages import DescribeSession, PingPeer, Reset, SessionDescription, SetDns, SetInternetResource, StopSession
from .peer.messages import Pong
from .succession import hands_over, inherit_if_any, leave
from .timing import PING_S

logger = logging.getLogger(__name__)


class SessionLegacy(msgspec.Struct, frozen=True):
    """What a session actor leaves to its successor."""

    leaving: bool


class SessionActor(Actor):
    """Takes commands for the session and passes them to its event loop."""

    def __init__(self, loop: str) -> None:
        """`loop` is the event loop's address."""
        super().__init__()
        self._loop = loop
        self._leaving = False
        self._gone = False

    def on_start(self) -> None:
        """Watch the event loop."""
        left = inherit_if_any(self, SessionLegacy)
        if left is not None:
            self._leaving = left.leaving
        self.node.ref(self._loop).watch()

    def on_stop(self) -> None:
        """Leave to a successor what it has to know."""
        if hands_over(self):
            leave(self, SessionLegacy(self._leaving))

    @receive(StopSession)
    def on_stop_session(self, message: StopSession) -> None:
        """Begin to leave. The first cause stands."""
        if message.cause not in set(Cause):
            raise Refused("no_such_cause", f"{message.cause!r} is no cause of an ending")
        if not self._leaving:
            self._leaving = True
            self.node.ref(self._loop).tell(message)

    @receive(Reset, SetDns, SetInternetResource)
    def on_command(self, message: Reset | SetDns | SetInternetResource) -> None:
        """Pass a command on."""
        self.node.ref(self._loop).tell(message)

    @receive(DescribeSession)
    def on_describe(self, message: DescribeSession) -> Later:
        """Answer with how things are, also while leaving."""
        return Later(self._describe(message))

    @receive(PingPeer)
    def on_ping(self, message: PingPeer) -> Later:
        """Pass a ping on."""
        return Later(self._ping(message))

    @receive(Terminated)
    def on_terminated(self, _message: Terminated) -> None:
        """The event loop is gone."""
        self._gone = True

    async def _describe(self, message: DescribeSession) -> SessionDescription:
        if not self._gone:
            try:
                answer: SessionDescription = await self.node.ref(self._loop).ask(message, timeout_s=2.0)
            except (ActorDead, AskTimeout) as error:
                logger.info("The event loop does not answer", extra={"event": "loop_silent", "error": str(error)})
            else:
                return answer
        session = "leaving" if self._leaving or self._gone else "connecting"
        return SessionDescription(session, (), {}, ())

    async def _ping(self, message: PingPeer) -> Pong:
        if self._gone:
            raise Refused("not_connected", "The session is over.")
        pong: Pong = await self.node.ref(self._loop).ask(message, timeout_s=message.timeout_s + PING_S)
        return pong
