"""The supervisor: the root of a program's tree, and the owner of its end.

It starts worker processes and the actors in them from specs, notices a dead worker by its sentinel (not by
polling), restarts what the specs say, and lets the program end only when every process below it is gone. There are
two trees, one of actors and one of workers. What to do about an exit is decided in `supervision`, carried out by
`keeper`, and done by `Children` and `Workforce`; this module ties them together, and ends them in the phases of
`shutdown`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .backoff import Backoff
from .child_spec import ChildSpec, Intensity, Strategy, SupervisorSpec, WorkerSpec
from .children import Children
from .decision import Decision
from .directories import Directories
from .ending import Ending
from .engine import Engine, Kind, Worker, make
from .errors import ActorDead, ExeuntError
from .estate import Estates, open_estates
from .events import Events, GaveUp, WorkerDied
from .facts import describe
from .family import TreeNode
from .host import stop_all
from .keeper import Terms
from .last_words import TELL_S
from .loading import codec_for
from .messages import ActorExited, Describe, Description, LastWords, WorkerDown
from .node import Node
from .outcome import Outcome
from .recorder import Recorder
from .ref import Ref
from .reply import Reply
from .root import Root
from .shutdown import APPLICATION, CHILDREN, ROOT, WORKERS, Shutdown
from .workforce import Workforce

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 20.0  # a cold start on a slow disk; a worker's own start takes 0.2 s


class Supervisor:
    """Keeps workers and actors. Use it on one loop: `start`, then `wait` for the `Outcome`; `leave` ends it."""

    def __init__(
        self,
        name: str,
        *,
        workers: Sequence[WorkerSpec],
        children: Sequence[ChildSpec | SupervisorSpec],
        directories: Directories,
        messages: Sequence[str] = (),
        preload: Sequence[str] = (),
        engine: Engine | Kind = "processes",
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        worker_strategy: Strategy = Strategy.ONE_FOR_ONE,
        worker_intensity: Intensity | None = None,
        shutdown: Shutdown | None = None,
        log_level: str = "INFO",
        record: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        """`strategy` is the children's, `worker_strategy` the workers'; `worker_intensity` is `intensity` if not said.

        `record`: whether each process keeps a flight recorder. Without, nothing can be traced, and what a killed worker
        had handled is not known.

        Raises NameTaken when two workers have one name, or two children (or supervisors) one id; ValueError when
        `shutdown` lacks a standard phase.
        """
        self.name = name
        self.directories = directories
        self.strategy = strategy
        """Who is restarted together with a failed child of the root."""
        self.events = Events()
        """What happens in the whole program."""
        self.shutdown = shutdown or Shutdown()
        """The phases of the end; add tasks to them."""
        self.before_leave: Callable[[str], Awaitable[None]] | None = None
        """Called first by `leave`: lets the application say its goodbyes in its own order."""
        self.rings_left: list[tuple[str, Path]] = []
        """The flight recorders of workers that have ended, each with its worker's name, the oldest first."""
        self._messages = tuple(messages)
        self.engine = make(engine, directories=directories, preload=preload) if isinstance(engine, str) else engine
        """Where the workers run."""
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._workforce = Workforce(
            name,
            workers,
            directories=directories,
            messages=self._messages,
            engine=self.engine,
            log_level=log_level,
            records=record,
            terms=Terms(worker_strategy, worker_intensity or intensity, backoff, rng, self._later),
            on_end=self._out_of_workers,
            on_death=self._worker_died,
            on_loss=self._worker_lost,
            publish=self.events.publish,
        )
        self._children = Children(
            self._workforce,
            children,
            name=name,
            terms=Terms(strategy, intensity, backoff, rng, self._later),
            publish=self.events.publish,
            on_end=self._out_of_children,
        )
        self._estates: Estates | None = None
        self._killing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leftovers: tuple[str, ...] = ()
        works = {
            APPLICATION: self._say_goodbyes,
            CHILDREN: self._stop_children,
            WORKERS: self._end_workers,
            ROOT: self._end_root,
        }
        self._ending = Ending(self.shutdown, works, close=self._close)

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
        """The specs of all children, by id, in order of start, whichever supervisor they have."""
        return self._children.specs

    @property
    def given_up(self) -> dict[str, ChildSpec]:
        """The specs of children that are not started again although they should be: their supervisor failed too often
        and is not restarted, or their worker is gone for good.
        """
        return {leaf.spec.id: leaf.spec for leaf in self._children.supervision.given_up()}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child and supervisor (by id) and worker (by name) was restarted; those that never were are
        left out.
        """
        return {**self._workforce.keeper.supervision.restarts, **self._children.supervision.restarts}

    def tree(self) -> TreeNode:
        """Describe the supervision tree of the actors as plain data: the program is its root."""
        return msgspec.structs.replace(self._children.supervision.tree(), id=self.name)

    def worker_tree(self) -> TreeNode:
        """Describe the supervision of the workers the same way."""
        return msgspec.structs.replace(self._workforce.keeper.supervision.tree(), id=self.name)

    @property
    def worker_restarts(self) -> dict[str, int]:
        """How often each worker was restarted; those that never were are left out."""
        return self._workforce.keeper.supervision.restarts

    @property
    def can_hand_over(self) -> bool:
        """Whether a worker that is restarted can leave what it has to its successor, if its spec says so."""
        return self._estates is not None

    @property
    def leaving(self) -> bool:
        """Whether the end has begun."""
        return self._ending.has_begun

    def worker_state(self, worker: str) -> str:
        """Say `starting`, `running`, `backoff` (dead, and to be replaced), `stopping`, or `exited`."""
        if worker not in self.processes:
            return "exited" if self._ending.has_begun or self._workforce.has_given_up(worker) else "backoff"
        if self._ending.has_begun:
            return "stopping"
        return "running" if self._workforce.is_usable(worker) else "starting"

    # --- life ---

    async def start(self) -> None:
        """Start every worker, then every child from left to right.

        If one can't start, leave nothing and raise: RuntimeError for a worker, what its `ask` raised for a child,
        TimeoutError when it takes too long.
        """
        self._ending.open()
        self.directories.make()
        self._sweep()
        self._open()
        try:
            await asyncio.wait_for(self._start_all(), START_TIMEOUT_S)
        except BaseException:
            self._ending.begin("start_failed")
            await self.wait()
            raise

    async def wait(self) -> Outcome:
        """Return when the program has left and nothing is left of it."""
        return await self._ending.wait()

    async def leave(self, reason: str = "shutdown") -> Outcome:
        """End in the phases of `shutdown`: the application in its own order, then children from right to left, then
        workers.

        Idempotent; once begun it goes on, also when whoever awaits this does not.
        """
        self._ending.begin(reason, failed=False, planned=True)
        return await self.wait()

    def force(self) -> None:
        """Kill every worker at once: the second Ctrl-C. `wait` gives the `Outcome`.

        Who has to be told the last words of others lives for as long as that takes, a fifth of a second at most.
        """
        self._killing = self._killing or self._workforce.force()
        self._ending.force()

    def ref(self, child_id: str) -> Ref:
        """Return a ref to a child, wherever it lives. Raises ActorDead for an unknown id."""
        spec = self.children.get(child_id)
        if spec is None:
            raise ActorDead(f"{child_id}: no such child")
        return self._children.ref(spec)

    async def start_child(self, spec: ChildSpec, under: str = "") -> Ref:
        """Start a child, right of all others of its supervisor (`under`, or the root). A worker that is just being
        replaced is waited for.

        Raises NameTaken, Refused or Unavailable when it can't start.
        """
        if not self._ending.has_begun:
            await self._workforce.until_usable(spec.worker)
        await self._add(spec, under)
        return self._children.ref(spec)

    async def start_supervisor(self, spec: SupervisorSpec, under: str = "") -> None:
        """Start a supervisor with its children, from left to right. When one can't start, none of them is left, and
        this raises as `start_child` does.
        """
        await self._add(spec, under)

    async def restart(self, target: str) -> bool:
        """Restart a worker (by name), a child (by id or address) or a supervisor (by id, or `program/id`); False when
        there is none. This does not wait for it, but for what an earlier restart of any worker has still to hand over:
        they do it one at a time.

        A worker is killed at once, unless its spec says that it `hands_over`; so write a child that is called as a
        worker by its address. A child ends after the message that it handles, or is killed when its `shutdown_ms` is
        over. A supervisor is restarted with all its children. Who waits to be started again, or was given up, is
        started at once.
        """
        if target in self.processes and not (self.can_hand_over and self.workers[target].hands_over):
            self.processes[target].kill()
            return True
        if target in self.workers:
            await self._until_settled(target)
            return not self._workforce.has_given_up(target) and self._workforce.keeper.restart(target)
        member_id = target.rsplit("/", 1)[-1]
        spec = self.children.get(member_id) or self.given_up.get(member_id)
        meant = f"{self.name}/{member_id}" if spec is None else f"{self.name}/{spec.worker}/{member_id}"
        if "/" in target and target != meant:
            return False
        return self._children.keeper.restart(member_id)

    async def _until_settled(self, target: str) -> None:
        """Return when no other worker hands over, and everything that any has handed over has been taken."""
        estates = self._estates
        while estates is not None:
            await self._workforce.until_steady(but=target)
            passed_on = [worker for worker in self.workers if estates.has_passed_on(worker)]
            if not passed_on:
                return
            await estates.until_taken(passed_on[0])

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
            recorder = Recorder(ring, worker="supervisor", epoch=epoch) if self._workforce.records else None
            if recorder is not None:
                undo.callback(recorder.close)
            codec = codec_for(self._messages, clocks_differ=self.engine.clocks_differ)
            self.node = Node(self.name, "supervisor", codec=codec, recorder=recorder)
            at = self.engine.join(self.node, epoch)
            undo.pop_all()
        if self.engine.passes_descriptors:
            self._estates = open_estates(self.directories.ipc, epoch, self._workforce.worker_of, self._tell)
        self._workforce.open(self.node, at, self._estates)
        root = Root(
            worker_ready=self._workforce.ready,
            actor_exited=self._actor_exited,
            start_child=self.start_child,
            group_changed=self._workforce.group_changed,
        )
        self.node.events.subscribe(self.events.publish)
        self.node.start(root, "root")

    async def _start_all(self) -> None:
        await self._workforce.start_all()
        await self._children.start_all()

    async def _add(self, spec: ChildSpec | SupervisorSpec, under: str) -> None:
        if self._ending.has_begun:
            raise ActorDead(f"{self.name} is leaving: no child is started any more")
        if under and not self._children.supervision.is_supervisor(under):
            raise ActorDead(f"{under}: no such supervisor")
        await self._children.add(spec, under)

    def _actor_exited(self, message: ActorExited) -> None:
        if not self._ending.has_begun:
            self._children.exited(message.worker, message.name, message.incarnation, message.reason)

    def _worker_died(self, process: Worker) -> None:
        boot = process.boot
        self._settle_estate(process)  # first of all: others wait for a word of it
        if boot.trace_file:
            self.rings_left.append((boot.worker, Path(boot.trace_file)))
        succeeded = self._workforce.has_handed_over(process)
        if self._killing is None:  # else all are being killed, and begin nothing any more
            self._workforce.announce(WorkerDown(boot.worker, boot.epoch, boot.trace_file, succeeded))
        if self._ending.has_begun:
            return
        if self._workforce.is_replacing(boot.worker):
            if not succeeded:  # whoever was to go on in its successor cannot
                self._children.worker_lost(boot.worker, "worker_died", for_good=False)
            return
        fields = {"of": boot.worker, "of_pid": process.pid, "reason": process.exit_reason}
        logger.error("Worker %s died: %s", boot.worker, process.exit_reason, extra={"event": "worker_died", **fields})
        self.events.publish(WorkerDied(boot.worker, reason=process.exit_reason, pid=process.pid))
        self._workforce.keeper.exited(boot.worker, "worker_died")

    def _settle_estate(self, process: Worker) -> None:
        worker = process.boot.worker
        if self._estates is None:
            return
        if self._workforce.has_handed_over(process) and not self._ending.has_begun:
            self._estates.pass_on(process.pid, worker)
        else:
            self._estates.ended(process.pid, worker)

    def _worker_lost(self, worker: str, reason: str, for_good: bool) -> None:
        self._children.worker_lost(worker, reason, for_good=for_good)

    def _out_of_children(self, decision: Decision[ChildSpec]) -> None:
        first, last = decision.exits[0], decision.exits[-1]
        if decision.give_up:
            self._end_because(f"{last.id} kept failing", failed=True)
        else:
            failed = first.reason in {"crashed", "killed", "worker_died"}
            self._end_because(f"{first.id}: {first.reason}", failed=failed)

    def _out_of_workers(self, decision: Decision[WorkerSpec]) -> None:
        worker = decision.exits[-1].id
        if decision.give_up:
            self.events.publish(GaveUp(self.name, child=worker))
        self._end_because(f"worker {worker} {'kept dying' if decision.give_up else 'died'}", failed=True)

    def _end_because(self, reason: str, failed: bool) -> None:
        if not self._ending.has_begun:
            self._ending.begin(reason, failed=failed)

    # --- the end ---

    async def _say_goodbyes(self, reason: str) -> None:
        if self.before_leave is not None:
            await self.before_leave(reason)

    def _tell(self, to: str, words: LastWords) -> Reply:
        return self.node.ref(to).ask(words, timeout_s=TELL_S)

    async def _stop_children(self, how: str) -> None:
        if self._killing is not None:
            await self._killing
        self._children.keeper.close()
        self._workforce.keeper.close()
        for task in self._tasks:
            task.cancel()
        await self._workforce.dismiss_successors()
        self.engine.take_stock(self.processes.values())
        await self._children.keeper.stop_all(how)

    async def _end_workers(self, how: str) -> None:
        await asyncio.gather(*(self._workforce.end(worker, how) for worker in list(self.processes)))

    async def _end_root(self, how: str) -> None:
        self._workforce.kill_all()  # the phase before may have been cut off
        if self._estates is not None:
            await self._estates.until_silent()
        self._leftovers = self.engine.clear()
        if self._leftovers:
            fields = {"event": "leftovers", "processes": self._leftovers}
            logger.error("Processes were left and are killed", extra=fields)
        await stop_all(self.node, how)

    def _close(self) -> tuple[str, ...]:
        if self._estates is not None:
            self._estates.close()
        if self.node.transport is not None:
            self.node.transport.close()
        if self.node.recorder is not None:
            self.node.recorder.close()
            self.node.recorder = None
        self._sweep()
        return self._leftovers

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("The supervisor failed; everybody leaves", exc_info=task.exception())
            self._ending.begin("the supervisor failed")

    def _sweep(self) -> None:
        self.directories.sweep(self.name, ("supervisor", *self.workers))
