"""The supervisor: the root of a program's tree, and the owner of its end.

It starts worker processes and the actors in them from specs, notices a dead worker by its sentinel (not by
polling), restarts what the specs say, and lets the program end only when every significant child has ended and
every process below it is gone. What to do about an exit is decided in `supervision`, and carried out by
`Children` and `Workforce`; this module ties them together, and ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from .child_spec import ChildSpec, Intensity, Strategy, WorkerSpec
from .children import Children
from .directories import Directories
from .engine import Engine, Kind, Worker, make
from .errors import ActorDead, ExeuntError
from .events import Events
from .facts import describe
from .host import stop_all
from .loading import codec_for
from .messages import ActorExited, Describe, Description, WorkerDown
from .node import Node
from .recorder import Recorder
from .ref import Ref
from .root import Root
from .supervision import Child, Supervision
from .workforce import Workforce

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0  # a cold start on a slow disk; a worker's own start takes 0.2 s


class Outcome(msgspec.Struct, frozen=True):
    """How the program ended."""

    failed: bool
    reason: str
    leftovers: tuple[str, ...] = ()
    """Processes that had to be killed at the very end; empty when all is well."""


class Supervisor:
    """Keeps workers and actors. Use it on one loop: `start`, then `wait` for the `Outcome`; `leave` ends it."""

    def __init__(
        self,
        name: str,
        *,
        workers: Sequence[WorkerSpec],
        children: Sequence[ChildSpec],
        directories: Directories,
        messages: Sequence[str] = (),
        preload: Sequence[str] = (),
        engine: Engine | Kind = "processes",
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        log_level: str = "INFO",
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.directories = directories
        self.strategy = strategy
        """Who is restarted together with a failed child."""
        self.events = Events()
        """What happens in the whole program."""
        self.before_leave: Callable[[str], Awaitable[None]] | None = None
        """Called first by `leave`: lets the application say its goodbyes in its own order."""
        self._messages = tuple(messages)
        self._first = tuple(children)
        self.engine = make(engine, directories=directories, preload=preload) if isinstance(engine, str) else engine
        """Where the workers run."""
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._worker_supervision = Supervision(
            (Child(id=spec.name, restart=spec.restart) for spec in workers), intensity=intensity, rng=rng
        )
        self._workforce = Workforce(
            name,
            workers,
            directories=directories,
            messages=self._messages,
            engine=self.engine,
            log_level=log_level,
            on_death=self._worker_died,
        )
        self._children = Children(
            self._workforce, strategy=strategy, intensity=intensity, rng=rng, on_end=self._end_because
        )
        self._worker_restarts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving = False
        self._ending: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[Outcome] | None = None

    # --- what there is ---

    @property
    def workers(self) -> dict[str, WorkerSpec]:
        """The workers' specs, by name."""
        return self._workforce.specs

    @property
    def processes(self) -> dict[str, Worker]:
        """The living workers' processes, by name."""
        return self._workforce.processes

    @property
    def children(self) -> dict[str, ChildSpec]:
        """The children's specs, by id, in order of start; before `start`, those it will start."""
        return self._children.specs or {spec.id: spec for spec in self._first}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child (by id) and worker (by name) was restarted; those that never were are left out."""
        return {**self._worker_restarts, **self._children.restarts}

    @property
    def worker_restarts(self) -> dict[str, int]:
        """How often each worker was restarted; those that never were are left out."""
        return dict(self._worker_restarts)

    @property
    def leaving(self) -> bool:
        """Whether the end has begun."""
        return self._leaving

    def worker_state(self, worker: str) -> str:
        """Say `starting`, `running`, `backoff` (dead, and to be replaced), `stopping`, or `exited`."""
        if worker not in self.processes:
            return "exited" if self._leaving or self._workforce.has_given_up(worker) else "backoff"
        if self._leaving:
            return "stopping"
        return "running" if self._workforce.is_usable(worker) else "starting"

    # --- life ---

    async def start(self) -> None:
        """Start every worker, then every child from left to right.

        If one can't start, leave nothing and raise: RuntimeError for a worker, what its `ask` raised for a child,
        TimeoutError when it takes too long.
        """
        self._outcome = asyncio.get_running_loop().create_future()
        self.directories.make()
        self._sweep()
        self._open()
        try:
            await asyncio.wait_for(self._start_all(), START_TIMEOUT_S)
        except BaseException:
            self._begin_end(failed=True, reason="start_failed", how="shutdown")
            await self.wait()
            raise

    async def wait(self) -> Outcome:
        """Return when the program has left and nothing is left of it."""
        assert self._outcome is not None, "start() first"
        return await asyncio.shield(self._outcome)

    async def leave(self, reason: str = "shutdown") -> Outcome:
        """Stop everybody: the application in its own order, then children from right to left, then workers.

        Idempotent; once begun it goes on, also when whoever awaits this does not.
        """
        if not self._leaving:
            self._leaving = True
            self._later(self._leave(reason))
        return await self.wait()

    def force(self) -> None:
        """Kill every worker at once: the second Ctrl-C. `wait` gives the `Outcome`."""
        self._leaving = True
        self._workforce.kill_all()
        self._begin_end(failed=True, reason="forced", how="shutdown")

    def ref(self, child_id: str) -> Ref:
        """Return a ref to a child, wherever it lives. Raises ActorDead for an unknown id."""
        spec = self.children.get(child_id)
        if spec is None:
            raise ActorDead(f"{child_id}: no such child")
        return self._children.ref(spec)

    async def start_child(self, spec: ChildSpec) -> Ref:
        """Start a child, right of all others. Raises NameTaken, Refused or Unavailable when it can't start."""
        if self._leaving:
            raise ActorDead(f"{self.name} is leaving: no child is started any more")
        return await self._children.add(spec)

    async def restart(self, target: str) -> bool:
        """Restart a worker (by name) or a child (by id or address); False when there is none."""
        if target in self.processes:
            self.processes[target].kill()
            return True
        child_id = target.rsplit("/", 1)[-1]
        if child_id not in self.children:
            return False
        self.ref(child_id).stop("restart")
        return True

    async def describe(self) -> dict[str, Description]:
        """Ask every worker who lives there; a worker that doesn't answer within a second is left out."""
        asks = {worker: self._workforce.host(worker).ask(Describe(), timeout_s=1.0) for worker in self.processes}
        found = {"supervisor": describe(self.node)}
        for worker, ask in asks.items():
            with contextlib.suppress(ExeuntError):
                found[worker] = await ask
        return found

    # --- inside ---

    def _open(self) -> None:
        epoch = self._workforce.epoch
        ring = self.directories.ring_file(self.name, "supervisor", epoch)
        with contextlib.ExitStack() as undo:
            recorder = Recorder(ring, worker="supervisor", epoch=epoch)
            undo.callback(recorder.close)
            codec = codec_for(self._messages, clocks_differ=self.engine.clocks_differ)
            self.node = Node(self.name, "supervisor", codec=codec, recorder=recorder)
            at = self.engine.join(self.node, epoch)
            undo.pop_all()
        self._workforce.open(self.node, at)
        root = Root(worker_ready=self._workforce.ready, actor_exited=self._actor_exited, start_child=self.start_child)
        self.node.start(root, "root")

    async def _start_all(self) -> None:
        await self._workforce.start_all()
        for spec in self._first:
            await self._children.add(spec)

    def _actor_exited(self, message: ActorExited) -> None:
        spec = self._children.specs.get(message.name)
        if spec is not None and spec.worker == message.worker and not self._leaving:
            self._later(self._children.exited(message.name, message.incarnation, message.reason))

    def _worker_died(self, process: Worker) -> None:
        if self._leaving:
            return
        fields = {"of": process.boot.worker, "of_pid": process.pid, "reason": process.exit_reason}
        logger.error("A worker died", extra={"event": "worker_died", **fields})
        self._later(self._replace_worker(process))

    async def _replace_worker(self, process: Worker) -> None:
        worker = process.boot.worker
        decision = self._worker_supervision.handle_exit(worker, "worker_died", time.monotonic())
        if decision.give_up:
            self._end_because(f"worker {worker} kept dying", failed=True)
            return
        await self._workforce.broadcast(WorkerDown(worker, process.boot.epoch), except_=worker)
        if not decision.start:
            self._workforce.give_up(worker)
            self._children.worker_lost(worker)
            return
        self._later(self._children.worker_died(worker))
        await asyncio.sleep(decision.delay_s)
        if not self._leaving:
            self._worker_restarts[worker] = self._worker_restarts.get(worker, 0) + 1
            await self._workforce.replace(worker)

    async def _leave(self, reason: str) -> None:
        if self.before_leave is not None:
            try:
                await self.before_leave(reason)
            except Exception:
                logger.exception("The application's leave failed", extra={"event": "leave_failed"})
        self._begin_end(failed=False, reason=reason, how=reason)

    def _end_because(self, reason: str, failed: bool) -> None:
        if not self._leaving:
            self._begin_end(failed=failed, reason=reason, how="shutdown")

    def _begin_end(self, *, failed: bool, reason: str, how: str) -> None:
        self._leaving = self._children.closing = True
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(failed, reason, how))

    async def _end(self, failed: bool, reason: str, how: str) -> None:
        leftovers: tuple[str, ...] = ()
        try:
            for task in self._tasks:
                task.cancel()
            leftovers = await self._end_everybody(how)
        except Exception:
            logger.exception("The supervisor's end failed", extra={"event": "end_failed"})
            failed = True
        finally:
            assert self._outcome is not None
            if not self._outcome.done():
                self._outcome.set_result(Outcome(failed or bool(leftovers), reason, leftovers))

    async def _end_everybody(self, how: str) -> tuple[str, ...]:
        """Stop children, workers and ourselves; return what had to be killed because it was still there."""
        self.engine.take_stock(self.processes.values())
        await self._children.stop_all(how)
        await asyncio.gather(*(self._workforce.end(worker, how) for worker in list(self.processes)))
        leftovers = self.engine.clear()
        if leftovers:
            logger.error("Processes were left and are killed", extra={"event": "leftovers", "processes": leftovers})
        await stop_all(self.node, how)
        if self.node.transport is not None:
            self.node.transport.close()
        if self.node.recorder is not None:
            self.node.recorder.close()
            self.node.recorder = None
        self._sweep()
        return leftovers

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("The supervisor failed; everybody leaves", exc_info=task.exception())
            self._begin_end(failed=True, reason="the supervisor failed", how="shutdown")

    def _sweep(self) -> None:
        self.directories.sweep(self.name, ("supervisor", *self.workers))
