"""The actors that a supervisor keeps: how one is started in its worker, how it is stopped, who is told.

What is to be started and stopped is decided in `supervision` and carried out by `keeper`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from .address import Address
from .child_spec import ChildSpec, SupervisorSpec
from .decision import Decision
from .errors import ActorDead, AskTimeout, ExeuntError, Refused
from .events import ChildRestarted, Event, GaveUp
from .keeper import Keeper, Terms
from .messages import NamesChanged, StartActor, StopActor
from .ref import Ref
from .supervision import RESTART_INTENSITY, Supervision
from .workforce import Workforce

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0  # for an `on_start`
_HOST_GRACE_S = 1.0  # a host that is this late with an answer that it owes by a deadline hangs, and its worker with it
_FOREVER_S = 1e8  # three years: what `infinity` comes to for a timer


class Children:
    """The actors of one program, in a tree of supervisors."""

    def __init__(
        self,
        workforce: Workforce,
        specs: Sequence[ChildSpec | SupervisorSpec],
        *,
        name: str,
        terms: Terms,
        publish: Callable[[Event], None],
        on_end: Callable[[Decision[ChildSpec]], None],
    ) -> None:
        self.supervision: Supervision[ChildSpec] = terms.tree(specs)
        self.keeper: Keeper[ChildSpec] = Keeper(self.supervision, self, spawn=terms.spawn, on_end=on_end)
        self._workforce = workforce
        self._publish = publish
        self._name = name

    @property
    def specs(self) -> dict[str, ChildSpec]:
        """The specs of all actors, by id, in order of start."""
        return {leaf.spec.id: leaf.spec for leaf in self.supervision.leaves()}

    def ref(self, spec: ChildSpec) -> Ref:
        """Return a ref to a child."""
        return self._workforce.node.ref(self._address(spec))

    async def start_all(self) -> None:
        """Start everybody, from left to right, after everybody's name is known."""
        self._workforce.announce(NamesChanged({id_: self._address(spec) for id_, spec in self.specs.items()}))
        await self.keeper.start_all()

    async def add(self, spec: ChildSpec | SupervisorSpec, under: str = "") -> None:
        """Start a further child, or a supervisor with its children."""
        ids = self.keeper.add(spec, under)
        specs = [self.supervision.spec(id_) for id_ in ids]
        self._workforce.announce(NamesChanged({one.id: self._address(one) for one in specs if one is not None}))
        await self.keeper.start(spec.id, ids)

    def exited(self, worker: str, name: str, incarnation: int, reason: str) -> None:
        """Handle the end of an actor, if it is one of these."""
        spec = self.supervision.spec(name)
        if spec is not None and spec.worker == worker:
            self.keeper.exited(name, reason, incarnation)

    def worker_lost(self, worker: str, reason: str, *, for_good: bool) -> None:
        """Handle the end of all that lived in a worker: `worker_died`, or `hand_over`. If it is being replaced,
        restarts wait for that.
        """
        ids = [leaf.spec.id for leaf in self.supervision.leaves() if leaf.spec.worker == worker]
        self.keeper.lost(ids, reason, for_good=for_good)

    # --- for the keeper ---

    async def start(self, spec: ChildSpec, begin: Callable[[], int], *, patient: bool) -> int:
        """Start an actor. `patient`: wait for its worker, and for that worker's successor should it die meanwhile."""
        while True:
            if patient:
                await self._workforce.until_usable(spec.worker)
            if self.supervision.spec(spec.id) is None:
                raise ActorDead(f"{spec.id}: no such child any more")
            incarnation = begin()
            try:
                await self._start(spec, incarnation)
            except ExeuntError:
                if not patient or self._workforce.is_usable(spec.worker):
                    raise
            else:
                return incarnation

    async def stop(self, spec: ChildSpec, incarnation: int, reason: str, within_s: float | None) -> None:
        """Stop an actor. A worker that does not even answer by the deadline is killed, and so is one whose actor does
        not let itself be killed, where a successor waits for its place.
        """
        shutdown_ms = -1 if within_s is None else round(within_s * 1000)
        timeout_s = _FOREVER_S if within_s is None else within_s + _HOST_GRACE_S
        message = StopActor(spec.id, reason, shutdown_ms, incarnation)
        try:
            await self._workforce.host(spec.worker).ask(message, timeout_s=timeout_s)
        except AskTimeout:
            await self._kill_worker(spec.worker, "it hangs")
        except Refused as refused:
            if reason == "restart":
                await self._kill_worker(spec.worker, refused.message)
        except ExeuntError:
            pass  # its worker is gone, and it with it

    def decided(self, decision: Decision[ChildSpec]) -> None:
        """Publish who gave up; let everybody forget the names of those that are gone."""
        before = decision.exits[0]
        for exit_ in decision.exits[1:]:
            if exit_.reason == RESTART_INTENSITY:
                self._publish(GaveUp(exit_.id, child=before.id))
            before = exit_
        if decision.give_up:
            self._publish(GaveUp(self._name, child=before.id))
        gone = tuple(id_ for id_ in sorted(decision.scope) if self.supervision.spec(id_) is None)
        known = self._workforce.node.names
        specs = [self.supervision.spec(id_) for id_ in decision.start if known.address(id_) is None]
        back = {spec.id: self._address(spec) for spec in specs if spec is not None}
        if gone or back:
            self._workforce.announce(NamesChanged(back, gone))

    def restarted(self, spec: ChildSpec, reason: str, restarts: int, delay_s: float) -> None:
        """Publish it."""
        self._publish(ChildRestarted(self._address(spec), reason=reason, restarts=restarts, delay_s=delay_s))

    # --- inside ---

    def _address(self, spec: ChildSpec) -> str:
        return str(Address(self._name, spec.worker, spec.id))

    async def _kill_worker(self, worker: str, why: str) -> None:
        process = self._workforce.processes.get(worker)
        if process is not None:
            logger.error("Worker %s is killed: %s", worker, why, extra={"event": "worker_killed", "of": worker})
            process.kill()
            await process.ended.wait()

    async def _start(self, spec: ChildSpec, incarnation: int) -> None:
        args = msgspec.Raw(msgspec.msgpack.encode(spec.args))
        message = StartActor(spec.id, spec.start, args, incarnation)
        try:
            await self._workforce.host(spec.worker).ask(message, timeout_s=START_TIMEOUT_S)
        except AskTimeout:
            await self.stop(spec, incarnation, "shutdown", 0)
            raise Refused("start_failed", f"{spec.id} did not start within {START_TIMEOUT_S:g} s") from None
