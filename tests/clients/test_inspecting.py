"""The commands that look into a program, against a real one: a supervisor on a thread, served by `Inspection`."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.exhibits import Block, Count, Exhibit

from exeunt.clients import inspection_contract
from exeunt.clients.inspection_contract import ActorDetail, ProcessStacks, TreeNode
from exeunt.clients.paths import Paths, current
from exeunt.runtime import ChildSpec, Directories, Supervisor, SupervisorSpec, WorkerSpec
from exeunt.runtime.events import ActorEnded, ChildRestarted, WorkerDied
from exeunt.runtime.inspection import Inspection, short_enough
from exeunt.runtime.wakeups import wakeups_of

from .conftest import Cli, StartProgram

DETAIL: dict[str, Any] = {
    "address": "shop/w1/till", "kind": "Till", "state": "running", "worker": "w1", "pid": 7, "mailbox": 3,
    "mailbox_bound": 100, "handled_total": 12, "handling": "Buy", "incarnation": 4, "restarts": 2, "since_s": 124.0,
    "answering": True, "cpu_percent": 2.1, "rss_bytes": 42_991_616, "worker_epoch": 492_945,
    "spec": {"start": "shop:Till", "args": {"token": "(hidden)"}, "restart": "permanent", "shutdown_ms": 5000,
             "significant": True},
    "queue": {"waiting": 3, "bound": 100, "policy": "drop_oldest", "rejected_total": 0, "dropped_total": 9},
    "handled_per_s": 1.5, "handled_over_s": 10.0,
    "messages": [{"at": "2026-11-23T14:05:20.500Z", "message": "Buy", "from": "shop/w2/shop", "kind": "ask",
                  "trace": "00000000000000ff", "count": 17, "queued_ms": 0.5, "ran_ms": None, "outcome": "pending"}],
    "lives": [{"type": "ActorEnded", "at": "2026-11-23T14:05:20.500Z", "of": "shop/w1/till", "reason": "crashed",
               "error": "ValueError: \x1b[31mboom"}],
    "snapshot": {"sold": {"apple": 2}, "open": True}, "snapshot_error": None,
}  # fmt: skip


class Served:
    """A program on a loop of its own, in this process."""

    def __init__(self, paths: Paths) -> None:
        self.loop = asyncio.new_event_loop()
        home = paths.run_dir.parent
        self.supervisor = Supervisor(
            "shop",
            workers=[WorkerSpec(name="w1"), WorkerSpec(name="w2")],
            children=[
                ChildSpec(id="till", worker="w1", start="tests.runtime.exhibits:Exhibit"),
                SupervisorSpec(
                    id="back", children=[ChildSpec(id="shy", worker="w2", start="tests.runtime.exhibits:Unwilling")]
                ),
            ],
            messages=["tests.runtime.exhibits:MESSAGES"],
            directories=Directories(ipc=home / "ipc", logs=home / "log", traces=home / "trace"),
            engine="inline",
        )
        self._run_dir = paths.run_dir
        self._up = threading.Event()
        self._over = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._live(),))
        self.thread.start()
        assert self._up.wait(10)

    async def _live(self) -> None:
        await self.supervisor.start()
        async with Inspection(self.supervisor, self._run_dir) as self.inspection:
            self._up.set()
            await self._over.wait()
            await self.supervisor.leave()

    def do(self, function: Any, *args: Any) -> None:
        """Call it on the program's loop."""
        done = threading.Event()

        def call() -> None:
            function(*args)
            done.set()

        self.loop.call_soon_threadsafe(call)
        assert done.wait(10)

    def do_until(self, condition: Callable[[], bool]) -> None:
        """Let the program's loop turn until something is so."""

        async def turn() -> None:
            async with asyncio.timeout(10):
                while not condition():  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(turn(), self.loop).result(10)

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._over.set)
            self.thread.join(10)
            self.loop.close()


@pytest.fixture
def served(paths: Paths) -> Iterator[Served]:
    program = Served(paths)
    yield program
    program.close()


def test_a_program_of_the_runtime_alone_is_found(cli: Cli, served: Served) -> None:
    rows = cli("ps", "--json", "--instance", "shop").data
    assert [row["address"] for row in rows] == [
        "shop/supervisor/root", "shop/w1/host", "shop/w1/till", "shop/w2/host", "shop/w2/shy"
    ]  # fmt: skip
    assert [row["address"] for row in cli("ps", "--json", "--worker", "w2").data] == ["shop/w2/host", "shop/w2/shy"]
    assert cli("ps", "--json", "--state", "backoff").data == []
    assert cli("ps", "--json", "--sort", "address").data[0]["address"] == "shop/supervisor/root"
    unknown = cli("ps", "--worker", "w3")
    assert unknown.code == 4
    assert "supervisor, w1, w2" in unknown.err
    assert max(map(len, cli("ps").out.splitlines())) <= 80


