"""Supervisors below supervisors, strategies of workers, phases of the end: carried out, on every engine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.runtime.conftest import SupervisorFactory, until
from tests.runtime.troupe import Fail, Finish, Open, Said, Say

from exeunt.runtime import (
    ActorDead,
    Backoff,
    ChildSpec,
    Directories,
    Intensity,
    Message,
    Ref,
    Refused,
    RemoteFailure,
    Restart,
    Strategy,
    Supervisor,
    SupervisorSpec,
    WorkerSpec,
)
from exeunt.runtime.engine import Kind
from exeunt.runtime.errors import NameTaken
from exeunt.runtime.events import ChildRestarted, Event, GaveUp, WorkerDied, WorkerStarted
from exeunt.runtime.messages import Done, StartChild, StopActor
from exeunt.runtime.shutdown import STANDARD, Phase, Shutdown
from exeunt.runtime.testing import FakeClock

KINDS = [pytest.param("processes", marks=pytest.mark.slow), "inline"]
NOW = Backoff(first_s=0, jitter=0)
Start = Callable[..., Awaitable[Supervisor]]


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


@pytest.fixture
async def start(directories: Directories) -> AsyncIterator[Start]:
    """Start a program; the workers are w0 and w1 unless others are given."""
    started: list[Supervisor] = []

    async def start(*children: ChildSpec | SupervisorSpec, **options: Any) -> Supervisor:
        supervisor = program(directories, *children, **options)
        started.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.force()
        await supervisor.wait()


def program(directories: Directories, *children: ChildSpec | SupervisorSpec, **options: Any) -> Supervisor:
    options.setdefault("workers", [WorkerSpec(name="w0"), WorkerSpec(name="w1")])
    options.setdefault("backoff", NOW)
    return Supervisor(
        "t", children=children, directories=directories, messages=["tests.runtime.troupe:MESSAGES"], **options
    )


def child(name: str, worker: str = "w1", actor: str = "Player", **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=worker, start=f"tests.runtime.troupe:{actor}", **options)


def chroniclers(file: Path, *names: str, worker: str = "", **options: Any) -> list[ChildSpec]:
    return [
        child(name, worker or f"w{ord(name) % 2}", "Chronicler", args={"file": str(file), "name": name}, **options)
        for name in names
    ]


async def crash(ref: Ref) -> None:
    """Crash it, as soon as it lives."""
    async with asyncio.timeout(10):
        while True:
            try:
                await ref.ask(Fail("ValueError"))
            except RemoteFailure:
                return
            except ActorDead:
                await asyncio.sleep(0)


async def said(file: Path, *expected: str) -> None:
    """Wait until the chronicle says so, then begin another."""
    wanted = " ".join(expected).split()
    await until(lambda: read(file)[: len(wanted)] == wanted or len(read(file)) > len(wanted))
    assert read(file) == wanted
    clear(file)


def read(file: Path) -> list[str]:
    return file.read_text().split()


def clear(file: Path) -> None:
    file.write_text("")


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [
        (Strategy.ONE_FOR_ONE, "-y +x +y"),
        (Strategy.REST_FOR_ONE, "-y -b +x +y +b"),
        (Strategy.ONE_FOR_ALL, "-y -b -a +a +x +y +b"),
    ],
)
async def test_a_nested_supervisor_that_gives_up_is_restarted_by_its_parents_strategy(
    start: Start, engine: Kind, tmp_path: Path, strategy: Strategy, restarted: str
) -> None:
    file = tmp_path / "chronicle"
    (a, b), below = chroniclers(file, "a", "b"), chroniclers(file, "x", "y")
    supervisor = SupervisorSpec(id="s", children=below, intensity=Intensity(restarts=1, period_s=60))
    events: list[Event] = []
    running = await start(a, supervisor, b, engine=engine, strategy=strategy)
    running.events.subscribe(events.append)
    await said(file, "+a +x +y +b")
    await crash(running.ref("x"))
    await said(file, "+x")
    await crash(running.ref("x"))
    await said(file, restarted)
    await until(lambda: running.tree().state == "running")
    assert running.restarts["s"] == 1
    assert running.restarts["x"] == 2
    gave_up = [(one.of, one.child) for one in events if isinstance(one, GaveUp)]
    assert gave_up == [("s", "x")]
    again = [(one.of, one.reason, one.restarts) for one in events if isinstance(one, ChildRestarted)]
    assert again[0] == ("t/w0/x", "crashed", 1)
    assert [one[0][-1] for one in again[1:]] == [one[1] for one in restarted.split() if one[0] == "+"]
    outcome = await running.leave()
    assert not outcome.failed
    assert file.read_text().split() == ["-b", "-y", "-x", "-a"]


async def test_giving_up_goes_up_to_the_end_of_the_program(start: Start, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    inner = SupervisorSpec(id="inner", children=chroniclers(file, "x", "y"), intensity=Intensity(restarts=0))
    outer = SupervisorSpec(id="outer", children=[inner, *chroniclers(file, "z")], intensity=Intensity(restarts=0))
    running = await start(*chroniclers(file, "a"), outer, engine=engine, intensity=Intensity(restarts=1))
    await said(file, "+a +x +y +z")
    await crash(running.ref("y"))
    await said(file, "-x -z +x +y +z")
    await crash(running.ref("y"))
    outcome = await running.wait()
    assert (outcome.failed, outcome.reason) == (True, "outer kept failing")
    assert file.read_text().split() == ["-x", "-z", "-a"]


async def test_a_whole_supervisor_is_restarted_on_request(start: Start, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    running = await start(
        *chroniclers(file, "a"),
        SupervisorSpec(id="s", children=chroniclers(file, "x", "y")),
        engine=engine,
        intensity=Intensity(restarts=0),
    )
    before = {one.id: one.incarnation for one in running.tree().children[1].children}
    await said(file, "+a +x +y")
    assert await running.restart("s")
    await said(file, "-y -x +x +y")
    await until(lambda: running.tree().state == "running")
    after = {one.id: one.incarnation for one in running.tree().children[1].children}
    assert all(after[name] > before[name] for name in before)
    assert running.restarts == {"s": 1, "x": 1, "y": 1}


async def test_supervisors_and_their_children_come_later(start: Start, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    running = await start(*chroniclers(file, "a"), engine=engine)
    await running.start_supervisor(SupervisorSpec(id="s", children=chroniclers(file, "x", "y")))
    (z,) = chroniclers(file, "z")
    await running.start_child(z, under="s")
    with pytest.raises(NameTaken):
        await running.start_child(child("s"))
    with pytest.raises(ActorDead, match="no such supervisor"):
        await running.start_child(child("b"), under="nobody")
    wrong = SupervisorSpec(id="r", children=[*chroniclers(file, "p"), child("q", actor="Nobody")])
    with pytest.raises(Refused, match="cannot load"):
        await running.start_supervisor(wrong)
    await said(file, "+a +x +y +z +p -p")
    assert [one.id for one in running.tree().children] == ["a", "s"]
    await running.leave()
    assert file.read_text().split() == ["-z", "-y", "-x", "-a"]


async def test_those_who_depend_on_one_that_lost_its_worker_are_restarted_with_it(
    start: Start, engine: Kind, tmp_path: Path
) -> None:
    file = tmp_path / "chronicle"
    group = chroniclers(file, "x", worker="w0") + chroniclers(file, "y", "z")
    running = await start(
        SupervisorSpec(id="s", children=group, strategy=Strategy.ONE_FOR_ALL),
        *chroniclers(file, "a", worker="w1"),
        engine=engine,
        intensity=Intensity(restarts=1),
    )
    await said(file, "+x +y +z +a")
    running.processes["w0"].kill()
    await until(lambda: len(file.read_text().split()) == 4)
    assert file.read_text().split() == ["-y", "+x", "+y", "+z"]  # z's worker died; a has nothing to do with it
    await until(lambda: running.tree().state == "running")
    assert running.restarts == {"w0": 1, "x": 1, "y": 1, "z": 1}


async def test_workers_have_a_strategy_as_well(start: Start, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    events: list[Event] = []
    running = await start(
        *chroniclers(file, "a", worker="w0"),
        *chroniclers(file, "b", worker="w1"),
        *chroniclers(file, "c", worker="w2"),
        engine=engine,
        workers=[WorkerSpec(name=f"w{number}") for number in range(3)],
        worker_strategy=Strategy.REST_FOR_ONE,
    )
    running.events.subscribe(events.append)
    epochs = {name: worker.boot.epoch for name, worker in running.processes.items()}
    await said(file, "+a +b +c")
    running.processes["w1"].kill()
    await until(lambda: running.restarts == {"w1": 1, "w2": 1, "b": 1, "c": 1})
    await until(lambda: running.tree().state == running.worker_tree().state == "running")
    assert running.processes["w0"].boot.epoch == epochs["w0"]
    assert running.processes["w2"].boot.epoch > running.processes["w1"].boot.epoch > epochs["w2"]
    assert sorted(file.read_text().split()) == ["+b", "+c", "-c"]
    died = [(one.of, one.reason.split()[0]) for one in events if isinstance(one, WorkerDied)]
    assert died == [("w1", "killed")]
    assert [one.of for one in events if isinstance(one, WorkerStarted)] == ["w1", "w2"]
    assert not (await running.leave()).failed


async def test_a_transient_worker_and_its_children(start: Start, engine: Kind) -> None:
    running = await start(
        child("a", "w0"),
        child("b", "w1", significant=True),
        engine=engine,
        workers=[WorkerSpec(name="w0"), WorkerSpec(name="w1", restart=Restart.TEMPORARY)],
    )
    running.processes["w1"].kill()
    outcome = await running.wait()
    assert (outcome.failed, outcome.reason) == (True, "b: worker_died")


async def test_a_stop_of_another_incarnation_does_not_reach_the_successor(start: Start, engine: Kind) -> None:
    running = await start(child("a"), engine=engine)
    await crash(running.ref("a"))
    await until(lambda: running.restarts == {"a": 1} and running.tree().state == "running")
    (row,) = running.tree().children
    host = running.node.ref("t/w1/host")
    assert row.incarnation == 2
    assert await host.ask(StopActor("a", "shutdown", 5_000, 1)) == Done()
    answer: Said = await running.ref("a").ask(Say("still here"))
    assert answer.text == "still here"
    assert await host.ask(StopActor("a", "shutdown", 5_000, 2)) == Done()
    await until(lambda: running.restarts == {"a": 2})


async def test_an_infinite_patience_waits(start: Start, engine: Kind) -> None:
    running = await start(child("a", actor="Gate", shutdown_ms="infinity"), engine=engine)
    host = running.node.ref("t/w1/host")
    waiting = running.ref("a").ask(Open(), timeout_s=60)
    stopping = host.ask(StopActor("a", "shutdown", -1, 0))
    await running.node.ref("t/w1/host").ask(StopActor("nobody", "shutdown", 0))  # the stop has arrived by now
    assert not stopping.done()
    assert not waiting.done()


# --- the end ---


async def test_the_end_has_phases_and_says_how_each_went(start: Start, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    application, *others = STANDARD
    shutdown = Shutdown((application, Phase("flush", 5), *others), total_s=120)
    running = await start(*chroniclers(file, "a"), engine=engine, shutdown=shutdown)
    log: list[str] = []

    def noting(name: str) -> Callable[[str], Awaitable[None]]:
        async def work(reason: str) -> None:
            log.append(f"{name} {reason} {file.read_text().strip()}")

        return work

    running.before_leave = noting("goodbye")
    running.shutdown.add("flush", "mine", noting("flush"))
    running.shutdown.add("workers", "mine", noting("workers"))
    outcome = await running.leave("upgrade")
    assert log == ["goodbye upgrade +a", "flush upgrade +a", "workers upgrade +a -a"]
    assert [one.name for one in outcome.phases] == ["application", "flush", "children", "workers", "root"]
    assert not any(one.timed_out or one.failed or one.skipped for one in outcome.phases)
    assert (outcome.failed, outcome.leftovers) == (False, ())


def test_an_end_takes_no_longer_than_its_phases(directories: Directories) -> None:
    async def scene() -> None:
        shutdown = Shutdown(
            (Phase("application", 1), Phase("children", 2), Phase("workers", 3), Phase("root", 1)), total_s=8
        )
        stubborn = [child(name, actor="Stubborn", shutdown_ms="infinity") for name in "ab"]
        running = program(
            directories,
            *stubborn,
            engine="inline",
            shutdown=shutdown,
            workers=[WorkerSpec(name="w1", shutdown_ms="infinity")],
        )
        await running.start()

        async def forever(_reason: str) -> None:
            await asyncio.Event().wait()

        running.before_leave = forever
        began_s = asyncio.get_running_loop().time()
        outcome = await running.leave()
        assert asyncio.get_running_loop().time() - began_s < shutdown.total_s
        assert [(one.name, one.timed_out) for one in outcome.phases] == [
            ("application", ("application",)),
            ("children", ("children",)),
            ("workers", ("workers",)),
            ("root", ()),
        ]
        assert outcome.failed  # workers had to be killed

    FakeClock().run(scene())


def test_an_unforeseen_end_skips_the_application(directories: Directories) -> None:
    async def scene() -> None:
        running = program(directories, child("a", restart=Restart.TEMPORARY, significant=True), engine="inline")
        await running.start()
        running.ref("a").tell(Finish("normal"))
        outcome = await running.wait()
        assert [one.skipped for one in outcome.phases] == [True, False, False, False]

    FakeClock().run(scene())


def test_a_shutdown_has_the_standard_phases(directories: Directories) -> None:
    with pytest.raises(ValueError, match="application, children, workers, root"):
        program(directories, engine="inline", shutdown=Shutdown((Phase("application", 1),)))


def test_ids_are_unique(directories: Directories) -> None:
    with pytest.raises(NameTaken):
        program(directories, child("a"), SupervisorSpec(id="s", children=[child("a")]), engine="inline")


def test_back_off_grows_and_starts_over(directories: Directories) -> None:
    async def scene() -> None:
        backoff = Backoff(first_s=1, factor=2, jitter=0, eager=False, max_s=60, reset_s=30)
        running = program(directories, child("a", backoff=backoff), engine="inline", intensity=Intensity(restarts=99))
        await running.start()
        delays: list[float] = []
        running.events.subscribe(lambda event: delays.append(cast("ChildRestarted", event).delay_s))
        loop = asyncio.get_running_loop()
        for wait_s in (0, 0, 29, 31, 0):
            await asyncio.sleep(wait_s)
            died_s, count = loop.time(), len(delays)
            await crash(running.ref("a"))
            while len(delays) == count:  # noqa: ASYNC110 - below FakeClock.run a sleep takes no time
                await asyncio.sleep(0.25)
            assert loop.time() - died_s >= delays[-1]
        assert delays == [1, 2, 4, 1, 2]
        await running.leave()

    FakeClock().run(scene())


async def test_a_spec_below_a_supervisor_may_be_asked_for_by_an_actor(supervise: SupervisorFactory) -> None:
    running = await supervise(child("a", "w1"), engine="inline")
    await running.start_supervisor(SupervisorSpec(id="s", children=[]))
    root = running.node.local("root")
    spec = msgspec.Raw(msgspec.msgpack.encode(child("late", "w1")))
    answer: Message = await root.ask(StartChild(spec, "s"))
    assert answer.address == "t/w1/late"  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="no such supervisor"):
        await root.ask(StartChild(spec, "nobody"))
    assert [one.id for one in running.tree().children[1].children] == ["late"]
