"""Every worker of a program is restarted under traffic, in new processes with new code: the session goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
import pytest
from tests.system.test_last_will import connect, ending_of, said, worker
from tests.system.test_live_restart import Downloads
from tests.system.test_reports import record_of

from exeunt.actors.network.leftovers import leftovers
from exeunt.actors.network.sysctl import read_sysctl
from exeunt.clients.contract import Leftovers
from exeunt.clients.contract_portal import Sessions
from exeunt.clients.demo.scenes import current_peer
from exeunt.clients.demo.stage import RESOURCE_NAME, Player, Stage
from exeunt.clients.portal.endings import agreement
from exeunt.clients.portal.observed import sessions
from exeunt.clients.portal.store import Store

SIDES = pytest.mark.parametrize("side", ["client", "gateway"])
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
ALL = ["network", "peers-1", "control"]


def player_of(stage: Stage, side: str) -> Player:
    return stage.client if side == "client" else stage.gateways[0]


def run_restart(player: Player, *targets: str) -> list[dict[str, Any]]:
    """`exeunt restart …`, as a person or a package's script types it."""
    environ = {**os.environ, "EXEUNT_HOME": str(player.home)}
    argv = [sys.executable, "-m", "exeunt.clients", "restart", *targets, "--json", "--instance", player.name]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [msgspec.json.decode(line)["data"] for line in done.stdout.splitlines()]


def portal_joined(player: Player) -> None:
    player.wait_for("link to the portal", lambda: not player.status()["problems"])


def admin_sessions(stage: Stage) -> Sessions:
    with contextlib.closing(Store(stage.database)) as store:
        return sessions(store, 50, running=True)


def nobody_has_ended(stage: Stage) -> bool:
    return stage.client.endings() == stage.gateways[0].endings() == []


def sign_out_is_acknowledged(stage: Stage, connection: object) -> None:
    """The client signs out: both sides know, the portal has both reports, and nothing is left when all have left."""
    for player in (stage.client, stage.gateways[0]):
        player.note_workers()
    stage.client.leave("signed_out")
    for player in (stage.client, stage.gateways[0]):
        ending = ending_of(player, connection)
        assert (ending.cause, ending.acknowledged, len(player.endings())) == ("signed_out", True, 1)
    assert agreement(record_of(stage, str(connection))) == "agree"
    (ended,) = admin_sessions(stage).connections
    assert (ended.connection, ended.agreement) == (connection, "agree")
    stage.end_programs()
    left = stage.leftovers()
    assert left.namespaces in ([], ["resource"])  # the resource's server is still there
    assert msgspec.structs.replace(left, namespaces=[]) == Leftovers()
    gateway = stage.gateways[0].place
    assert gateway.run(lambda: [read_sysctl(one) for one in FORWARDING]) == ["0", "0"]


class Watching:
    """Looks at a gateway's firewall, as often as it can, on a thread of its own."""

    def __init__(self, player: Player) -> None:
        self.looks = self.absences = 0
        self._player = player
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            found = self._player.place.run(leftovers)
            self.looks += 1
            self.absences += not any(line.startswith("table ") for line in found)

    def finish(self) -> None:
        self._over.set()
        self._thread.join()


@SIDES
@pytest.mark.parametrize("target", ["control", "network/"])
def test_a_download_runs_through_it(stage: Stage, side: str, target: str) -> None:
    connect(stage)
    player = player_of(stage, side)
    connection = current_peer(stage)["connection"]
    downloads = Downloads(stage)
    watching = Watching(stage.gateways[0])
    try:
        for _ in range(2):
            before = worker(player, target.rstrip("/"))
            (restarted,) = run_restart(player, target)
            assert before != restarted["pid"] == worker(player, target.rstrip("/"))
    finally:
        watching.finish()
    downloads.finish()
    print(f"\ntwo restarts of the {side}'s {target}: no byte for {downloads.longest_gap_s:.2f} s at most")
    assert watching.looks > watching.absences == 0
    assert nobody_has_ended(stage), "\n".join(said(player))
    portal_joined(player)
    assert current_peer(stage)["connection"] == connection
    assert {one.peer for one in admin_sessions(stage).present} == {"client-1", "gateway-1"}
    assert admin_sessions(stage).connections == []
    sign_out_is_acknowledged(stage, connection)


@SIDES
def test_all_of_a_program_is_renewed(stage: Stage, side: str) -> None:
    """`exeunt restart --all`, as after an upgrade: the other side notices nothing."""
    connect(stage)
    player = player_of(stage, side)
    connection = current_peer(stage)["connection"]
    before = [worker(player, name) for name in ALL]
    downloads = Downloads(stage)
    began = time.monotonic()
    restarted = run_restart(player, "--all")
    took_s = time.monotonic() - began
    assert [one["name"] for one in restarted] == ALL
    downloads.finish()
    print(f"\nall of the {side} renewed in {took_s:.1f} s: no byte for {downloads.longest_gap_s:.2f} s at most")
    after = [worker(player, name) for name in ALL]
    assert after == [one["pid"] for one in restarted]
    assert not set(before) & set(after)
    assert nobody_has_ended(stage), "\n".join(said(player))
    portal_joined(player)
    assert current_peer(stage)["connection"] == connection
    pong = stage.client.ask("ping", {"peer": "gateway-1"})
    assert pong["path"] == "direct"
    sign_out_is_acknowledged(stage, connection)


@SIDES
def test_access_revoked_afterwards_is_gone(stage: Stage, side: str) -> None:
    """The successors know whom the firewall lets through, and for whose sake."""
    connect(stage)
    connection = current_peer(stage)["connection"]
    run_restart(player_of(stage, side), "--all")
    portal_joined(player_of(stage, side))
    with contextlib.closing(stage.open_socket(5.0)) as line:
        stage.revoke(f"client-1:{RESOURCE_NAME}")
        for player in (stage.client, stage.gateways[0]):
            assert ending_of(player, connection).cause == "access_revoked"
        line.settimeout(1.0)
        line.sendall(b"GET /10 HTTP/1.1\r\nHost: files\r\n\r\n")
        with pytest.raises(TimeoutError):
            line.recv(1)


def test_a_successor_that_dies_at_its_start_is_a_crash(stage: Stage) -> None:
    """The gateway's session cannot go on: it ends, and the client is told within a second."""
    connect(stage)
    gateway = stage.gateways[0]
    connection = current_peer(stage)["connection"]
    before = worker(gateway, "control")
    gateway.ask("restart", {"target": "control"})
    gateway.wait_for("successor", lambda: worker(gateway, "control") not in (0, before))
    os.kill(worker(gateway, "control"), 9)
    assert gateway.process is not None
    assert gateway.process.wait(20) != 0
    assert ending_of(stage.client, connection).cause in ("worker_crashed", "shutting_down")
