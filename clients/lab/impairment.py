"""What a wire does to the packets on it: one direction of one wire, as a pure machine.

The order of its faults is that of a real link: a packet is lost before it takes up room, waits for those before it
when the rate is limited, then travels. Packets keep their order, whatever the jitter, unless one is held back on
purpose: then those behind overtake it.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

HELD_BACK_S = 0.010
"""How much later a packet comes that others shall overtake."""
QUEUE_S = 0.100
"""How much a limited wire holds before it drops what comes: a home router's worth of buffer."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to packets on a wire, the same in both directions. The default: nothing."""

    delay_ms: float = 0
    """One way."""
    jitter_ms: float = 0
    """Each packet is delayed by 0 to this much more."""
    loss_percent: float = 0
    duplicate_percent: float = 0
    reorder_percent: float = 0
    """The share that is held back by 10 ms, so that others overtake it."""
    rate_mbit_s: float = 0
    """0: unlimited. Else what is more than 100 ms behind is dropped."""

    def __post_init__(self) -> None:
        shares = (self.loss_percent, self.duplicate_percent, self.reorder_percent)
        if any(not 0 <= share <= 100 for share in shares):
            raise ValueError(f"a share lies between 0 and 100 %, not so {shares}")
        if min(self.delay_ms, self.jitter_ms, self.rate_mbit_s) < 0:
            raise ValueError("delay, jitter and rate are at least 0")


class Direction:
    """The packets that travel one way. Times are seconds on the caller's clock."""

    def __init__(self, impairment: Impairment, rng: random.Random) -> None:
        self.impairment = impairment
        self._rng = rng
        self._travelling: list[tuple[float, int, bytes]] = []
        self._taken = 0
        self._free_at = 0.0
        self._last_due = 0.0

    def take(self, packet: bytes, now: float) -> None:
        """A packet enters the wire."""
        if self._by_chance(self.impairment.loss_percent):
            return
        start = self._after_queue(packet, now)
        if start is None:
            return
        for _ in range(2 if self._by_chance(self.impairment.duplicate_percent) else 1):
            self._send(packet, start)

    def arrived(self, now: float) -> Iterator[bytes]:
        """Yield the packets that are through by now."""
        while self._travelling and self._travelling[0][0] <= now:
            yield heapq.heappop(self._travelling)[2]

    def next_at(self) -> float | None:
        """When the next packet is through; None: there is none."""
        return self._travelling[0][0] if self._travelling else None

    def _after_queue(self, packet: bytes, now: float) -> float | None:
        """When the packet's last bit is on the wire; None: the queue is full."""
        rate = self.impairment.rate_mbit_s * 1e6
        if not rate:
            return now
        begins = max(now, self._free_at)
        if begins - now > QUEUE_S:
            return None
        self._free_at = begins + len(packet) * 8 / rate
        return self._free_at

    def _send(self, packet: bytes, start: float) -> None:
        due = start + (self.impairment.delay_ms + self._rng.uniform(0, self.impairment.jitter_ms)) / 1000
        if self._by_chance(self.impairment.reorder_percent):
            due += HELD_BACK_S
        else:
            due = self._last_due = max(due, self._last_due)
        self._taken += 1  # keeps the order of what is due at the same moment
        heapq.heappush(self._travelling, (due, self._taken, packet))

    def _by_chance(self, percent: float) -> bool:
        return percent > 0 and self._rng.random() * 100 < percent
