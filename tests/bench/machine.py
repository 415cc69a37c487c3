"""The machine that is measured on: how fast it is just now, and who else uses it.

Latencies of some ten microseconds don't survive a neighbour. So before each measurement, while our own processes
rest, we look who else keeps the processors busy, and wait for a quiet moment: as long as patience lasts, which is a
sum for the whole run. What was met goes into the table.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import psutil

_LOOK_S = 0.1
_BUSY_PERCENT = 20.0  # of all processors: on two, less than half of one
_CALIBRATIONS = 5


@dataclass
class Machine:
    """What was seen of it."""

    patience_s: float
    """How long to wait for quiet moments, in all."""
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Its figures, by name."""

    def await_quiet(self) -> None:
        """Return when nobody else is busy, or patience is at an end."""
        while True:
            busy = psutil.cpu_percent(_LOOK_S)
            if busy < _BUSY_PERCENT or self.patience_s <= 0:
                self._note("busy_before_percent", busy)
                return
            self.patience_s -= _LOOK_S

    def calibrate(self) -> None:
        """Measure a fixed loop of pure Python: where it varies, so does everything."""
        for _ in range(_CALIBRATIONS):
            began, total = time.perf_counter(), 0
            for number in range(1_000_000):
                total += number
            self._note("calibration_ms", (time.perf_counter() - began) * 1000)
        self._note("load_average_percent", os.getloadavg()[0] * 100)

    def _note(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)
