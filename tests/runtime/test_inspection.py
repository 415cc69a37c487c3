"""What a program answers about itself, also while something in it is blocked."""

import asyncio
import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.exhibits import Block, Count, Counted

from exeunt.runtime import (
    ActorDead,
    ChildSpec,
    Directories,
    Intensity,
    RemoteFailure,
    Restart,
    Strategy,
    Supervisor,
    SupervisorSpec,
    WorkerSpec,
)
from exeunt.runtime.backoff import Backoff
from exeunt.runtime.control import ControlClient, ControlError, ControlTaken
from exeunt.runtime.engine import Kind
from exeunt.runtime.errors import LocalError
from exeunt.runtime.events import ChildRestarted, WorkerDied
from exeunt.runtime.inspection import Inspection
from exeunt.runtime.inspector import Inspector
from exeunt.runtime.worker import Boot

from .conftest import until

ENGINES: tuple[Kind, ...] = ("inline", "processes")

Open = Callable[..., Awaitable[tuple[Supervisor, Inspector]]]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
async def open_program(directories: Directories) -> AsyncIterator[Open]:
    started: list[Supervisor] = []

    def workers_of(specs: Iterable[ChildSpec | SupervisorSpec]) -> list[str]:
        names = [[spec.worker] if isinstance(spec, ChildSpec) else workers_of(spec.children) for spec in specs]
        return list(dict.fromkeys(itertools.chain(*names)))

    async def start(*children: ChildSpec | SupervisorSpec, engine: Kind = "inline") -> tuple[Supervisor, Inspector]:
        workers = [WorkerSpec(name=name) for name in workers_of(children)]
        supervisor = Supervisor(
            "t",
            workers=workers,
            children=children,
            directories=directories,
            messages=["tests.runtime.exhibits:MESSAGES"],
            engine=engine,
        )
        started.append(supervisor)
        await supervisor.start()
        return supervisor, Inspector(supervisor)

    yield start
    for supervisor in started:
        supervisor.force()
        await supervisor.wait()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="exeunt-") as path:
        yield Path(path)


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)


def exhibit(name: str, worker: str = "w1", actor: str = "Exhibit", **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=worker, start=f"tests.runtime.exhibits:{actor}", **options)


async def block(supervisor: Supervisor, child: str, how: str, pipe: str) -> None:
    """Have a child block, and return once it is about to: its handler runs."""
    supervisor.ref(child).tell(Block(how, pipe))
    assert await asyncio.to_thread(Path(pipe).read_text) == "here"


async def eventually(look: Callable[[], Awaitable[Any]], found: Callable[[Any], bool]) -> Any:
    """Look until it is there: between the pipe and the call that blocks lie some lines of Python."""
    async with asyncio.timeout(20):
        while not found(seen := await look()):  # noqa: ASYNC110 - nobody tells when a thread has blocked
            await asyncio.sleep(0)
        return seen


def functions(stack: dict[str, Any]) -> list[str]:
    return [frame["function"] for frame in stack["frames"]]


# --- ps and tree ---


async def test_ps_has_each_actor_with_its_worker(open_program: Open, engine: Kind) -> None:
    supervisor, inspector = await open_program(exhibit("a"), exhibit("b", "w2"), engine=engine)
    await supervisor.ref("a").ask(Count())
    # A look from outside may come between the answer and the count of it.
    counted = await eventually(
        lambda: inspector.ps({}), lambda seen: ("t/w1/a", 1) in [(row["address"], row["handled_total"]) for row in seen]
    )
    rows = {row["address"]: row for row in counted}
    assert set(rows) == {"t/supervisor/root", "t/w1/host", "t/w1/a", "t/w2/host", "t/w2/b"}
    row = rows["t/w1/a"]
    assert (row["kind"], row["state"], row["worker"]) == ("Exhibit", "running", "w1")
    assert (row["mailbox"], row["mailbox_bound"], row["handled_total"]) == (0, 10_000, 1)
    assert row["pid"] == supervisor.processes["w1"].pid
    assert row["answering"]
    assert row["rss_bytes"] > 1_000_000


async def test_looking_leaves_no_traces(open_program: Open, engine: Kind) -> None:
    _, inspector = await open_program(exhibit("a"), engine=engine)
    before = [row["handled_total"] for row in await inspector.ps({})]
    await inspector.tree({})
    await inspector.stack({})
    await inspector.dead_letters({})
    assert [row["handled_total"] for row in await inspector.ps({})] == before


