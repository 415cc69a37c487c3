"""How many handshakes one proven source address may have: a token bucket per address.

Only addresses that proved themselves with a cookie get a bucket, so the table cannot be filled with invented ones. IPv6
sources share a bucket per /64, because whoever has one address of it has all (as Linux's WireGuard does).
"""

from .timing import SOURCE_HANDSHAKE_BURST, SOURCE_HANDSHAKES_PER_SECOND

_SOURCES_MAX = 4096
_FULL_AFTER_S = SOURCE_HANDSHAKE_BURST / SOURCE_HANDSHAKES_PER_SECOND
"""A bucket untouched for so long is full again, so forgetting it changes nothing."""


class SourceLimit:
    """Token buckets by source: 20 handshakes a second each, 5 at once."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[bytes, tuple[float, float]] = {}

    def allow(self, source: bytes, now: float) -> bool:
        """Take one handshake from the bucket of a source (4 or 16 address bytes, then the port)."""
        address = source[:8] if len(source) >= 16 else source[:4]
        tokens, since = self._buckets.get(address, (float(SOURCE_HANDSHAKE_BURST), now))
        tokens = min(SOURCE_HANDSHAKE_BURST, tokens + (now - since) * SOURCE_HANDSHAKES_PER_SECOND)
        if tokens < 1:
            return False
        if address not in self._buckets and len(self._buckets) >= _SOURCES_MAX:
            self._forget_full(now)
            if len(self._buckets) >= _SOURCES_MAX:
                return False
        self._buckets[address] = (tokens - 1, now)
        return True

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            address: bucket for address, bucket in self._buckets.items() if now - bucket[1] < _FULL_AFTER_S
        }
