"""What is downloaded is what was sent, whatever the line does to the datagrams.

`EXEUNT_BAD_LINE_BYTES` makes it longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exeunt.clients.demo.resource import download
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab import Delays, Impairment
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

SIZE = int(os.environ.get("EXEUNT_BAD_LINE_BYTES", "4000000"))
GOOD_LINE = Impairment(delay_ms=1)
BAD_LINE = Impairment(delay_ms=1, jitter_ms=1, loss_percent=20, duplicate_percent=5, reorder_percent=25)
"""A fifth is lost, each way; of what is left a quarter arrives 10 ms late, and some twice."""
SEGMENT_BYTES = 1_400


@pytest.mark.timeout(120 + SIZE // 20_000)
def test_a_download_arrives_as_it_was_sent(raise_curtain: Callable[..., Stage]) -> None:
    stage = raise_curtain(delays=Delays(edge_ms=1))
    assert download(RESOURCE_ADDRESS, SIZE // 10, open_socket=stage.open_socket).sha256_ok
    before = retransmissions(stage)
    stage.lab.impair(stage.lab.client_site, BAD_LINE)
    got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket)
    assert got.sha256_ok
    repeated = retransmissions(stage) - before
    assert repeated > SIZE / SEGMENT_BYTES / 5  # so many were lost, at the least
    assert stage.client.endings() == []
    print(
        f"\n{SIZE:,} bytes in {got.duration_s:.1f} s over {got.connections} connections, {repeated} segments repeated"
    )
    stage.lab.impair(stage.lab.client_site, GOOD_LINE)
    stage.client.leave("signed_out")
    assert [ending.cause for ending in stage.client.endings()] == ["signed_out"]


def retransmissions(stage: Stage) -> int:
    """TCP segments that the resource has sent again."""
    table = stage.lab.resource.run(lambda: Path("/proc/thread-self/net/snmp").read_text())
    names, values = (line.split() for line in table.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])