def outline(node: dict[str, Any]) -> Any:
    """Names and states, nested as the tree is."""
    if node["kind"] == "actor":
        return f"{node['name']} {node['worker']} {node['state']}"
    return {f"{node['name']} {node['state']}": list(map(outline, node["children"]))}


async def test_the_tree_has_supervisors_below_supervisors(open_program: Open, engine: Kind) -> None:
    inner = SupervisorSpec(id="inner", restart=Restart.TEMPORARY, children=[exhibit("c", "w2")])
    outer = SupervisorSpec(id="outer", strategy=Strategy.REST_FOR_ONE, children=[exhibit("b"), inner])
    _, inspector = await open_program(exhibit("a"), outer, engine=engine)
    tree = await inspector.tree({})
    assert list(map(outline, tree["supervises"])) == [
        "a w1 running",
        {"outer running": ["b w1 running", {"inner running": ["c w2 running"]}]},
    ]
    below = tree["supervises"][1]
    assert (below["strategy"], below["restart"], below["restarts"]) == ("rest_for_one", "permanent", 0)
    assert below["children"][1]["restart"] == "temporary"
    assert below["children"][0]["address"] == "t/w1/b"
    # Where everybody lives is the other tree.
    assert [[actor["name"] for actor in worker["children"]] for worker in tree["children"]] == [["a", "b"], ["c"]]
    assert {actor["restart"] for worker in tree["children"] for actor in worker["children"]} == {"permanent"}
    assert (tree["strategy"], tree["worker_strategy"]) == ("one_for_one", "one_for_one")


async def test_who_was_given_up_is_still_listed_and_can_be_started_again(open_program: Open, engine: Kind) -> None:
    frail = SupervisorSpec(
        id="frail",
        restart=Restart.TEMPORARY,
        intensity=Intensity(restarts=0),
        children=[exhibit("b", actor="Mortal"), exhibit("c")],
    )
    supervisor, inspector = await open_program(exhibit("a"), frail, engine=engine)
    supervisor.ref("b").tell(Count())
    await until(lambda: "b" not in supervisor.children)
    assert set(supervisor.given_up) == {"b", "c"}
    await eventually(lambda: inspector.ps({}), lambda rows: [row["state"] for row in rows].count("fatal") == 2)
    rows = {row["address"]: row for row in await inspector.ps({})}
    assert (rows["t/w1/b"]["state"], rows["t/w1/b"]["incarnation"]) == ("fatal", 2)
    assert outline((await inspector.tree({}))["supervises"][1]) == {"frail fatal": ["b w1 fatal", "c w1 fatal"]}
    assert (await inspector.show({"actor": "b"}))["spec"]["start"] == "tests.runtime.exhibits:Mortal"
    with pytest.raises(ActorDead):
        supervisor.ref("b")
    with pytest.raises(ControlError, match="given up with its supervisor frail"):
        await inspector.restart({"target": "b"})
    assert (await inspector.restart({"target": "frail"}))["members"] == {"t/w1/b": 2, "t/w1/c": 3}
    await until(lambda: supervisor.tree().state == "running")
    assert set(supervisor.given_up) == set()
    rows = {row["address"]: row for row in await inspector.ps({})}
    assert (rows["t/w1/b"]["state"], rows["t/w1/b"]["incarnation"]) == ("running", 4)


async def test_a_new_child_takes_the_name_of_one_that_was_given_up(open_program: Open) -> None:
    frail = SupervisorSpec(
        id="frail", restart=Restart.TEMPORARY, intensity=Intensity(restarts=0), children=[exhibit("b", actor="Mortal")]
    )
    supervisor, inspector = await open_program(exhibit("a"), frail)
    supervisor.ref("b").tell(Count())
    await until(lambda: "b" not in supervisor.children)
    await supervisor.start_child(exhibit("b"))
    assert supervisor.given_up == {}
    assert list(map(outline, (await inspector.tree({}))["supervises"])) == ["a w1 running", "b w1 running"]


