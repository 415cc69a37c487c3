"""A worker process: boots, hosts actors, drains, leaves.

It is started by forkserver or spawn (never fork: threads and locks don't survive one), is told what to be by one
msgpack document, and reports `WorkerReady`. Its `Host` actor does what the supervisor says. It ignores SIGINT and
SIGTERM: leaving has an order, and the supervisor knows it. If the supervisor dies, the pipe that multiprocessing
keeps to it closes, and the worker stops its actors, who say their goodbyes, and leaves by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from . import log
from .actor import Actor, Later, receive
from .codec import Codec
from .envelope import Message
from .errors import ActorDead, Failure, LocalError, NameTaken, Refused
from .messages import (
    MESSAGES,
    ActorExited,
    ActorRow,
    ActorStarted,
    Describe,
    Description,
    Done,
    Leave,
    StartActor,
    StopActor,
    WorkerDown,
    WorkerReady,
    WorkerUp,
)
from .node import Node
from .privileges import drop_capabilities
from .recorder import Recorder
from .transport import Transport, endpoint

logger = logging.getLogger(__name__)

ORPHAN_LEAVE_S = 0.7  # an orphan has a second in all: its actors get most of it for their goodbyes
EXIT_ORPHANED = 70
_KILL_S = 0.1  # for an actor to notice its cancellation; one that still goes on ends with its process


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told when it starts."""

    node: str
    worker: str
    epoch: int
    ipc_dir: str
    log_file: str
    log_level: str
    trace_file: str
    supervisor: str
    """The supervisor's endpoint."""
    messages: tuple[str, ...]
    """`package.module:NAME` of tuples of message types, beside the runtime's own."""
    unprivileged: bool


