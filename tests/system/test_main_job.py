"""The main job, end to end: connect, carry traffic, take leave; who left, and why, is known to both sides."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from exeunt.actors.endings import Ending
from exeunt.clients.demo.resource import download
from exeunt.clients.demo.scenes import current_peer, leave_trace
from exeunt.clients.demo.stage import Player, Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store
from exeunt.runtime.control import ControlClient
from exeunt.runtime.trace import Trace

MEGABYTE = 1_000_000
RaiseCurtain = Callable[..., Stage]


def fetch(stage: Stage, size: int = MEGABYTE) -> None:
    got = download(RESOURCE_ADDRESS, size, open_socket=stage.open_socket)
    assert got.sha256_ok


def wait_for_ending(player: Player, *, limit_s: float = 5.0) -> Ending:
    """Poll the record: it is a file that another process appends to."""
    deadline = time.monotonic() + limit_s
    while not player.endings():
        assert time.monotonic() < deadline, f"{player.name} recorded no ending\n{player.output()}"
        time.sleep(0.01)
    return player.endings()[-1]


def wait_until_gone(pids: list[int], *, limit_s: float) -> None:
    """Wait until these processes have ended; one that init has not reaped yet has."""
    deadline = time.monotonic() + limit_s
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running after {limit_s} s: {[pid for pid in pids if _runs(pid)]}"
        time.sleep(0.005)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_sign_out_is_told_acknowledged_and_complete(stage: Stage) -> None:
    fetch(stage, 10 * MEGABYTE)
    peer = current_peer(stage)
    rtt_ms = float(str(peer["rtt_ms"]))
    trace_id, took_ms = stage.client.leave("signed_out")
    there = wait_for_ending(stage.gateways[0])
    assert (there.cause, there.initiated_by, there.acknowledged) == ("signed_out", "peer", True)
    assert there.detection_ms is not None
    assert there.detection_ms <= rtt_ms + 50
    here = stage.client.endings()[-1]
    assert (here.cause, here.initiated_by, here.acknowledged) == ("signed_out", "us", True)
    assert here.connection == there.connection
    assert stage.client.process is not None
    assert stage.client.process.returncode == 0
    assert took_ms < 3000  # the figure itself (about 120 ms) is printed by the demo; a loaded machine may take longer
    wait_until_gone(stage.client.workers, limit_s=0.5)
    trace = leave_trace(stage, trace_id)
    assert trace is not None
    assert_every_hop(trace)


def assert_every_hop(trace: Trace) -> None:
    """From the command to the last actor's end, across all workers."""
    hops = {(span.message, span.from_.rsplit("/", 1)[1], span.to.rsplit("/", 1)[1]) for span in trace.spans}
    assert ("StopSession", "control", "session") in hops
    assert ("StopSession", "session", "event-loop") in hops
    assert ("PortalLeave", "event-loop", "portal-link") in hops
    assert any(message == "Close" and who == "event-loop" for message, who, _ in hops)
    assert ("StreamEnded", "event-stream", "events") in hops
    ended = {who for message, who, to in hops if message == "ActorExited" and to == "root"}
    assert {"event-loop", "event-stream", "session", "portal-link", "device", "network"} <= ended
    assert {span.worker for span in trace.spans} >= {"control", "peers-1", "network", "supervisor"}


def test_a_gateway_that_leaves_hands_over_to_another(raise_curtain: RaiseCurtain) -> None:
    stage = raise_curtain(gateways=2)
    fetch(stage)
    first = str(current_peer(stage)["peer"])
    leaver = next(one for one in stage.gateways if one.name == first)
    leaver.end()
    ending = wait_for_ending(stage.client)
    assert (ending.cause, ending.initiated_by, ending.acknowledged) == ("shutting_down", "peer", True)
    assert wait_for_ending(leaver).cause == "shutting_down"
    got = download(RESOURCE_ADDRESS, MEGABYTE, open_socket=stage.open_socket)
    assert got.sha256_ok
    assert str(current_peer(stage)["peer"]) != first


