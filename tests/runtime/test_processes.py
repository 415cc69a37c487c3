"""Real worker processes: they start, die, are replaced, and leave nothing behind."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.runtime.conftest import SupervisorFactory, until, wait_for_ends
from tests.runtime.troupe import (
    Die,
    Ended,
    EndedList,
    Fail,
    Finish,
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
    Restart,
    Strategy,
    Supervisor,
    WorkerSpec,
)
from exeunt.runtime.errors import NameTaken
from exeunt.runtime.messages import StartChild
from exeunt.runtime.recorder import Event, read_ring
from exeunt.runtime.trace import group, load

pytestmark = pytest.mark.slow


def child(name: str, worker: str = "w1", actor: str = "Player", **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=worker, start=f"tests.runtime.troupe:{actor}", **options)


def chronicler(name: str, file: Path, worker: str = "w1", **options: Any) -> ChildSpec:
    return child(name, worker, "Chronicler", args={"file": str(file), "name": name}, **options)


async def alive(ref: Ref) -> Said:
    """Ask until the actor that is being restarted answers; each round trip is a real wait."""
    deadline = time.monotonic() + 10
    while True:
        try:
            said: Said = await ref.ask(Say("?"))
        except ActorDead:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        else:
            return said


def nothing_left(supervisor: Supervisor, outcome: Outcome, failed: bool = False) -> None:
    assert outcome.failed is failed, outcome
    assert outcome.leftovers == ()
    assert psutil.Process().children(recursive=True) == []
    assert list(supervisor.directories.ipc.iterdir()) == []


async def test_actors_in_two_workers_talk_and_everything_goes(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"), child("b", "w2"), child("t", "w2", "Thinker"))
    pids = {name: process.pid for name, process in supervisor.processes.items()}
    direct: Said = await supervisor.ref("b").ask(Say("hello"))
    relayed: Said = await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))
    blocking: Said = await supervisor.ref("t").ask(Relay("t/w1/a", "hello"))
    assert (direct.pid, relayed.pid, blocking.pid) == (pids["w2"], pids["w2"], pids["w1"])
    described = await supervisor.describe()
    assert [row.address for row in described["w2"].actors] == ["t/w2/host", "t/w2/b", "t/w2/t"]
    nothing_left(supervisor, await supervisor.leave())
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


async def test_children_start_left_to_right_and_stop_right_to_left(
    supervise: SupervisorFactory, tmp_path: Path
) -> None:
    file = tmp_path / "chronicle"
    supervisor = await supervise(*(chronicler(name, file, f"w{n % 2}") for n, name in enumerate("abcd")))
    await supervisor.leave()
    assert file.read_text().split() == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]


async def test_a_killed_worker_fails_its_asks_tells_watchers_and_is_replaced(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(
        child("player"), child("gate", actor="Gate", restart=Restart.TEMPORARY), child("watcher", "w2", "Watcher")
    )
    watcher = supervisor.ref("watcher")
    await watcher.ask(WatchIt("t/w1/player"))
    waiting = supervisor.ref("gate").ask(Open(), timeout_s=60)
    across = supervisor.node.ref("t/w2/watcher").ask(Ended(1), timeout_s=60)
    assert (await supervisor.ref("player").ask(Say("x"))).pid
    first = supervisor.processes["w1"].pid
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    with pytest.raises(ActorDead, match="its worker died"):
        await waiting
    assert time.monotonic() - killed < 1
    told: EndedList = await across
    assert [(one.address, one.reason) for one in told.ended] == [("t/w1/player", "worker_died")]
    assert (await alive(supervisor.node.ref("t/w1/player"))).pid not in (0, first)
    assert supervisor.restarts == {"w1": 1, "player": 1}
    assert "gate" not in supervisor.children
    nothing_left(supervisor, await supervisor.leave())


async def test_an_actor_that_kills_its_process_is_an_actor_dead(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"), child("b", "w2"))
    with pytest.raises(ActorDead):
        await supervisor.ref("a").ask(Die(), timeout_s=60)
    assert await alive(supervisor.ref("a"))
    relayed: Said = await supervisor.ref("b").ask(Relay("t/w1/a", "the new one"))
    assert relayed.pid == supervisor.processes["w1"].pid


async def test_what_a_killed_worker_last_did_is_readable(
    supervise: SupervisorFactory, directories: Directories
) -> None:
    supervisor = await supervise(child("a"))
    await supervisor.ref("a").ask(Say("last words"))
    pid = supervisor.processes["w1"].pid
    ring = directories.ring_file("t", "w1", supervisor.processes["w1"].boot.epoch)
    with pytest.raises(ActorDead):
        await supervisor.ref("a").ask(Die(), timeout_s=60)
    found = read_ring(ring)
    assert (found.worker, found.pid) == ("w1", pid)
    told = [(record.message, record.event) for record in found.records if record.to == "t/w1/a"]
    assert told[-2:] == [("Say", Event.ENDED), ("Die", Event.STARTED)]
    assert ("Say", Event.ENDED) in told


async def test_a_crashed_child_is_restarted_by_its_spec(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(
        child("permanent"), child("transient", restart=Restart.TRANSIENT), child("temporary", restart=Restart.TEMPORARY)
    )
    for name in ("permanent", "transient", "temporary"):
        supervisor.ref(name).tell(Fail("ValueError"))
    await alive(supervisor.ref("permanent"))
    await alive(supervisor.ref("transient"))
    transient = supervisor.ref("transient")
    transient.tell(Finish())
    supervisor.ref("permanent").tell(Finish())
    await until(lambda: "transient" not in supervisor.children)
    await until(lambda: supervisor.restarts["permanent"] >= 2)
    await alive(supervisor.ref("permanent"))
    assert list(supervisor.children) == ["permanent"]
    with pytest.raises(ActorDead):
        await transient.ask(Say("?"))


async def test_a_restart_that_fails_is_tried_again_once_at_a_time(supervise: SupervisorFactory, tmp_path: Path) -> None:
    counter = tmp_path / "starts"
    args = {"counter": str(counter), "first": 1}
    supervisor = await supervise(child("shy", actor="FailsToStart", args=args), intensity=Intensity(restarts=3))
    supervisor.ref("shy").tell(Fail("ValueError"))
    await alive(supervisor.ref("shy"))
    assert counter.read_text() == "xxxx"  # the first, two that failed, and the one that lives
    assert supervisor.restarts == {"shy": 3}


async def test_with_rest_for_one_those_after_it_go_and_come_with_it(
    supervise: SupervisorFactory, tmp_path: Path
) -> None:
    file = tmp_path / "chronicle"
    supervisor = await supervise(
        *(chronicler(name, file, f"w{n % 2}") for n, name in enumerate("abcd")), strategy=Strategy.REST_FOR_ONE
    )
    supervisor.ref("b").tell(Fail("ValueError"))
    await until(lambda: supervisor.restarts.get("d") == 1)
    await alive(supervisor.ref("d"))
    assert file.read_text().split() == ["+a", "+b", "+c", "+d", "-d", "-c", "+b", "+c", "+d"]
    assert supervisor.restarts == {"b": 1, "c": 1, "d": 1}


async def test_a_significant_end_is_everybodys(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"), child("main", restart=Restart.TRANSIENT, significant=True))
    supervisor.ref("main").tell(Finish())
    outcome = await supervisor.wait()
    assert outcome.reason == "main: normal"
    nothing_left(supervisor, outcome)


async def test_a_significant_crash_is_a_failure(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("main", restart=Restart.TEMPORARY, significant=True))
    supervisor.ref("main").tell(Fail("ValueError"))
    outcome = await supervisor.wait()
    assert outcome.reason == "main: crashed"
    nothing_left(supervisor, outcome, failed=True)


@pytest.mark.parametrize("message", [Fail("ValueError"), Die()], ids=["actor", "worker"])
async def test_too_many_restarts_are_a_failure(supervise: SupervisorFactory, message: Fail | Die) -> None:
    supervisor = await supervise(child("a"), intensity=Intensity(restarts=1))
    ref = supervisor.ref("a")
    ended = asyncio.create_task(supervisor.wait())
    await alive(ref)
    ref.tell(message)
    await until(lambda: supervisor.restarts)
    await alive(ref)
    ref.tell(message)
    outcome = await ended
    assert "kept" in outcome.reason
    nothing_left(supervisor, outcome, failed=True)


async def test_a_worker_that_is_not_replaced_takes_its_children_along(supervise: SupervisorFactory) -> None:
    workers = [WorkerSpec(name="w1"), WorkerSpec(name="w2", restart=Restart.TEMPORARY)]
    supervisor = await supervise(child("a"), child("b", "w2"), workers=workers)
    with pytest.raises(ActorDead):
        await supervisor.ref("b").ask(Die(), timeout_s=60)
    await until(lambda: "b" not in supervisor.children)
    assert await alive(supervisor.ref("a"))
    nothing_left(supervisor, await supervisor.leave())


@pytest.mark.parametrize("deaf", [False, True], ids=["waits", "blocks its worker"])
async def test_an_actor_that_hangs_in_its_end_is_killed_in_time(supervise: SupervisorFactory, deaf: bool) -> None:
    supervisor = await supervise(child("s", actor="Stubborn", args={"deaf": deaf}, shutdown_ms=50), child("b", "w2"))
    began = time.monotonic()
    outcome = await supervisor.leave()
    assert time.monotonic() - began < 2.5
    nothing_left(supervisor, outcome)


async def test_what_an_actor_started_is_found_and_killed(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("parent", actor="Parent"))
    grandchild: Number = await supervisor.ref("parent").ask(Finish())
    outcome = await supervisor.leave()
    assert outcome.leftovers == (f"{grandchild.n} sleep",)
    assert outcome.failed
    await wait_for_ends([grandchild.n])


async def test_processes_that_are_not_ours_are_left_alone(supervise: SupervisorFactory) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    supervisor = await supervise(child("a"))
    outcome = await supervisor.leave()
    assert (outcome.failed, outcome.leftovers) == (False, ())
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_signals_to_workers_are_the_supervisors_business(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"))
    pid = supervisor.processes["w1"].pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert (await supervisor.ref("a").ask(Say("?"))).pid == pid


async def test_force_kills_at_once_also_during_a_leave_that_hangs(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("s", actor="Stubborn", shutdown_ms=60_000))
    entered = asyncio.Event()

    async def goodbyes(_reason: str) -> None:
        entered.set()
        await asyncio.Event().wait()

    supervisor.before_leave = goodbyes
    leaving = asyncio.create_task(supervisor.leave())
    await entered.wait()
    supervisor.force()
    nothing_left(supervisor, await leaving, failed=True)


async def test_a_leave_says_its_goodbyes_first_and_goes_on_when_they_fail(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"))
    heard: list[str] = []

    async def goodbyes(reason: str) -> None:
        heard.append((await supervisor.ref("a").ask(Say(reason))).text)
        raise RuntimeError("on purpose")

    supervisor.before_leave = goodbyes
    first, second = await asyncio.gather(supervisor.leave("signed_out"), supervisor.leave("shutdown"))
    assert first == second
    assert (first.failed, first.reason) == (False, "signed_out")
    assert [(one.name, one.failed) for one in first.phases] == [
        ("application", ("application",)),
        ("children", ()),
        ("workers", ()),
        ("root", ()),
    ]
    assert heard == ["signed_out"]


async def test_a_leave_goes_on_when_nobody_awaits_it(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"))
    impatient = asyncio.create_task(supervisor.leave())
    await asyncio.sleep(0)
    impatient.cancel()
    nothing_left(supervisor, await supervisor.wait())


async def test_a_child_that_cannot_start_leaves_nothing(supervise: SupervisorFactory, tmp_path: Path) -> None:
    args = {"counter": str(tmp_path / "starts")}
    with pytest.raises(Refused, match="stage fright"):
        await supervise(child("a"), child("shy", actor="FailsToStart", args=args))
    assert psutil.Process().children(recursive=True) == []
    assert (tmp_path / "starts").read_text() == "x"


async def test_a_worker_that_cannot_start_leaves_nothing(
    supervise: SupervisorFactory, directories: Directories
) -> None:
    directories.traces.mkdir()
    directories.logs.mkdir()
    directories.log_file("t", "w1").mkdir()
    with pytest.raises(RuntimeError, match="worker w1 ended with 1 at its start"):
        await supervise(child("a"))
    assert psutil.Process().children(recursive=True) == []


async def test_further_children_are_started_by_anybody(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"))
    root = supervisor.node.local("root")
    spec = child("b", restart=Restart.TEMPORARY)
    started = await root.ask(StartChild(msgspec.Raw(msgspec.msgpack.encode(spec))))
    assert started.address == "t/w1/b"
    with pytest.raises(NameTaken):
        await supervisor.start_child(spec)
    with pytest.raises(Refused, match="already"):
        await root.ask(StartChild(msgspec.Raw(msgspec.msgpack.encode(spec))))
    with pytest.raises(Refused, match="cannot load"):
        await supervisor.start_child(child("c", actor="Nobody"))
    with pytest.raises(Refused):
        await root.ask(StartChild(msgspec.Raw(b"\xc0")))
    assert list(supervisor.children) == ["a", "b"]
    assert (await supervisor.ref("b").ask(Say("x"))).text == "x"


async def test_a_child_waits_for_its_worker_to_be_replaced(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"))
    died = supervisor.processes["w1"].ended
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    await died.wait()
    assert supervisor.worker_state("w1") == "backoff"
    ref = await supervisor.start_child(child("b", restart=Restart.TEMPORARY))
    assert (await ref.ask(Say("x"))).text == "x"
    with pytest.raises(ActorDead, match="no such worker"):
        await supervisor.start_child(child("c", "nowhere"))


async def test_a_restart_on_request(supervise: SupervisorFactory) -> None:
    supervisor = await supervise(child("a"), intensity=Intensity(restarts=0))
    assert await supervisor.restart("t/w1/a")
    await until(lambda: supervisor.restarts.get("a") == 1)
    await alive(supervisor.ref("a"))
    assert not await supervisor.restart("nobody")
    with pytest.raises(ActorDead):
        supervisor.ref("nobody")


async def test_a_trace_shows_every_hop_across_workers(supervise: SupervisorFactory, directories: Directories) -> None:
    supervisor = await supervise(child("a"), child("b", "w2"))
    await supervisor.ref("a").ask(Relay("t/w2/b", "x"))
    await supervisor.leave()
    trace = next(one for one in group(load(directories.traces, instance="t")) if one.root.message == "Relay")
    hops = [(span.kind, span.message, span.worker, span.outcome) for span in trace.spans]
    assert hops == [
        ("ask", "Relay", "w1", "ok"),
        ("ask", "Say", "w2", "ok"),
        ("reply", "Said", "w1", "ok"),
        ("reply", "Said", "supervisor", "ok"),
    ]
    for span in trace.spans:
        assert span.sent_ns is not None
        assert span.received_ns is not None
        assert span.sent_ns <= span.received_ns
