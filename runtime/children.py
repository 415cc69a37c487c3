"""The actors that a supervisor keeps: started, restarted as `supervision` decides, stopped.

Exits are handled one after another, as OTP's supervisor does: with `one_for_one` each child has a lane of its own,
else all share one, so that two restarts never interleave. An exit counts only while the incarnation that ended is
the current one; what the supervisor stopped itself is not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable

import msgspec

from .child_spec import ChildSpec, Intensity, Restart, Strategy
from .errors import AskTimeout, ExeuntError, NameTaken, Refused
from .messages import StartActor, StopActor
from .ref import Ref
from .supervision import Child, Decision, Supervision
from .workforce import Workforce

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0  # for an `on_start`
_HOST_GRACE_S = 1.0  # a host that is this late with an answer that it owes by a deadline hangs, and its worker with it
_BLAMELESS = frozenset({"worker_died", "restart"})  # counted elsewhere, or asked for


class Children:
    """The children of one supervisor, from left to right in order of start."""

    def __init__(
        self,
        workforce: Workforce,
        *,
        strategy: Strategy,
        intensity: Intensity | None,
        rng: random.Random,
        on_end: Callable[[str, bool], None],
    ) -> None:
        self.specs: dict[str, ChildSpec] = {}
        self.restarts: dict[str, int] = {}
        self.closing = False
        """Set when everybody leaves: no exit matters any more."""
        self._workforce = workforce
        self._each_alone = strategy is Strategy.ONE_FOR_ONE
        self._supervision = Supervision(strategy=strategy, intensity=intensity, rng=rng)
        self._on_end = on_end
        self._count = itertools.count(1)
        self._current: dict[str, int] = {}
        self._lanes: dict[str, asyncio.Lock] = {}

    def ref(self, spec: ChildSpec) -> Ref:
        """Return a ref to a child."""
        node = self._workforce.node
        return node.ref(f"{node.name}/{spec.worker}/{spec.id}")

    async def add(self, spec: ChildSpec) -> Ref:
        """Start a child, right of all others. Raises NameTaken, Refused or Unavailable when it can't start."""
        if spec.id in self.specs:
            raise NameTaken(f"there is a child {spec.id} already")
        self.specs[spec.id] = spec
        self._supervision.add(Child(id=spec.id, restart=spec.restart, significant=spec.significant))
        try:
            await self._start(spec)
        except BaseException:
            self._forget(spec.id)
            raise
        return self.ref(spec)

    async def exited(self, child_id: str, incarnation: int, reason: str) -> None:
        """Handle the end of a child: restart it, and others with it, or let it go."""
        async with self._lanes.setdefault(child_id if self._each_alone else "", asyncio.Lock()):
            failed: tuple[str, int, str] | None = (child_id, incarnation, reason)
            while failed is not None and not self.closing and self._current.get(failed[0]) == failed[1]:
                failed = await self._handle_exit(failed[0], failed[2])

    async def worker_died(self, worker: str) -> None:
        """Handle the end of all children of a worker that is being replaced; restarts wait until it has been."""
        ended = self._of(worker)
        ended.sort(key=lambda child: self.specs[child[0]].restart is not Restart.TEMPORARY)  # these need not wait
        for child_id, incarnation in ended:
            await self.exited(child_id, incarnation, "worker_died")

    def worker_lost(self, worker: str) -> None:
        """Let the children of a worker go, which is not replaced."""
        for spec in [spec for spec in self.specs.values() if spec.worker == worker]:
            self._forget(spec.id)
            if spec.significant:
                self._on_end(f"{spec.id}: worker_died", True)

    async def stop_all(self, reason: str) -> None:
        """Stop every child, from right to left."""
        self.closing = True
        for spec in reversed(list(self.specs.values())):
            await self._stop(spec, reason)

    # --- inside ---

    def _of(self, worker: str) -> list[tuple[str, int]]:
        return [
            (spec.id, self._current[spec.id])
            for spec in self.specs.values()
            if spec.worker == worker and spec.id in self._current
        ]

    async def _handle_exit(self, child_id: str, reason: str) -> tuple[str, int, str] | None:
        """Decide and carry out; return the exit of a child that could not be started, for the next round."""
        decision = self._supervision.handle_exit(child_id, reason, time.monotonic(), blameless=reason in _BLAMELESS)
        if decision.give_up:
            logger.error("Too many restarts; giving up", extra=_fields("gave_up", child_id, reason))
            self._on_end(f"{child_id} kept failing", True)
            return None
        if child_id not in decision.start:
            self._forget(child_id)
            if decision.leave:
                self._on_end(f"{child_id}: {reason}", reason in {"crashed", "killed", "worker_died"})
            return None
        fields = _fields("child_restarted", child_id, reason)
        logger.warning("A child ended and is restarted", extra={**fields, "delay_s": decision.delay_s})
        return await self._carry_out(decision)

    async def _carry_out(self, decision: Decision) -> tuple[str, int, str] | None:
        for child_id in decision.stop:
            self._current.pop(child_id, None)
            await self._stop(self.specs[child_id], "restart")
            if child_id not in decision.start:
                self._forget(child_id)
        await asyncio.sleep(decision.delay_s)
        for child_id in decision.start:
            if self.closing or child_id not in self.specs:
                return None
            self.restarts[child_id] = self.restarts.get(child_id, 0) + 1
            try:
                await self._start_in_living_worker(self.specs[child_id])
            except ExeuntError as error:
                fields = _fields("restart_failed", child_id, "crashed")
                logger.warning("A restart failed", extra={**fields, "error": str(error)})
                return child_id, self._current.get(child_id, 0), "crashed"
        return None

    async def _start_in_living_worker(self, spec: ChildSpec) -> None:
        while True:
            await self._workforce.until_usable(spec.worker)
            try:
                await self._start(spec)
            except ExeuntError:
                if self._workforce.is_usable(spec.worker) or spec.id not in self.specs:
                    raise
            else:
                return

    async def _start(self, spec: ChildSpec) -> None:
        incarnation = self._current[spec.id] = next(self._count)
        args = msgspec.Raw(msgspec.msgpack.encode(spec.args))
        message = StartActor(spec.id, spec.start, args, incarnation)
        try:
            await self._workforce.host(spec.worker).ask(message, timeout_s=START_TIMEOUT_S)
        except AskTimeout:
            await self._stop(msgspec.structs.replace(spec, shutdown_ms=0), "shutdown")
            raise Refused("start_failed", f"{spec.id} did not start within {START_TIMEOUT_S:g} s") from None

    async def _stop(self, spec: ChildSpec, reason: str) -> None:
        """Return when it has ended. A worker that does not even answer by the deadline is killed."""
        message = StopActor(spec.id, reason, spec.shutdown_ms)
        timeout_s = spec.shutdown_ms / 1000 + _HOST_GRACE_S
        try:
            await self._workforce.host(spec.worker).ask(message, timeout_s=timeout_s)
        except AskTimeout:
            process = self._workforce.processes.get(spec.worker)
            if process is not None:
                logger.error("A worker hangs and is killed", extra={"event": "worker_killed", "of": spec.worker})
                process.kill()
                await process.ended.wait()
        except ExeuntError:
            pass  # its worker is gone, and it with it

    def _forget(self, child_id: str) -> None:
        self._supervision.forget(child_id)
        self.specs.pop(child_id, None)
        self.restarts.pop(child_id, None)
        self._current.pop(child_id, None)
        if self._each_alone:
            self._lanes.pop(child_id, None)


def _fields(event: str, child_id: str, reason: str) -> dict[str, object]:
    return {"event": event, "child": child_id, "reason": reason}
