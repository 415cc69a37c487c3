"""A worker is restarted and its successor goes on: with its state, with its sockets, and without a last word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest
from tests.runtime.conftest import SupervisorFactory, until
from tests.runtime.troupe import Number, Where

from exeunt.runtime import ActorDead, ChildSpec, ExeuntError, Restart, Supervisor, WorkerSpec
from exeunt.runtime import estate as estate_module
from exeunt.runtime.events import WorkerStarted

pytestmark = pytest.mark.slow


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)
        yield ear


async def start(supervise: SupervisorFactory, ear: socket.socket, patience_ms: int = 5_000, **args: Any) -> Supervisor:
    heir = heir_spec(ear, **args)
    other = ChildSpec(id="other", worker="w2", start="tests.runtime.troupe:Player")
    workers = [WorkerSpec(name="w1", hands_over=True, shutdown_ms=patience_ms), WorkerSpec(name="w2")]
    return await supervise(heir, other, workers=workers)


def heir_spec(ear: socket.socket, **args: Any) -> ChildSpec:
    return ChildSpec(
        id="heir", worker="w1", start="tests.runtime.troupe:Heir", args={"port": ear.getsockname()[1], **args}
    )


async def start_significant(supervise: SupervisorFactory, ear: socket.socket, **args: Any) -> Supervisor:
    """Without its heir this program ends; another worker hands over, too."""
    heir = msgspec.structs.replace(heir_spec(ear, **args), restart=Restart.TEMPORARY, significant=True, hands_over=True)
    other = ChildSpec(id="other", worker="w2", start="tests.runtime.troupe:Player")
    return await supervise(heir, other, workers=[WorkerSpec(name=name, hands_over=True) for name in ("w1", "w2")])


async def ask(supervisor: Supervisor, message: Number | Where) -> int:
    """Ask until the successor answers."""
    deadline = time.monotonic() + 10
    while True:
        try:
            answer: Number = await supervisor.ref("heir").ask(message)
        except ExeuntError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        else:
            return answer.n


async def succeeded(supervisor: Supervisor, pid: int) -> None:
    await until(lambda: "w1" in supervisor.processes and supervisor.processes["w1"].pid != pid)
    await until(lambda: supervisor.worker_state("w1") == "running")


def heard(ear: socket.socket) -> bytes:
    try:
        return ear.recv(64)
    except BlockingIOError:
        return b""


async def test_a_successor_goes_on_with_state_and_socket(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start(supervise, ear)
    other = supervisor.processes["w2"].pid
    port = await ask(supervisor, Where())
    total = 0
    for n in (1, 20, 300):
        total += n
        assert await ask(supervisor, Number(n)) == total
        pid = supervisor.processes["w1"].pid
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            assert await supervisor.restart("w1")
            await until(lambda: "w1" not in supervisor.processes)
            mouth.sendto(b"while nobody reads", ("127.0.0.1", port))  # the port is open all the time
        await succeeded(supervisor, pid)
        assert await ask(supervisor, Where()) == port
    assert supervisor.processes["w2"].pid == other
    assert heard(ear) == b""


async def test_the_successor_is_spoken_for_when_it_dies(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start(supervise, ear)
    pid = supervisor.processes["w1"].pid
    await supervisor.restart("w1")
    await succeeded(supervisor, pid)
    await ask(supervisor, Where())
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    await until(lambda: heard(ear) == b"gone")


async def test_what_no_successor_takes_is_dead_and_said_so(
    supervise: SupervisorFactory, ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estate_module, "DEADLINE_S", 1.0)
    supervisor = await start(supervise, ear, takes=False)
    pid = supervisor.processes["w1"].pid
    await supervisor.restart("w1")
    await succeeded(supervisor, pid)
    assert heard(ear) == b""
    await until(lambda: heard(ear) == b"gone")


async def test_a_successor_that_dies_early_leaves_its_predecessors_words(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    supervisor = await start(supervise, ear, takes=False)
    pid = supervisor.processes["w1"].pid
    await supervisor.restart("w1")
    await succeeded(supervisor, pid)
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    await until(lambda: heard(ear) == b"gone", within_s=2.0)  # not only at the deadline


async def test_a_worker_that_is_killed_hands_nothing_over(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start(supervise, ear)
    await ask(supervisor, Number(7))
    pid = supervisor.processes["w1"].pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: heard(ear) == b"gone")
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 1


async def test_a_program_that_ends_waits_for_no_successor(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start(supervise, ear)
    await supervisor.restart("w1")
    await until(lambda: "w1" not in supervisor.processes)
    outcome = await supervisor.leave()
    assert not outcome.failed
    assert heard(ear) == b"gone"  # its successor never came


async def test_inline_it_is_restarted_all_the_same(supervise: SupervisorFactory) -> None:
    player = ChildSpec(id="player", worker="w1", start="tests.runtime.troupe:Player")
    supervisor = await supervise(player, workers=[WorkerSpec(name="w1", hands_over=True)], engine="inline")
    before = supervisor.processes["w1"]
    assert await supervisor.restart("w1")
    await until(lambda: supervisor.processes.get("w1") not in (None, before))
    await until(lambda: supervisor.worker_state("w1") == "running")
    assert not await supervisor.restart("nobody")


async def test_the_worker_works_until_its_successor_waits(supervise: SupervisorFactory, ear: socket.socket) -> None:
    """Prints how long nobody answers: `pytest -s`."""
    supervisor = await start(supervise, ear)
    pid = supervisor.processes["w1"].pid
    await supervisor.restart("w1")
    answered_at = time.monotonic()
    worst_ms, total = 0.0, 0
    while supervisor.processes.get("w1") is None or supervisor.processes["w1"].pid == pid or total == 0:
        total = await ask(supervisor, Number(1))
        worst_ms = max(worst_ms, (time.monotonic() - answered_at) * 1000)
        answered_at = time.monotonic()
    assert await ask(supervisor, Number(1)) == total + 1
    worst_ms = max(worst_ms, (time.monotonic() - answered_at) * 1000)
    print(f"\nduring a restart with a hand-over nobody answers for {worst_ms:.0f} ms")
    assert worst_ms < 2000


async def test_nothing_that_is_said_meanwhile_is_lost(supervise: SupervisorFactory, ear: socket.socket) -> None:
    """Tells and asks of two processes, without a pause, while the worker is restarted three times."""
    supervisor = await start_significant(supervise, ear)
    heir = supervisor.ref("heir")
    told, asked, is_over = 0, 0, asyncio.Event()

    async def speak() -> None:
        nonlocal told, asked
        while not is_over.is_set():
            heir.tell(Number(1))
            told += 1
            with contextlib.suppress(ActorDead):  # it was delivered, and its answer has not come before the end
                await heir.ask(Number(0))
                asked += 1

    speaking = asyncio.create_task(speak())
    for _ in range(3):
        pid = supervisor.processes["w1"].pid
        assert await supervisor.restart("w1")
        await succeeded(supervisor, pid)
    is_over.set()
    await speaking
    assert await ask(supervisor, Number(0)) == told
    assert asked > 0
    assert supervisor.node.dead_letters.total == 0
    assert heard(ear) == b""


async def test_whom_the_program_cannot_do_without_goes_on(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start_significant(supervise, ear)
    assert await ask(supervisor, Number(7)) == 7
    pid = supervisor.processes["w1"].pid
    await supervisor.restart("w1")
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 8
    assert not supervisor.leaving
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    outcome = await supervisor.wait()
    assert (outcome.failed, outcome.reason) == (True, "heir: worker_died")


@pytest.mark.parametrize("victim", ["the old one", "the new one"])
async def test_if_it_cannot_go_on_after_all_that_is_a_crash(
    supervise: SupervisorFactory, ear: socket.socket, victim: str
) -> None:
    supervisor = await start_significant(supervise, ear)
    assert await ask(supervisor, Number(7)) == 7
    pid = supervisor.processes["w1"].pid
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    if victim == "the old one":
        os.kill(pid, signal.SIGSTOP)  # so that it cannot be done with it before it is killed
    await supervisor.restart("w1")
    await until(lambda: successors(known))
    if victim == "the old one":
        os.kill(pid, signal.SIGKILL)
    else:
        await until(lambda: "w1" not in supervisor.processes)
        os.kill(successors(known)[0], signal.SIGKILL)
    outcome = await supervisor.wait()
    assert (outcome.failed, outcome.reason) == (True, "heir: worker_died")
    await until(lambda: heard(ear) == b"gone")


async def test_a_successor_that_dies_with_its_predecessor_is_a_crash(
    supervise: SupervisorFactory, ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been left everything, and is noticed to be dead before it takes its predecessor's place."""
    supervisor = await start_significant(supervise, ear)
    assert await ask(supervisor, Number(7)) == 7
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    pass_on = estate_module.Estates.pass_on

    def pass_on_to_the_dead(estates: estate_module.Estates, pid: int, worker: str) -> None:
        pass_on(estates, pid, worker)
        successor = successors(known)[0]
        os.kill(successor, signal.SIGKILL)
        os.waitid(os.P_PID, successor, os.WEXITED | os.WNOWAIT)  # dead, and not yet noticed

    monkeypatch.setattr(estate_module.Estates, "pass_on", pass_on_to_the_dead)
    await supervisor.restart("w1")
    outcome = await supervisor.wait()
    assert (outcome.failed, outcome.reason) == (True, "heir: worker_died")
    assert heard(ear) == b"gone"


