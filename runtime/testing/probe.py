"""An actor that a test speaks through: it sends as an actor does, and checks what it is told, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..actor import Actor
from ..context import CURRENT, stand_in
from ..envelope import Message
from ..node import Node
from ..ref import Ref

M = TypeVar("M", bound=Message)


class Probe(Actor):
    """Takes every message, and keeps it until the test expects it. It answers asks by `answers`, else with None."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[type[Message], Message | Callable[[Any], Message | None]] = {}
        """What to answer to a message of that type: a message, or a function of the one that came. It may raise."""
        self.received: list[Message] = []
        """All that ever came, in order."""
        self.last_sender: Ref | None = None
        """Who sent what was expected last; None if that was no actor."""
        self._waiting: deque[tuple[Message, Ref | None]] = deque()
        self._arrived = asyncio.Event()

    @classmethod
    def on(cls, node: Node, name: str = "probe") -> Probe:
        """Start one. Raises NameTaken."""
        probe = cls()
        node.start(probe, name)
        return probe

    def on_receive(self, message: Any) -> Message | None:
        """Keep it; answer as told."""
        self.received.append(message)
        self._waiting.append((message, self.sender))
        self._arrived.set()
        kind = cast("type[Message]", type(message))
        answer = self.answers.get(kind)
        return answer if answer is None or isinstance(answer, Message) else answer(message)

    async def expect(self, kind: type[M], *, within_s: float = 1.0) -> M:
        """Return the next message. Raises AssertionError when it is of another type, or none comes in time."""
        try:
            async with asyncio.timeout(within_s):
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} came within {within_s:g} s") from None
        message, self.last_sender = self._waiting.popleft()
        if not isinstance(message, kind):
            raise AssertionError(f"expected {kind.__name__}, and got {message!r}")  # noqa: TRY004 - it is an assertion
        return message

    def expect_nothing(self) -> None:
        """Check that no message waits. Raises AssertionError. Call `wait_until_idle` first."""
        if self._waiting:
            raise AssertionError(f"expected nothing, and got {[message for message, _ in self._waiting]!r}")

    def tell(self, to: str | Ref, message: Message) -> None:
        """Send as this actor: whoever gets it can reply to `sender`."""
        token = CURRENT.set(stand_in(0, 0, str(self.ref)))
        try:
            self.node.tell(str(to), message)
        finally:
            CURRENT.reset(token)

    def watch(self, target: str | Ref) -> None:
        """Have a `Terminated` come when the other ends."""
        token = CURRENT.set(stand_in(0, 0, str(self.ref)))
        try:
            self.node.watch(str(target))
        finally:
            CURRENT.reset(token)
