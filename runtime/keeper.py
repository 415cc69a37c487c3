"""Who carries out what `supervision` decides: whatever is kept (actors, or workers) is stopped and started here.

Decisions are made at once when an exit is reported; carrying one out takes time: an operation. Two operations that
concern different leaves go on side by side. One that decides about all that another still had to do takes its place;
one that decides about a part of it waits. And as with OTP, a supervisor that is being started hears of an exit only
when its children have been started.

What ended because an operation stopped it is not an exit: the decision has marked it, and by incarnation whatever
comes late is told apart.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, Protocol

from .backoff import Backoff
from .child_spec import Intensity, Strategy, SupervisorSpec
from .decision import Decision, Exit, Leaving
from .errors import ExeuntError
from .family import LeafSpec
from .supervision import RESTART_INTENSITY, Supervision

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Craft(Protocol[LeafSpec]):
    """How one kind of leaf is started and stopped, and who wants to know."""

    async def start(self, spec: LeafSpec, begin: Callable[[], int], *, patient: bool) -> int:
        """Start it; return its incarnation, which `begin` gives for each try. `patient`: wait for what it runs in.

        Raises ExeuntError when it can't start.
        """
        ...

    async def stop(self, spec: LeafSpec, incarnation: int, reason: str, within_s: float | None) -> None:
        """Return when it has ended; kill it if that takes longer (None: it may take as long as it wants)."""
        ...

    def decided(self, decision: Decision[LeafSpec]) -> None:
        """Hear of a decision before it is carried out. Those that neither stop nor start anybody as well."""
        ...

    def restarted(self, spec: LeafSpec, reason: str, restarts: int, delay_s: float) -> None:
        """Hear that one has been started again."""
        ...


class _Operation(Generic[LeafSpec]):
    """One decision being carried out."""

    def __init__(self, decision: Decision[LeafSpec]) -> None:
        self.by = decision.by
        self.reasons = {one.id: one.reason for one in decision.exits}
        self.delay_s = decision.delay_s
        self.stops = deque(decision.stop)
        self.starts = deque(decision.start)
        self.task: asyncio.Task[None] | None = None

    @property
    def todo(self) -> frozenset[str]:
        """Whom it has still to stop or to start."""
        return frozenset((*(one.spec.id for one in self.stops), *self.starts))


class Terms(NamedTuple):
    """How a tree is kept: its root's strategy and the rest."""

    strategy: Strategy
    intensity: Intensity | None
    backoff: Backoff | None
    rng: random.Random
    spawn: Spawn

    def tree(self, specs: Sequence[LeafSpec | SupervisorSpec]) -> Supervision[LeafSpec]:
        """Plant a tree. Raises NameTaken when two members have one id."""
        return Supervision(specs, strategy=self.strategy, intensity=self.intensity, backoff=self.backoff, rng=self.rng)


