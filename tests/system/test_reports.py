"""Both ends' accounts of an ending meet at the portal, and each end can read the other's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from exeunt.clients.demo.stage import Player, Stage
from exeunt.clients.portal.endings import ConnectionRecord, agreement
from exeunt.clients.portal.store import SessionEvent, Store

from .test_main_job import fetch, wait_for_ending


def record_of(stage: Stage, connection: str) -> ConnectionRecord:
    """What the portal has on a connection once both ends have reported."""
    deadline = time.monotonic() + 10
    while True:
        with contextlib.closing(Store(stage.database)) as store:
            record = store.endings.get(connection)
        assert record is not None
        if record.client_report is not None and record.gateway_report is not None:
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.02)


def why(player: Player, peer: str) -> Any:
    """`exeunt why PEER --json` as that player's user types it."""
    done = subprocess.run(
        [sys.executable, "-m", "exeunt.clients", "why", peer, "--json"],
        env={**os.environ, "EXEUNT_HOME": str(player.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["data"]


def test_both_ends_of_a_sign_out_report_and_agree(stage: Stage) -> None:
    fetch(stage, 100_000)
    stage.client.leave("signed_out")
    here = wait_for_ending(stage.gateways[0])
    record = record_of(stage, here.connection)
    assert (record.client_cause, record.gateway_cause) == ("signed_out", "signed_out")
    assert agreement(record) == "agree"
    told = why(stage.gateways[0], "client-1")
    assert (told["told_by"], told["agreement"]) == ("portal", "agree")
    assert told["other_side"]["cause"] == "signed_out"
    sources = {moment["source"] for moment in told["timeline"]}
    assert {"record", "portal", "peer"} <= sources


def test_the_portal_sees_a_killed_tree_as_a_reset_link(stage: Stage) -> None:
    fetch(stage, 100_000)
    gateway = stage.gateways[0]
    for pid in (gateway.pid, *gateway.workers):
        os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    deadline = time.monotonic() + 5
    lost: list[SessionEvent] = []
    while not lost:
        assert time.monotonic() < deadline, "the portal noticed nothing"
        with contextlib.closing(Store(stage.database)) as store:
            lost = [event for event in store.session_events() if event.kind == "lost"]
        time.sleep(0.02)
    assert [event.detail for event in lost] == ["reset"]
    assert lost[0].at - killed_at < 0.5
