"""The workers of a supervisor: started, introduced to one another, noticed when they die, ended.

Who is started again, and when, is decided in `supervision` and carried out by `keeper`; here is how.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from .child_spec import WorkerSpec
from .decision import Decision
from .directories import Directories
from .engine import Engine, Worker
from .errors import ActorDead, ExeuntError
from .estate import Estates
from .events import Event, WorkerStarted
from .inheritance import HAND_OVER
from .keeper import Keeper, Terms
from .last_words import TELL_S
from .messages import (
    GroupJoined,
    GroupLeft,
    Leave,
    NamesChanged,
    WorkerChanging,
    WorkerDown,
    WorkerReady,
    WorkerUp,
)
from .node import Node
from .ref import Ref
from .worker import Boot

logger = logging.getLogger(__name__)

_SUCCESSOR_S = 10.0  # a cold start on a slow disk; its predecessor works on meanwhile
ORDERLY = "exit code 0"  # in an engine's words

_NEWS_TIMEOUT_S = 1.0  # for a worker to take note of another; one that is busy hears of it all the same
_CHANGE_TIMEOUT_S = 3.0  # for a worker to keep what is for one that hands over; that one works on meanwhile


class Workforce:
    """The workers of one supervisor. On its loop only."""

    def __init__(
        self,
        name: str,
        specs: Sequence[WorkerSpec],
        *,
        directories: Directories,
        messages: tuple[str, ...],
        engine: Engine,
        log_level: str,
        records: bool,
        terms: Terms,
        on_end: Callable[[Decision[WorkerSpec]], None],
        on_death: Callable[[Worker], None],
        on_loss: Callable[[str, str, bool], None],
        publish: Callable[[Event], None],
    ) -> None:
        """`on_death` is called when a worker has ended, however it did; `on_loss` when it is decided what becomes of
        its actors, with the reason: `worker_died` or `hand_over`. The flag says whether it is gone for good.
        """
        self.keeper: Keeper[WorkerSpec] = Keeper(terms.tree(specs), self, spawn=terms.spawn, on_end=on_end)
        self.specs = {spec.name: spec for spec in specs}
        self.processes: dict[str, Worker] = {}
        """The living, by worker."""
        self.epoch = int(time.time()) & 0xFFFFFF
        self._name = name
        self._directories = directories
        self._messages = messages
        self._log_level = log_level
        self.records = records
        """Whether each process keeps a flight recorder."""
        self._on_death = on_death
        self._on_loss = on_loss
        self._estates: Estates | None = None
        self._successors: dict[str, Worker] = {}
        """By worker: a process that waits for its predecessor to hand over."""
        self._publish = publish
        self._engine = engine
        self._given_up: set[str] = set()
        self._usable = {spec.name: asyncio.Event() for spec in specs}
        self._changing: dict[str, asyncio.Event] = {}
        """By worker that hands over, or has: set when its successor is usable, or lost."""

    def open(self, node: Node, supervisor_endpoint: str, estates: Estates | None) -> None:
        """Be told the supervisor's own node, where workers reach it, and who takes their deposits, before the first
        start.
        """
        self.node = node
        self._estates = estates
        node.groups.on_change = self.announce  # an actor beside the root may join as well
        self._supervisor_endpoint = supervisor_endpoint

    async def start_all(self) -> None:
        """Start every worker and introduce them. Raises RuntimeError when one ends at its start."""
        for spec in self.specs.values():
            self._spawn(spec)
        processes = list(self.processes.values())
        await asyncio.gather(*(process.until_ready() for process in processes))
        for process in processes:
            await self.broadcast(self._up(process), except_=process.boot.worker)
            self._usable[process.boot.worker].set()
        for spec in self.specs.values():
            self.keeper.have_started(spec.name)

    # --- for the keeper ---

    async def start(self, spec: WorkerSpec, begin: Callable[[], int], *, patient: bool) -> int:
        """Start a dead worker anew. A replacement that dies as well is reported like any death."""
        assert patient
        worker, incarnation = spec.name, begin()
        process = self._successors.pop(worker, None)
        if process is None:
            process = self._spawn(spec)
        self.processes[worker] = process
        try:
            await process.until_ready()
            # The newcomer learns of the others first: it lets in only whom it knows, and speaks to nobody yet.
            others = [other for other in self.processes.values() if other is not process]
            await asyncio.gather(*(self.host(worker).ask(self._up(other)) for other in others if other.is_ready))
            await self.broadcast(self._up(process), except_=worker)
        except (RuntimeError, ExeuntError):
            if self.processes.get(worker) is process:
                logger.exception("A worker did not become usable and is killed", extra={"event": "worker_unusable"})
                process.kill()
        else:
            self._welcome(worker)
            self._usable[worker].set()
        self._changed(worker)
        return incarnation

    async def stop(self, spec: WorkerSpec, incarnation: int, reason: str, within_s: float | None) -> None:
        """Have a worker leave; kill it if that takes too long. One that hands over leaves when its successor waits."""
        if self._estates is not None and self._can_hand_over(spec.name):
            reason = HAND_OVER
            await self._call_successor(spec, self._estates)
            if spec.name in self.processes:  # else nothing is handed over, and its successor may be at work already
                self.node.worker_changing(spec.name)
                await self.broadcast(WorkerChanging(spec.name), except_=spec.name, timeout_s=_CHANGE_TIMEOUT_S)
        await self._end(spec.name, reason, within_s)

    def _can_hand_over(self, worker: str) -> bool:
        process = self.processes.get(worker)
        keeps = self._estates is not None and process is not None and self._estates.of(process.pid) is not None
        return keeps and self.specs[worker].hands_over

    async def _call_successor(self, spec: WorkerSpec, estates: Estates) -> None:
        """Start the process that is to go on with a worker's things, and return when it waits for them. If it does not
        come, the worker is succeeded later, by one that starts when it has gone.
        """
        if spec.name not in self._successors:  # else it was called by a restart that another one has overtaken
            self._successors[spec.name] = self._new(spec, inherits=True)
        process = self._successors[spec.name]
        try:
            await asyncio.wait_for(estates.until_here(process.pid, process.ended), _SUCCESSOR_S)
        except TimeoutError:
            extra = {"event": "successor_late", "of": spec.name}
            logger.warning("The successor of %s does not come", spec.name, extra=extra)
            process.kill()
            await process.ended.wait()

    async def dismiss_successors(self) -> None:
        """Everybody leaves: nobody is succeeded any more."""
        for process in list(self._successors.values()):
            process.kill()
            await process.ended.wait()

    def decided(self, decision: Decision[WorkerSpec]) -> None:
        """Let the actors of all workers concerned know what becomes of them. Nobody is started there meanwhile."""
        if decision.leave or decision.give_up:
            return
        for worker in sorted(decision.scope, key=list(self.specs).index):
            for_good = worker not in decision.start
            if for_good:
                self._given_up.add(worker)
                self._usable[worker].set()  # nobody need wait for it
            else:
                self._usable[worker].clear()
            asked = any(one.id == worker and one.reason == "restart" for one in decision.exits)
            hands_over = asked and not for_good and self._can_hand_over(worker)
            if hands_over:
                self._changing.setdefault(worker, asyncio.Event())
            self._on_loss(worker, HAND_OVER if hands_over else "worker_died", for_good)

    def _changed(self, worker: str) -> None:
        changing = self._changing.pop(worker, None)
        if changing is not None:
            changing.set()

    async def until_steady(self, *, but: str) -> None:
        """Return when no worker hands over, except one: who is to take over needs the others as they are."""
        while others := [changing for worker, changing in self._changing.items() if worker != but]:
            await others[0].wait()

    def restarted(self, spec: WorkerSpec, reason: str, restarts: int, delay_s: float) -> None:
        """It has said so itself (`ready`)."""

    # --- for everybody ---

    def worker_of(self, pid: int) -> str | None:
        """Name the worker that runs in a process; None for one that is not ours."""
        everybody = (*self.processes.values(), *self._successors.values())
        return next((process.boot.worker for process in everybody if process.pid == pid), None)

    def has_handed_over(self, process: Worker) -> bool:
        """Say whether a worker that has ended did so in order to be succeeded, and with all in order."""
        spec = self.specs[process.boot.worker]
        return spec.hands_over and self.keeper.is_stopping(spec.name) and process.exit_reason == ORDERLY

    def is_replacing(self, worker: str) -> bool:
        """Say whether a worker is just being replaced: the end of a process of it changes nothing about that."""
        return self.keeper.is_stopping(worker) or self.keeper.supervision.is_waiting(worker)

    def ready(self, message: WorkerReady) -> None:
        """Note that a worker listens, if it is the current one of that name."""
        process = self.processes.get(message.worker)
        if process is None or process.boot.epoch != message.epoch:
            process = self._successors.get(message.worker)
        if process is not None and process.boot.epoch == message.epoch and not process.ready.done():
            up = self._up(process)
            self.node.worker_up(up.worker, up.endpoint, up.public_key)
            process.ready.set_result(message.pid)
            self._publish(WorkerStarted(message.worker, pid=message.pid, epoch=message.epoch))

    def is_usable(self, worker: str) -> bool:
        """Say whether a worker lives and has been introduced."""
        return worker in self.processes and self._usable[worker].is_set() and worker not in self._given_up

    def has_given_up(self, worker: str) -> bool:
        """Say whether a dead worker is not replaced."""
        return worker in self._given_up

    async def until_usable(self, worker: str) -> None:
        """Wait for a worker that is being replaced. Raises ActorDead when it won't be, or there is none."""
        if worker not in self._usable:
            raise ActorDead(f"no such worker: {worker}")
        await self._usable[worker].wait()
        if worker in self._given_up:
            raise ActorDead(f"worker {worker} is not started again")

    def host(self, worker: str) -> Ref:
        """Return the actor of a worker that does what the supervisor says."""
        return self.node.ref(f"{self._name}/{worker}/host")

    def announce(self, message: NamesChanged | GroupJoined | GroupLeft | WorkerDown) -> None:
        """Let our own node and every host know, without waiting. What is told to one host keeps its order."""
        if isinstance(message, NamesChanged):
            self.node.names.hear(message)
        elif not isinstance(message, WorkerDown):
            self.node.groups.hear(message)
        for worker, process in self.processes.items():
            if process.is_ready:
                self.host(worker).tell(message)

    def group_changed(self, message: GroupJoined | GroupLeft) -> None:
        """Tell everybody of a change in a group, unless it comes from a worker that is no more."""
        process = self.processes.get(message.worker)
        if process is not None and process.boot.epoch == message.epoch:
            self.announce(type(message)(message.group, message.members))

    def _welcome(self, worker: str) -> None:
        """Tell a worker that is new all that the others know."""
        for message in (self.node.names.all(), *self.node.groups.all()):
            self.host(worker).tell(message)

    async def broadcast(
        self, message: WorkerUp | WorkerChanging, *, except_: str, timeout_s: float = _NEWS_TIMEOUT_S
    ) -> None:
        """Tell every other worker about one, and wait until they know."""
        others = [worker for worker in self.processes if worker != except_]
        asks = [self.host(worker).ask(message, timeout_s=timeout_s) for worker in others]
        for ask in asks:
            with contextlib.suppress(ExeuntError):
                await ask

    async def end(self, worker: str, reason: str) -> None:
        """Have a worker leave; kill it if that takes longer than its `shutdown_ms`, or if it has not even begun."""
        patience = self.specs[worker].shutdown_ms
        await self._end(worker, reason, None if patience == "infinity" else patience / 1000)

    async def _end(self, worker: str, reason: str, within_s: float | None) -> None:
        process = self.processes.get(worker)
        if process is None:
            return
        if process.is_ready:
            self.host(worker).tell(Leave(reason))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.ended.wait(), within_s)
                return
            logger.error("A worker did not leave in time and is killed", extra={"event": "worker_killed", "of": worker})
        process.kill()
        await process.ended.wait()

    def kill_all(self) -> None:
        """Kill every worker."""
        for process in (*self.processes.values(), *self._successors.values()):
            process.kill()

    def force(self) -> asyncio.Task[None] | None:
        """Kill every worker: those with actors that have to be told the last words of others when they have been, or
        their time is over. Returns what does this; None when there are none.
        """
        estates = self._estates
        confidants = estates.confidants() if estates is not None else None
        if estates is None or not confidants:
            self.kill_all()
            return None
        first = [one for one in self.processes.values() if one.boot.worker not in confidants]
        for process in (*first, *self._successors.values()):
            process.kill()
        return asyncio.get_running_loop().create_task(self._kill_the_told(first, estates))

    async def _kill_the_told(self, others: Sequence[Worker], estates: Estates) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_S):
                for process in others:
                    await process.ended.wait()
                await estates.until_told()
        self.kill_all()

    def _spawn(self, spec: WorkerSpec) -> Worker:
        has_heirlooms = self._estates is not None and self._estates.has_passed_on(spec.name)
        process = self.processes[spec.name] = self._new(spec, inherits=has_heirlooms)
        return process

    def _new(self, spec: WorkerSpec, *, inherits: bool) -> Worker:
        self.epoch += 1
        boot = Boot(
            node=self._name,
            worker=spec.name,
            epoch=self.epoch,
            ipc_dir=str(self._directories.ipc),
            log_file=str(self._directories.log_file(self._name, spec.name)),
            log_level=self._log_level,
            trace_file=str(self._directories.ring_file(self._name, spec.name, self.epoch)) if self.records else "",
            supervisor=self._supervisor_endpoint,
            messages=self._messages,
            unprivileged=spec.unprivileged,
            estate="" if self._estates is None else str(self._estates.path),
            inherits=inherits,
            expects=self._residents(spec.name) if inherits else (),
            resources=spec.resources,
        )
        return self._engine.start(boot, self._ended)

    def _residents(self, worker: str) -> tuple[str, ...]:
        """Return the names of the children that live in a worker."""
        known = self.node.names.all().known
        return tuple(id_ for id_, address in known.items() if address == f"{self._name}/{worker}/{id_}")

    def _ended(self, process: Worker) -> None:
        worker = process.boot.worker
        if self._successors.get(worker) is process:
            del self._successors[worker]
            if worker in self.processes:
                if self._estates is not None:
                    self._estates.forget(process.pid)
                return
            # Its predecessor has gone, and with this one goes everything that it left: a crash as any other.
            extra = {"event": "successor_died", "of": worker, "of_pid": process.pid, "reason": process.exit_reason}
            logger.error("The successor of %s died: %s", worker, process.exit_reason, extra=extra)
        elif self.processes.get(worker) is process:
            del self.processes[worker]
        else:
            return
        self._usable[worker].clear()
        succeeded = self.has_handed_over(process)
        if not succeeded:
            self._changed(worker)
        self.node.worker_down(worker, process.boot.trace_file, succeeded=succeeded)
        self._on_death(process)

    def _up(self, process: Worker) -> WorkerUp:
        boot = process.boot
        at = self._engine.endpoint(boot.worker, boot.epoch)
        return WorkerUp(boot.worker, boot.epoch, at, self._engine.public_key(boot.worker, boot.epoch))
