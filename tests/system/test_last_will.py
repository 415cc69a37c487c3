"""The last will with real processes: a worker is killed outright, and the other side knows within a quarter second.

`EXEUNT_LAST_WILLS=10` runs the full count; the default is a sample. Prints how long it took, from the kill to the other
side's record: both clocks are this machine's.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from exeunt.actors.endings import Ending
from exeunt.clients.demo.scenes import current_peer
from exeunt.clients.demo.stage import Player, Stage

KILLS = int(os.environ.get("EXEUNT_LAST_WILLS", "3"))
PROMISED_MS = 250.0
LOSS_PERCENT = 20.0
_APART_S = 2.2  # more than five deaths of a worker in ten seconds, and its supervisor gives up

RaiseCurtain = Callable[..., Stage]


def worker(player: Player, name: str = "peers-1") -> int:
    """Return a worker's pid; 0 while there is none."""
    return next((int(row["pid"]) for row in player.ask("ps") if row["worker"] == name and row["pid"]), 0)


def connect(stage: Stage) -> None:
    """Have a packet to the resource bring the connection about."""
    deadline = time.monotonic() + 30
    while True:
        try:
            stage.open_socket(3.0).close()
        except OSError:
            assert time.monotonic() < deadline, f"no connection within 30 s\n{stage.client.output()}"
        else:
            return


def ending_after(player: Player, known: int, limit_s: float = 20.0) -> Ending:
    """Poll the record: it is a file that another process appends to."""
    deadline = time.monotonic() + limit_s
    while len(player.endings()) <= known:
        assert time.monotonic() < deadline, f"{player.name} recorded no ending\n{player.output()}"
        time.sleep(0.005)
    return player.endings()[known]


def took_ms(ending: Ending, killed_at: float) -> float:
    """From the kill to the record."""
    return (dt.datetime.fromisoformat(ending.ended_at).timestamp() - killed_at) * 1000


def kill_again_and_again(stage: Stage, victim: Player, survivor: Player, kill: Callable[[int], None]) -> list[float]:
    """Return how long the survivor took to know, for each kill; everything else is asserted."""
    found: list[float] = []
    again_at = 0.0
    for _ in range(KILLS):
        time.sleep(max(0.0, again_at - time.monotonic()))
        again_at = time.monotonic() + _APART_S
        connect(stage)
        current_peer(stage)
        known = {player.name: len(player.endings()) for player in (victim, survivor)}
        pid = worker(victim)
        killed_at = time.time()
        kill(pid)
        there = ending_after(survivor, known[survivor.name])
        assert (there.cause, there.initiated_by, there.acknowledged) == ("worker_crashed", "supervisor", None)
        assert there.evidence["told"] == "last will: worker_crashed"
        assert there.detection_ms is None
        here = ending_after(victim, known[victim.name])
        assert (here.cause, here.initiated_by, here.connection) == ("worker_crashed", "supervisor", there.connection)
        found.append(took_ms(there, killed_at))
        victim.wait_for("second worker", lambda pid=pid: worker(victim) not in (0, pid))  # type: ignore[misc]
    connect(stage)
    return found


def report(what: str, found: list[float]) -> None:
    median, worst = statistics.median(found), max(found)
    print(f"\n{what}: known after {median:.1f} ms (median), {worst:.1f} ms (worst of {len(found)})")
    assert worst < PROMISED_MS


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(90 + KILLS * 20)
@pytest.mark.parametrize("loss", [0.0, LOSS_PERCENT], ids=["no loss", "20 % loss"])
@pytest.mark.parametrize("path", ["direct", "relay"])
@pytest.mark.parametrize("side", ["client", "gateway"])
def test_a_killed_worker_is_spoken_for(raise_curtain: RaiseCurtain, side: str, path: str, loss: float) -> None:
    nat = "port_restricted" if path == "direct" else "symmetric"
    stage = raise_curtain(client_nat=nat, gateway_nat=nat)
    connect(stage)
    assert current_peer(stage)["path"] == path
    stage.lab.lose(stage.lab.client_site, loss)
    victim, survivor = stage.client, stage.gateways[0]
    if side == "gateway":
        victim, survivor = survivor, victim
    found = kill_again_and_again(stage, victim, survivor, kill)
    report(f"peers-1 of the {side} killed, {path}, {loss:g} % lost each way", found)


@contextlib.contextmanager
def starving(pid: int) -> Iterator[None]:
    """Put a process into a memory cgroup that has no room: the kernel kills it at its next allocation."""
    for root, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        if not (Path(root) / "cgroup.procs").exists():
            continue
        group = Path(root) / f"exeunt-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / limit).exists():
                continue
            (group / limit).write_text(str(1 << 20))
            (group / "cgroup.procs").write_text(str(pid))
            yield
            return
        finally:
            deadline = time.monotonic() + 5
            while True:  # it is empty when its process has gone
                try:
                    group.rmdir()
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                else:
                    break
    pytest.skip("there is no memory cgroup that we may make groups in")


def test_a_worker_that_the_kernel_kills_for_want_of_memory_is_spoken_for(stage: Stage) -> None:
    connect(stage)
    pid = worker(stage.client)
    before = psutil.Process(pid)
    with starving(pid):
        began = time.time()
        deadline = time.monotonic() + 10
        while before.is_running() and before.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it was not killed"
            with contextlib.suppress(OSError):
                stage.open_socket(0.2).close()  # packets are memory
        there = ending_after(stage.gateways[0], 0)
    assert (there.cause, there.initiated_by) == ("worker_crashed", "supervisor")
    assert ending_after(stage.client, 0).cause == "worker_crashed"
    print(f"\nkilled for want of memory: known {took_ms(there, began):.0f} ms after it was put into the cgroup")
    connect(stage)