def test_revoked_access_ends_the_connection_with_its_cause(stage: Stage) -> None:
    fetch(stage)
    stage.revoke("client-1:files")
    for player in (stage.client, stage.gateways[0]):
        ending = wait_for_ending(player)
        assert (ending.cause, ending.initiated_by) == ("access_revoked", "portal")
    # The gateway's goodbye may be here before what the portal says to the client.
    stage.client.wait_for("a client without resources", lambda: stage.client.status()["resources"] == [])


def test_a_revoked_token_signs_the_client_out(stage: Stage) -> None:
    fetch(stage)
    stage.revoke("client-1")
    assert wait_for_ending(stage.gateways[0]).cause == "access_revoked"
    assert stage.client.process is not None
    assert stage.client.process.wait(5) == 1
    assert "Sign in again" in stage.client.output()


@pytest.mark.timeout(90)
def test_only_a_cut_network_is_called_lost(stage: Stage) -> None:
    fetch(stage)
    stage.lab.cut(stage.lab.client_site)
    for player in (stage.client, stage.gateways[0]):
        ending = wait_for_ending(player, limit_s=25)
        assert (ending.cause, ending.initiated_by, ending.acknowledged) == ("network_lost", "network", None)
        assert ending.detection_ms is not None
        assert 12_000 < ending.detection_ms < 18_000
    stage.lab.heal(stage.lab.client_site)
    fetch(stage)
    stage.client.leave("signed_out")
    assert stage.client.endings()[-1].cause == "signed_out"


def test_a_relayed_path_carries_traffic_and_goodbyes(raise_curtain: RaiseCurtain) -> None:
    stage = raise_curtain(client_nat="symmetric", gateway_nat="symmetric")
    fetch(stage)
    assert current_peer(stage)["path"] == "relay"
    stage.client.leave("signed_out")
    ending = wait_for_ending(stage.gateways[0])
    assert (ending.cause, ending.acknowledged, ending.path) == ("signed_out", True, "relay")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_take_the_same_road(stage: Stage, number: signal.Signals) -> None:
    fetch(stage)
    assert stage.client.process is not None
    stage.client.process.send_signal(number)
    assert stage.client.process.wait(5) == 0
    ending = wait_for_ending(stage.gateways[0])
    assert (ending.cause, ending.acknowledged) == ("shutting_down", True)


def test_workers_of_a_killed_supervisor_say_goodbye_and_leave(stage: Stage) -> None:
    fetch(stage)
    assert stage.client.process is not None
    stage.client.process.kill()
    wait_until_gone(stage.client.workers, limit_s=1.0)
    ending = wait_for_ending(stage.gateways[0])
    assert (ending.cause, ending.initiated_by, ending.acknowledged) == ("supervisor_died", "supervisor", True)


def test_a_killed_control_worker_ends_the_session_with_goodbyes(stage: Stage) -> None:
    fetch(stage)
    rows = stage.client.ask("ps")
    control = next(int(row["pid"]) for row in rows if row["worker"] == "control")
    os.kill(control, signal.SIGKILL)
    ending = wait_for_ending(stage.gateways[0])
    assert (ending.cause, ending.initiated_by, ending.acknowledged) == ("worker_crashed", "supervisor", True)
    assert stage.client.process is not None
    assert stage.client.process.wait(5) == 1


def test_a_killed_peers_worker_is_an_ending_here_and_a_new_connection_follows(stage: Stage) -> None:
    fetch(stage)
    rows = stage.client.ask("ps")
    peers = next(int(row["pid"]) for row in rows if row["worker"] == "peers-1")
    os.kill(peers, signal.SIGKILL)
    ending = wait_for_ending(stage.client)
    assert (ending.cause, ending.initiated_by) == ("worker_crashed", "supervisor")
    stage.client.wait_for("second worker", lambda: stage.client.status()["session"] == "connected")
    fetch(stage)


def test_a_gateway_without_its_network_worker_leaves(stage: Stage) -> None:
    """The kernel removes the firewall's rules with the process that owned them: nobody may be let through then."""
    fetch(stage)
    gateway = stage.gateways[0]
    network = next(int(row["pid"]) for row in gateway.ask("ps") if row["worker"] == "network")
    os.kill(network, signal.SIGKILL)
    ending = wait_for_ending(stage.client)
    assert (ending.cause, ending.acknowledged) == ("shutting_down", True)
    assert gateway.process is not None
    assert gateway.process.wait(5) == 1


