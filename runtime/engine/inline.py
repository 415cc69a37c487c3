"""Every worker on the caller's own thread and loop, joined by memory: no process is started.

For where a program cannot start processes (an app on Android or Apple's systems, a notebook), and for tests. Each
worker of the specs is a node of its own, with its own host, names, codec and, if wanted, flight recorder; so specs,
addresses, restarts, watches and endings are what they are with processes. What one thread cannot give:

- An actor that blocks its handler blocks everybody. Use `BlockingActor`, which has its own thread.
- `unprivileged` drops nothing: capabilities are a thread's, and it is the caller's.
- The log is the caller's: nothing is configured.
- A worker that is killed has its actors' tasks cancelled; Python 3.12 and newer also finds the tasks that they had
  started. A thread that blocks cannot be ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..context import CURRENT
from ..loading import codec_for
from ..memory import MemoryNetwork, perish
from ..node import Node
from ..recorder import Recorder
from ..worker import Boot, begin
from .engine import Worker

logger = logging.getLogger(__name__)

_KILL_S = 0.1  # for an actor to notice its cancellation, as in a worker process


class Inline:
    """Runs workers on the loop of whoever starts them."""

    kind = "inline"
    clocks_differ = False
    passes_descriptors = False

    def __init__(self, *, rings: bool = True) -> None:
        """`rings`: whether each worker has a flight recorder (a file of some MB in `Directories.traces`)."""
        self.network = MemoryNetwork()
        self._rings = rings

    def join(self, node: Node, epoch: int) -> str:
        """Give the supervisor's node its place in memory."""
        at = self.endpoint(node.worker, epoch)
        self.network.join(node, at)
        return at

    def endpoint(self, worker: str, epoch: int) -> str:
        """Return the place of that incarnation."""
        return f"memory://{worker}.{epoch}"

    def public_key(self, worker: str, epoch: int) -> str:
        """Return nothing: nobody else gets into this process."""
        return ""

    async def gather(self) -> None:
        """Do nothing: the rings are here."""

    def start(self, boot: Boot, on_end: Callable[[Worker], None]) -> InlineWorker:
        """Start a worker; it runs from the next turn of the loop."""
        worker = InlineWorker(boot, self.network, self.endpoint(boot.worker, boot.epoch), rings=self._rings)
        worker.start(on_end)
        return worker

    def take_stock(self, workers: Iterable[Worker]) -> None:
        """Nothing runs below a worker but tasks."""

    def clear(self) -> tuple[str, ...]:
        """Nothing can be left that would outlive this process."""
        return ()


class InlineWorker:
    """One incarnation of a worker: a node, and the task that waits for its end."""

    def __init__(self, boot: Boot, network: MemoryNetwork, address: str, *, rings: bool) -> None:
        self.boot = boot
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Done with the pid when the worker listens; fails when it ends before that."""
        self.ended = asyncio.Event()
        self.node: Node | None = None
        """Its node, once it runs."""
        self._network = network
        self._address = address
        self._rings = rings
        self._killed = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self.exit_reason = "running"

    @property
    def pid(self) -> int:
        """This process."""
        return os.getpid()

    @property
    def is_ready(self) -> bool:
        """Say whether the worker has reported that it listens."""
        return self.ready.done() and self.ready.exception() is None

    async def until_ready(self) -> int:
        """Wait until the worker listens. Raises RuntimeError when it ends before that."""
        return await asyncio.shield(self.ready)

    def start(self, on_end: Callable[[Worker], None]) -> None:
        """Begin; `on_end` is called when it has ended."""
        loop = asyncio.get_running_loop()

        def over(life: asyncio.Task[None]) -> None:
            if not life.cancelled() and life.exception() is not None:
                logger.error("A worker could not run", exc_info=life.exception(), extra={"event": "worker_failed"})
                self.exit_reason = "could not run"
            self.ended.set()
            if not self.ready.done():
                self.ready.set_exception(RuntimeError(f"worker {self.boot.worker} ended at its start"))
                self.ready.exception()
            on_end(self)

        self._life = loop.create_task(self._live(), name=f"{self.boot.node}:{self.boot.worker}")
        self._life.add_done_callback(over)

    def kill(self) -> None:
        """Let it die as a killed process does, as far as that goes on one thread."""
        if self._killed.is_set() or self.ended.is_set():
            return
        self.exit_reason = "killed"
        self._killed.set()

    async def _live(self) -> None:
        CURRENT.set(None)  # whoever caused its start is not in its actors' traces, as with a process
        boot = self.boot
        node = self.node = Node(boot.node, boot.worker, codec=codec_for(boot.messages))
        if self._rings and boot.trace_file:
            node.recorder = Recorder(Path(boot.trace_file), worker=boot.worker, epoch=boot.epoch)
        self._network.join(node, self._address)
        try:
            node.worker_up("supervisor", boot.supervisor)
            finished = begin(node, boot)
            waiting = [asyncio.ensure_future(one.wait()) for one in (finished, self._killed)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for wait in waiting:
                wait.cancel()
            if not self._killed.is_set():
                await asyncio.sleep(0)  # the last exits are sent by this turn
        finally:
            await self._end(node)

    async def _end(self, node: Node) -> None:
        if not self._killed.is_set():
            self.exit_reason = "exit code 0"
            if node.transport is not None:
                node.transport.close()
        actors = perish(node)
        others = _started_in(f"{node.name}/{node.worker}/") - set(actors)
        for task in others:
            task.cancel()
        if actors or others:
            await asyncio.wait({*actors, *others}, timeout=_KILL_S)


def _started_in(prefix: str) -> set[asyncio.Task[Any]]:
    """Find the tasks that actors of a worker had started: each has a copy of its starter's context."""
    found: set[asyncio.Task[Any]] = set()
    for task in asyncio.all_tasks():
        get_context = getattr(task, "get_context", None)  # Python 3.12
        if get_context is None:
            break
        context = get_context().get(CURRENT)
        if context is not None and context.to.startswith(prefix):
            found.add(task)
    return found - {asyncio.current_task()}