async def test_workers_hand_over_one_at_a_time(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start_significant(supervise, ear)
    pids = {name: process.pid for name, process in supervisor.processes.items()}
    await supervisor.restart("w1")
    await supervisor.restart("w2")
    assert supervisor.processes["w1"].pid != pids["w1"]
    assert supervisor.worker_state("w1") == "running"
    assert supervisor.processes["w2"].pid == pids["w2"], "its successor is on its way"
    await until(lambda: supervisor.processes.get("w2") and supervisor.processes["w2"].pid != pids["w2"])
    await until(lambda: supervisor.worker_state("w2") == "running")
    assert heard(ear) == b""


async def test_restarts_that_overtake_one_another_are_one(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await start(supervise, ear)
    assert await ask(supervisor, Number(7)) == 7
    pid = supervisor.processes["w1"].pid
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    for _ in range(4):
        assert await supervisor.restart("w1")
        await until(lambda: successors(known))
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 8
    await until(lambda: successors(known) == [supervisor.processes["w1"].pid])
    assert heard(ear) == b""


async def test_a_worker_that_is_killed_while_its_successor_waits_hands_nothing_over(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    supervisor = await start(supervise, ear, patience_ms=60_000)
    assert await ask(supervisor, Number(7)) == 7
    pid = supervisor.processes["w1"].pid
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    os.kill(pid, signal.SIGSTOP)  # so that it cannot be done with it before it is killed
    await supervisor.restart("w1")
    await until(lambda: successors(known))
    os.kill(pid, signal.SIGKILL)
    await until(lambda: heard(ear) == b"gone")
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 1


async def test_a_successor_may_be_ready_before_anybody_hears_that_its_predecessor_is_to_be_succeeded(
    supervise: SupervisorFactory, ear: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one was killed meanwhile: what is said to its actors must not wait for a successor any more."""
    supervisor = await start(supervise, ear)
    pid = supervisor.processes["w1"].pid
    ready: list[WorkerStarted] = []
    supervisor.events.subscribe(lambda event: ready.append(event) if isinstance(event, WorkerStarted) else None)
    until_here = estate_module.Estates.until_here

    async def until_ready(estates: estate_module.Estates, successor: int, ended: asyncio.Event) -> None:
        await until_here(estates, successor, ended)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: ready)

    monkeypatch.setattr(estate_module.Estates, "until_here", until_ready)
    await supervisor.restart("w1")
    await until(lambda: heard(ear) == b"gone")
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 1


async def test_a_worker_that_does_not_leave_is_killed_and_replaced(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    """Its loop is stopped, so it cannot hand anything over."""
    supervisor = await start(supervise, ear, patience_ms=300)
    pid = supervisor.processes["w1"].pid
    os.kill(pid, signal.SIGSTOP)
    await supervisor.restart("w1")
    await until(lambda: heard(ear) == b"gone")
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 1


async def test_a_successor_that_dies_while_it_waits_is_replaced(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    supervisor = await start(supervise, ear)
    assert await ask(supervisor, Number(7)) == 7
    pid = supervisor.processes["w1"].pid
    known = {child.pid for child in psutil.Process().children(recursive=True)}
    await supervisor.restart("w1")
    await until(lambda: successors(known))
    for successor in successors(known):
        os.kill(successor, signal.SIGKILL)
    await succeeded(supervisor, pid)
    assert await ask(supervisor, Number(1)) == 8
    assert heard(ear) == b""


def successors(known: set[int]) -> list[int]:
    """Return the processes of workers that were not there before."""
    found: list[int] = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.pid not in known and child.name() == "t:w1":
                found.append(child.pid)
    return found
