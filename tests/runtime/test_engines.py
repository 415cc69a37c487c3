"""What a program may rely on wherever its workers run: the same suite on every engine."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.runtime.conftest import RAY_IS_MISSING, SupervisorFactory, our_processes, ray_cluster, until
from tests.runtime.troupe import (
    Ended,
    EndedList,
    Fail,
    Finish,
    NotRegistered,
    Number,
    Open,
    Relay,
    Said,
    Say,
    WatchIt,
)

from exeunt.runtime import (
    ActorDead,
    ChildSpec,
    Directories,
    Intensity,
    Outcome,
    Ref,
    Refused,
    RemoteFailure,
    Restart,
    Strategy,
    Supervisor,
    WorkerSpec,
)
from exeunt.runtime.engine import Inline, Kind, make
from exeunt.runtime.engine.inline import InlineWorker
from exeunt.runtime.envelope import Envelope
from exeunt.runtime.envelope import Kind as EnvelopeKind
from exeunt.runtime.errors import LocalError, NameTaken, UnknownMessage
from exeunt.runtime.recorder import Event, read_ring
from exeunt.runtime.trace import group, load

KINDS = [
    pytest.param("processes", marks=pytest.mark.slow),
    "inline",
    pytest.param("ray", marks=[pytest.mark.slow, RAY_IS_MISSING]),
]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest) -> Iterator[Kind]:
    with ray_cluster() if request.param == "ray" else contextlib.nullcontext():
        yield cast("Kind", request.param)


def child(name: str, worker: str = "w1", actor: str = "Player", **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=worker, start=f"tests.runtime.troupe:{actor}", **options)


def chronicler(name: str, file: Path, worker: str = "w1", **options: Any) -> ChildSpec:
    return child(name, worker, "Chronicler", args={"file": str(file), "name": name}, **options)


async def alive(ref: Ref) -> Said:
    """Ask until the actor that is being restarted answers."""
    async with asyncio.timeout(10):
        while True:
            try:
                said: Said = await ref.ask(Say("?"))
            except ActorDead:
                await asyncio.sleep(0)
            else:
                return said


def nothing_left(supervisor: Supervisor, outcome: Outcome, *, failed: bool = False) -> None:
    assert outcome.failed is failed, outcome
    assert outcome.leftovers == ()
    assert supervisor.processes == {}
    assert our_processes() == []
    assert list(supervisor.directories.ipc.iterdir()) == []
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("t/")] == []


async def test_actors_of_two_workers_talk_and_everything_goes(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), child("b", "w2"), child("t", "w2", "Thinker"), engine=engine)
    direct: Said = await supervisor.ref("b").ask(Say("hello"))
    relayed: Said = await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))
    blocking: Said = await supervisor.ref("t").ask(Relay("t/w1/a", "hello"))
    pids = {name: worker.pid for name, worker in supervisor.processes.items()}
    assert (direct.pid, relayed.pid, blocking.pid) == (pids["w2"], pids["w2"], pids["w1"])
    assert (set(pids.values()) == {os.getpid()}) is (engine == "inline")
    described = await supervisor.describe()
    assert [row.address for row in described["w2"].actors] == ["t/w2/host", "t/w2/b", "t/w2/t"]
    nothing_left(supervisor, await supervisor.leave())


async def test_order_is_kept_between_two_actors(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("gate", "w2", "Gate"), engine=engine)
    asks = [supervisor.ref("gate").ask(Number(n)) for n in range(500)]
    assert [(await ask).n for ask in asks] == list(range(500))
    await supervisor.leave()


async def test_errors_cross_as_they_are(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), engine=engine)
    with pytest.raises(RemoteFailure, match="ValueError"):
        await supervisor.ref("a").ask(Fail("ValueError"))
    assert (await alive(supervisor.ref("a"))).text == "?"
    with pytest.raises(UnknownMessage):
        await supervisor.ref("a").ask(NotRegistered())
    with pytest.raises(ActorDead):
        await supervisor.node.ref("t/w1/nobody").ask(Say("?"))
    with pytest.raises(ActorDead):
        await supervisor.node.ref("t/nowhere/nobody").ask(Say("?"))
    await supervisor.leave()


async def test_a_crashed_child_is_restarted_at_its_address(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(
        child("permanent"),
        child("transient", restart=Restart.TRANSIENT),
        child("temporary", restart=Restart.TEMPORARY),
        engine=engine,
    )
    for name in ("permanent", "temporary"):
        with pytest.raises(RemoteFailure):
            await supervisor.ref(name).ask(Fail("SystemExit"))
    await supervisor.ref("transient").ask(Finish("normal"))
    assert (await alive(supervisor.ref("permanent"))).text == "?"
    await until(lambda: set(supervisor.children) == {"permanent"})
    assert supervisor.restarts == {"permanent": 1}
    (row,) = [row for row in (await supervisor.describe())["w1"].actors if row.address == "t/w1/permanent"]
    assert row.incarnation == 4  # three were started at first
    nothing_left(supervisor, await supervisor.leave())


async def test_a_dead_worker_fails_its_asks_tells_watchers_and_is_replaced(
    supervise: SupervisorFactory, engine: Kind
) -> None:
    supervisor = await supervise(
        child("player"),
        child("gate", actor="Gate", restart=Restart.TEMPORARY),
        child("watcher", "w2", "Watcher"),
        engine=engine,
    )
    watcher = supervisor.ref("watcher")
    await watcher.ask(WatchIt("t/w1/player"))
    waiting = supervisor.ref("gate").ask(Open(), timeout_s=60)
    told = watcher.ask(Ended(1), timeout_s=60)
    assert (await supervisor.ref("player").ask(Say("x"))).text == "x"
    first = supervisor.processes["w1"]
    first.kill()
    with pytest.raises(ActorDead, match="its worker died"):
        await waiting
    ended: EndedList = await told
    assert [(one.address, one.reason) for one in ended.ended] == [("t/w1/player", "worker_died")]
    assert (await alive(supervisor.node.ref("t/w1/player"))).text == "?"
    assert first.ended.is_set()
    assert first.exit_reason.startswith("killed")
    assert supervisor.processes["w1"].boot.epoch > first.boot.epoch
    assert supervisor.restarts == {"w1": 1, "player": 1}
    assert "gate" not in supervisor.children
    nothing_left(supervisor, await supervisor.leave())


async def test_a_worker_that_keeps_dying_ends_the_program(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), engine=engine, intensity=Intensity(restarts=1, period_s=60))
    supervisor.processes["w1"].kill()
    await alive(supervisor.ref("a"))
    supervisor.processes["w1"].kill()
    outcome = await supervisor.wait()
    assert outcome.reason == "worker w1 kept dying"
    nothing_left(supervisor, outcome, failed=True)


async def test_a_worker_that_is_not_replaced_takes_its_significant_child_along(
    supervise: SupervisorFactory, engine: Kind
) -> None:
    supervisor = await supervise(
        child("a", significant=True),
        engine=engine,
        workers=[WorkerSpec(name="w1", restart=Restart.TEMPORARY), WorkerSpec(name="w2")],
    )
    supervisor.processes["w1"].kill()
    outcome = await supervisor.wait()
    assert outcome.reason == "a: worker_died"
    nothing_left(supervisor, outcome, failed=True)


async def test_a_significant_child_that_ends_ends_the_program(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(
        child("main", restart=Restart.TRANSIENT, significant=True), child("other", "w2"), engine=engine
    )
    supervisor.ref("main").tell(Finish("normal"))
    outcome = await supervisor.wait()
    assert outcome.reason == "main: normal"
    nothing_left(supervisor, outcome)


async def test_children_start_left_to_right_and_stop_right_to_left(
    supervise: SupervisorFactory, engine: Kind, tmp_path: Path
) -> None:
    file = tmp_path / "chronicle"
    children = [chronicler(name, file, f"w{n % 2}") for n, name in enumerate("abcd")]
    supervisor = await supervise(*children, engine=engine)
    await supervisor.leave()
    assert file.read_text().split() == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]


async def test_rest_for_one_restarts_those_started_later(
    supervise: SupervisorFactory, engine: Kind, tmp_path: Path
) -> None:
    file = tmp_path / "chronicle"
    children = [chronicler(name, file, f"w{n % 2}") for n, name in enumerate("abc")]
    supervisor = await supervise(*children, engine=engine, strategy=Strategy.REST_FOR_ONE)
    with pytest.raises(RemoteFailure):
        await supervisor.ref("b").ask(Fail("ValueError"))
    await until(lambda: file.read_text().split()[3:] == ["-c", "+b", "+c"])
    await supervisor.leave()


async def test_too_many_restarts_end_the_program(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), engine=engine, intensity=Intensity(restarts=1, period_s=60))
    for _ in range(2):
        await alive(supervisor.ref("a"))
        with pytest.raises(RemoteFailure):
            await supervisor.ref("a").ask(Fail("ValueError"))
    outcome = await supervisor.wait()
    assert outcome.reason == "a kept failing"
    nothing_left(supervisor, outcome, failed=True)


async def test_a_child_that_does_not_stop_is_killed(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a", actor="Stubborn", shutdown_ms=50), engine=engine)
    nothing_left(supervisor, await supervisor.leave())


async def test_children_come_later_and_names_are_taken(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), engine=engine)
    added = await supervisor.start_child(child("b"))
    assert (await added.ask(Say("new"))).text == "new"
    with pytest.raises(NameTaken):
        await supervisor.start_child(child("b"))
    with pytest.raises(Refused, match="cannot load"):
        await supervisor.start_child(child("c", actor="Nobody"))
    nothing_left(supervisor, await supervisor.leave())


async def test_a_restart_can_be_asked_for(supervise: SupervisorFactory, engine: Kind) -> None:
    supervisor = await supervise(child("a"), engine=engine)
    assert await supervisor.restart("a")
    await until(lambda: supervisor.restarts == {"a": 1})
    assert (await alive(supervisor.ref("a"))).text == "?"
    assert await supervisor.restart("w1")
    await until(lambda: supervisor.restarts.get("w1") == 1)
    assert (await alive(supervisor.ref("a"))).text == "?"
    assert not await supervisor.restart("nobody")
    await supervisor.leave()


async def test_force_ends_it_at_once(supervise: SupervisorFactory, engine: Kind, tmp_path: Path) -> None:
    file = tmp_path / "chronicle"
    supervisor = await supervise(chronicler("a", file), engine=engine)
    supervisor.force()
    nothing_left(supervisor, await supervisor.wait(), failed=True)
    assert file.read_text().split() == ["+a"]  # nobody says goodbye


async def test_what_cannot_start_leaves_nothing(
    supervise: SupervisorFactory, engine: Kind, directories: Directories
) -> None:
    with pytest.raises(Refused, match="cannot load"):
        await supervise(child("a"), child("b", "w2", "Nobody"), engine=engine)
    assert our_processes() == []
    assert list(directories.ipc.iterdir()) == []


async def test_a_trace_goes_across_workers(
    supervise: SupervisorFactory, engine: Kind, directories: Directories
) -> None:
    supervisor = await supervise(child("a"), child("b", "w2"), engine=engine)
    await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))
    await supervisor.leave()
    traces = group(load(directories.traces))
    (trace,) = [trace for trace in traces if any(span.message == "Relay" for span in trace.spans)]
    hops = [(span.message, span.from_, span.to, span.worker, span.outcome) for span in trace.spans]
    assert hops == [
        ("Relay", "t/supervisor/$outside", "t/w1/a", "w1", "ok"),
        ("Say", "t/w1/a", "t/w2/b", "w2", "ok"),
        ("Said", "t/w2/b", "t/w1/a", "w1", "ok"),
        ("Said", "t/w1/a", "t/supervisor/$outside", "supervisor", "ok"),
    ]


async def test_a_dead_worker_leaves_a_ring_that_says_what_it_did(
    supervise: SupervisorFactory, engine: Kind, directories: Directories
) -> None:
    supervisor = await supervise(child("a", actor="Gate"), engine=engine)
    waiting = supervisor.ref("a").ask(Open(), timeout_s=60)
    ring = directories.ring_file("t", "w1", supervisor.processes["w1"].boot.epoch)
    await until(lambda: ("Open", Event.STARTED) in told(ring))
    supervisor.processes["w1"].kill()
    with pytest.raises(ActorDead):
        await waiting
    assert told(ring)[-1] == ("Open", Event.STARTED)
    await supervisor.leave()


def told(ring: Path) -> list[tuple[str, int]]:
    return [(record.message, record.event) for record in read_ring(ring).records if record.to == "t/w1/a"]


# --- what only inline has ---


async def test_inline_starts_no_process_and_needs_no_files(directories: Directories) -> None:
    engine = make("inline", directories=directories, rings=False)
    assert isinstance(engine, Inline)
    supervisor = Supervisor(
        "t",
        workers=[WorkerSpec(name="w1"), WorkerSpec(name="w2")],
        children=[child("a"), child("b", "w2")],
        directories=directories,
        messages=["tests.runtime.troupe:MESSAGES"],
        engine=engine,
    )
    await supervisor.start()
    assert our_processes() == []
    assert (await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))).pid == os.getpid()
    nothing_left(supervisor, await supervisor.leave())
    assert [path.name for path in directories.traces.iterdir() if ".supervisor." not in path.name] == []
    assert engine.network.under_way == 0


async def test_two_inline_programs_share_a_loop(tmp_path: Path) -> None:
    programs: list[Supervisor] = []
    for name in ("one", "two"):
        programs.append(
            Supervisor(
                name,
                workers=[WorkerSpec(name="w1")],
                children=[child("a")],
                directories=Directories(ipc=tmp_path / "i", logs=tmp_path / "l", traces=tmp_path / "t"),
                messages=["tests.runtime.troupe:MESSAGES"],
                engine="inline",
            )
        )
        await programs[-1].start()
    one, two = programs
    await one.leave()
    assert (await two.ref("a").ask(Say("still here"))).text == "still here"
    await two.leave()


async def test_a_killed_inline_worker_hears_and_says_nothing_more(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("watcher", "w2", "Watcher"), child("a", actor="Gate"), engine="inline")
    worker = supervisor.processes["w1"]
    assert isinstance(worker, InlineWorker)
    assert worker.node is not None
    gate: Any = worker.node.actors["a"]
    supervisor.ref("a").tell(Open())
    await gate.entered.wait()
    worker.kill()
    await worker.ended.wait()
    assert gate.cancelled
    assert worker.node.actors == {}
    assert worker.node.transport is not None
    assert not worker.node.transport.send("supervisor", Envelope(1, 1, 0, "a", "b", EnvelopeKind.TELL, 0, None))
    worker.kill()  # idempotent
    await supervisor.leave()


async def test_a_worker_that_cannot_run_is_an_error_of_the_start(directories: Directories) -> None:
    supervisor = Supervisor(
        "t",
        workers=[WorkerSpec(name="w1")],
        children=[],
        directories=directories,
        messages=["tests.runtime.troupe:MESSAGES"],
        engine="inline",
    )
    supervisor.engine.start = without_a_place_for_rings(supervisor.engine)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="w1 ended at its start"):
        await supervisor.start()


def without_a_place_for_rings(engine: Any) -> Any:
    start = engine.start

    def starts(boot: Any, on_end: Any) -> Any:
        return start(msgspec.structs.replace(boot, trace_file="/nowhere/ring"), on_end)

    return starts


def test_an_engine_that_is_not_there_says_so(directories: Directories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LocalError, match=r"exeunt\[ray\]"):
        make("ray", directories=directories)
    with pytest.raises(LocalError, match="no such engine"):
        make(cast("Kind", "threads"), directories=directories)
