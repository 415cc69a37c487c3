"""The supervisor's own mailbox: what workers, and actors in them, tell it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec

from .actor import Actor, Later, receive
from .child_spec import ChildSpec
from .errors import ExeuntError, Refused
from .messages import ActorExited, ActorStarted, GroupJoined, GroupLeft, StartChild, WorkerReady
from .ref import Ref


class Root(Actor):
    """The actor `NODE/supervisor/root`."""

    mailbox_bound: ClassVar[int] = 1_000_000  # an exit that is not heard of is a child that is never restarted

    def __init__(
        self,
        *,
        worker_ready: Callable[[WorkerReady], None],
        actor_exited: Callable[[ActorExited], None],
        start_child: Callable[[ChildSpec, str], Awaitable[Ref | None]],
        group_changed: Callable[[GroupJoined | GroupLeft], None],
    ) -> None:
        super().__init__()
        self._worker_ready = worker_ready
        self._actor_exited = actor_exited
        self._start_child = start_child
        self._group_changed = group_changed

    @receive(WorkerReady)
    def on_worker_ready(self, message: WorkerReady) -> None:
        """Note that a worker listens."""
        self._worker_ready(message)

    @receive(ActorExited)
    def on_actor_exited(self, message: ActorExited) -> None:
        """Decide about an actor that has ended."""
        self._actor_exited(message)

    @receive(StartChild)
    def on_start_child(self, message: StartChild) -> Later:
        """Start a further child for an actor."""
        return Later(self._started(message))

    @receive(GroupJoined, GroupLeft)
    def on_group_changed(self, message: GroupJoined | GroupLeft) -> None:
        """Let every worker know who is in a group."""
        self._group_changed(message)

    async def _started(self, message: StartChild) -> ActorStarted:
        try:
            spec = msgspec.msgpack.decode(message.spec, type=ChildSpec)
            ref = await self._start_child(spec, message.under)
        except Refused:
            raise
        except (ExeuntError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refused("start_failed", str(error)) from error
        return ActorStarted(str(ref))
