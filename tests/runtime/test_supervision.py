"""What a supervisor decides, and how long it waits: OTP's rules as properties."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.runtime import Intensity, Restart, Strategy
from exeunt.runtime.backoff import Backoff
from exeunt.runtime.supervision import Child, Decision, Supervision

many = settings(max_examples=1_000, deadline=None)

NORMAL = ("normal", "shutdown")
ABNORMAL = ("crashed", "killed", "worker_died", "restart", "anything else")
restarts = st.sampled_from(list(Restart))
strategies = st.sampled_from(list(Strategy))


def named(kinds: list[tuple[Restart, bool]]) -> list[Child]:
    return [
        Child(id=f"c{n}", restart=restart, significant=significant) for n, (restart, significant) in enumerate(kinds)
    ]


troupes = st.builds(named, st.lists(st.tuples(restarts, st.booleans()), min_size=1, max_size=8))


def supervision(
    children: list[Child], strategy: Strategy = Strategy.ONE_FOR_ONE, restarts: int = 100, period_s: float = 10.0
) -> Supervision:
    intensity = Intensity(restarts=restarts, period_s=period_s)
    return Supervision(children, strategy=strategy, intensity=intensity, rng=random.Random(1))


def abc(**restart: Restart) -> list[Child]:
    return [Child(id=name, restart=restart.get(name, Restart.PERMANENT)) for name in "abc"]


@pytest.mark.parametrize(
    ("restart", "reason", "again"),
    [
        *((Restart.PERMANENT, reason, True) for reason in (*NORMAL, *ABNORMAL)),
        *((Restart.TRANSIENT, reason, False) for reason in NORMAL),
        *((Restart.TRANSIENT, reason, True) for reason in ABNORMAL),
        *((Restart.TEMPORARY, reason, False) for reason in (*NORMAL, *ABNORMAL)),
    ],
)
def test_who_is_started_again(restart: Restart, reason: str, again: bool) -> None:
    decision = supervision([Child(id="a", restart=restart)]).handle_exit("a", reason, 0.0)
    assert decision == Decision(start=("a",) if again else ())


@pytest.mark.parametrize(
    ("strategy", "ended", "stop", "start"),
    [
        (Strategy.ONE_FOR_ONE, "b", "", "b"),
        (Strategy.ONE_FOR_ALL, "b", "ca", "abc"),
        (Strategy.ONE_FOR_ALL, "a", "cb", "abc"),
        (Strategy.REST_FOR_ONE, "a", "cb", "abc"),
        (Strategy.REST_FOR_ONE, "b", "c", "bc"),
        (Strategy.REST_FOR_ONE, "c", "", "c"),
    ],
)
def test_who_else_is_restarted(strategy: Strategy, ended: str, stop: str, start: str) -> None:
    decision = supervision(abc(), strategy).handle_exit(ended, "crashed", 0.0)
    assert (decision.stop, decision.start) == (tuple(stop), tuple(start))


def test_a_temporary_sibling_is_stopped_and_not_started_again() -> None:
    deciding = supervision(abc(b=Restart.TEMPORARY), Strategy.ONE_FOR_ALL)
    decision = deciding.handle_exit("c", "crashed", 0.0)
    assert (decision.stop, decision.start) == (("b", "a"), ("a", "c"))
    assert deciding.handle_exit("b", "crashed", 0.0) == Decision()
    assert deciding.handle_exit("c", "crashed", 0.0).stop == ("a",)


def test_too_many_restarts_in_the_window_are_the_end() -> None:
    deciding = supervision(abc(), restarts=3, period_s=10)
    decisions = [deciding.handle_exit("a", "crashed", float(at)) for at in range(4)]
    assert [one.give_up for one in decisions] == [False, False, False, True]


def test_restarts_outside_the_window_are_forgotten() -> None:
    deciding = supervision(abc(), restarts=3, period_s=10)
    assert not any(deciding.handle_exit("a", "crashed", at * 3.4).give_up for at in range(50))


def test_all_children_share_the_window() -> None:
    deciding = supervision(abc(), restarts=2)
    assert [deciding.handle_exit(name, "crashed", 0.0).give_up for name in "abc"] == [False, False, True]


def test_zero_restarts_allow_none() -> None:
    assert supervision(abc(), restarts=0).handle_exit("a", "crashed", 0.0).give_up


def test_a_blameless_exit_is_not_counted_and_concerns_nobody_else() -> None:
    deciding = supervision(abc(), Strategy.ONE_FOR_ALL, restarts=1)
    for at in range(20):
        decision = deciding.handle_exit("b", "worker_died", float(at), blameless=True)
        assert decision == Decision(start=("b",))
    assert not deciding.handle_exit("b", "crashed", 20.0).give_up


def test_a_significant_child_that_ends_for_good_ends_everybody() -> None:
    child = Child(id="a", restart=Restart.TRANSIENT, significant=True)
    assert supervision([child]).handle_exit("a", "normal", 0.0) == Decision(leave=True)
    assert not supervision([child]).handle_exit("a", "crashed", 0.0).leave


def test_an_unknown_or_forgotten_child_is_nobodys_business() -> None:
    deciding = supervision(abc())
    deciding.forget("a")
    assert deciding.handle_exit("a", "crashed", 0.0) == Decision()
    assert deciding.handle_exit("x", "crashed", 0.0) == Decision()


def test_an_added_child_is_right_of_all_others() -> None:
    deciding = supervision(abc(), Strategy.REST_FOR_ONE)
    deciding.add(Child(id="d"))
    assert deciding.handle_exit("c", "crashed", 0.0).start == ("c", "d")


exits = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(NORMAL + ABNORMAL), st.floats(0, 5), st.booleans()), max_size=20
)


@many
@given(troupes, strategies, exits, st.integers(0, 4))
def test_every_decision_keeps_the_rules(
    children: list[Child], strategy: Strategy, story: list[tuple[int, str, float, bool]], allowed: int
) -> None:
    deciding = supervision(children, strategy, restarts=allowed)
    known = {child.id: child for child in children}
    order = [child.id for child in children]
    now, counted = 0.0, list[float]()
    for number, reason, later, blameless in story:
        child_id = f"c{number}"
        now += later
        decision = deciding.handle_exit(child_id, reason, now, blameless=blameless)
        if child_id not in known:
            assert decision == Decision()
            continue
        child = known[child_id]
        wanted = child.restart is Restart.PERMANENT or (child.restart is Restart.TRANSIENT and reason not in NORMAL)
        if not wanted:
            assert decision == Decision(leave=child.significant)
            del known[child_id]
            continue
        if not blameless:
            counted = [at for at in counted if at > now - 10.0] + [now]
            assert decision.give_up == (len(counted) > allowed)
            if decision.give_up:
                return
        assert child_id in decision.start
        assert child_id not in decision.stop
        positions = [order.index(one) for one in decision.stop]
        assert positions == sorted(positions, reverse=True)
        positions = [order.index(one) for one in decision.start]
        assert positions == sorted(positions)
        assert all(known[one].restart is not Restart.TEMPORARY for one in decision.start)
        assert {*decision.start, *decision.stop} <= known.keys()
        for one in set(decision.stop) - set(decision.start):
            assert known.pop(one).restart is Restart.TEMPORARY


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
