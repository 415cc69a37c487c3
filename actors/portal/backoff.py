"""When to try again.

Until the first success somebody is watching a progress display, so the first tries come evenly and quickly.
After that, and after the first fifteen, delays grow exponentially with jitter, so that a portal that comes
back is not met by all its peers at once (Amazon Builders' Library, "Timeouts, retries, and backoff with
jitter").
"""

import random

FIRST_INTERVAL_S = 1.0
FIRST_TRIES = 15
INITIAL_S = 0.5
FACTOR = 1.5
JITTER = 0.5
"""A delay is drawn evenly from this fraction below to this fraction above its nominal value."""
MAX_S = 60.0


class BackOff:
    """The delays between tries; `reset` after a success."""

    def __init__(self) -> None:
        self._succeeded = False
        self._failures = 0

    def reset(self) -> None:
        """A try succeeded."""
        self._succeeded = True
        self._failures = 0

    def next_delay_s(self, rng: random.Random) -> float:
        """A try failed: how long to wait before the next."""
        self._failures += 1
        if not self._succeeded and self._failures <= FIRST_TRIES:
            return FIRST_INTERVAL_S
        grown = self._failures - 1 - (0 if self._succeeded else FIRST_TRIES)
        # 0.5 · 1.5^11 > 40: beyond that the power need not be computed, and cannot overflow. The cap lies on
        # the nominal delay, or half of all peers would come back after exactly the same longest one.
        nominal = min(MAX_S / (1 + JITTER), INITIAL_S * FACTOR ** min(grown, 11))
        return nominal * rng.uniform(1 - JITTER, 1 + JITTER)
