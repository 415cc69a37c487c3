"""Trees of supervisors against a model of them that does what OTP says at once, without deciding anything first."""

import itertools
import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exeunt.runtime import Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorSpec
from exeunt.runtime.decision import Decision
from exeunt.runtime.supervision import Supervision

NORMAL = ("normal", "shutdown")
REASONS = (*NORMAL, "crashed", "killed")


class StartFailed(Exception):
    def __init__(self, sup: "Sup", kid: "Sup | ChildSpec") -> None:
        self.sup, self.kid = sup, kid


class Over(Exception):
    """The root has ended."""


class Sup:
    """A supervisor that runs."""

    def __init__(self, spec: SupervisorSpec, up: "Sup | None") -> None:
        self.id, self.spec, self.up = spec.id, spec, up
        self.kids: list[Sup | ChildSpec] = []
        self.times: list[float] = []


class World:
    """The model: a tree that acts. `log` is what it did, in order."""

    def __init__(self, root: SupervisorSpec) -> None:
        self.alive: set[str] = set()
        self.log: list[str] = []
        self.failing: set[str] = set()
        self.now = 0.0
        self.root = Sup(root, None)
        self.populate(self.root)

    def populate(self, sup: Sup) -> None:
        sup.kids = [Sup(kid, sup) if isinstance(kid, SupervisorSpec) else kid for kid in sup.spec.children]
        sup.times = []
        for kid in sup.kids:
            self.start(kid)

    def start(self, kid: Sup | ChildSpec) -> None:
        if isinstance(kid, Sup):
            self.populate(kid)
            return
        if kid.id in self.failing:
            self.failing.discard(kid.id)
            raise RuntimeError
        assert kid.id not in self.alive
        self.alive.add(kid.id)
        self.log.append(f"+{kid.id}")

    def stop(self, kid: Sup | ChildSpec) -> None:
        if isinstance(kid, Sup):
            for one in reversed(kid.kids):
                self.stop(one)
        elif kid.id in self.alive:
            self.alive.discard(kid.id)
            self.log.append(f"-{kid.id}")

    def died(self, sup: Sup, kid: Sup | ChildSpec, reason: str) -> None:
        """A child has ended, and all below it."""
        spec = kid.spec if isinstance(kid, Sup) else kid
        permanent, temporary = spec.restart is Restart.PERMANENT, spec.restart is Restart.TEMPORARY
        if temporary or (not permanent and reason in NORMAL):
            sup.kids.remove(kid)
            if spec.significant:
                self.end(sup, "shutdown")
            return
        sup.times = [time for time in sup.times if time > self.now - sup.spec.intensity.period_s] + [self.now]
        if len(sup.times) > sup.spec.intensity.restarts:
            self.end(sup, "restart_intensity")
            return
        at = sup.kids.index(kid)
        group = {
            Strategy.ONE_FOR_ONE: [kid],
            Strategy.ONE_FOR_ALL: list(sup.kids),
            Strategy.REST_FOR_ONE: sup.kids[at:],
        }[sup.spec.strategy]
        self.renew(sup, kid, group)

    def renew(self, sup: Sup, ended: Sup | ChildSpec | None, group: list[Sup | ChildSpec]) -> None:
        for one in reversed(group):
            if one is not ended:
                self.stop(one)
                spec = one.spec if isinstance(one, Sup) else one
                if spec.restart is Restart.TEMPORARY and ended is not None:
                    sup.kids.remove(one)
        for one in group:
            if one in sup.kids:
                try:
                    self.start(one)
                except RuntimeError:
                    self.stop(one)
                    self.died(sup, one, "crashed")
                    return

    def end(self, sup: Sup, reason: str) -> None:
        if sup.up is None:
            raise Over(reason)
        for kid in reversed(sup.kids):
            self.stop(kid)
        self.died(sup.up, sup, reason)

    def sups(self, below: Sup | None = None) -> list[Sup]:
        sup = below or self.root
        return [sup, *(one for kid in sup.kids if isinstance(kid, Sup) for one in self.sups(kid))]

    def keeper_of(self, leaf_id: str) -> tuple[Sup, ChildSpec]:
        return next(
            (sup, kid) for sup in self.sups() for kid in sup.kids if isinstance(kid, ChildSpec) and kid.id == leaf_id
        )


