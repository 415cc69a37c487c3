"""The supervisor: the root of a program's tree, and the owner of its end.

It starts worker processes and the actors in them from specs, notices a dead worker by its sentinel (not by
polling), restarts what the specs say, and lets the program end only when every significant child has ended and
every process below it is gone. What to do about an exit is decided in `supervision`; this module carries it out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from .actor import Actor, receive
from .child_spec import ChildSpec, Intensity, Restart, Strategy, WorkerSpec
from .errors import ActorDead, ExeuntError, Refused
from .messages import (
    ActorExited,
    ActorStarted,
    Describe,
    Description,
    Leave,
    StartActor,
    StartChild,
    WorkerDown,
    WorkerReady,
    WorkerUp,
)
from .node import Node
from .process import WorkerProcess, living_children, start_context, stop_start_helpers
from .recorder import Recorder
from .ref import Ref
from .supervision import Child, Decision, Supervision
from .transport import Transport, endpoint
from .worker import Boot, codec_for, describe, stop_all

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0  # a cold start on a slow disk; a worker's own start takes 0.2 s
_ACTOR_TIMEOUT_S = 10.0


class Directories(msgspec.Struct, frozen=True, kw_only=True):
    """Where a program keeps its sockets, logs and rings."""

    ipc: Path
    logs: Path
    traces: Path


class Outcome(msgspec.Struct, frozen=True):
    """How the program ended."""

    failed: bool
    reason: str
    leftovers: tuple[str, ...] = ()
    """Processes that had to be killed at the very end; empty when all is well."""


class Root(Actor):
    """The supervisor's own mailbox: what workers tell it."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor

    @receive(WorkerReady)
    def on_worker_ready(self, message: WorkerReady) -> None:
        """Note that a worker listens."""
        self._supervisor.worker_ready(message)

    @receive(ActorExited)
    def on_actor_exited(self, message: ActorExited) -> None:
        """Decide about an actor that has ended."""
        self._supervisor.actor_exited(message)

    @receive(StartChild)
    async def on_start_child(self, message: StartChild) -> ActorStarted:
        """Start a further child for an actor."""
        try:
            spec = msgspec.msgpack.decode(message.spec, type=ChildSpec)
            ref = await self._supervisor.start_child(spec)
        except (ExeuntError, msgspec.MsgspecError) as error:
            raise Refused("start_failed", str(error)) from error
        return ActorStarted(str(ref))


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
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        log_level: str = "INFO",
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.directories = directories
        self.workers = {spec.name: spec for spec in workers}
        self.children = {spec.id: spec for spec in children}
        self.processes: dict[str, WorkerProcess] = {}
        self.restarts: dict[str, int] = {}
        """How often each child, by id, was restarted."""
        self.before_leave: Callable[[str], Awaitable[None]] | None = None
        """Called first by `leave`: lets the application say its goodbyes in its own order."""
        self._messages = tuple(messages)
        self._context = start_context(preload)
        self._log_level = log_level
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._actors = Supervision(strategy=strategy, intensity=intensity, rng=rng)
        self._workers = Supervision(
            (Child(id=spec.name, restart=spec.restart) for spec in workers), intensity=intensity, rng=rng
        )
        self._epoch = int(time.time()) & 0xFFFFFF
        self._incarnations: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._outcome: asyncio.Future[Outcome] | None = None

    # --- life ---

    async def start(self) -> None:
        """Start every worker, then every child from left to right. Raises RuntimeError, and leaves nothing, if one
        can't start.
        """
        loop = asyncio.get_running_loop()
        self._outcome = loop.create_future()
        for directory in (self.directories.ipc, self.directories.logs, self.directories.traces):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self._endpoint = endpoint(self.directories.ipc, "supervisor", self._epoch)
        recorder = Recorder(self._trace_file("supervisor", self._epoch), worker="supervisor", epoch=self._epoch)
        self.node = Node(self.name, "supervisor", codec=codec_for(self._messages), loop=loop, recorder=recorder)
        self.node.transport = Transport(
            self._endpoint, identity="supervisor", on_frame=self.node.handle_frame, loop=loop
        )
        self.node.start(Root(self), "root")
        try:
            await asyncio.wait_for(self._start_all(), START_TIMEOUT_S)
        except BaseException:
            await self._end(failed=True, reason="start_failed", how="shutdown")
            raise

    async def _start_all(self) -> None:
        for worker in self.workers.values():
            self._spawn(worker)
        await asyncio.gather(*(process.ready for process in self.processes.values()))
        for process in self.processes.values():
            await self._broadcast(self._up(process), except_=process.boot.worker)
        for spec in list(self.children.values()):
            await self.start_child(spec)

    async def wait(self) -> Outcome:
        """Return when the program has left and nothing is left of it."""
        assert self._outcome is not None, "start() first"
        return await asyncio.shield(self._outcome)

    async def leave(self, reason: str = "shutdown") -> Outcome:
        """Stop everybody: the application in its own order, then children and workers from right to left.
        Idempotent.
        """
        if not self._leaving:
            self._leaving = True
            if self.before_leave is not None:
                try:
                    await self.before_leave(reason)
                except Exception:
                    logger.exception("The application's leave failed", extra={"event": "leave_failed"})
            await self._end(failed=False, reason=reason, how=reason)
        return await self.wait()

    def force(self) -> None:
        """Kill every worker at once: the second Ctrl-C."""
        self._leaving = True
        for process in self.processes.values():
            process.kill()

    def ref(self, child_id: str) -> Ref:
        """Return a ref to a child, wherever it lives. Raises ActorDead for an unknown id."""
        spec = self.children.get(child_id)
        if spec is None:
            raise ActorDead(f"{child_id}: no such child")
        return self.node.ref(f"{self.name}/{spec.worker}/{child_id}")

    async def start_child(self, spec: ChildSpec) -> Ref:
        """Start a child, right of all others. Raises Refused or Unavailable when it can't start."""
        self.children[spec.id] = spec
        self._actors.add(Child(id=spec.id, restart=spec.restart, significant=spec.significant))
        try:
            return await self._start_actor(spec)
        except ExeuntError:
            self.children.pop(spec.id, None)
            self._actors.forget(spec.id)
            raise

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
        found = {"supervisor": describe(self.node)}
        for worker in list(self.processes):
            with contextlib.suppress(ExeuntError):
                found[worker] = await self._host(worker).ask(Describe(), timeout_s=1.0)
        return found

    # --- what workers tell ---

    def worker_ready(self, message: WorkerReady) -> None:
        """Note that a worker listens, if it is the current one of that name."""
        process = self.processes.get(message.worker)
        if process is not None and process.boot.epoch == message.epoch and not process.ready.done():
            self.node.worker_up(message.worker, endpoint(self.directories.ipc, message.worker, message.epoch))
            process.ready.set_result(message.pid)

    def actor_exited(self, message: ActorExited) -> None:
        """Decide about an actor that has ended, if it is the current one of that id."""
        spec = self.children.get(message.name)
        current = self._incarnations.get(message.name)
        if spec is None or spec.worker != message.worker or current != message.incarnation:
            return
        self._child_ended(message.name, message.reason)

    # --- inside ---

    def _child_ended(self, child_id: str, reason: str) -> None:
        if self._leaving:
            return
        blameless = reason == "worker_died"
        decision = self._actors.handle_exit(child_id, reason, time.monotonic(), blameless=blameless)
        if child_id not in decision.start and not decision.give_up:
            self.children.pop(child_id, None)
            self._incarnations.pop(child_id, None)
            self.restarts.pop(child_id, None)
        if decision.leave:
            failed = reason in {"crashed", "killed", "worker_died"}
            self._later(self._leave_because(f"{child_id}: {reason}", failed=failed))
        elif decision.give_up:
            logger.error(
                "Too many restarts; giving up",
                extra={"event": "gave_up", "child": child_id, "reason": reason},
            )
            self._later(self._leave_because(f"{child_id} kept failing", failed=True))
        elif decision.start:
            logger.warning(
                "A child ended and is restarted",
                extra={
                    "event": "child_restarted",
                    "child": child_id,
                    "reason": reason,
                    "delay_s": decision.delay_s,
                },
            )
            self._later(self._carry_out(decision))

    def _worker_ended(self, process: WorkerProcess) -> None:
        worker = process.boot.worker
        if self.processes.get(worker) is not process:
            return
        del self.processes[worker]
        self.node.worker_down(worker)
        if self._leaving:
            return
        logger.error(
            "A worker died",
            extra={
                "event": "worker_died",
                "of": worker,
                "reason": process.exit_reason,
                "of_pid": process.pid,
            },
        )
        self._later(self._replace_worker(process))

    async def _replace_worker(self, process: WorkerProcess) -> None:
        worker = process.boot.worker
        await self._broadcast(WorkerDown(worker, process.boot.epoch), except_=worker)
        orphans = [spec for spec in self.children.values() if spec.worker == worker]
        decision = self._workers.handle_exit(worker, "worker_died", time.monotonic())
        if decision.give_up or not decision.start:
            await self._leave_because(f"worker {worker} kept dying", failed=True)
            return
        await asyncio.sleep(decision.delay_s)
        if self._leaving:
            return
        self.restarts[worker] = self.restarts.get(worker, 0) + 1
        replacement = self._spawn(self.workers[worker])
        await replacement.ready
        await self._introduce(replacement)
        for spec in orphans:
            self._child_ended(spec.id, "worker_died")

    async def _carry_out(self, decision: Decision) -> None:
        for child_id in decision.stop:
            self._incarnations[child_id] = 0  # its exit is ours: not to be decided about again
            self.ref(child_id).stop("restart")
        await asyncio.sleep(decision.delay_s)
        for child_id in decision.start:
            if self._leaving or child_id not in self.children:
                return
            self.restarts[child_id] = self.restarts.get(child_id, 0) + 1
            try:
                await self._start_actor(self.children[child_id])
            except ExeuntError as error:
                logger.warning(
                    "A restart failed",
                    extra={"event": "restart_failed", "child": child_id, "error": str(error)},
                )
                self._child_ended(child_id, "crashed")

    async def _start_actor(self, spec: ChildSpec) -> Ref:
        incarnation = self._incarnations[spec.id] = self._incarnations.get(spec.id, 0) + 1
        message = StartActor(spec.id, spec.start, msgspec.Raw(msgspec.msgpack.encode(spec.args)), incarnation)
        await self._host(spec.worker).ask(message, timeout_s=_ACTOR_TIMEOUT_S)
        return self.node.ref(f"{self.name}/{spec.worker}/{spec.id}")

    def _spawn(self, spec: WorkerSpec) -> WorkerProcess:
        self._epoch += 1
        boot = Boot(
            node=self.name,
            worker=spec.name,
            epoch=self._epoch,
            ipc_dir=str(self.directories.ipc),
            log_file=str(self.directories.logs / f"{self.name}.{spec.name}.log"),
            log_level=self._log_level,
            trace_file=str(self._trace_file(spec.name, self._epoch)),
            supervisor=self._endpoint,
            messages=self._messages,
            unprivileged=spec.unprivileged,
        )
        process = self.processes[spec.name] = WorkerProcess(self._context, boot)
        process.start(self._worker_ended)
        return process

    async def _introduce(self, process: WorkerProcess) -> None:
        """Let all others know a worker, and it all others, before anybody can mention it."""
        await self._broadcast(self._up(process), except_=process.boot.worker)
        for other in list(self.processes.values()):
            if other is not process:
                await self._host(process.boot.worker).ask(self._up(other))

    def _up(self, process: WorkerProcess) -> WorkerUp:
        boot = process.boot
        return WorkerUp(boot.worker, boot.epoch, endpoint(self.directories.ipc, boot.worker, boot.epoch))

    async def _broadcast(self, message: WorkerUp | WorkerDown, *, except_: str) -> None:
        for worker in list(self.processes):
            if worker != except_:
                with contextlib.suppress(ExeuntError):
                    await self._host(worker).ask(message, timeout_s=1.0)

    def _host(self, worker: str) -> Ref:
        return self.node.ref(f"{self.name}/{worker}/host")

    async def _leave_because(self, reason: str, *, failed: bool) -> None:
        if self._leaving:
            return
        self._leaving = True
        await self._end(failed=failed, reason=reason, how="shutdown")

    async def _end(self, *, failed: bool, reason: str, how: str) -> None:
        """Stop every worker, right to left, then prove that no process is left."""
        self._leaving = True
        await asyncio.gather(*(self._end_worker(name, how) for name in reversed(list(self.processes))))
        stop_start_helpers()
        leftovers = tuple(f"{child.pid} {child.name()}" for child in _still_living(living_children()))
        for child in living_children():
            child.kill()
        if leftovers:
            logger.error("Processes were left and are killed", extra={"event": "leftovers", "processes": leftovers})
        await stop_all(self.node, how)
        if self.node.transport is not None:
            self.node.transport.close()
        if self.node.recorder is not None:
            self.node.recorder.close()
            self.node.recorder = None
        self._sweep()
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(Outcome(failed or bool(leftovers), reason, leftovers))

    async def _end_worker(self, name: str, reason: str) -> None:
        process = self.processes.get(name)
        if process is None:
            return
        if process.ready.done() and process.ready.exception() is None:
            with contextlib.suppress(ExeuntError):
                self._host(name).tell(Leave(reason))
        try:
            await asyncio.wait_for(process.ended.wait(), self.workers[name].shutdown_ms / 1000)
        except TimeoutError:
            logger.error("A worker did not leave in time and is killed", extra={"event": "worker_killed", "of": name})
            process.kill()
            await process.ended.wait()

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("The supervisor failed; everybody leaves", exc_info=task.exception())
            self._later(self._leave_because("the supervisor failed", failed=True))

    def _trace_file(self, worker: str, epoch: int) -> Path:
        return self.directories.traces / f"{self.name}.{worker}.{epoch}.ring"

    def _sweep(self) -> None:
        """Remove the socket files of this and earlier lives, and all but the newest rings of each worker."""
        for path in self.directories.ipc.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()
        for worker in ("supervisor", *self.workers):
            rings = sorted(
                self.directories.traces.glob(f"{self.name}.{worker}.*.ring"),
                key=lambda path: path.stat().st_mtime,
            )
            for path in rings[:-3]:
                with contextlib.suppress(OSError):
                    path.unlink()


def _still_living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Give processes that are about to end a moment; return those that stay."""
    _, alive = psutil.wait_procs(list(processes), timeout=0.3)
    return alive


__all__ = ["Directories", "Outcome", "Restart", "Supervisor"]