def test_the_tree_has_classes_and_restart_types(cli: Cli, served: Served) -> None:
    lines = cli("tree").out.splitlines()
    assert lines == [
        f"● shop  one_for_one · pid {os.getpid()}",
        "├── ● till  Exhibit · in w1 · permanent",
        "├── ● back  one_for_one · permanent",
        "│   └── ● shy  Unwilling · in w2 · permanent",
        "└── ● workers  one_for_one",
        f"    ├── ● w1  permanent · pid {os.getpid()}",
        f"    └── ● w2  permanent · pid {os.getpid()}",
    ]


def test_who_is_nobodys_child_stands_below_its_worker(cli: Cli, served: Served) -> None:
    worker: Any = served.supervisor.processes["w1"]
    served.do(lambda: worker.node.start(Exhibit(), "helper"))
    assert "    │   └── ● helper  Exhibit" in cli("tree").out.splitlines()


def test_show_of_a_living_actor(cli: Cli, served: Served) -> None:
    served.do(served.supervisor.ref("till").tell, Count())
    shown = cli("show", "till", "--json").document
    assert shown["schema"] == "exeunt.show/1"
    assert shown["data"]["snapshot"] == {"n": 1, "label": ""}
    assert shown["data"]["messages"][-1]["message"] == "Count"
    shy = cli("show", "w2/shy")
    assert shy.code == 0
    assert "✖ RuntimeError: none of your business" in shy.out


@pytest.mark.parametrize(
    ("argv", "code", "hint"),
    [
        (("show", "tilll"), 4, "Did you mean shop/w1/till?"),
        (("show", "host"), 2, "shop/w1/host, shop/w2/host"),
        (("stack", "nobody"), 4, "exeunt ps"),
        (("restart", "supervisor"), 1, "exeunt stop"),
    ],
)
def test_who_is_not_meant_clearly(argv: tuple[str, ...], code: int, hint: str, cli: Cli, served: Served) -> None:
    refused = cli(*argv, "--json")
    assert refused.code == code
    assert hint in refused.err
    assert refused.document["schema"] == "exeunt.error/1"


def test_restart_returns_when_the_successor_lives(cli: Cli, served: Served) -> None:
    actor = cli("restart", "till", "--json").data
    assert (actor["kind"], actor["name"], actor["incarnation"]) == ("actor", "shop/w1/till", 3)
    assert served.supervisor.restarts == {"till": 1}


def test_restart_of_a_supervisor_and_of_a_worker_that_is_no_process(cli: Cli, served: Served) -> None:
    back = cli("restart", "back", "--json").data
    assert (back["kind"], back["name"], back["actors"], back["pid"]) == ("supervisor", "shop/back", 1, None)
    assert served.supervisor.restarts == {"back": 1, "shy": 1}
    assert "shop/back lives again with 1 actor" in cli("restart", "back").out
    worker = cli("restart", "w2", "--json").data
    assert (worker["kind"], worker["pid"]) == ("worker", os.getpid())
    assert served.supervisor.worker_restarts == {"w2": 1}


