"""What a connection's end has left behind: looked for at the client, at the gateway, and at the relay.

Each thing is named by a line; none may be found. Waiting is allowed: who was told goodbye lingers for a moment to
acknowledge repetitions, and a process that ends takes some milliseconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from exeunt.actors.network import leftovers as network_leftovers
from exeunt.actors.timing import LINGER_S
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab import Namespace
from exeunt.runtime.control import ControlError, ControlUnavailable

from .house import House

PATIENCE_S: Final = LINGER_S + 1.5
_POLL_S: Final = 0.05
_RELAYED_FROM: Final = 49_152


def of_client(house: House) -> list[str]:
    """What is left of a client that has ended: processes, devices, routes, rules, sockets."""
    return _settled(lambda: [*_processes(house.tree), *_network(house.lab.client)])


def of_connection(house: House) -> list[str]:
    """What is left of a connection at the gateways: their peers, their actors, the relay's allocations for them."""

    def look() -> list[str]:
        found: list[str] = []
        for gateway in house.gateways:
            with contextlib.suppress(ControlError, ControlUnavailable):
                found += [f"{gateway.name}: actor {one}" for one in _peer_actors(gateway.ask("ps"))]
        return found

    return _settled(look)


def of_allocations(house: House, before: set[int]) -> list[str]:
    """The relay's allocations that were not there before: none is left when everybody has left by themselves."""
    return _settled(lambda: [f"relay: allocation {port}" for port in relayed_ports(house) if port not in before])


def of_files(house: House) -> list[str]:
    """Files in the client's run directory."""
    directory = house.client.paths.run_dir
    return _settled(lambda: sorted(f"file {one.relative_to(directory)}" for one in _files(directory)))


def relayed_ports(house: Stage) -> list[int]:
    """The UDP ports of the relay's allocations."""
    return [port for port in house.lab.internet.run(lambda: _ports("udp")) if port >= _RELAYED_FROM]


def _settled(look: Callable[[], list[str]]) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


def _processes(processes: list[psutil.Process]) -> list[str]:
    found: list[str] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid}")
    return found


def _network(place: Namespace) -> list[str]:
    def inside() -> list[str]:
        ports = [f"socket udp {port}" for port in _ports("udp")] + [f"socket tcp {port}" for port in _ports("tcp")]
        return [*network_leftovers(), *ports]

    return place.run(inside)


def _ports(kind: str) -> list[int]:
    """Local ports of this thread's namespace; of sockets that a process has, not those that the kernel sees out."""
    lines = Path(f"/proc/thread-self/net/{kind}").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return [int(each[1].rsplit(":", 1)[1], 16) for each in fields if each[9] != "0"]


def _peer_actors(rows: list[dict[str, str]]) -> list[str]:
    peers = [row for row in rows if row["address"].rsplit("/", 1)[1].startswith("peer-")]
    return [f"{row['address']} ({row['state']})" for row in peers]


def _files(directory: Path) -> list[Path]:
    return [one for one in directory.rglob("*") if not one.is_dir()] if directory.exists() else []
