"""What a process takes of the machine. Kept between two looks, because a share of CPU is of the time between."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil


class Usage:
    """The CPU and memory of some processes."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def of(self, pid: int | None) -> dict[str, Any]:
        """Return `pid`, `cpu_percent` (since the last call; at the first one, since its start) and `rss_bytes`."""
        unknown = {"pid": pid, "cpu_percent": None, "rss_bytes": None}
        if not pid:
            return {**unknown, "pid": None}
        try:
            if pid not in self._processes:
                process = self._processes[pid] = psutil.Process(pid)
                process.cpu_percent()
                cpu_percent = _since_its_start(process)
            else:
                process = self._processes[pid]
                cpu_percent = process.cpu_percent()
            return {"pid": pid, "cpu_percent": round(cpu_percent, 1), "rss_bytes": process.memory_info().rss}
        except psutil.Error:
            self._processes.pop(pid, None)
            return unknown

    def keep(self, pids: set[int]) -> None:
        """Forget all others."""
        for pid in set(self._processes) - pids:
            with contextlib.suppress(KeyError):
                del self._processes[pid]


def _since_its_start(process: psutil.Process) -> float:
    times = process.cpu_times()
    age_s = max(0.01, time.time() - process.create_time())
    return 100 * (times.user + times.system) / age_s
