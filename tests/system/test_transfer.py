"""Memory stays flat while data flows: downloads, one after another, and what each side's processes hold meanwhile.

By default for 20 s; `EXEUNT_TRANSFER_S=600` has it go on for ten minutes, in which sessions are renewed several times.
"""

from __future__ import annotations

import os
import statistics
import time

import psutil
import pytest

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import Download, download
from exeunt.clients.demo.stage import Player, Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

TRANSFER_S = float(os.environ.get("EXEUNT_TRANSFER_S", "20"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(TRANSFER_S + 120)]

SIZE, WARM_UP_SIZE = 200_000_000, 300_000_000
GROWTH_MB = 1.5
"""Of all of a side's processes. A leak of one byte a packet would be more, in ten minutes."""
SAMPLED_EVERY_S = 0.5


class Watch:
    """Samples what each side's processes have to themselves, in MB."""

    def __init__(self, players: dict[str, Player]) -> None:
        self._processes = {side: self._tree(player) for side, player in players.items()}
        self.samples: dict[str, list[float]] = {side: [] for side in players}
        self._next_at = 0.0

    def look(self, _progress: Download) -> None:
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + SAMPLED_EVERY_S
            for side, processes in self._processes.items():
                self.samples[side].append(sum(one.memory_full_info().uss for one in processes) / 1e6)

    @staticmethod
    def _tree(player: Player) -> list[psutil.Process]:
        supervisor = psutil.Process(player.pid)
        return [supervisor, *supervisor.children(recursive=True)]


def test_memory_is_flat_while_data_flows() -> None:
    stage = Stage(make_home())
    try:
        stage.start_all()
        download(RESOURCE_ADDRESS, WARM_UP_SIZE, open_socket=stage.open_socket)
        watch = Watch({"client": stage.client, "gateway": stage.gateways[0]})
        began, moved = time.monotonic(), 0
        while time.monotonic() - began < TRANSFER_S:
            got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket, on_progress=watch.look)
            assert got.sha256_ok
            assert got.connections == 1
            moved += SIZE
        print(f"\n{moved / 1e9:.1f} GB in {time.monotonic() - began:.0f} s")
        for side, samples in watch.samples.items():
            part = max(3, len(samples) // 10)
            first, last = statistics.median(samples[:part]), statistics.median(samples[-part:])
            print(f"{side:<8} first {first:7.2f} MB   last {last:7.2f} MB   most {max(samples):7.2f} MB")
            assert last <= first + GROWTH_MB, side
        assert [side.endings() for side in (stage.client, stage.gateways[0])] == [[], []]
    finally:
        stage.close()