async def test_a_child_that_is_to_be_restarted_is_listed(open_program: Open) -> None:
    supervisor, inspector = await open_program(exhibit("a"), exhibit("b", "w2"))
    engine: Any = supervisor.engine
    start = engine.start

    def without_a_supervisor(boot: Boot, on_end: Any) -> Any:
        return start(msgspec.structs.replace(boot, supervisor="memory://nowhere"), on_end)

    engine.start = without_a_supervisor  # so it never becomes usable
    dying = supervisor.processes["w1"]
    dying.kill()
    await dying.ended.wait()
    rows = {row["address"]: row for row in await inspector.ps({})}
    assert (rows["t/w1/a"]["state"], rows["t/w1/a"]["kind"]) == ("backoff", "Exhibit")
    tree = await inspector.tree({})
    assert tree["children"][0]["state"] in {"starting", "backoff"}
    assert tree["children"][1]["state"] == "running"
    (leaf,) = tree["children"][0]["children"]
    assert (leaf["name"], leaf["state"], leaf["restart"]) == ("a", "backoff", "permanent")


# --- stacks ---


async def test_a_handler_that_waits_shows_its_coroutines(open_program: Open, engine: Kind, pipe: str) -> None:
    supervisor, inspector = await open_program(exhibit("a"), exhibit("b"), engine=engine)
    await block(supervisor, "a", "await", pipe)
    (process,) = await eventually(
        lambda: inspector.stack({"target": "a"}), lambda seen: len(functions(seen[0]["waiting"][0])) > 2
    )
    (stack,) = process["waiting"]
    assert functions(stack)[:3] == ["Exhibit.deeper", "Exhibit.forever", "Exhibit.on_block"]
    assert stack["frames"][0]["source"] == "await asyncio.get_running_loop().create_future()"
    assert stack["frames"][0]["file"].endswith("exhibits.py")
    assert stack["waits_for"] == "Future"
    assert (stack["handling"]["actor"], stack["handling"]["message"]) == ("t/w1/a", "Block")
    assert stack["handling"]["since_s"] >= 0
    assert process["threads"] == []  # it is on none


async def test_an_answer_that_comes_later_has_a_stack(open_program: Open, pipe: str) -> None:
    supervisor, inspector = await open_program(exhibit("a"))
    await block(supervisor, "a", "later", pipe)
    (process,) = await eventually(lambda: inspector.stack({"target": "a"}), lambda seen: bool(seen[0]["waiting"]))
    assert functions(process["waiting"][0])[-2:] == ["Exhibit.forever", "outcome"]


async def test_a_blocked_loop_shows_where(open_program: Open, pipe: str) -> None:
    supervisor, inspector = await open_program(exhibit("a"), exhibit("b"), engine="processes")
    await block(supervisor, "a", "pipe", pipe)
    supervisor.ref("b").tell(Count())
    (process,) = await eventually(
        lambda: inspector.stack({"target": "w1"}), lambda seen: "block_at" in functions(seen[0]["threads"][0])
    )
    loop = process["threads"][0]
    assert loop["is_loop"]
    assert (loop["handling"]["actor"], loop["handling"]["message"]) == ("t/w1/a", "Block")
    assert functions(loop)[:2] == ["block_at", "Exhibit.on_block"]
    assert process["via"] == "thread"
    rows = {row["address"]: row for row in await inspector.ps({})}
    assert rows["t/w1/a"]["handling"] == "Block"  # which the loop could not have said
    shown = await inspector.show({"actor": "a"})
    assert shown["snapshot_error"] == "its worker does not answer: something blocks its loop"
    assert shown["messages"][-1]["outcome"] == "pending"
    # And nothing was harmed: let go, it goes on.
    os.close(os.open(pipe, os.O_WRONLY))
    assert await supervisor.ref("b").ask(Count()) == Counted(2)


async def test_a_thread_that_keeps_the_interpreters_lock_is_seen_all_the_same(open_program: Open, pipe: str) -> None:
    supervisor, inspector = await open_program(exhibit("a"), engine="processes")
    await inspector.ps({})
    await block(supervisor, "a", "lock", pipe)
    (process,) = await eventually(lambda: inspector.stack({"target": "w1"}), lambda seen: seen[0]["via"] == "signal")
    loop = process["threads"][0]
    assert loop["is_loop"]
    assert functions(loop)[:2] == ["match", "on_block"]
    assert [(one["actor"], one["message"]) for one in process["began"]] == [("t/w1/a", "Block")]
    (row,) = [row for row in await inspector.ps({}) if row["address"] == "t/w1/a"]
    assert not row["answering"]


