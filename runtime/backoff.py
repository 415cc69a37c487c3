"""Exponential back-off with jitter, pure: the next delay from how often it failed."""

from __future__ import annotations

import random

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """`delay_s(n)` is `first_s × factor^(n-1)`, at most `max_s`, spread by ± `jitter`; 0 for the first failure if
    `eager`.
    """

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 10.0
    jitter: float = 0.2
    """Share of the delay, so that many who failed together don't return together."""
    eager: bool = True
    """The first restart is at once: most failures don't repeat."""
    reset_s: float = 10.0
    """Who ran so long since its last start begins again with the first delay."""

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """Return how long to wait before try number `failures` (from 1)."""
        if self.eager and failures <= 1:
            return 0.0
        exponent = failures - (2 if self.eager else 1)
        # 2**64 × 0.1 s is longer than anything: the exponent is bounded so that it can't overflow a float
        delay = min(self.max_s, self.first_s * self.factor ** min(exponent, 64))
        return delay * (1 + self.jitter * (2 * rng.random() - 1))