class Keeper(Generic[LeafSpec]):
    """Keeps one tree. On its loop only."""

    def __init__(
        self,
        supervision: Supervision[LeafSpec],
        craft: Craft[LeafSpec],
        *,
        spawn: Spawn,
        on_end: Callable[[Decision[LeafSpec]], None],
    ) -> None:
        """`on_end` is called when the root gives up, or leaves."""
        self.supervision = supervision
        self.closing = False
        """Set when everybody leaves: no exit matters any more."""
        self._craft = craft
        self._spawn = spawn
        self._on_end = on_end
        self._operations: list[_Operation[LeafSpec]] = []
        self._deferred: list[Callable[[], None]] = []
        self._doomed: list[Leaving[LeafSpec]] = []
        """What a decision would have stopped that was overtaken by the end of everybody."""
        self._is_starting = False

    # --- for whoever keeps them ---

    async def start_all(self) -> None:
        """Start everybody, from left to right. Raises what the first raised that can't start."""
        self._is_starting = True
        try:
            for leaf in self.supervision.leaves():
                await self._start(leaf.spec.id, patient=False)
        finally:
            self._is_starting = False
            self._settle()

    def have_started(self, leaf_id: str) -> None:
        """Note that whoever keeps them has started one without us."""
        self.supervision.started(leaf_id, self.supervision.starting(leaf_id), self._now())

    def add(self, spec: LeafSpec | SupervisorSpec, under: str = "") -> tuple[str, ...]:
        """Add a member, right of all others of its supervisor; return what is to be started with `start`.

        Raises NameTaken when its id is taken, KeyError when there is no such supervisor.
        """
        return self.supervision.add(spec, under)

    async def start(self, member_id: str, leaf_ids: Sequence[str]) -> None:
        """Start what was added. When it can't be started, nothing of it is left."""
        try:
            for leaf_id in leaf_ids:
                await self._start(leaf_id, patient=False)
        except BaseException:
            self._apply(self.supervision.handle_removal(member_id))
            raise

    def exited(self, leaf_id: str, reason: str, incarnation: int = 0) -> None:
        """Handle an exit: now, or when what stands in its way is done."""
        if self.closing:
            return
        if self._must_wait(leaf_id):
            self._deferred.append(lambda: self.exited(leaf_id, reason, incarnation))
            return
        for operation in self._operations:
            if (
                operation.starts
                and operation.starts[0] == leaf_id
                and self.supervision.is_starting(leaf_id, incarnation)
            ):
                self._report(operation, leaf_id)  # it did start: its end has only overtaken the news of that
        self._apply(self.supervision.handle_exit(leaf_id, reason, self._now(), incarnation=incarnation))

    def lost(self, leaf_ids: Sequence[str], reason: str, *, for_good: bool = False) -> None:
        """Handle the end of what these ran in."""
        if self._is_starting:
            self._deferred.append(lambda: self.lost(leaf_ids, reason, for_good=for_good))
        elif not self.closing:
            for decision in self.supervision.handle_loss(leaf_ids, reason, self._now(), for_good=for_good):
                self._apply(decision)

    def is_stopping(self, leaf_id: str) -> bool:
        """Say whether an operation is just stopping it: its end is no news."""
        return any(one.spec.id == leaf_id for operation in self._operations for one in operation.stops)

    def restart(self, member_id: str) -> bool:
        """Restart a leaf, or a supervisor with all its children; False when there is none of that id.

        Who lives has its `shutdown_ms` to stop, and is killed then. Who waits by back-off waits no longer.
        """
        if self.closing or not self.supervision.knows(member_id):
            return False
        self._apply(self.supervision.handle_restart(member_id))
        return True

    def close(self) -> None:
        """From now on nobody is started any more."""
        self.closing = True
        for operation in self._operations:
            self._doomed.extend(operation.stops)
            _cancel(operation)
        self._operations.clear()

    async def stop_all(self, reason: str) -> None:
        """Stop everybody, from right to left."""
        self.close()
        await self._stop_each(deque((*self._doomed, *self.supervision.stop_all().stop)), reason)

    # --- inside ---

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _must_wait(self, leaf_id: str) -> bool:
        """Whether a supervisor of this leaf is just being started, by an operation of one above it."""
        if self._is_starting:
            return True
        above = self.supervision.above(leaf_id)
        for operation in self._operations:
            if operation.by in above[1:] and operation.todo & {
                leaf.spec.id for leaf in self.supervision.leaves(above[0])
            }:
                return True
        return False

    def _settle(self) -> None:
        deferred, self._deferred = self._deferred, []
        for handle in deferred:
            handle()

    def _apply(self, decision: Decision[LeafSpec]) -> None:
        if not decision.scope or self.closing:
            return
        _say(decision)
        self._craft.decided(decision)
        if decision.leave or decision.give_up:
            self._doomed.extend(decision.stop)
            self._on_end(decision)
            return
        operation = _Operation(decision)
        before: list[_Operation[LeafSpec]] = []
        for other in list(self._operations):
            todo = other.todo
            if todo and todo <= decision.scope:
                operation.stops.extendleft(reversed(other.stops))
                self._operations.remove(other)
                _cancel(other)
            elif todo & decision.scope:
                before.append(other)
        if operation.todo:
            self._operations.append(operation)
            operation.task = self._spawn(self._run(operation, before))
        else:
            self._settle()

    async def _run(self, operation: _Operation[LeafSpec], before: list[_Operation[LeafSpec]]) -> None:
        for other in before:
            if other.task is not None:
                await asyncio.wait({other.task})
        try:
            failed = await self._carry_out(operation)
        finally:
            if operation in self._operations:
                self._operations.remove(operation)
        if failed:
            self._apply(self.supervision.handle_start_failed(failed, operation.by, self._now()))
        self._settle()

    async def _carry_out(self, operation: _Operation[LeafSpec]) -> str:
        """Stop, wait, start; return the id of one that could not be started, at which it ends."""
        await self._stop_each(operation.stops, "restart")
        await asyncio.sleep(operation.delay_s)
        while operation.starts and not self.closing:
            leaf_id = operation.starts[0]
            try:
                has_started = await self._start(leaf_id, patient=True)
            except ExeuntError as error:
                fields = {"event": "restart_failed", "child": leaf_id, "reason": "crashed", "error": str(error)}
                logger.warning("%s could not be started again: %s", leaf_id, error, extra=fields)
                return leaf_id
            if has_started:  # else it is gone, or somebody else has started it
                self._report(operation, leaf_id)
            operation.starts.popleft()
        return ""

    def _report(self, operation: _Operation[LeafSpec], leaf_id: str) -> None:
        spec = self.supervision.spec(leaf_id)
        if spec is not None:
            reason, restarts = operation.reasons.get(leaf_id, "restart"), self.supervision.restarts_of(leaf_id)
            self._craft.restarted(spec, reason, restarts, operation.delay_s)

    async def _start(self, leaf_id: str, *, patient: bool) -> bool:
        spec = self.supervision.spec(leaf_id)
        if spec is None or not self.supervision.is_waiting(leaf_id):
            return False
        incarnation = await self._craft.start(spec, lambda: self.supervision.starting(leaf_id), patient=patient)
        return self.supervision.started(leaf_id, incarnation, self._now())

    async def _stop_each(self, stops: deque[Leaving[LeafSpec]], reason: str) -> None:
        """Stop them one after another; each is taken out when it has ended."""
        deadlines: dict[str, float] = {}
        while stops:
            spec, incarnation, bounds = stops[0]
            within_s = None if spec.shutdown_ms == "infinity" else spec.shutdown_ms / 1000
            for supervisor, allowed_ms in bounds:
                left_s = deadlines.setdefault(supervisor, self._now() + allowed_ms / 1000) - self._now()
                within_s = max(0.0, left_s if within_s is None else min(within_s, left_s))
            await self._craft.stop(spec, incarnation, reason, within_s)
            self.supervision.stopped(spec.id, incarnation)
            stops.popleft()


def _cancel(operation: _Operation[Any]) -> None:
    if operation.task is not None:
        operation.task.cancel()


def _say(decision: Decision[Any]) -> None:
    """Write to the log what ended and what follows."""
    first: Exit = decision.exits[0]
    fields: dict[str, object] = {"child": first.id, "reason": first.reason}
    for before, exit_ in zip(decision.exits, decision.exits[1:], strict=False):
        if exit_.reason == RESTART_INTENSITY:
            extra = {"event": "supervisor_gave_up", "child": before.id, "of": exit_.id}
            logger.warning("The supervisor %s has restarted too much, and ends", exit_.id, extra=extra)
    if decision.give_up:
        logger.error("%s ended too often; giving up", first.id, extra={**fields, "event": "gave_up"})
    elif decision.start:
        fields |= {"event": "child_restarted", "delay_s": decision.delay_s}
        if first.reason == "restart":
            logger.warning("%s is restarted on request", first.id, extra=fields)
        else:
            logger.warning("%s ended (%s) and is restarted", first.id, first.reason, extra=fields)
