"""A session inside an app, on one thread: it connects, carries traffic, and says goodbye like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exeunt.actors.network import leftovers
from exeunt.clients.demo.stage import PORTAL_ADDRESS, PORTAL_PORT, Stage
from exeunt.runtime.trace import group, load

APP = Path(__file__).with_name("embedded.py")
SIZE = 3_000_000


def run_app(stage: Stage, home: Path, device: str) -> dict[str, Any]:
    process = stage.lab.client.popen(
        [sys.executable, str(APP), str(home), f"ws://{PORTAL_ADDRESS}:{PORTAL_PORT}", str(SIZE), device],
        env={**os.environ, "APP_TOKEN": stage._tokens["client"]},  # pyright: ignore[reportPrivateUsage]
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, complained
    report: dict[str, Any] = json.loads(said.splitlines()[-1])
    return report


@pytest.mark.parametrize("device", ["own", "managed"])
def test_an_app_connects_downloads_and_signs_out_on_one_thread(
    without_client: Stage, tmp_path: Path, device: str
) -> None:
    stage = without_client
    report = run_app(stage, tmp_path, device)
    assert report["sha256_ok"]
    assert report["children"] == []  # nothing but this process
    assert len(set(report["workers"].values())) == 1
    assert report["peers"] == ["gateway-1"]
    assert report["endings"] == [["signed_out", "us", True]]
    assert (report["failed"], report["leftovers"], report["tasks"]) == (False, [], [])
    (there,) = stage.gateways[0].endings()
    assert (there.cause, there.initiated_by, there.acknowledged) == ("signed_out", "peer", True)
    assert stage.lab.client.run(leftovers) == []
    assert list((tmp_path / "ipc").iterdir()) == []
    assert_the_leave_is_traced(tmp_path / "trace")


def assert_the_leave_is_traced(traces: Path) -> None:
    """From the command through every worker, as with processes."""
    (trace,) = [trace for trace in group(load(traces)) if any(span.message == "StopSession" for span in trace.spans)]
    assert {span.worker for span in trace.spans} >= {"control", "peers-1", "network", "supervisor"}
    assert any(span.message == "Close" for span in trace.spans)