async def test_a_blocking_actor_shows_its_thread(open_program: Open, engine: Kind, pipe: str) -> None:
    supervisor, inspector = await open_program(exhibit("a", actor="Threaded"), engine=engine)
    await block(supervisor, "a", "pipe", pipe)
    (process,) = await eventually(
        lambda: inspector.stack({"target": "t/w1/a"}), lambda seen: "block_at" in functions(seen[0]["threads"][0])
    )
    (thread,) = process["threads"]
    assert not thread["is_loop"]
    assert thread["handling"]["message"] == "Block"
    os.close(os.open(pipe, os.O_WRONLY))


async def test_inline_workers_share_their_threads(open_program: Open) -> None:
    _, inspector = await open_program(exhibit("a"), exhibit("b", "w2"))
    (process,) = await inspector.stack({})
    assert process["pid"] == os.getpid()
    assert [thread["is_loop"] for thread in process["threads"]].count(True) == 1


# --- show ---


async def test_show_tells_spec_messages_and_snapshot(open_program: Open, engine: Kind) -> None:
    supervisor, inspector = await open_program(
        exhibit("a", args={"token": "hush", "label": "x"}, shutdown_ms=7), engine=engine
    )
    for _ in range(3):
        await supervisor.ref("a").ask(Count())
    shown = await inspector.show({"actor": "w1/a"})
    assert shown["spec"] == {
        "start": "tests.runtime.exhibits:Exhibit",
        "args": {"token": "(hidden)", "label": "x"},
        "restart": "permanent",
        "shutdown_ms": 7,
        "significant": False,
    }
    assert shown["snapshot"] == {"n": 3, "label": "x"}
    assert shown["queue"]["bound"] == 10_000
    last = shown["messages"][-1]
    assert (last["message"], last["from"], last["outcome"]) == ("Count", "t/supervisor/$outside", "ok")
    assert last["ran_ms"] >= 0
    assert shown["handled_per_s"] > 0


@pytest.mark.parametrize(
    ("actor", "error"),
    [("Unwilling", "RuntimeError: none of your business"), ("Opaque", "unsupported")],
)
async def test_a_snapshot_that_fails_ends_nobody(open_program: Open, engine: Kind, actor: str, error: str) -> None:
    supervisor, inspector = await open_program(exhibit("a", actor=actor), engine=engine)
    shown = await inspector.show({"actor": "a"})
    assert shown["snapshot"] is None
    assert error in shown["snapshot_error"]
    assert await supervisor.ref("a").ask(Count()) == Counted(1)


async def test_a_snapshot_may_be_async_or_of_a_thread(open_program: Open, engine: Kind) -> None:
    _, inspector = await open_program(exhibit("a", actor="Hesitant"), exhibit("b", actor="Threaded"), engine=engine)
    assert (await inspector.show({"actor": "a"}))["snapshot"] == {"n": 0}
    assert (await inspector.show({"actor": "b"}))["snapshot"]["thread"].startswith("b")


# --- restart and dead letters ---


async def test_restart_says_what_lived_there(open_program: Open, engine: Kind) -> None:
    supervisor, inspector = await open_program(exhibit("a"), exhibit("w1", "w2"), engine=engine)
    before = await inspector.restart({"target": "a"})
    assert (before["kind"], before["name"], before["incarnation"]) == ("actor", "t/w1/a", 1)
    await until(lambda: supervisor.restarts.get("a") == 1)
    with pytest.raises(ControlError, match=r"w1/ \(the worker\), t/w2/w1") as ambiguous:
        await inspector.restart({"target": "w1"})
    assert ambiguous.value.code == "ambiguous_actor"
    pid = supervisor.processes["w1"].pid
    assert (await inspector.restart({"target": "w1/"}))["pid"] == pid
    await until(lambda: supervisor.worker_restarts == {"w1": 1})
    for target in ("supervisor", "t/supervisor/root"):
        with pytest.raises(ControlError) as refused:
            await inspector.restart({"target": target})
        assert refused.value.code == "not_supervised"