restarts = st.sampled_from(list(Restart))
intensities = st.builds(Intensity, restarts=st.integers(0, 3), period_s=st.sampled_from([1.0, 10.0]))
shape = st.recursive(
    st.tuples(st.just("leaf"), restarts, st.booleans()),
    lambda below: st.tuples(
        st.just("sup"),
        restarts,
        st.booleans(),
        st.sampled_from(list(Strategy)),
        intensities,
        st.lists(below, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


def grown(shape: Any, names: "itertools.count[int]") -> ChildSpec | SupervisorSpec:
    name = next(names)
    if shape[0] == "leaf":
        _, restart, significant = shape
        return ChildSpec(id=f"c{name}", worker="w", start="m:A", restart=restart, significant=significant)
    _, restart, significant, strategy, intensity, below = shape
    return SupervisorSpec(
        id=f"s{name}",
        children=[grown(one, names) for one in below],
        restart=restart,
        significant=significant,
        strategy=strategy,
        intensity=intensity,
    )


class Trees(RuleBasedStateMachine):
    """Whatever ends, in whatever order: both do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.over = ""

    @initialize(
        shapes=st.lists(shape, min_size=1, max_size=4), strategy=st.sampled_from(list(Strategy)), intensity=intensities
    )
    def plant(self, shapes: list[Any], strategy: Strategy, intensity: Intensity) -> None:
        self.names = itertools.count()
        children = [grown(one, self.names) for one in shapes]
        self.world = World(SupervisorSpec(id="/", children=children, strategy=strategy, intensity=intensity))
        self.tree: Supervision[ChildSpec] = Supervision(
            children,
            strategy=strategy,
            intensity=intensity,
            backoff=Backoff(first_s=0, jitter=0),
            rng=random.Random(1),
        )
        self.log: list[str] = []
        self.alive: dict[str, int] = {}
        self.newest = 0
        self.failing: set[str] = set()
        self.restarted: dict[str, list[float]] = {}
        self.carry_out(Decision(start=tuple(one.spec.id for one in self.tree.leaves())))

    # --- carrying out ---

    def carry_out(self, decision: Decision[ChildSpec]) -> None:
        if decision.give_up or decision.leave:
            self.over = "restart_intensity" if decision.give_up else "shutdown"
            return
        for leaving in decision.stop:
            assert self.alive.pop(leaving.spec.id) == leaving.incarnation, "only who lives is stopped"
            self.tree.stopped(leaving.spec.id, leaving.incarnation)
            self.log.append(f"-{leaving.spec.id}")
        for one in decision.start:
            above = self.tree.above(one)
            for begun in above[: above.index(decision.by)] if decision.by in above else ():
                self.restarted.pop(begun, None)  # it has restarted nobody yet
            assert one not in self.alive, "who lives is not started"
            incarnation = self.tree.starting(one)
            assert incarnation > self.newest, "incarnations grow"
            self.newest = incarnation
            if one in self.failing:
                self.failing.discard(one)
                self.counted(self.tree.handle_start_failed(one, decision.by, self.world.now))
                return
            assert self.tree.started(one, incarnation, self.world.now)
            self.alive[one] = incarnation
            self.log.append(f"+{one}")

    def counted(self, decision: Decision[ChildSpec]) -> None:
        """Carry it out; nobody who decided on a restart has decided on too many."""
        if decision.start:
            branch = self.tree.root if decision.by == "/" else self.tree._branches[decision.by]  # pyright: ignore[reportPrivateUsage]
            intensity = branch.spec.intensity
            times = [at for at in self.restarted.get(decision.by, []) if at > self.world.now - intensity.period_s]
            self.restarted[decision.by] = [*times, self.world.now]
            assert len(self.restarted[decision.by]) <= intensity.restarts
        self.carry_out(decision)

    def both(self, leaf_id: str, reason: str) -> None:
        incarnation = self.alive.pop(leaf_id)
        self.world.alive.discard(leaf_id)
        sup, kid = self.world.keeper_of(leaf_id)
        over = ""
        try:
            self.world.died(sup, kid, reason)
        except Over as end:
            over = str(end)
        self.counted(self.tree.handle_exit(leaf_id, reason, self.world.now, incarnation=incarnation))
        assert self.over == over

    # --- what may happen ---

    @precondition(lambda self: not self.over and self.alive)
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def a_leaf_ends(self, data: st.DataObject, reason: str) -> None:
        self.both(data.draw(st.sampled_from(sorted(self.alive))), reason)

    @precondition(lambda self: not self.over and self.alive)
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def a_leaf_ends_and_a_start_fails(self, data: st.DataObject, reason: str) -> None:
        failing = {data.draw(st.sampled_from(sorted(self.alive)))}
        self.failing, self.world.failing = set(failing), set(failing)
        self.both(data.draw(st.sampled_from(sorted(self.alive))), reason)
        assert self.over or self.failing == self.world.failing
        self.failing, self.world.failing = set(), set()

    @rule(seconds=st.sampled_from([0.4, 1.0, 6.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: not self.over)
    @rule(data=st.data(), one=shape)
    def one_more_is_added(self, data: st.DataObject, one: Any) -> None:
        sup = data.draw(st.sampled_from(self.world.sups()))
        spec = grown(one, self.names)
        kid = Sup(spec, sup) if isinstance(spec, SupervisorSpec) else spec
        sup.kids.append(kid)
        self.world.start(kid)
        self.carry_out(Decision(by=sup.id, start=self.tree.add(spec, "" if sup.up is None else sup.id)))

    @precondition(lambda self: not self.over and len(self.world.sups()) > 1)
    @rule(data=st.data())
    def a_supervisor_is_restarted_on_request(self, data: st.DataObject) -> None:
        sup = data.draw(st.sampled_from(self.world.sups()[1:]))
        assert sup.up is not None
        self.world.renew(sup.up, None, [sup])
        self.carry_out(self.tree.handle_restart(sup.id))

    @precondition(lambda self: not self.over and self.alive)
    @rule(data=st.data())
    def a_leaf_is_restarted_on_request(self, data: st.DataObject) -> None:
        leaf_id = data.draw(st.sampled_from(sorted(self.alive)))
        sup, kid = self.world.keeper_of(leaf_id)
        self.world.renew(sup, None, [kid])
        self.carry_out(self.tree.handle_restart(leaf_id))

    @precondition(lambda self: not self.over and self.alive)
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def a_stale_exit_arrives(self, data: st.DataObject, reason: str) -> None:
        leaf_id = data.draw(st.sampled_from(sorted(self.alive)))
        stale = self.alive[leaf_id] - 1
        assert self.tree.handle_exit(leaf_id, reason, self.world.now, incarnation=stale or -1) == Decision()

    # --- what always holds ---

    @invariant()
    def both_did_the_same(self) -> None:
        if not self.over and hasattr(self, "tree"):
            assert self.log == self.world.log
            assert set(self.alive) == self.world.alive
            assert {one.spec.id for one in self.tree.leaves()} >= set(self.alive)
            assert [one.spec.id for one in self.tree.leaves() if one.alive] == [
                one.spec.id for one in self.tree.leaves() if one.spec.id in self.alive
            ]


Trees.TestCase.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestTrees = Trees.TestCase
