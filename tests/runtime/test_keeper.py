"""Decisions carried out while more happens: every interleaving ends with everybody alive who should be, once."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.runtime import Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorSpec
from exeunt.runtime.decision import Decision
from exeunt.runtime.errors import ActorDead, Refused
from exeunt.runtime.keeper import Keeper
from exeunt.runtime.supervision import Supervision
from exeunt.runtime.testing import FakeClock


def leaf(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=f"w{ord(name[-1]) % 2}", start="m:A", **options)


class Theatre:
    """A craft whose actors start and stop slowly, fail to start, and end when it suits nobody."""

    def __init__(self, children: list[ChildSpec | SupervisorSpec], seed: int = 0, **options: Any) -> None:
        self.rng = random.Random(seed)
        self.alive: dict[str, int] = {}
        self.log: list[str] = []
        self.slow_s = 0.0
        self.stage_fright = 0.0
        self.over: Decision[ChildSpec] | None = None
        self.starting: dict[tuple[str, int], asyncio.Task[str]] = {}
        self.refuse: set[str] = set()
        self.stop_s = 0.0
        self.within: dict[str, float | None] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        options.setdefault("intensity", Intensity(restarts=1000))
        self.tree: Supervision[ChildSpec] = Supervision(children, rng=random.Random(seed), **options)
        self.keeper: Keeper[ChildSpec] = Keeper(self.tree, self, spawn=self.spawn, on_end=self.ended)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        return task

    def ended(self, decision: Decision[ChildSpec]) -> None:
        self.over = decision
        self.keeper.close()

    async def some_time(self) -> None:
        await asyncio.sleep(self.rng.random() * self.slow_s)

    async def start(self, spec: ChildSpec, begin: Callable[[], int], *, patient: bool) -> int:
        while True:
            incarnation = begin()
            host = asyncio.get_running_loop().create_task(self.host(spec.id, incarnation))
            self.starting[spec.id, incarnation] = host
            await asyncio.wait({host})  # who is cancelled here leaves the host at work
            how = "lost" if host.cancelled() else host.result()
            if how == "refused":
                raise Refused("start_failed", spec.id)
            if how == "started":
                return incarnation
            if not patient:
                raise ActorDead(spec.id)

    async def host(self, name: str, incarnation: int) -> str:
        await self.some_time()
        if name in self.refuse or self.rng.random() < self.stage_fright:
            return "refused"
        assert name not in self.alive, "an address has one actor at a time"
        self.alive[name] = incarnation
        self.log.append(f"+{name}")
        return "started"

    async def stop(self, spec: ChildSpec, incarnation: int, reason: str, within_s: float | None) -> None:
        self.within[spec.id] = within_s
        host = self.starting.get((spec.id, incarnation))
        if host is not None:
            await asyncio.wait({host})
        await self.some_time()
        await asyncio.sleep(self.stop_s)
        if self.alive.get(spec.id) == incarnation:
            del self.alive[spec.id]
            self.log.append(f"-{spec.id}")
            self.keeper.exited(spec.id, reason, incarnation)  # a host reports every end

    def decided(self, decision: Decision[ChildSpec]) -> None:
        pass

    def restarted(self, spec: ChildSpec, reason: str, restarts: int, delay_s: float) -> None:
        self.log.append(f"({spec.id} {reason} {restarts})")

    def crash(self, name: str, reason: str = "crashed") -> None:
        incarnation = self.alive.pop(name)
        self.keeper.exited(name, reason, incarnation)

    def lose(self, worker: str) -> None:
        ids = [one.spec.id for one in self.tree.leaves() if one.spec.worker == worker]
        for name, incarnation in list(self.starting):
            if name in ids:
                self.starting.pop((name, incarnation)).cancel()
        for name in ids:
            self.alive.pop(name, None)
        self.keeper.lost(ids, "worker_died")

    def said(self) -> str:
        text = " ".join(one for one in self.log if one[0] in "+-")
        self.log.clear()
        return text


async def quiet(theatre: Theatre) -> None:
    await asyncio.sleep(10_000)  # below FakeClock.run this takes no time, and lets everything happen
    for task in theatre.tasks:
        assert task.done()
        if not task.cancelled():
            task.result()


leaves = st.tuples(st.sampled_from([Restart.PERMANENT, Restart.TRANSIENT]), st.booleans())
branches = st.recursive(
    leaves,
    lambda below: st.tuples(
        st.sampled_from(list(Strategy)), st.integers(0, 2), st.lists(below, min_size=1, max_size=3)
    ),
    max_leaves=7,
)


def grown(shape: Any, names: "list[int]") -> ChildSpec | SupervisorSpec:
    names.append(0)
    if len(shape) == 2:
        return leaf(f"c{len(names)}", restart=shape[0])
    name = f"s{len(names)}"
    children = [grown(one, names) for one in shape[2]]
    return SupervisorSpec(
        id=name, children=children, strategy=shape[0], intensity=Intensity(restarts=shape[1], period_s=2)
    )


@settings(max_examples=400, deadline=None)
@given(
    shapes=st.lists(branches, min_size=1, max_size=3),
    strategy=st.sampled_from(list(Strategy)),
    seed=st.integers(0, 2**32),
    stage_fright=st.sampled_from([0.0, 0.3]),
    backoff=st.sampled_from([Backoff(first_s=0, jitter=0), Backoff(first_s=0.5, max_s=2)]),
)
def test_whatever_happens_meanwhile_everybody_lives_once_in_the_end(
    shapes: list[Any], strategy: Strategy, seed: int, stage_fright: float, backoff: Backoff
) -> None:
    names: list[int] = []
    children = [grown(one, names) for one in shapes]

    async def scene() -> None:
        theatre = Theatre(children, seed, strategy=strategy, backoff=backoff)
        theatre.slow_s = 1.0
        await theatre.keeper.start_all()
        theatre.stage_fright = stage_fright
        rng = random.Random(seed + 1)
        everybody_known = _leaf_ids(children)
        for _ in range(40):
            await asyncio.sleep(rng.random() * rng.choice([0.1, 3.0]))
            if rng.random() < 0.1:
                theatre.lose(rng.choice(["w0", "w1"]))
            elif rng.random() < 0.15:
                supervisors = [one.id for one in children if len(one.id) and one.id[0] == "s"]
                theatre.keeper.restart(rng.choice([*supervisors, *sorted(everybody_known)]))
            elif theatre.alive:
                theatre.crash(rng.choice(sorted(theatre.alive)))
        theatre.stage_fright = 0.0
        await quiet(theatre)
        assert theatre.over is None
        everybody = {one.spec.id: one.incarnation for one in theatre.tree.leaves()}
        assert theatre.alive == everybody
        assert len(everybody) == len(_leaf_ids(children))
        assert theatre.tree.tree().state == "running"
        order = list(everybody)
        theatre.log.clear()
        await theatre.keeper.stop_all("shutdown")
        assert theatre.alive == {}
        assert theatre.said().split() == [f"-{name}" for name in reversed(order)]

    FakeClock().run(scene())


def _leaf_ids(specs: Any) -> list[str]:
    found: list[str] = []
    for spec in specs:
        found += _leaf_ids(spec.children) if isinstance(spec, SupervisorSpec) else [spec.id]
    return found


# --- one by one ---

NOW = Backoff(first_s=0, jitter=0)


def abc(**options: Any) -> list[ChildSpec | SupervisorSpec]:
    return [leaf(name, **options) for name in "abc"]


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    FakeClock().run(scene())


def test_an_exit_during_the_first_start_is_handled_when_all_have_started() -> None:
    async def scene() -> None:
        theatre = Theatre(abc(), backoff=NOW, strategy=Strategy.ONE_FOR_ALL)
        theatre.slow_s = 1.0
        starting = asyncio.create_task(theatre.keeper.start_all())
        while "a" not in theatre.alive:  # noqa: ASYNC110 - below FakeClock.run a sleep takes no time
            await asyncio.sleep(0.1)
        theatre.crash("a")
        await starting
        await quiet(theatre)
        assert theatre.said() == "+a +b +c -c -b +a +b +c"

    play(scene)


def test_a_back_off_is_cut_short_when_the_supervisor_itself_is_restarted() -> None:
    async def scene() -> None:
        slow = Backoff(first_s=100, jitter=0, eager=False, max_s=100)
        inner = SupervisorSpec(id="s", children=abc(backoff=slow), intensity=Intensity(restarts=1), backoff=NOW)
        theatre = Theatre([inner, leaf("z")])
        await theatre.keeper.start_all()
        theatre.said()
        theatre.crash("a")
        await asyncio.sleep(1)
        assert theatre.said() == ""
        theatre.crash("b")
        await asyncio.sleep(1)
        assert theatre.said() == "-c +a +b +c"
        await quiet(theatre)
        assert theatre.said() == ""

    play(scene)


def test_those_of_one_for_one_are_restarted_side_by_side() -> None:
    async def scene() -> None:
        theatre = Theatre([leaf("a", backoff=Backoff(first_s=50, jitter=0, eager=False)), leaf("b", backoff=NOW)])
        await theatre.keeper.start_all()
        theatre.said()
        theatre.crash("a")
        theatre.crash("b")
        await asyncio.sleep(1)
        assert theatre.said() == "+b"
        await quiet(theatre)
        assert theatre.said() == "+a"

    play(scene)


def test_a_supervisors_patience_is_shared_by_all_below_it() -> None:
    async def scene() -> None:
        inner = SupervisorSpec(
            id="s", children=[leaf("x"), leaf("y", shutdown_ms="infinity"), leaf("z")], shutdown_ms=3_000
        )
        theatre = Theatre([leaf("a", shutdown_ms=0), inner, leaf("b", shutdown_ms="infinity")])
        await theatre.keeper.start_all()
        theatre.stop_s = 1.0
        theatre.keeper.restart("s")
        await quiet(theatre)
        assert theatre.within == {"z": 3.0, "y": 2.0, "x": 1.0}
        await theatre.keeper.stop_all("shutdown")
        assert (theatre.within["a"], theatre.within["b"]) == (0.0, None)

    play(scene)


def test_what_cannot_be_added_leaves_nothing() -> None:
    async def scene() -> None:
        theatre = Theatre(abc())
        await theatre.keeper.start_all()
        theatre.said()
        theatre.refuse.add("y")
        more = SupervisorSpec(id="s", children=[leaf("x"), leaf("y"), leaf("z")])
        try:
            await theatre.keeper.start("s", theatre.keeper.add(more))
        except Refused:
            await quiet(theatre)
        assert theatre.said() == "+x -x"
        assert _tree_ids(theatre) == ["a", "b", "c"]
        theatre.refuse.clear()
        await theatre.keeper.start("s", theatre.keeper.add(more, ""))
        assert theatre.said() == "+x +y +z"

    play(scene)


def _tree_ids(theatre: Theatre) -> list[str]:
    return [one.spec.id for one in theatre.tree.leaves()]


def test_the_end_stops_also_what_a_decision_was_about_to_stop() -> None:
    async def scene() -> None:
        theatre = Theatre([*abc(), leaf("t", restart=Restart.TEMPORARY)], strategy=Strategy.ONE_FOR_ALL, backoff=NOW)
        await theatre.keeper.start_all()
        theatre.said()
        theatre.stop_s = 1.0
        theatre.crash("a")  # t, c and b are to be stopped, and t forgotten
        await asyncio.sleep(0.5)
        await theatre.keeper.stop_all("shutdown")
        assert theatre.said() == "-t -c -b"
        assert theatre.alive == {}
        theatre.keeper.exited("b", "crashed")
        assert not theatre.keeper.restart("s")
        await quiet(theatre)
        assert theatre.alive == {}

    play(scene)


def test_a_root_that_gives_up_says_so_once_and_starts_nobody() -> None:
    async def scene() -> None:
        theatre = Theatre(abc(), backoff=NOW, intensity=Intensity(restarts=1))
        await theatre.keeper.start_all()
        theatre.said()
        theatre.crash("a")
        theatre.crash("b")
        theatre.crash("c")
        await quiet(theatre)
        assert theatre.over is not None
        assert theatre.over.give_up
        assert theatre.said() == ""

    play(scene)
