"""A peers worker is restarted under traffic: a download runs through it, and nobody records an ending."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from tests.system.test_last_will import connect, worker

from exeunt.clients.demo.resource import Download, download
from exeunt.clients.demo.scenes import current_peer
from exeunt.clients.demo.stage import Player, Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

SIZE = 60_000_000


class Downloading:
    """A download on a thread of its own."""

    def __init__(self, stage: Stage, size: int = SIZE) -> None:
        self.result: Download | None = None
        self._stage, self._size = stage, size
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.result = download(RESOURCE_ADDRESS, self._size, open_socket=self._stage.open_socket)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self, limit_s: float = 90.0) -> None:
        self._thread.join(limit_s)
        assert self.result is not None, "the download hangs"
        assert self.result.sha256_ok
        assert self.result.connections == 1, "the TCP connection was given up"


def restart(player: Player, name: str = "peers-1") -> tuple[int, int]:
    """Restart a worker; return its pid before and after."""
    before = worker(player, name)
    player.ask("restart", {"target": name})
    player.wait_for("successor", lambda: worker(player, name) not in (0, before))
    return before, worker(player, name)


def handshake_age_s(stage: Stage) -> float:
    age = current_peer(stage)["handshake_age_s"]
    assert isinstance(age, float)
    return age


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_a_download_runs_through_a_restart(stage: Stage, side: str) -> None:
    connect(stage)
    player = stage.client if side == "client" else stage.gateways[0]
    connection = current_peer(stage)["connection"]
    began = time.monotonic() - handshake_age_s(stage)
    downloading = Downloading(stage)
    for _ in range(3):
        before, after = restart(player)
        assert before != after
        time.sleep(0.5)  # let it flow again before the next one
    assert not downloading.is_over, "it was over too soon to prove anything"
    downloading.finish()
    assert downloading.result is not None
    print(f"\nthree restarts of the {side}'s peers-1: no byte for {downloading.result.longest_gap_s:.2f} s at most")
    assert current_peer(stage)["connection"] == connection
    assert time.monotonic() - handshake_age_s(stage) == pytest.approx(began, abs=0.5), "no handshake was needed"
    assert stage.client.endings() == stage.gateways[0].endings() == []
    stage.client.leave("signed_out")
    for one in (stage.client, stage.gateways[0]):
        (ending,) = one.endings()
        assert (ending.cause, ending.acknowledged) == ("signed_out", True)


def test_a_gateway_is_upgraded_in_place(stage: Stage) -> None:
    """`exeunt restart --all`, as after an upgrade: the clients notice nothing."""
    connect(stage)
    gateway = stage.gateways[0]
    connection = current_peer(stage)["connection"]
    before = worker(gateway)
    downloading = Downloading(stage, 20_000_000)
    environ = {**os.environ, "EXEUNT_HOME": str(gateway.home)}
    argv = [sys.executable, "-m", "exeunt.clients", "restart", "--all", "--json", "--instance", gateway.name]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["data"]["name"] == "peers-1"
    assert worker(gateway) not in (0, before)
    downloading.finish()
    assert current_peer(stage)["connection"] == connection
    assert stage.client.endings() == gateway.endings() == []
