"""The actor in each worker that does what the supervisor says, and how the actors of a process are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Literal

import msgspec

from .actor import Actor, Later, receive
from .errors import ActorDead, NameTaken, Refused
from .events import ActorStarted as Started
from .facts import Look, Seen, Snapshot, TakeSnapshot, describe, look, snapshot
from .inheritance import HAND_OVER
from .loading import load
from .mail import MAIL
from .messages import (
    ActorStarted,
    Describe,
    Description,
    Done,
    GroupJoined,
    GroupLeft,
    Leave,
    NamesChanged,
    StartActor,
    StopActor,
    WorkerChanging,
    WorkerDown,
    WorkerUp,
)
from .node import Node

logger = logging.getLogger(__name__)

_SETTLE_S = 0.3  # for other workers to say what became of the last tells; they do so within 0.05 s, if they live
_CLEAR_S = 1.0  # for the supervisor to read what is handed over; it does so in some milliseconds
_KILL_S = 0.1  # for an actor to notice its cancellation; one that still goes on ends with its process


class Host(Actor):
    """The actor in each worker that does what the supervisor says: start, describe, leave."""

    def __init__(self, supervisor: str, finished: asyncio.Event) -> None:
        super().__init__()
        self._supervisor = supervisor
        self._finished = finished
        self._children: dict[str, int] = {}

    def has_started_child(self, actor: Actor) -> bool:
        """Say whether the supervisor had this one started here; asked once, when it has ended."""
        name = actor.ref.address.name
        if self._children.get(name) != actor.incarnation:
            return False
        del self._children[name]
        return True

    @receive(WorkerUp)
    def on_worker_up(self, message: WorkerUp) -> Done:
        """Learn where another worker is."""
        self.node.worker_up(message.worker, message.endpoint, message.public_key)
        return Done()

    @receive(WorkerDown)
    def on_worker_down(self, message: WorkerDown) -> Done:
        """Learn that another worker is gone."""
        self.node.worker_down(message.worker, message.ring, succeeded=message.succeeded)
        return Done()

    @receive(WorkerChanging)
    def on_worker_changing(self, message: WorkerChanging) -> Done:
        """Learn that another worker is about to hand over."""
        self.node.worker_changing(message.worker)
        return Done()

    @receive(NamesChanged)
    def on_names_changed(self, message: NamesChanged) -> None:
        """Learn where children live."""
        self.node.names.hear(message)

    @receive(GroupJoined, GroupLeft)
    def on_group_changed(self, message: GroupJoined | GroupLeft) -> None:
        """Learn who is in a group."""
        self.node.groups.hear(message)

    @receive(StartActor)
    def on_start_actor(self, message: StartActor) -> Later:
        """Start an actor; answer when its `on_start` has run, which may itself have others started here."""
        if message.name in self.node.actors:
            raise Refused(NameTaken.__name__, f"{message.name} already lives")
        try:
            args: dict[str, Any] = msgspec.msgpack.decode(message.args)
            actor: Actor = load(message.start)(**args)
            self.node.start(actor, message.name, incarnation=message.incarnation)
            self._children[message.name] = message.incarnation
        except Exception as error:
            logger.exception("An actor could not be started", extra={"event": "start_failed", "start": message.start})
            raise Refused("start_failed", f"{message.name}: {type(error).__name__}: {error}") from error
        return Later(self._started(actor))

    async def _started(self, actor: Actor) -> ActorStarted:
        try:
            await asyncio.shield(actor.started)
        except ActorDead as error:
            raise Refused("start_failed", str(error)) from error
        address = str(actor.ref)
        self.node.happened(Started(address, kind=type(actor).__name__, incarnation=actor.incarnation))
        return ActorStarted(address)

    @receive(StopActor)
    def on_stop_actor(self, message: StopActor) -> Later:
        """Stop an actor; answer when it has ended."""
        return Later(self._stop_actor(message))

    async def _stop_actor(self, message: StopActor) -> Done:
        actor = self.node.actors.get(message.name)
        if actor is not None and message.incarnation in (0, actor.incarnation):  # a successor is not meant
            within_s = message.shutdown_ms / 1000 if message.shutdown_ms >= 0 else None
            await stop_one(self.node, actor, message.reason, within_s=within_s)
            if actor.state != "exited":
                raise Refused("does_not_end", f"{message.name} goes on although it was killed")
        return Done()

    @receive(Describe)
    def on_describe(self, _message: Describe) -> Description:
        """Say who lives here."""
        return describe(self.node)

    @receive(Look)
    def on_look(self, message: Look) -> Seen:
        """Say what there is to see here, where there is no other way to look."""
        return Seen(msgspec.Raw(look(self.node, message)))

    @receive(TakeSnapshot)
    def on_take_snapshot(self, message: TakeSnapshot) -> Later:
        """Have an actor describe its own state."""
        return Later(self._take_snapshot(message.name))

    async def _take_snapshot(self, name: str) -> Snapshot:
        actor = self.node.actors.get(name)
        if actor is None:
            raise Refused("no_such_actor", f"{name} does not live")
        return await snapshot(actor)

    @receive(Leave)
    def on_leave(self, message: Leave) -> Later:
        """Stop everybody, last started first, then let the process end. News of other workers is heard meanwhile."""
        return Later(self._leave(message))

    async def _leave(self, message: Leave) -> None:
        if message.reason == HAND_OVER:
            self.node.mail.begin()
        await stop_all(self.node, message.reason, except_=self)
        if message.reason == HAND_OVER:
            self._leave_mail()
        else:
            self.node.deposits.withdraw_all()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.node.deposits.until_clear(), _CLEAR_S)
        await self.node.until_settled(_SETTLE_S)
        self._finished.set()
        self.stop()

    def _leave_mail(self) -> None:
        document, left = self.node.mail.pack(self.node.codec)
        try:
            self.node.deposits.bequeath(MAIL, document)
        except ValueError:  # more than a document holds: then it is lost, as it would be with a crash
            logger.warning("Late mail was too much to be handed over", extra={"event": "mail_lost"})
        for envelope in left:
            self.node.gone(envelope, ActorDead(f"{envelope.to} ended before it handled this"))


async def stop_all(node: Node, reason: str, *, except_: Actor | None = None, each_s: float = 5.0) -> None:
    """Stop the actors of a process one after another, last started first; kill one that takes longer than `each_s`."""
    for actor in reversed(list(node.actors.values())):
        if actor is not except_:
            await stop_one(node, actor, reason, within_s=each_s)


async def stop_one(node: Node, actor: Actor, reason: str, *, within_s: float | None) -> None:
    """Stop an actor and return when it has ended; kill it if that takes longer than `within_s` (0: at once; None: it
    may take as long as it wants). Who hands over first handles what waits: nobody else will.
    """
    if within_s != 0 and actor.state != "exited":
        how: Literal["drain", "stop"] = "drain" if reason == HAND_OVER else "stop"
        node.stop_actor(str(actor.ref), reason, how=how, incarnation=actor.incarnation)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(actor.until_ended(), within_s)
            return
        extra = {"event": "actor_killed", "of": str(actor.ref)}
        logger.warning("%s did not stop in time and is killed", actor.ref, extra=extra)
    actor.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(actor.until_ended(), _KILL_S)