@pytest.mark.parametrize("how", ["await", "later"])
async def test_an_actor_that_is_stuck_is_killed_and_restarted(
    open_program: Open, engine: Kind, pipe: str, how: str
) -> None:
    supervisor, inspector = await open_program(exhibit("a", shutdown_ms=10), exhibit("b"), engine=engine)
    await block(supervisor, "a", how, pipe)
    before = await inspector.restart({"target": "a"})
    assert before["members"] == {"t/w1/a": 1}
    await until(lambda: supervisor.restarts == {"a": 1} and supervisor.tree().state == "running")  # and nobody else
    assert await supervisor.ref("a").ask(Count()) == Counted(1)


@pytest.mark.parametrize(("how", "actor"), [("pipe", "Exhibit"), ("await", "Stubborn")])
async def test_a_worker_goes_down_with_an_actor_that_cannot_be_killed(
    open_program: Open, pipe: str, how: str, actor: str
) -> None:
    """`pipe` blocks its loop, and so its host; a Stubborn one passes over its cancellation."""
    supervisor, inspector = await open_program(
        exhibit("a", actor=actor, shutdown_ms=10), exhibit("b"), engine="processes"
    )
    await block(supervisor, "a", how, pipe)
    await inspector.restart({"target": "a"})
    await until(lambda: supervisor.restarts == {"w1": 1, "a": 1, "b": 1} and supervisor.tree().state == "running")
    assert await supervisor.ref("a").ask(Count()) == Counted(1)


async def test_a_restart_counts_against_nobody(open_program: Open, engine: Kind) -> None:
    strict = SupervisorSpec(id="s", intensity=Intensity(restarts=0), children=[exhibit("a", restart=Restart.TEMPORARY)])
    supervisor, inspector = await open_program(strict, engine=engine)
    for restarts in (1, 2, 3):
        await inspector.restart({"target": "a"})
        await until(lambda: supervisor.restarts == {"a": restarts} and supervisor.tree().state == "running")  # noqa: B023
    before = await inspector.restart({"target": "t/s"})
    assert (before["kind"], before["members"]) == ("supervisor", {"t/w1/a": 4})
    await until(lambda: supervisor.restarts == {"s": 1, "a": 4})


async def test_who_waits_to_be_started_is_started_at_once(open_program: Open, engine: Kind) -> None:
    patient = Backoff(first_s=3600, max_s=3600)
    supervisor, inspector = await open_program(exhibit("a", actor="Mortal", backoff=patient), engine=engine)
    supervisor.ref("a").tell(Count())
    await until(lambda: supervisor.restarts == {"a": 1} and supervisor.tree().state == "running")  # the first: at once
    supervisor.ref("a").tell(Count())
    await until(lambda: supervisor.tree().children[0].state == "waiting")
    assert [row["state"] for row in await inspector.ps({}) if row["address"] == "t/w1/a"] == ["backoff"]
    assert (await inspector.restart({"target": "a"}))["members"] == {"t/w1/a": 2}
    await until(lambda: supervisor.restarts == {"a": 2} and supervisor.tree().state == "running")


async def test_a_worker_and_a_supervisor_of_one_name_are_told_apart(open_program: Open) -> None:
    inner = SupervisorSpec(id="inner", children=[exhibit("b")])
    supervisor, inspector = await open_program(SupervisorSpec(id="w1", children=[exhibit("a"), inner]))
    with pytest.raises(ControlError, match=r"w1/ \(the worker\), t/w1 \(the supervisor\)"):
        await inspector.restart({"target": "w1"})
    assert (await inspector.restart({"target": "t/w1"}))["kind"] == "supervisor"
    await until(lambda: supervisor.restarts == {"w1": 1, "a": 1, "b": 1})
    assert supervisor.worker_restarts == {}
    for name, kind in (("inner", "supervisor"), ("t/inner", "supervisor"), ("w1", "worker"), ("t", "program")):
        with pytest.raises(ControlError, match=f"{name} is no actor but a {kind}"):
            await inspector.show({"actor": name})