def load(path: str) -> Any:
    """Return what `package.module:name` names. Raises LocalError when there is no such thing."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalError(f"cannot load {path!r}: {error}") from error


def codec_for(paths: tuple[str, ...]) -> Codec:
    """Build the codec that knows the runtime's messages and those that `paths` name."""
    types: list[type[Message]] = list(MESSAGES)
    for path in paths:
        types.extend(load(path))
    return Codec(types)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop where it is installed (a datagram costs a fifth of the stock loop's), else asyncio's own."""
    try:
        import uvloop  # absent on Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Host(Actor):
    """The actor in each worker that does what the supervisor says: start, describe, leave."""

    def __init__(self, supervisor: str, finished: asyncio.Event) -> None:
        super().__init__()
        self._supervisor = supervisor
        self._finished = finished

    @receive(WorkerUp)
    def on_worker_up(self, message: WorkerUp) -> Done:
        """Learn where another worker is."""
        self.node.worker_up(message.worker, message.endpoint)
        return Done()

    @receive(WorkerDown)
    def on_worker_down(self, message: WorkerDown) -> Done:
        """Learn that another worker is gone."""
        self.node.worker_down(message.worker)
        return Done()

    @receive(StartActor)
    def on_start_actor(self, message: StartActor) -> Later:
        """Start an actor; answer when its `on_start` has run, which may itself have others started here."""
        if message.name in self.node.actors:
            raise Refused(NameTaken.__name__, f"{message.name} already lives")
        try:
            args: dict[str, Any] = msgspec.msgpack.decode(message.args)
            actor: Actor = load(message.start)(**args)
            self.node.start(actor, message.name, incarnation=message.incarnation)
        except Exception as error:
            logger.exception("An actor could not be started", extra={"event": "start_failed", "start": message.start})
            raise Refused("start_failed", f"{message.name}: {type(error).__name__}: {error}") from error
        return Later(_started(actor))

    @receive(StopActor)
    def on_stop_actor(self, message: StopActor) -> Later:
        """Stop an actor; answer when it has ended."""
        return Later(self._stop_actor(message))

    async def _stop_actor(self, message: StopActor) -> Done:
        actor = self.node.actors.get(message.name)
        if actor is not None:
            await stop_one(self.node, actor, message.reason, within_s=message.shutdown_ms / 1000)
        return Done()

    @receive(Describe)
    def on_describe(self, _message: Describe) -> Description:
        """Say who lives here."""
        return describe(self.node)

    @receive(Leave)
    async def on_leave(self, message: Leave) -> None:
        """Stop everybody, last started first, then let the process end."""
        await stop_all(self.node, message.reason, except_=self)
        self._finished.set()
        self.stop()


async def _started(actor: Actor) -> ActorStarted:
    try:
        await asyncio.shield(actor.started)
    except ActorDead as error:
        raise Refused("start_failed", str(error)) from error
    return ActorStarted(str(actor.ref))


def describe(node: Node) -> Description:
    """Describe the actors of a process."""
    rows = tuple(
        ActorRow(
            address=str(actor.ref),
            kind=type(actor).__name__,
            state=actor.state,
            mailbox=len(actor.mailbox),
            handled_total=actor.handled_total,
            incarnation=actor.incarnation,
            started_ns=actor.started_ns,
        )
        for actor in node.actors.values()
    )
    return Description(rows, node.dead_letters_total)


async def stop_all(node: Node, reason: str, *, except_: Actor | None = None, each_s: float = 5.0) -> None:
    """Stop the actors of a process one after another, last started first; kill one that takes longer than `each_s`."""
    for actor in reversed(list(node.actors.values())):
        if actor is not except_:
            await stop_one(node, actor, reason, within_s=each_s)


async def stop_one(node: Node, actor: Actor, reason: str, *, within_s: float) -> None:
    """Stop an actor and return when it has ended; kill it if that takes longer than `within_s` (0: at once)."""
    task = actor.task
    if task is None or task.done():
        return
    if within_s > 0:
        node.stop_actor(str(actor.ref), reason)
        await asyncio.wait({task}, timeout=within_s)
    if not task.done():
        if within_s > 0:
            logger.warning(
                "An actor did not stop in time and is killed", extra={"event": "actor_killed", "of": str(actor.ref)}
            )
        actor.kill()
        await asyncio.wait({task}, timeout=_KILL_S)


def main(document: bytes) -> None:
    """Be a worker: the target of the process. Never returns."""
    boot = msgspec.msgpack.decode(document, type=Boot)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _name_process(f"{boot.node}:{boot.worker}")
    log.configure(Path(boot.log_file), level=boot.log_level, node=boot.node, worker=boot.worker, pid=os.getpid())
    if boot.unprivileged:
        drop_capabilities()
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        code = loop.run_until_complete(_run(boot, loop))
    except Exception:
        logger.exception("A worker could not run", extra={"event": "worker_failed"})
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # every actor has ended; interpreter teardown would only cost tens of milliseconds of the leave


def begin(node: Node, boot: Boot) -> asyncio.Event:
    """Be a worker from now on: start the host, report to the supervisor. The event is set when the worker is to end."""
    supervisor = f"{boot.node}/supervisor/root"
    finished = asyncio.Event()

    def exited(actor: Actor, reason: str, failure: Failure | None) -> None:
        if actor is host:
            finished.set()  # a worker without its host is nobody's
        if not actor.has_started:
            return  # who asked for its start is answered
        message = ActorExited(actor.ref.address.name, boot.worker, actor.incarnation, reason, failure)
        node.tell(supervisor, message)

    node.on_exit = exited
    host = Host(supervisor, finished)
    node.start(host, "host")
    node.tell(supervisor, WorkerReady(boot.worker, boot.epoch, os.getpid()))
    return finished


async def _run(boot: Boot, loop: asyncio.AbstractEventLoop) -> int:
    recorder = Recorder(Path(boot.trace_file), worker=boot.worker, epoch=boot.epoch)
    node = Node(boot.node, boot.worker, codec=codec_for(boot.messages), loop=loop, recorder=recorder)
    node.transport = Transport(
        endpoint(Path(boot.ipc_dir), boot.worker, boot.epoch),
        identity=f"{boot.worker}.{boot.epoch}",
        on_frame=node.handle_frame,
        loop=loop,
    )
    node.worker_up("supervisor", boot.supervisor)
    orphaned = _watch_parent(loop)
    finished = begin(node, boot)
    done, _ = await asyncio.wait(
        {loop.create_task(finished.wait()), loop.create_task(orphaned.wait())},
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert done
    code = 0
    if orphaned.is_set():
        code = EXIT_ORPHANED
        logger.warning("The supervisor died; this worker leaves", extra={"event": "supervisor_died"})
        node.worker_down("supervisor")  # what is queued for it must not hold up the end
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop_all(node, "supervisor_died"), ORPHAN_LEAVE_S)
    await asyncio.sleep(0)  # the last exits are flushed by this turn
    node.transport.close()
    recorder.close()
    return code


def _watch_parent(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that is set when the process that started this one has ended."""
    orphaned = asyncio.Event()
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def gone() -> None:
        loop.remove_reader(sentinel)
        orphaned.set()

    loop.add_reader(sentinel, gone)
    return orphaned


def _name_process(name: str) -> None:
    """Let `ps` and `top` show the worker's name (15 characters of it)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15], encoding="ascii", errors="replace")