def test_commands_answer(stage: Stage) -> None:
    fetch(stage)
    environ = {**os.environ, "EXEUNT_HOME": str(stage.client.home)}
    exeunt = [*stage_python(), "-m", "exeunt.clients"]

    def run(*argv: str) -> dict[str, object]:
        done = subprocess.run([*exeunt, *argv, "--json"], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        document: dict[str, object] = json.loads(done.stdout.splitlines()[0])
        return document

    assert run("status")["schema"] == "exeunt.status/1"
    assert run("ps")["schema"] == "exeunt.ps/1"
    assert run("tree")["schema"] == "exeunt.tree/1"
    assert run("ping", "gateway-1", "-c", "2")["schema"] == "exeunt.ping/1"
    assert run("trace", "list")["schema"] == "exeunt.traces/1"
    assert run("paths")["schema"] == "exeunt.paths/1"
    assert run("sign-out")["schema"] == "exeunt.sign-out/1"
    assert run("endings")["schema"] == "exeunt.endings/1"
    assert run("why", "gateway-1")["schema"] == "exeunt.why/1"


def test_signing_in_again_begins_another_session_in_the_same_program(stage: Stage) -> None:
    fetch(stage)
    with contextlib.closing(Store(stage.database)) as store:
        token = administration.add_client(store, "client-2", now_unix=time.time()).token
    environ = {**os.environ, "EXEUNT_HOME": str(stage.client.home), "EXEUNT_TOKEN": token}
    sign_in = [*stage_python(), "-m", "exeunt.clients", "sign-in", "--portal", "ws://192.0.2.1:8080"]
    subprocess.run(sign_in, env=environ, check=True, capture_output=True)
    ending = wait_for_ending(stage.gateways[0])
    assert (ending.peer, ending.cause, ending.acknowledged) == ("client-1", "replaced", True)
    stage.client.wait_for("second session", lambda: stage.client.status()["session"] == "connected")
    fetch(stage)
    stage.client.leave("signed_out")
    assert [one.cause for one in stage.client.endings()] == ["replaced", "signed_out"]


def test_every_log_line_reads_well(stage: Stage) -> None:
    fetch(stage)
    stage.end_programs()
    paths = [path for player in stage.players for path in (player.home / "log").glob("*.log")]
    lines = [line for path in paths for line in path.read_text().splitlines()]
    assert len(lines) > 20
    for line in lines:
        record = json.loads(line)
        text = f"{record['time']} {record['severity']} {record['message']}"
        assert "None" not in text
        assert record["severity"] in {"DEBUG", "INFO", "WARNING", "ERROR"}
        assert record["message"]
    # A green run has nothing in it that would wake somebody up at night.
    assert not [line for line in lines if json.loads(line)["severity"] in {"WARNING", "ERROR"}]


def test_nothing_is_left(stage: Stage) -> None:
    fetch(stage)
    stage.client.leave("signed_out")
    stage.end_programs()
    stage.lab.close()
    left = stage.leftovers()
    assert left.processes == left.namespaces == left.devices == left.routes == left.rules == left.sockets == []


def test_two_programs_of_one_name_are_refused(stage: Stage) -> None:
    environ = {**os.environ, "EXEUNT_HOME": str(stage.client.home), "EXEUNT_TOKEN": "client.x"}
    argv = [*stage_python(), "-m", "exeunt.clients", "client", "run", "--portal", "ws://192.0.2.1:8080"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert "runs already" in done.stderr
    with ControlClient(stage.client.paths.control_socket("client")) as control:
        assert control.request("hello")["program"] == "client"


def stage_python() -> list[str]:
    import sys

    return [sys.executable]


def test_the_stage_sees_what_is_left(tmp_path: Path) -> None:
    """The proof that nothing is left must be able to fail."""
    from exeunt.clients.demo.home import make_home

    home = make_home()
    stage = Stage(home)
    try:
        stage.client.workers = [os.getpid()]
        run = stage.client.paths.run_dir / "client"
        run.mkdir(parents=True)
        import socket

        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(run / "left.sock"))
            found = stage.leftovers()
        assert found.processes == [str(os.getpid())]
        assert found.sockets == [str(run / "left.sock")]
    finally:
        stage.client.workers = []
        stage.close()