async def test_dead_letters_survive_their_worker(open_program: Open, engine: Kind) -> None:
    supervisor, inspector = await open_program(exhibit("a"), engine=engine)
    for _ in range(3):
        supervisor.node.tell("t/w1/nobody", Count())
    await supervisor.ref("a").ask(Count())  # it comes after them
    assert (await inspector.dead_letters({}))["totals"] == {"supervisor": 0, "w1": 3}
    supervisor.processes["w1"].kill()
    await until(lambda: supervisor.restarts == {"w1": 1, "a": 1} and supervisor.tree().state == "running")
    supervisor.node.tell("t/w1/nobody", Count())
    await supervisor.ref("a").ask(Count())
    assert (await inspector.dead_letters({}))["totals"] == {"supervisor": 0, "w1": 4}


async def test_dead_letters_of_all_workers(open_program: Open, engine: Kind) -> None:
    supervisor, inspector = await open_program(exhibit("a"), engine=engine)
    supervisor.node.tell("t/w1/nobody", Count())
    supervisor.node.tell("t/w9/nobody", Count())
    await supervisor.ref("a").ask(Count())  # it comes after the first
    found = await inspector.dead_letters({})
    assert found["totals"] == {"supervisor": 1, "w1": 1}
    letters = {letter["to"]: letter for letter in found["letters"]}
    assert letters["t/w1/nobody"]["reason"] == "ActorDead: t/w1/nobody does not live"
    assert letters["t/w9/nobody"]["message"] == "Count"
    assert letters["t/w9/nobody"]["from"] == "t/supervisor/$outside"


# --- serving ---


async def test_a_program_of_the_runtime_alone_is_served(open_program: Open, short_path: Path) -> None:
    supervisor, _ = await open_program(exhibit("a"))
    supervisor.events.publish(WorkerDied("w0"))
    run_dir = short_path / "r"
    async with Inspection(supervisor, run_dir) as inspection:
        assert (run_dir / "t" / "pid").read_text() == f"{os.getpid()}\n"
        with pytest.raises(ControlTaken):
            await Inspection(supervisor, run_dir).__aenter__()
        assert (run_dir / "t" / "pid").exists()  # the second one took nothing of the first along

        def talk() -> tuple[Any, Any, list[Any]]:
            with ControlClient(run_dir / "t" / "control.sock") as client:
                hello, rows = client.request("hello"), client.request("ps")
                events = client.events(recent=10)
                first = next(events)
                loop.call_soon_threadsafe(supervisor.events.publish, ChildRestarted("t/w1/a", reason="why"))
                return hello, rows, [first, next(event for event in events if event["type"] == "ChildRestarted")]

        loop = asyncio.get_running_loop()
        hello, rows, events = await asyncio.to_thread(talk)
        assert (hello["instance"], hello["pid"]) == ("t", os.getpid())
        assert "t/w1/a" in {row["address"] for row in rows}
        assert events[0]["at"].endswith("Z")
        assert (events[1]["of"], events[1]["reason"]) == ("t/w1/a", "why")
        assert inspection.control.recent[-1] == events[1]
    assert not run_dir.exists()


async def test_a_served_program_can_be_told_to_stop(open_program: Open, short_path: Path) -> None:
    supervisor, _ = await open_program(exhibit("a"))
    async with Inspection(supervisor, short_path / "r", name="other"):
        path = short_path / "r" / "other" / "control.sock"

        def stop() -> None:
            with ControlClient(path) as client:
                client.request("stop", {"reason": "shutting_down"})

        await asyncio.to_thread(stop)
        assert (await supervisor.wait()).reason == "shutting_down"


async def test_what_cannot_be_served_is_said(open_program: Open, short_path: Path) -> None:
    supervisor, _ = await open_program(exhibit("a"))
    for name in ("", "UPPER", "../x", "a" * 25):
        with pytest.raises(LocalError, match="instance's name"):
            Inspection(supervisor, short_path, name=name)
    open_to_all = short_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(PermissionError, match="only its owner"):
        await Inspection(supervisor, open_to_all).__aenter__()


async def test_a_crash_is_in_what_show_tells(open_program: Open) -> None:
    supervisor, inspector = await open_program(exhibit("a"))
    supervisor.events.publish(ChildRestarted("t/w1/a", reason="crashed", restarts=1))
    with contextlib.suppress(RemoteFailure):
        await supervisor.ref("a").ask(Count())
    shown = await inspector.show({"actor": "a"})
    assert [(one["type"], one["reason"]) for one in shown["lives"] if one["type"] == "ChildRestarted"] == [
        ("ChildRestarted", "crashed")
    ]
