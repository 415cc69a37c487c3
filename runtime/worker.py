"""A worker process: boots, hosts actors, drains, leaves.

It is started by forkserver or spawn (never fork: threads and locks don't survive one), is told what to be by one
msgpack document, and reports `WorkerReady`. Its `Host` actor (`host`) does what the supervisor says. It ignores SIGINT
and SIGTERM: leaving has an order, and the supervisor knows it. If the supervisor dies, the pipe that multiprocessing
keeps to it closes, and the worker stops its actors, who say their goodbyes, and leaves by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from . import log
from .actor import Actor
from .deposits import Deposits
from .errors import Failure
from .events import ActorEnded, Event
from .facts import answer
from .host import Host, stop_all
from .inheritance import DEADLINE_S
from .loading import codec_for
from .mail import MAIL, unpack
from .messages import (
    ActorExited,
    GroupJoined,
    GroupLeft,
    WorkerReady,
)
from .node import Node
from .privileges import drop_capabilities
from .recorder import Recorder
from .side_door import SideDoor, dump_on_signal, dump_path, socket_path
from .transport import Transport, endpoint
from .wakeups import add_reader, call_later, new_event_loop

logger = logging.getLogger(__name__)

ORPHAN_LEAVE_S = 0.7  # an orphan has a second in all: its actors get most of it for their goodbyes
EXIT_ORPHANED = 70
GC_THRESHOLDS = (10_000, 20, 20)
"""An actor that has ended is freed without the collector; with Python's own thresholds it takes a seventh of what a
worker with 500 idle connections costs."""


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker is told when it starts."""

    node: str
    worker: str
    epoch: int
    ipc_dir: str
    log_file: str
    log_level: str
    trace_file: str
    """Its flight recorder's; none keeps no record."""
    supervisor: str
    """The supervisor's endpoint."""
    messages: tuple[str, ...]
    """`package.module:NAME` of tuples of message types, beside the runtime's own."""
    unprivileged: bool
    estate: str = ""
    """Where it deposits its last words; nothing where the supervisor could not say them."""
    inherits: bool = False
    """Whether its predecessor has left it something; it waits for that before it begins."""
    expects: tuple[str, ...] = ()
    """Then: the names of the actors that will be started in it."""
    resources: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """What it needs of its machine; for the engine that places it."""


def main(document: bytes) -> None:
    """Be a worker: the target of the process. Never returns."""
    boot = msgspec.msgpack.decode(document, type=Boot)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    name_process(f"{boot.node}:{boot.worker}")
    log.configure(Path(boot.log_file), level=boot.log_level, node=boot.node, worker=boot.worker, pid=os.getpid())
    if boot.unprivileged:
        drop_capabilities()
    gc.freeze()  # the modules live as long as the worker: looking them over would only copy the pages that it shares
    gc.set_threshold(*GC_THRESHOLDS)
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
        if failure is not None or host.has_started_child(actor):
            error = f"{failure.type}: {failure.message}" if failure is not None else ""
            node.happened(ActorEnded(str(actor.ref), reason=reason, error=error, incarnation=actor.incarnation))
        message = ActorExited(actor.ref.address.name, boot.worker, actor.incarnation, reason, failure)
        node.tell(supervisor, message)

    def group_changed(message: GroupJoined | GroupLeft) -> None:
        node.tell(supervisor, msgspec.structs.replace(message, worker=boot.worker, epoch=boot.epoch))

    def happened(event: Event) -> None:
        node.system_because(None, f"{boot.node}/supervisor/$node", event, sender=node.outside)

    node.on_exit = exited
    node.events.subscribe(happened)
    node.groups.on_change = group_changed
    host = Host(supervisor, finished)
    node.start(host, "host")
    node.tell(supervisor, WorkerReady(boot.worker, boot.epoch, os.getpid()))
    return finished


async def serve(node: Node, boot: Boot, orphaned: asyncio.Event) -> int:
    """Be a worker until the supervisor says leave, or until it is `orphaned`; return the exit code."""
    finished = begin(node, boot)
    await _first(finished.wait(), orphaned.wait())
    code = 0
    if orphaned.is_set():
        code = EXIT_ORPHANED
        logger.warning("The supervisor died; this worker leaves", extra={"event": "supervisor_died"})
        node.worker_down("supervisor")  # what is queued for it must not hold up the end
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop_all(node, "supervisor_died"), ORPHAN_LEAVE_S)
    await asyncio.sleep(0)  # the last exits are flushed by this turn
    return code


async def _run(boot: Boot, loop: asyncio.AbstractEventLoop) -> int:
    ring = Path(boot.trace_file) if boot.trace_file else None
    recorder = Recorder(ring, worker=boot.worker, epoch=boot.epoch) if ring is not None else None
    node = Node(boot.node, boot.worker, codec=codec_for(boot.messages), loop=loop, recorder=recorder)
    node.transport = Transport(
        endpoint(Path(boot.ipc_dir), boot.worker, boot.epoch),
        on_frame=node.handle_frame,
        loop=loop,
        codec=node.codec,
    )
    node.worker_up("supervisor", boot.supervisor)
    door = _open_side_door(node, boot)
    node.deposits = _open_deposits(boot)
    orphaned = _watch_parent(loop)
    if boot.inherits and node.deposits.is_kept:
        await _first(node.deposits.until_inherited(), orphaned.wait())
        _succeed(node, boot)
    code = await serve(node, boot, orphaned)
    node.transport.close()
    if recorder is not None:
        recorder.close()
    if door is not None:
        door.close()
    return code


def _succeed(node: Node, boot: Boot) -> None:
    """Have what is said to the actors that will live here wait for them, what came too late for their predecessors
    first of all.
    """
    node.mail.expect(f"{node.prefix}{name}" for name in boot.expects)
    late = node.deposits.inherit(MAIL)
    if late is not None:
        for envelope in unpack(late.document, node.codec):
            node.deliver(envelope)
        node.deposits.taken(MAIL)
    call_later(node.loop, DEADLINE_S, "inheritance", node.expect_nobody)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them is over."""
    await asyncio.wait({asyncio.ensure_future(wait) for wait in waits}, return_when=asyncio.FIRST_COMPLETED)


def _open_side_door(node: Node, boot: Boot) -> SideDoor | None:
    """Let others look in while the loop is blocked. A worker that nobody can look into works all the same."""
    ipc = Path(boot.ipc_dir)
    try:
        dump_on_signal(dump_path(ipc, boot.worker, boot.epoch))
        return SideDoor(socket_path(ipc, boot.worker, boot.epoch), functools.partial(answer, node))
    except OSError as error:
        logger.warning("A worker has no side door", extra={"event": "no_side_door", "error": str(error)})
        return None


def _open_deposits(boot: Boot) -> Deposits:
    """Have the supervisor keep our last words. A worker whose words nobody keeps works all the same."""
    try:
        return Deposits(Path(boot.estate) if boot.estate else None)
    except OSError as error:
        logger.warning("Nobody keeps a worker's last words", extra={"event": "no_estate", "error": str(error)})
        return Deposits()


def _watch_parent(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that is set when the process that started this one has ended."""
    orphaned = asyncio.Event()
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def gone() -> None:
        loop.remove_reader(sentinel)
        orphaned.set()

    add_reader(loop, sentinel, "supervisor", gone)
    return orphaned


def name_process(name: str) -> None:
    """Let `ps` and `top` show the worker's name (15 characters of it)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15], encoding="ascii", errors="replace")
