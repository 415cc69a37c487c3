"""What a person asks who wonders why it is slow: exeunt check and exeunt ping, beside a client that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import msgspec

from exeunt.clients.demo.stage import Stage


def at_the_client(stage: Stage, *argv: str) -> tuple[int, list[dict[str, Any]]]:
    """Run a command where the client runs; its exit code and documents."""
    process = stage.lab.client.popen(
        [sys.executable, "-m", "exeunt.clients", *argv, "--json"],
        env={**os.environ, "EXEUNT_HOME": str(stage.client.home)},
        stdout=subprocess.PIPE,
    )
    out, _ = process.communicate(timeout=30)
    return process.returncode, [msgspec.json.decode(line, type=dict[str, Any]) for line in out.splitlines()]


def test_check_examines_the_relays_that_the_running_client_knows(stage: Stage) -> None:
    code, (document,) = at_the_client(stage, "check")
    measured = document["data"]["measured"]
    announced = [reach for reach in measured["relays"] if reach["announced"]]
    assert measured["instance"] == "client"
    assert [reach["transport"] for reach in announced] == ["udp"]
    assert announced[0]["rtt_ms"] is not None
    assert [nat["public_address"] for nat in measured["nats"]] == ["198.51.100.2"]
    assert code == 0


def test_ping_waits_for_the_direct_path_and_names_it(stage: Stage) -> None:
    stage.open_socket(10.0).close()  # whoever wants to reach a resource connects to its gateway
    code, lines = at_the_client(stage, "ping", "gateway-1", "--until-direct", "--interval", "100ms")
    assert code == 0
    last = lines[-1]["data"]
    assert last["path"] == "direct"
    assert (last["local_relay"], last["remote_relay"]) == (None, None)
    assert last["endpoint"].startswith("203.0.113.2:")
