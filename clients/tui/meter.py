"""Rates from totals: what a counter did between two looks, and how that went lately.

Pure: the time is an argument. A total that goes down belongs to somebody new at the same address (a restarted actor,
another connection with the same peer); it counts from nought then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

KEPT: Final = 60
"""Rates that are remembered; at one look a second, a minute."""

_BARS: Final = "▁▂▃▄▅▆▇█"


class Meter:
    """Follows one total that mostly grows."""

    def __init__(self) -> None:
        self.rate: float | None = None
        """A second, between the last two looks; None before the second."""
        self.history: deque[float] = deque(maxlen=KEPT)
        """The last rates, oldest first."""
        self._total = 0
        self._at_s: float | None = None
        self._moved_s: float | None = None

    def take(self, total: int, now_s: float) -> None:
        """Take another look's total. One at the same instant as the last is passed over."""
        if self._at_s is None:
            self._total, self._at_s, self._moved_s = total, now_s, now_s
            return
        elapsed_s = now_s - self._at_s
        if elapsed_s <= 0:
            return
        grown = total - self._total if total >= self._total else total
        if total != self._total:
            self._moved_s = now_s
        self._total, self._at_s = total, now_s
        self.rate = grown / elapsed_s
        self.history.append(self.rate)

    def begin_anew(self) -> None:
        """The next total is somebody else's, who began at nought."""
        self._total = 0

    @property
    def still_s(self) -> float:
        """How long the total has not moved, as far as was seen."""
        if self._at_s is None or self._moved_s is None:
            return 0.0
        return self._at_s - self._moved_s


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars, the highest of them full; aligned to the right."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return ("▁" * len(shown)).rjust(width)
    last = len(_BARS) - 1
    # A value that is not nought is told from one that is, however small it is beside the highest.
    return "".join(_BARS[max(round(value / top * last), value > 0)] for value in shown).rjust(width)
