"""A gateway that spreads its clients over two workers: real programs, three clients of the real protocol machines.

All are served, by both workers; a restart of any worker loses nobody; a worker that is killed takes only its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.echo_crowd import ECHO_PORT
from tests.system.test_last_will import worker
from tests.system.test_scale import visitors_of

from exeunt.actors.network.links import Links
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import PORTAL_ADDRESS, PORTAL_PORT, Player, Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

CROWD = Path(__file__).with_name("echo_crowd.py")
DEVICES = ["exeunt-gw0", "exeunt-gw0-2"]


class Crowd:
    """The clients' process."""

    def __init__(self, stage: Stage) -> None:
        self._url = f"ws://{PORTAL_ADDRESS}:{PORTAL_PORT}/v1/client"
        root = str(Path(__file__).parents[2])
        self._process: subprocess.Popen[str] = stage.lab.client.popen(
            [sys.executable, str(CROWD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def come(self, visitors: list[tuple[str, str]]) -> list[str]:
        answer: list[str] = self._order(url=self._url, visitors=visitors)["present"]
        return answer

    def ask(self, text: str) -> list[str]:
        answer: list[str] = self._order(ask=text)["answered"]
        return answer

    def ended(self, count: int) -> dict[str, str]:
        answer: dict[str, str] = self._order(ended=count)["ended"]
        return answer

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the clients' process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


def restart(gateway: Player, name: str) -> None:
    """Have a worker replaced; "network" alone would be its actor."""
    before = worker(gateway, name)
    gateway.ask("restart", {"target": f"{name}/"}, 20.0)
    gateway.wait_for("successor", lambda: worker(gateway, name) not in (0, before))


@contextlib.contextmanager
def echoing(stage: Stage) -> Generator[None]:
    """Meanwhile the resource answers each datagram with itself."""
    place = stage.lab.resource
    with place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as echo:
        echo.bind((RESOURCE_ADDRESS, ECHO_PORT))

        def serve() -> None:
            while True:
                payload, source = echo.recvfrom(2048)
                if not payload:
                    return
                echo.sendto(payload, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as last:
                last.sendto(b"", (RESOURCE_ADDRESS, ECHO_PORT))
            thread.join()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A gateway with two workers for its peers, and no client."""
    monkeypatch.setenv("EXEUNT_WORKERS", "2")
    stage = Stage(make_home())
    try:
        stage.prepare()
        stage.start_portal_and_relay()
        stage.start_gateways()
        with echoing(stage):
            yield stage
    finally:
        stage.close()


@pytest.fixture
def crowd(stage: Stage) -> Iterator[Crowd]:
    crowd = Crowd(stage)
    try:
        yield crowd
    finally:
        crowd.close()


def workers_of(gateway: Player) -> dict[str, str]:
    """The worker of each peer that is connected."""
    addresses = [str(row["address"]).split("/") for row in gateway.ask("ps")]
    hosts = {name.removeprefix("peer-"): host for _, host, name in addresses if name.startswith("peer-")}
    return {peer["peer"]: hosts[peer["connection"]] for peer in gateway.status()["peers"]}


def host_routes(gateway: Player) -> list[str]:
    """Host routes that steer."""

    def look() -> list[str]:
        with Links() as links:
            return sorted(one for one in links.own_routes() if one.endswith(("/32", "/128")))

    return gateway.place.run(look)


def devices(gateway: Player) -> list[str]:
    def look() -> list[str]:
        with Links() as links:
            return [name for name in links.names() if name.startswith("exeunt")]

    return sorted(gateway.place.run(look))


def test_two_workers_serve_three_clients_through_restarts(stage: Stage, crowd: Crowd) -> None:
    gateway = stage.gateways[0]
    everybody = crowd.come(visitors_of(stage, 3))
    assert devices(gateway) == DEVICES
    before = workers_of(gateway)
    assert Counter(before.values()) == {"peers-1": 2, "peers-2": 1}
    assert len(host_routes(gateway)) == 2, "the one client of the second worker has an address of each family"
    assert crowd.ask("first") == everybody
    for actor in ("device", "device-2"):
        assert gateway.ask("show", {"actor": actor})["snapshot"]["has_device"], actor
    connections = {peer["connection"] for peer in gateway.status()["peers"]}
    for name in ("peers-2", "peers-1", "network", "control", "peers-2"):
        restart(gateway, name)
        assert crowd.ask(f"after {name}") == everybody, name
        assert len(host_routes(gateway)) == 2, name
    assert gateway.endings() == []
    assert workers_of(gateway) == before
    assert {peer["connection"] for peer in gateway.status()["peers"]} == connections
    stage.end_programs()
    assert {(one.cause, one.acknowledged) for one in gateway.endings()} == {("shutting_down", True)}
    assert len(gateway.endings()) == 3
    assert devices(gateway) == []
    assert host_routes(gateway) == []


def test_a_worker_that_is_killed_takes_only_its_own(stage: Stage, crowd: Crowd) -> None:
    gateway = stage.gateways[0]
    visitors = visitors_of(stage, 4)
    everybody = crowd.come(visitors[:3])
    where = workers_of(gateway)
    (victim,) = [name for name, host in where.items() if host == "peers-2"]
    others = [name for name in everybody if name != victim]
    assert crowd.ask("before") == everybody
    pid = worker(gateway, "peers-2")
    os.kill(pid, signal.SIGKILL)
    assert crowd.ask("at once") == others or crowd.ask("now") == others, "the last will may be on its way"
    assert crowd.ended(1) == {victim: "worker_crashed"}
    gateway.wait_for("successor", lambda: worker(gateway, "peers-2") not in (0, pid))
    assert [(one.peer, one.cause) for one in gateway.endings()] == [(victim, "worker_crashed")]
    assert host_routes(gateway) == []
    assert crowd.ask("still") == others
    assert devices(gateway) == DEVICES
    assert crowd.come(visitors[3:]) == [*everybody, visitors[3][0]]
    assert workers_of(gateway)[visitors[3][0]] == "peers-2"
    assert crowd.ask("again") == [*others, visitors[3][0]]
    stage.end_programs()
    assert devices(gateway) == []
    assert host_routes(gateway) == []
