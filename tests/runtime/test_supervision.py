"""What a supervisor decides, and how long it waits: OTP's rules, one by one and as properties."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.runtime import Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorSpec
from exeunt.runtime.decision import Decision, Exit, Leaving
from exeunt.runtime.errors import NameTaken
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.supervision import Supervision

many = settings(max_examples=1_000, deadline=None)

NORMAL = ("normal", "shutdown")
ABNORMAL = ("crashed", "killed", "worker_died", "anything else")
NOW = Backoff(first_s=0, jitter=0)


def leaf(name: str, **options: object) -> ChildSpec:
    return ChildSpec(id=name, worker="w", start="m:A", **options)  # type: ignore[arg-type]


def abc(**restart: Restart) -> list[ChildSpec | SupervisorSpec]:
    return [leaf(name, restart=restart.get(name, Restart.PERMANENT)) for name in "abc"]


class Stage:
    """Carries decisions out at once, in no time, and writes down what it does."""

    def __init__(
        self,
        children: list[ChildSpec | SupervisorSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        restarts: int = 100,
        backoff: Backoff = NOW,
    ) -> None:
        intensity = Intensity(restarts=restarts, period_s=10.0)
        self.tree: Supervision[ChildSpec] = Supervision(
            children, strategy=strategy, intensity=intensity, backoff=backoff, rng=random.Random(1)
        )
        self.done: list[str] = []
        self.start([one.spec.id for one in self.tree.leaves()])
        self.done.clear()

    def start(self, ids: list[str] | tuple[str, ...], now: float = 0.0) -> None:
        for one in ids:
            assert self.tree.started(one, self.tree.starting(one), now)
            self.done.append(f"+{one}")

    def carry_out(self, decision: Decision[ChildSpec], now: float = 0.0) -> Decision[ChildSpec]:
        for leaving in decision.stop:
            self.tree.stopped(leaving.spec.id, leaving.incarnation)
            self.done.append(f"-{leaving.spec.id}")
        self.start(decision.start, now + decision.delay_s)
        return decision

    def exit(self, child_id: str, reason: str = "crashed", now: float = 0.0) -> Decision[ChildSpec]:
        return self.carry_out(self.tree.handle_exit(child_id, reason, now), now)

    def said(self) -> str:
        text = " ".join(self.done)
        self.done.clear()
        return text

    @property
    def ids(self) -> list[str]:
        return [one.spec.id for one in self.tree.leaves()]


@pytest.mark.parametrize(
    ("restart", "reason", "again"),
    [
        *((Restart.PERMANENT, reason, True) for reason in (*NORMAL, *ABNORMAL, "restart")),
        *((Restart.TRANSIENT, reason, False) for reason in NORMAL),
        *((Restart.TRANSIENT, reason, True) for reason in (*ABNORMAL, "restart")),
        *((Restart.TEMPORARY, reason, False) for reason in (*NORMAL, *ABNORMAL, "restart")),
    ],
)
def test_who_is_started_again(restart: Restart, reason: str, again: bool) -> None:
    decision = Stage([leaf("a", restart=restart)]).exit("a", reason)
    assert (decision.stop, decision.start) == ((), ("a",) if again else ())
    assert decision.exits == (Exit("a", reason),)


@pytest.mark.parametrize(
    ("strategy", "ended", "done"),
    [
        (Strategy.ONE_FOR_ONE, "b", "+b"),
        (Strategy.ONE_FOR_ALL, "b", "-c -a +a +b +c"),
        (Strategy.ONE_FOR_ALL, "a", "-c -b +a +b +c"),
        (Strategy.REST_FOR_ONE, "a", "-c -b +a +b +c"),
        (Strategy.REST_FOR_ONE, "b", "-c +b +c"),
        (Strategy.REST_FOR_ONE, "c", "+c"),
    ],
)
def test_who_else_is_restarted(strategy: Strategy, ended: str, done: str) -> None:
    stage = Stage(abc(), strategy)
    stage.exit(ended)
    assert stage.said() == done


def test_a_temporary_sibling_is_stopped_and_not_started_again() -> None:
    stage = Stage(abc(b=Restart.TEMPORARY), Strategy.ONE_FOR_ALL)
    stage.exit("c")
    assert stage.said() == "-b -a +a +c"
    assert stage.exit("b") == Decision()
    stage.exit("c")
    assert stage.said() == "-a +a +c"


def test_too_many_restarts_in_the_window_are_the_end() -> None:
    stage = Stage(abc(), restarts=3)
    assert [stage.exit("a", now=float(at)).give_up for at in range(4)] == [False, False, False, True]


def test_restarts_outside_the_window_are_forgotten() -> None:
    stage = Stage(abc(), restarts=3)
    assert not any(stage.exit("a", now=at * 3.4).give_up for at in range(50))


def test_all_children_share_the_window() -> None:
    stage = Stage(abc(), restarts=2)
    assert [stage.exit(name).give_up for name in "abc"] == [False, False, True]


def test_zero_restarts_allow_none() -> None:
    assert Stage(abc(), restarts=0).exit("a").give_up


def test_a_restart_that_was_asked_for_is_not_counted_and_concerns_nobody_else() -> None:
    stage = Stage(abc(), Strategy.ONE_FOR_ALL, restarts=1)
    for at in range(20):
        stage.exit("b", "restart", float(at))
        assert stage.said() == "+b"
    assert not stage.exit("b", now=20.0).give_up


def test_a_significant_child_that_ends_for_good_ends_everybody() -> None:
    child = leaf("a", restart=Restart.TRANSIENT, significant=True)
    assert Stage([child]).exit("a", "normal").leave
    assert not Stage([child]).exit("a", "crashed").leave


def test_an_unknown_or_removed_child_is_nobodys_business() -> None:
    stage = Stage(abc())
    stage.carry_out(stage.tree.handle_removal("a"))
    assert stage.said() == "-a"
    assert stage.exit("a") == stage.exit("x") == stage.tree.handle_removal("a") == Decision()


def test_an_added_child_is_right_of_all_others() -> None:
    stage = Stage(abc(), Strategy.REST_FOR_ONE)
    stage.start(stage.tree.add(leaf("d")))
    stage.said()
    stage.exit("c")
    assert stage.said() == "-d +c +d"


def test_an_exit_of_another_incarnation_is_no_exit() -> None:
    stage = Stage(abc())
    stage.exit("a")
    for stale in (1, 2, 3):
        assert stage.tree.handle_exit("a", "crashed", 0.0, incarnation=stale) == Decision()
    assert stage.tree.handle_exit("a", "crashed", 0.0, incarnation=4).start == ("a",)
    assert stage.tree.handle_exit("a", "crashed", 0.0, incarnation=4) == Decision(), "it has ended already"


# --- below one another ---


def nested(**options: object) -> SupervisorSpec:
    options = {"intensity": Intensity(restarts=1, period_s=10.0), **options}
    return SupervisorSpec(id="s", children=[leaf("x"), leaf("y")], **options)  # type: ignore[arg-type]


def test_a_nested_supervisor_decides_for_its_own() -> None:
    stage = Stage([leaf("a"), nested(strategy=Strategy.ONE_FOR_ALL), leaf("b")], Strategy.ONE_FOR_ALL)
    assert stage.exit("x").by == "s"
    assert stage.said() == "-y +x +y"


@pytest.mark.parametrize(
    ("strategy", "done"),
    [
        (Strategy.ONE_FOR_ONE, "-y +x +y"),
        (Strategy.REST_FOR_ONE, "-y -b +x +y +b"),
        (Strategy.ONE_FOR_ALL, "-y -b -a +a +x +y +b"),
    ],
)
def test_one_that_has_restarted_too_much_ends_and_its_parent_decides(strategy: Strategy, done: str) -> None:
    stage = Stage([leaf("a"), nested(), leaf("b")], strategy)
    assert stage.exit("x").by == "s"
    stage.said()
    decision = stage.exit("x")
    assert (decision.by, decision.exits) == ("/", (Exit("x", "crashed"), Exit("s", "restart_intensity")))
    assert stage.said() == done
    assert stage.exit("x").by == "s", "a restarted supervisor has restarted nobody yet"
    assert stage.tree.restarts["s"] == 1


def test_escalation_goes_up_to_the_root() -> None:
    inner = SupervisorSpec(id="inner", children=[leaf("x")], intensity=Intensity(restarts=0))
    outer = SupervisorSpec(id="outer", children=[inner, leaf("y")], intensity=Intensity(restarts=0))
    decision = Stage([leaf("a"), outer], restarts=0).exit("x")
    assert decision.give_up
    assert [one.id for one in decision.exits] == ["x", "inner", "outer"]
    assert [one.spec.id for one in decision.stop] == ["y"], "the root's own are stopped with the program"


@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
def test_giving_up_is_abnormal_and_temporary_ones_stay_away(restart: Restart) -> None:
    stage = Stage([nested(restart=restart), leaf("b")])
    stage.exit("x")
    stage.exit("x")
    assert stage.ids == (["x", "y", "b"] if restart is Restart.TRANSIENT else ["b"])


def test_a_significant_child_ends_its_supervisor_and_no_more() -> None:
    children = [leaf("x"), leaf("y", restart=Restart.TEMPORARY, significant=True)]
    supervisor = SupervisorSpec(id="s", children=children, restart=Restart.TRANSIENT)
    stage = Stage([supervisor, leaf("b")])
    assert stage.exit("y", "normal").exits == (Exit("y", "normal"), Exit("s", "shutdown"))
    assert stage.said() == "-x"
    assert stage.ids == ["b"]


def test_a_restarted_supervisor_has_the_children_of_its_spec() -> None:
    stage = Stage([SupervisorSpec(id="s", children=[leaf("x", restart=Restart.TEMPORARY), leaf("y")])])
    stage.start(stage.tree.add(leaf("late"), "s"))
    stage.exit("x")
    assert stage.ids == ["y", "late"]
    with pytest.raises(NameTaken):
        stage.tree.add(leaf("x"))  # it may come back
    stage.said()
    stage.carry_out(stage.tree.handle_restart("s"))
    assert stage.said() == "-late -y +x +y"
    assert stage.tree.handle_restart("nobody") == stage.tree.handle_restart("/") == Decision()


def test_a_leaf_is_restarted_on_request_whatever_its_kind() -> None:
    stage = Stage(abc(b=Restart.TEMPORARY), Strategy.ONE_FOR_ALL, restarts=0)
    for _ in range(3):  # counts against nobody, and concerns nobody else
        decision = stage.carry_out(stage.tree.handle_restart("b"))
        assert (decision.exits, decision.delay_s) == ((Exit("b", "restart"),), 0)
        assert stage.said() == "-b +b"
    assert stage.tree.restarts == {"b": 3}
    assert stage.tree.handle_restart("nobody") == Decision()


def test_who_was_given_up_is_remembered_until_it_is_started_again() -> None:
    frail = SupervisorSpec(
        id="s", children=[leaf("x"), leaf("y")], restart=Restart.TEMPORARY, intensity=Intensity(restarts=0)
    )
    stage = Stage([leaf("a"), frail])
    stage.exit("y")
    assert stage.said() == "-x"
    assert (stage.ids, [one.spec.id for one in stage.tree.given_up()]) == (["a"], ["x", "y"])
    fallen = stage.tree.tree().children[1]
    assert [fallen.state, *(one.state for one in fallen.children)] == ["fatal"] * 3
    assert stage.tree.tree().state == "running"  # nothing is to be done about them
    assert stage.tree.handle_restart("x") == Decision()  # not without its supervisor
    stage.carry_out(stage.tree.handle_restart("s"))
    assert stage.said() == "+x +y"
    assert (stage.ids, stage.tree.given_up()) == (["a", "x", "y"], [])
    assert stage.tree.restarts == {"s": 1, "x": 1, "y": 1}
    stage.exit("x")
    stage.tree.add(leaf("x"))  # somebody else takes the name
    assert stage.tree.given_up() == []


def test_who_ended_as_asked_was_not_given_up() -> None:
    stage = Stage(abc(a=Restart.TRANSIENT, b=Restart.TEMPORARY))
    stage.exit("a", "normal")
    stage.exit("b", "crashed")
    assert (stage.ids, stage.tree.given_up()) == (["c"], [])


def test_leaves_whose_worker_is_gone_for_good_were_given_up_for_good() -> None:
    stage = Stage(abc())
    for decision in stage.tree.handle_loss(["b"], "worker_died", 0.0, for_good=True):
        stage.carry_out(decision)
    assert (stage.ids, [one.spec.id for one in stage.tree.given_up()]) == (["a", "c"], ["b"])
    assert stage.tree.handle_restart("b") == Decision()


def test_temporary_ones_whose_worker_has_ended_were_not_given_up() -> None:
    """They are not started again, which is what they were asked for."""
    stage = Stage(abc(b=Restart.TEMPORARY))
    for decision in stage.tree.handle_loss(["a", "b"], "worker_died", 0.0):
        stage.carry_out(decision)
    assert (stage.ids, stage.tree.given_up()) == (["a", "c"], [])


def test_only_so_many_who_were_given_up_are_remembered() -> None:
    stage = Stage([])
    for number in range(150):
        spec = SupervisorSpec(
            id=f"s{number}",
            children=[leaf(f"x{number}")],
            restart=Restart.TEMPORARY,
            intensity=Intensity(restarts=0),
        )
        stage.start(stage.tree.add(spec))
        stage.exit(f"x{number}")
    assert [one.spec.id for one in stage.tree.given_up()] == [f"x{number}" for number in range(50, 150)]


def test_a_child_that_does_not_start_fails_the_start_of_its_supervisor() -> None:
    stage = Stage([leaf("a"), nested(), leaf("b")], Strategy.ONE_FOR_ALL)
    stage.exit("a", "crashed")
    stage.said()
    decision = stage.tree.handle_exit("a", "crashed", 0.0)
    for leaving in decision.stop:
        stage.tree.stopped(leaving.spec.id, leaving.incarnation)
    stage.start(("a", "x"))
    stage.tree.starting("y")
    stage.said()
    decision = stage.carry_out(stage.tree.handle_start_failed("y", decision.by, 0.0))
    assert (decision.by, decision.exits) == ("/", (Exit("s", "crashed"),))
    assert stage.said() == "-x -a +a +x +y +b"


def test_those_who_lost_their_worker_are_restarted_by_strategy_and_not_counted() -> None:
    inner = SupervisorSpec(id="s", children=[leaf("x"), leaf("y"), leaf("z")], strategy=Strategy.REST_FOR_ONE)
    stage = Stage([leaf("a"), inner, leaf("b", restart=Restart.TEMPORARY)], restarts=0)
    for _ in range(5):
        for decision in stage.tree.handle_loss(["a", "y", "b"], "worker_died", 0.0):
            assert not decision.give_up
            stage.carry_out(decision)
        assert stage.said() == "+a -z +y +z"
    assert stage.ids == ["a", "x", "y", "z"]


def test_those_whose_worker_stays_away_stay_away() -> None:
    stage = Stage([SupervisorSpec(id="s", children=[leaf("x"), leaf("y")]), leaf("a", significant=True)])
    (gone,) = stage.tree.handle_loss(["x"], "worker_died", 0.0, for_good=True)
    assert gone.start == ()
    stage.carry_out(stage.tree.handle_restart("s"))
    assert stage.said() == "-y +y"
    (gone,) = stage.tree.handle_loss(["a"], "worker_died", 0.0, for_good=True)
    assert gone.leave


def test_ids_are_unique_in_the_whole_tree() -> None:
    with pytest.raises(NameTaken, match="x"):
        Stage([leaf("x"), nested()])
    with pytest.raises(NameTaken, match="s"):
        Stage([nested(), leaf("s")])


def test_a_supervisors_patience_bounds_its_childrens() -> None:
    inner = SupervisorSpec(id="inner", children=[leaf("x")], shutdown_ms=50)
    outer = SupervisorSpec(id="outer", children=[inner, leaf("y")], shutdown_ms=70)
    stage = Stage([leaf("a"), outer], Strategy.ONE_FOR_ALL)
    decision = stage.tree.handle_exit("a", "crashed", 0.0)
    y, x = decision.stop
    assert isinstance(y, Leaving)
    assert (y.spec.id, y.bounds) == ("y", (("outer", 70),))
    assert (x.spec.id, x.bounds) == ("x", (("outer", 70), ("inner", 50)))


def test_the_tree_can_be_looked_at() -> None:
    stage = Stage([leaf("a"), nested(strategy=Strategy.ONE_FOR_ALL)])
    stage.exit("x")
    root = stage.tree.tree()
    a, s = root.children
    assert (a.id, a.kind, a.worker, a.state, a.incarnation) == ("a", "actor", "w", "running", 1)
    assert (s.id, s.kind, s.strategy, s.state, s.restarts) == ("s", "supervisor", "one_for_all", "running", 0)
    assert [(one.id, one.restarts, one.incarnation) for one in s.children] == [("x", 1, 4), ("y", 1, 5)]
    stage.tree.handle_exit("a", "crashed", 0.0)
    assert (stage.tree.tree().state, stage.tree.tree().children[0].state) == ("restarting", "waiting")


@pytest.mark.parametrize("wrong", ["", "a/b"])
def test_a_name_that_cannot_be_one_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="a name is not empty"):
        leaf(wrong)
    with pytest.raises(ValueError, match="a name is not empty"):
        SupervisorSpec(id=wrong, children=[])
    with pytest.raises(ValueError, match="not negative"):
        leaf("a", shutdown_ms=-1)


# --- back-off ---


def test_who_ran_for_long_begins_again_with_the_first_delay() -> None:
    backoff = Backoff(first_s=1, factor=2, jitter=0, eager=False, max_s=60, reset_s=10)
    stage = Stage([leaf("a")], backoff=backoff)
    delays, now = list[float](), 0.0
    for ran_s in (0, 1, 9, 10, 0, 100):
        now += ran_s
        delays.append(stage.exit("a", now=now).delay_s)
        now += delays[-1]
    assert delays == [1, 2, 4, 1, 2, 1]


def test_a_start_that_fails_is_no_long_run() -> None:
    backoff = Backoff(first_s=1, factor=2, jitter=0, eager=False, max_s=60, reset_s=10)
    stage = Stage([leaf("a")], backoff=backoff)
    delays = [stage.tree.handle_exit("a", "crashed", 100.0).delay_s]
    for now in (200.0, 300.0):
        stage.tree.starting("a")
        delays.append(stage.tree.handle_start_failed("a", "/", now).delay_s)
    assert delays == [1, 2, 4]


def test_each_backs_off_on_its_own_and_by_its_own_spec_or_its_supervisors() -> None:
    own = Backoff(first_s=7, jitter=0, eager=False)
    theirs = Backoff(first_s=3, jitter=0, eager=False)
    inner = SupervisorSpec(id="s", children=[leaf("x", backoff=own), leaf("y")], backoff=theirs)
    stage = Stage([inner, leaf("a")], backoff=Backoff(first_s=1, jitter=0, eager=False))
    assert [stage.exit(name).delay_s for name in "xyaxya"] == [7, 3, 1, 10, 6, 2]  # at most 10 s by default


backoffs = st.builds(
    Backoff,
    first_s=st.floats(0.001, 10),
    factor=st.floats(1, 10),
    max_s=st.floats(0.001, 100),
    jitter=st.floats(0, 0.9),
    eager=st.booleans(),
)


@many
@given(backoffs, st.integers(1, 10_000), st.integers())
def test_a_delay_stays_within_its_bounds(backoff: Backoff, failures: int, seed: int) -> None:
    delay_s = backoff.delay_s(failures, random.Random(seed))
    assert 0 <= delay_s <= backoff.max_s * (1 + backoff.jitter)
    if backoff.eager and failures == 1:
        assert delay_s == 0
    else:
        assert delay_s >= min(backoff.first_s, backoff.max_s) * (1 - backoff.jitter) * 0.999


@many
@given(backoffs, st.integers(1, 200))
def test_without_jitter_no_delay_is_shorter_than_the_one_before(backoff: Backoff, failures: int) -> None:
    calm = Backoff(first_s=backoff.first_s, factor=backoff.factor, max_s=backoff.max_s, jitter=0, eager=backoff.eager)
    rng = random.Random(1)
    assert calm.delay_s(failures, rng) <= calm.delay_s(failures + 1, rng)


def test_delays_double_up_to_the_bound() -> None:
    backoff = Backoff(first_s=0.1, factor=2, max_s=1, jitter=0)
    rng = random.Random(1)
    assert [backoff.delay_s(n, rng) for n in range(1, 8)] == [0, 0.1, 0.2, 0.4, 0.8, 1, 1]


def test_jitter_spreads_those_who_failed_together() -> None:
    delays = {Backoff().delay_s(3, random.Random(seed)) for seed in range(50)}
    assert len(delays) == 50


# --- what they run in hands over ---


def test_who_hands_over_is_started_again_whatever_its_restart_says() -> None:
    goes_on = leaf("a", restart=Restart.TEMPORARY, significant=True, hands_over=True)
    ends = leaf("b", restart=Restart.TEMPORARY)
    stage = Stage([goes_on, ends, leaf("c")])
    for decision in stage.tree.handle_loss(["a", "b", "c"], HAND_OVER, 0.0):
        assert not decision.leave
        stage.carry_out(decision)
    assert stage.done == ["+a", "+c"]
    assert stage.tree.spec("b") is None


@pytest.mark.parametrize("started", [False, True])
def test_who_cannot_go_on_after_all_has_ended(started: bool) -> None:
    """The successor of what it runs in is lost, before it was started there or after."""
    stage = Stage([leaf("a", restart=Restart.TEMPORARY, significant=True, hands_over=True), leaf("b")])
    handed_over = stage.tree.handle_loss(["a", "b"], HAND_OVER, 0.0)
    if started:
        for decision in handed_over:
            stage.carry_out(decision)
    (lost, *_) = stage.tree.handle_loss(["a", "b"], "worker_died", 0.0)
    assert lost.leave
    assert lost.exits == (Exit("a", "worker_died"),)


def test_who_does_not_start_in_the_successor_has_ended() -> None:
    stage = Stage([leaf("a", restart=Restart.TEMPORARY, significant=True, hands_over=True)])
    (decision,) = stage.tree.handle_loss(["a"], HAND_OVER, 0.0)
    stage.tree.starting("a")
    failed = stage.tree.handle_start_failed("a", decision.by, 0.0)
    assert failed.leave


def test_two_hand_overs_in_a_row_are_one() -> None:
    stage = Stage([leaf("a", restart=Restart.TEMPORARY, hands_over=True)])
    stage.tree.handle_loss(["a"], HAND_OVER, 0.0)
    (again,) = stage.tree.handle_loss(["a"], HAND_OVER, 0.0)
    stage.carry_out(again)
    assert stage.done == ["+a"]
    assert stage.tree.handle_loss(["b"], HAND_OVER, 0.0) == []
