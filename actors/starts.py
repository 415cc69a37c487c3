"""The connections whose actors are being started, and what is to be told to each once it is there.

A worker that has just died is back in a fifth of a second, or after its back-off, and the supervisor answers only then.
An event loop that waited for that would hear nothing meanwhile: not even the death itself, whose news may be overtaken
by a client that has heard of it and comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from exeunt.runtime import Actor, ChildSpec, Message
from exeunt.runtime.errors import Unavailable
from exeunt.runtime.messages import ActorStarted, StartChild

from .messages import StartAnswered


@dataclass(slots=True)
class _Start:
    answer: asyncio.Future[ActorStarted]
    kept: list[Message] = field(default_factory=list[Message])


class Starts:
    """The starts of one actor's connections, by connection. It is told `StartAnswered` when one is over."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._pending: dict[str, _Start] = {}

    def __contains__(self, connection: str) -> bool:
        return connection in self._pending

    def begin(self, connection: str, spec: ChildSpec) -> None:
        """Have the supervisor start an actor."""
        actor = self._actor
        root = actor.node.ref(f"{actor.ref.address.node}/supervisor/root")
        answer = asyncio.ensure_future(root.ask(StartChild(msgspec.Raw(msgspec.msgpack.encode(spec)))))
        self._pending[connection] = _Start(answer)

        def answered(answer: asyncio.Future[ActorStarted]) -> None:
            if not answer.cancelled():
                actor.ref.tell(StartAnswered(connection))

        answer.add_done_callback(answered)

    def keep(self, connection: str, message: Message) -> bool:
        """Keep a message for an actor that is being started; False when none is."""
        start = self._pending.get(connection)
        if start is None:
            return False
        start.kept.append(message)
        return True

    async def wait(self, connections: Iterable[str], within_s: float) -> None:
        """Return when these have been answered, or it has taken too long."""
        answers = [self._pending[one].answer for one in connections if one in self._pending]
        if answers:
            await asyncio.wait(answers, timeout=within_s)

    def is_answered(self, connection: str) -> bool:
        """Say whether there is a start, and its answer."""
        return connection in self._pending and self._pending[connection].answer.done()

    def take(self, connection: str) -> list[Message]:
        """Return what was kept for an actor that has been started. Raises the supervisor's refusal, or Unavailable: it
        is given up when it has not been answered.
        """
        start = self._pending.pop(connection)
        if not start.answer.done():
            start.answer.cancel()
            raise Unavailable("it was not started in time")
        start.answer.result()
        return start.kept

    def drop(self, connection: str) -> None:
        """Give it up, if it is being started: the connection has ended."""
        start = self._pending.pop(connection, None)
        if start is not None:
            start.answer.cancel()

    def drop_all(self) -> None:
        """Give all of them up."""
        for connection in list(self._pending):
            self.drop(connection)
