"""What a supervisor does when a child ends, decided without doing it (OTP's `supervisor`, as a function of facts
and time).

`Supervision` is a tree: supervisors, and at its leaves what they keep: actors, or worker processes, by the same
rules. Tell it each exit with the time; it answers whom to stop, whom to start, after which delay, or that it is time
to give up. It never looks at a clock and starts nothing.

A supervisor that has restarted too much stops its children and ends; its parent decides about it as about any child,
and so on up to the root. All of that is one `Decision`. A leaf has one incarnation after another, numbered through
the whole tree, so that a successor's number is always larger; an exit of any but the current one is nobody's business.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from .backoff import Backoff
from .child_spec import ROOT_ID, Intensity, Restart, Strategy, SupervisorSpec
from .decision import Decision, Exit, Leaving
from .family import Branch, Family, Leaf, LeafSpec, Member, State, leaves_of
from .inheritance import HAND_OVER
from .messages import NORMAL_REASONS

RESTART_INTENSITY = "restart_intensity"
"""Why a supervisor ended that has restarted too much."""
AUTO_SHUTDOWN = "shutdown"
"""Why a supervisor ended whose significant child has ended for good (OTP's reason)."""

_DEFAULT_BACKOFF = Backoff()


class Supervision(Family[LeafSpec]):
    """The memory of a tree: who its members are, how they are, and when any was restarted."""

    def __init__(
        self,
        children: Sequence[LeafSpec | SupervisorSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        rng: random.Random,
    ) -> None:
        """Raises NameTaken when two members have one id."""
        spec = SupervisorSpec(
            id=ROOT_ID, children=(), strategy=strategy, intensity=intensity or Intensity(), backoff=backoff
        )
        super().__init__(spec)
        self._rng = rng
        self._numbers = itertools.count(1)
        for child in children:
            self.add(child)

    # --- what was done ---

    def starting(self, leaf_id: str) -> int:
        """A leaf is being started: return the number of its new incarnation. Raises KeyError for an unknown one."""
        leaf = self._leaves[leaf_id]
        if leaf.state is State.WAITING and leaf.incarnation:
            leaf.restarts += 1
        leaf.incarnation = next(self._numbers)
        leaf.state = State.STARTING
        return leaf.incarnation

    def started(self, leaf_id: str, incarnation: int, now: float) -> bool:
        """It has started; False when that is no longer true."""
        leaf = self._leaves.get(leaf_id)
        if leaf is None or leaf.incarnation != incarnation or leaf.state is not State.STARTING:
            return False
        leaf.state, leaf.since, leaf.goes_on = State.RUNNING, now, False
        return True

    def stopped(self, leaf_id: str, incarnation: int) -> None:
        """It has ended as a decision said."""
        leaf = self._leaves.get(leaf_id)
        if leaf is not None and leaf.incarnation == incarnation and leaf.state is State.STOPPING:
            leaf.state, leaf.since = State.WAITING, None

    def stop_all(self) -> Decision[LeafSpec]:
        """Decide to stop everybody."""
        return Decision(by=ROOT_ID, stop=tuple(self._leaving_below(self.root)), scope=_scope(self.root))

    # --- what happened ---

    def handle_exit(self, leaf_id: str, reason: str, now: float, *, incarnation: int = 0) -> Decision[LeafSpec]:
        """Decide about a leaf that ended with `reason` at `now` (seconds). `incarnation` 0: whoever lives.

        With the reason `restart` it ended because somebody asked for that: it is started again, on its own, and
        nothing is counted.
        """
        leaf = self._leaves.get(leaf_id)
        if leaf is None or not leaf.alive or incarnation not in (0, leaf.incarnation):
            return Decision()
        leaf.state = State.WAITING
        if reason == "restart" and wants_restart(leaf.spec.restart, reason):
            leaf.since = None
            exits = (Exit(leaf_id, reason),)
            return Decision(by=_by(leaf), exits=exits, start=(leaf_id,), scope=frozenset({leaf_id}))
        return self._decide(leaf, reason, now)

    def handle_start_failed(self, leaf_id: str, by: str, now: float) -> Decision[LeafSpec]:
        """Decide about a leaf that did not start, as the supervisor `by` had decided.

        It is the start of `by`'s own child that has failed, be that the leaf or a supervisor of it.
        """
        failed: Member[LeafSpec] | None = self._leaves.get(leaf_id)
        if failed is None or failed.parent is None:
            return Decision()
        leaf = self._leaves[leaf_id]
        leaf.state, leaf.since = State.WAITING, None
        while failed.parent is not None and failed.parent.spec.id != by:
            failed = failed.parent
        if failed.parent is None:
            failed = leaf  # `by` is gone
        failed.since = None
        return self._decide(failed, "crashed", now)

    def handle_loss(
        self, leaf_ids: Iterable[str], reason: str, now: float, *, for_good: bool = False
    ) -> list[Decision[LeafSpec]]:
        """Decide about leaves that ended together, because what they ran in has ended.

        That is counted there and not here. Each supervisor's strategy holds: who depends on one that was lost is
        restarted with it. `for_good`: what they ran in does not come back, and neither do they. With the reason
        `hand_over` they go on in its successor, those that hand over whatever their `restart` says; if that is lost
        before they have been started there, they are as well.
        """
        lost = [leaf for leaf in leaves_of(self.root) if leaf.spec.id in set(leaf_ids)]
        if for_good:
            self._barred |= {leaf.spec.id for leaf in lost}
        lost = [leaf for leaf in lost if for_good or leaf.alive or leaf.goes_on]
        for leaf in lost:
            leaf.state, leaf.since = State.WAITING, None
            leaf.goes_on = leaf.spec.hands_over and reason == HAND_OVER
        decisions: list[Decision[LeafSpec]] = []
        for leaf in lost:
            comes_back = leaf.goes_on or wants_restart(leaf.spec.restart, reason)
            if self._leaves.get(leaf.spec.id) is leaf and (for_good or not comes_back):
                decisions.append(self._decide(leaf, reason, now, for_good=for_good))
                if decisions[-1].leave or decisions[-1].give_up:
                    return decisions
        done = {one for decision in decisions for one in decision.start}
        left = [leaf for leaf in lost if self._leaves.get(leaf.spec.id) is leaf and leaf.spec.id not in done]
        for parent in dict.fromkeys(leaf.parent for leaf in left):
            assert parent is not None
            exits = tuple(Exit(leaf.spec.id, reason) for leaf in left if leaf.parent is parent)
            decisions.extend(self._again(parent, exits))
        return decisions

    def handle_restart(self, member_id: str) -> Decision[LeafSpec]:
        """Somebody asks for the restart of a leaf, or of a whole supervisor (not the root), also of one that was given
        up. Nothing is counted against anybody, and nobody waits.
        """
        member = self._member(member_id)
        if member is None or member.parent is None:
            return Decision()
        scope = _scope(member)
        if member.parent.fallen.pop(member_id, None) is None:
            stop = tuple(self._leaving(member, ()))
        else:
            stop = ()  # was decided when it was given up; whoever does it still is overtaken, and does it first
            for leaf in leaves_of(member):
                leaf.state, leaf.since = State.WAITING, None
            if isinstance(member, Leaf):
                self._grow(member.parent, member.spec, {member_id: member})
        if isinstance(member, Branch):
            member.restarts += 1
        start = tuple(self._restore(member))
        exits = (Exit(member_id, "restart"),)
        return Decision(by=_by(member), exits=exits, stop=stop, start=start, scope=scope | {*start})

    def handle_removal(self, member_id: str) -> Decision[LeafSpec]:
        """A member is to go, with all below it."""
        member: Member[LeafSpec] | None = self._leaves.get(member_id) or self._branches.get(member_id)
        if member is None or member.parent is None:
            return Decision()
        by, scope, stop = _by(member), _scope(member), tuple(self._leaving(member, ()))
        self._remove(member)
        return Decision(by=by, exits=(Exit(member_id, "shutdown"),), stop=stop, scope=scope)

    # --- inside ---

    def _decide(
        self, member: Member[LeafSpec], reason: str, now: float, *, for_good: bool = False
    ) -> Decision[LeafSpec]:
        """Decide about a member that has ended, and then, as long as its end is its supervisor's end, about that."""
        exits: list[Exit] = []
        stop: list[Leaving[LeafSpec]] = []
        scope: frozenset[str] = frozenset()
        while True:
            parent = member.parent
            assert parent is not None
            exits.append(Exit(member.spec.id, reason))
            scope |= _scope(member)
            stop += self._leaving_below(member)
            gave_up = False
            if for_good or not wants_restart(member.spec.restart, reason):
                self._remove(member)
                if for_good or reason == RESTART_INTENSITY:
                    parent.give_up(member)
                if not member.spec.significant:
                    return Decision(by=parent.spec.id, exits=tuple(exits), stop=tuple(stop), scope=scope)
                reason = AUTO_SHUTDOWN
            elif parent.has_restarted_too_much(now):
                reason, gave_up = RESTART_INTENSITY, True
            else:
                ended = Decision(by=parent.spec.id, exits=tuple(exits), stop=tuple(stop), scope=scope)
                return self._restart(member, parent, ended, now)
            if parent.parent is None:
                return Decision(
                    by=parent.spec.id,
                    exits=tuple(exits),
                    stop=tuple(stop),
                    scope=scope,
                    give_up=gave_up,
                    leave=not gave_up,
                )
            member, for_good = parent, False

    def _restart(
        self, member: Member[LeafSpec], parent: Branch[LeafSpec], ended: Decision[LeafSpec], now: float
    ) -> Decision[LeafSpec]:
        backoff = member.backoff or _DEFAULT_BACKOFF
        delay_s = backoff.delay_s(member.count_failure(backoff.reset_s, now), self._rng)
        stop, start, scope = self._regroup(parent, [member])
        if isinstance(member, Branch):
            member.since = now + delay_s
        return msgspec.structs.replace(
            ended, stop=(*ended.stop, *stop), start=tuple(start), delay_s=delay_s, scope=ended.scope | scope
        )

    def _again(self, parent: Branch[LeafSpec], exits: tuple[Exit, ...]) -> list[Decision[LeafSpec]]:
        """Have children of one supervisor started again that ended together, through no fault of theirs."""
        members = [parent.children[one.id] for one in exits]
        if parent.spec.strategy is not Strategy.ONE_FOR_ONE:
            stop, start, scope = self._regroup(parent, members)
            return [Decision(by=parent.spec.id, exits=exits, stop=tuple(stop), start=tuple(start), scope=scope)]
        return [Decision(by=parent.spec.id, exits=(one,), start=(one.id,), scope=frozenset({one.id})) for one in exits]

    def _regroup(
        self, parent: Branch[LeafSpec], ended: list[Member[LeafSpec]]
    ) -> tuple[list[Leaving[LeafSpec]], list[str], frozenset[str]]:
        """Return whom to stop and whom to start because these children have ended, and everybody concerned."""
        group = parent.group(ended)
        scope = frozenset[str]().union(*(_scope(one) for one in group))
        stop = [
            leaving for one in reversed(group) if one not in ended for leaving in self._leaving(one, ())
        ]  # fmt: skip
        start: list[str] = []
        for one in group:
            if one not in ended and one.spec.restart is Restart.TEMPORARY:
                self._remove(one)
                continue
            if isinstance(one, Branch):
                one.restarts += 1
            start += self._restore(one)
        return stop, start, scope | {*start}

    def _leaving(self, member: Member[LeafSpec], bounds: tuple[tuple[str, int], ...]) -> list[Leaving[LeafSpec]]:
        """List the living leaves of a member that its parent stops, from right to left; they are doomed from now."""
        if isinstance(member, Leaf):
            if not member.alive:
                return []
            member.state = State.STOPPING
            return [Leaving(member.spec, member.incarnation, bounds)]
        if isinstance(member.spec.shutdown_ms, int):
            bounds = (*bounds, (member.spec.id, member.spec.shutdown_ms))
        assert isinstance(member, Branch)
        return [one for child in reversed(member.children.values()) for one in self._leaving(child, bounds)]

    def _leaving_below(self, member: Member[LeafSpec]) -> list[Leaving[LeafSpec]]:
        """List those of a member that has ended by itself, and so has all the time that its children need."""
        if not isinstance(member, Branch):
            return []
        return [one for child in reversed(member.children.values()) for one in self._leaving(child, ())]


def wants_restart(restart: Restart, reason: str) -> bool:
    """Say whether a child that ended with this reason is started again."""
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and reason not in NORMAL_REASONS)


def _by(member: Member[Any]) -> str:
    assert member.parent is not None
    return member.parent.spec.id


def _scope(member: Member[Any]) -> frozenset[str]:
    return frozenset(leaf.spec.id for leaf in leaves_of(member))