def test_all_workers_that_can_hand_over_are_restarted_one_after_another(cli: Cli, start_program: StartProgram) -> None:
    epochs = {"w1": 1, "w2": 1}
    asked: list[None] = []

    def restart(args: dict[str, Any]) -> dict[str, Any]:
        worker = args["target"].removesuffix("/")  # an actor may have the same name
        assert args["target"] != worker
        epochs[worker] += 1
        return {"kind": "worker", "name": worker, "pid": 7, "epoch": epochs[worker] - 1}

    def ps(_args: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(None)
        still = {"address": "a/w1/late", "state": "starting", "answering": False} if len(asked) == 1 else {}
        rows = [{**DETAIL, "worker": worker, "worker_epoch": epoch, "pid": 8} for worker, epoch in epochs.items()]
        return [*rows, {**rows[0], **still}]

    start_program(hand_over=["w1", "w2"], restart=restart, ps=ps)
    lines = cli("restart", "--all", "--json").lines
    assert [(line["schema"], line["data"]["name"], line["data"]["pid"]) for line in lines] == [
        ("exeunt.restart/1", "w1", 8),
        ("exeunt.restart/1", "w2", 8),
    ]
    assert len(asked) == 3, "one of its actors was still to be started"


def test_a_program_whose_workers_hand_nothing_over_says_so(cli: Cli, served: Served) -> None:
    refused = cli("restart", "--all")
    assert refused.code == 1
    assert "No worker of this program can hand over" in refused.err


@pytest.mark.parametrize("argv", [("restart",), ("restart", "till", "--all")])
def test_a_restart_is_of_one_or_of_all(cli: Cli, argv: tuple[str, ...]) -> None:
    assert cli(*argv).code == 2


def test_a_restart_that_does_not_come_about_times_out(cli: Cli, start_program: StartProgram) -> None:
    start_program(restart={"kind": "actor", "name": "a/b/c", "incarnation": 1, "members": {"a/b/c": 1}}, ps=[])
    late = cli("restart", "c", "--timeout", "50ms")
    assert late.code == 5
    assert "a/b/c does not live again after 0.05 s" in late.err


def test_dead_letters(cli: Cli, served: Served) -> None:
    assert cli("ps", "--dead-letters").out == "No dead letters.\n"
    served.do(served.supervisor.node.tell, "shop/nowhere/x", Count())
    letters = cli("ps", "--dead-letters", "--json").document
    assert letters["schema"] == "exeunt.dead-letters/1"
    assert letters["data"]["totals"] == {"supervisor": 1, "w1": 0, "w2": 0}
    assert letters["data"]["letters"][0]["to"] == "shop/nowhere/x"
    assert cli("ps", "--dead-letters", "--worker", "w1", "--json").data["letters"] == []
    shown = cli("ps", "--dead-letters").out
    assert "1 dead letter (supervisor 1)" in shown
    assert "no such worker" in shown


def test_what_woke_the_workers(cli: Cli, served: Served) -> None:
    wakeups = wakeups_of(served.loop)
    for _ in range(10_000):
        wakeups.count("udp")
    document = cli("ps", "--wakeups", "--json").document
    assert document["schema"] == "exeunt.wakeups/1"
    assert [one["worker"] for one in document["data"]] == ["supervisor", "w1", "w2"]
    first = document["data"][0]
    assert first["pid"] == os.getpid()
    assert next(iter(first["counts"].items())) == ("udp", 10_000)
    assert first["counts"]["control"] > 0
    assert first["over_s"] > 0
    (alone,) = cli("ps", "--wakeups", "--worker", "w1", "--json").data
    assert alone["worker"] == "w1"
    shown = cli("ps", "--wakeups", "--worker", "w1").out.splitlines()
    assert shown[0].startswith("w1  ")
    assert shown[1].split() == ["CAUSE", "COUNT", "PER", "MINUTE"]
    assert shown[2].split()[:2] == ["udp", "10000"]
    assert cli("show", "till", "--json").data["wakeups"]["counts"]["udp"] == 10_000
    assert "wake-ups  of w1: " in cli("show", "till").out


def test_events_are_filtered_and_cut(cli: Cli, served: Served) -> None:
    for number in (1, 2):
        served.do(served.supervisor.events.publish, ChildRestarted("shop/w1/till", reason="crashed", restarts=number))
    served.do(served.supervisor.events.publish, WorkerDied("w2", reason="killed"))
    lines = cli("events", "--json", "--type", "ChildRestarted").lines
    assert [(line["data"]["of"], line["data"]["fields"]["restarts"]) for line in lines] == [
        ("shop/w1/till", 1), ("shop/w1/till", 2)
    ]  # fmt: skip
    assert lines[0]["at"] == lines[0]["data"]["at"]
    (last,) = cli("events", "--json", "--actor", "till", "-n", "1").lines
    assert last["data"]["fields"]["restarts"] == 2
    assert [line["data"]["type"] for line in cli("events", "--json", "--actor", "w2").lines][-1] == "WorkerDied"
    assert "✖ WorkerDied" in cli("events").out


def test_events_are_followed_until_the_program_leaves(cli: Cli, served: Served) -> None:
    served.do(served.supervisor.events.publish, ActorEnded("shop/w1/till", reason="1"))
    served.do(served.supervisor.events.publish, ActorEnded("shop/w1/till", reason="2"))
    follower: list[Any] = []
    thread = threading.Thread(
        target=lambda: follower.append(cli("events", "-f", "--json", "-n", "1", "--type", "ActorEnded"))
    )
    thread.start()
    served.do_until(lambda: served.inspection.control.subscribers == 1)
    served.do(served.supervisor.events.publish, ActorEnded("shop/w1/till", reason="3"))
    served.do(served.supervisor.events.publish, ChildRestarted("shop/w1/till"))
    served.close()
    thread.join(10)
    (done,) = follower
    assert done.code == 0
    assert [line["data"]["fields"]["reason"] for line in done.lines][:2] == ["2", "3"]


def test_stack_of_a_program_whose_own_loop_is_blocked(cli: Cli, served: Served, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    served.do(served.supervisor.ref("till").tell, Block("pipe", str(pipe)))
    assert pipe.read_text() == "here"
    try:
        seen = cli("stack", "till", "--json", "--timeout", "100ms")
    finally:
        os.close(os.open(pipe, os.O_WRONLY))
    assert seen.code == 0
    assert seen.document["problems"][0]["code"] == "program_silent"
    (process,) = seen.data
    handled = [thread for thread in process["threads"] if thread["handling"] is not None]
    assert [(thread["is_loop"], thread["handling"]["actor"]) for thread in handled] == [(True, "shop/w1/till")]
    assert "Exhibit.on_block" in [frame["function"] for frame in handled[0]["frames"]]


def test_stack_shows_threads_as_py_spy_does(cli: Cli, served: Served) -> None:
    shown = cli("stack").out
    assert f"supervisor  pid {os.getpid()}" in shown
    assert 'exeunt-side-door"  idle' in shown
    assert "    SideDoor._serve (runtime/side_door.py:" in shown


def test_show_is_readable_on_a_small_terminal(cli: Cli, start_program: StartProgram) -> None:
    start_program(show=DETAIL)
    shown = cli("show", "till").out
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("incarnation 4", "9 dropped", "Buy ×17", "◐ pending", "00000000000000ff", "apple", "significant"):
        assert part in shown
    assert "\x1b[31mboom" not in shown  # the terminal is not told by others what to do


def test_a_silent_worker_is_a_problem(cli: Cli, start_program: StartProgram) -> None:
    row = {key: DETAIL[key] for key in inspection_contract.ActorRow.__struct_fields__} | {"answering": False}
    start_program(ps=[row])
    done = cli("ps", "--json")
    assert [problem["code"] for problem in done.document["problems"]] == ["worker_silent"]
    assert "exeunt stack w1" in cli("ps").err


def test_the_documents_are_what_the_contract_says(cli: Cli, served: Served) -> None:
    """Nothing that the runtime answers is lost on its way through the contract's types."""

    async def answers() -> list[Any]:
        from exeunt.runtime.inspector import Inspector

        inspector = Inspector(served.supervisor)
        return [await inspector.show({"actor": "till"}), await inspector.stack({}), await inspector.tree({})]

    given = asyncio.run_coroutine_threadsafe(answers(), served.loop).result(10)
    for answer, type_ in zip(given, (ActorDetail, list[ProcessStacks], TreeNode), strict=True):
        converted: Any = msgspec.convert(answer, type_)
        _nothing_lost(answer, json.loads(msgspec.json.encode(converted)))


def _nothing_lost(given: Any, kept: Any) -> None:
    if isinstance(given, dict):
        for key, value in given.items():  # pyright: ignore[reportUnknownVariableType]
            assert key in kept
            _nothing_lost(value, kept[key])
    elif isinstance(given, (list, tuple)):
        for one, other in zip(given, kept, strict=True):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            _nothing_lost(one, other)


@pytest.mark.parametrize("home", ["/h", "/h" * 27, "/h" * 28, "/h" * 29, "/a/deep/home" * 9])
def test_a_program_serves_where_commands_look(home: str) -> None:
    assert short_enough(Path(home) / "run") == current({"EXEUNT_HOME": home}).run_dir


@pytest.mark.parametrize("argv", [("show", "main"), ("restart", "main"), ("ps", "--dead-letters"), ("ps", "--wakeups")])
def test_a_program_without_actors_says_so(argv: tuple[str, ...], cli: Cli, start_program: StartProgram) -> None:
    start_program("portal", ps=[])
    refused = cli(*argv, "--json")
    assert (refused.code, refused.document["error"]["code"]) == (1, "not_offered")
    assert "portal has no actors" in refused.err
    assert "exeunt stack" in refused.err


def test_no_events_are_said_to_be_none(cli: Cli, start_program: StartProgram) -> None:
    start_program("portal", events=[])
    assert (cli("events").out, cli("events").err) == ("", "portal has told of no event.\n")
    assert cli("events", "--type", "GaveUp").err == "portal has told of no such event.\n"
    assert cli("events", "--json").out == ""
