"""Probes under way: what was asked of the peer inside the tunnel, and not answered yet. Pure.

Bounded: an answer is worth nothing when so many newer questions have been asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .control_packet import Probe, encode_control

MAX_PROBES: Final = 64
"""Unanswered ones: beyond it the oldest is forgotten."""


class Probes:
    """By the 8 random bytes of each, which `identifier` draws. All times are seconds of one monotonic clock."""

    def __init__(self, identifier: Callable[[], bytes]) -> None:
        self._identifier = identifier
        self._under_way: dict[bytes, tuple[int, float]] = {}

    def begin(self, token: int, now: float) -> bytes:
        """Return the control packet of another probe; token 0 is ours, and answered to nobody."""
        identifier = self._identifier()
        self._under_way[identifier] = (token, now)
        while len(self._under_way) > MAX_PROBES:
            del self._under_way[next(iter(self._under_way))]
        return encode_control(Probe(identifier=identifier, timestamp=int(now * 1e9)))

    def answered(self, identifier: bytes, now: float) -> tuple[int, float] | None:
        """Return (token, round trip in seconds) of the probe that an answer is for; None: there is none such."""
        found = self._under_way.pop(identifier, None)
        return None if found is None else (found[0], now - found[1])
