"""What one connection's path takes in one piece, found out by asking (RFC 8899). Pure.

Routers say by ICMP when a packet is too long, but many networks drop that, and anybody can forge it (RFC 2923, RFC 8085
section 3.2). So nothing here is believed but the peer: probes as long as the packets in question go through the tunnel,
unfragmented, and those that are answered got through.

When there is a path, and every `SEARCH_AGAIN_S` from then on, a search begins: first the longest packet that the device
gives is tried alone, which settles it on most paths. If it is not answered, all sizes that are longer than the longest
answered one are tried, a few times, since any of them may have been lost. The outcome holds until the next search is
over. Until the first one is, `BASE_MTU` holds: what is sent then may be cut up on its way, which is slower, but
arrives. Another path is taken to be as wide as the last one until its own search is over, since senders that are told
of less keep to that for minutes; where nothing of it is answered, `BASE_MTU` holds again.

    resting ──path / time──▶ searching ──longest answered / last round over──▶ resting
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from ..device.reach import BASE_MTU, Reach
from .control_packet import Probe, encode_control

SIZES: Final = (1376, 1344, 1312, 1280, 1232, 1216, 1184, 1088, 1024)
"""Bytes of inner packets that are tried below the device's MTU. In particular, with 28 or 48 bytes of IP and UDP, 32 of
the tunnel's and 4 of a relay's: links of 1,480 (a tunnel in IPv4), 1,420 (in WireGuard), 1,400, 1,300, 1,280 (the least
of IPv6), and 1,100. Multiples of 16, as packets are padded to those."""
BEGIN_S: Final = 0.25
"""A path has more urgent things to carry at first: what has waited for it."""
ROUNDS: Final = 4
"""RFC 8899 section 5.1.2 has 3 (MAX_PROBES), for each size; the first round here asks for one alone. With 20 % loss
each way the longest one's four probes all fail once in 60 searches."""
PATIENCE_S: Final = 0.4
"""A round, at least; and"""
PATIENCE_ROUND_TRIPS: Final = 3.0
SEARCH_AGAIN_S: Final = 600.0
"""RFC 8899 section 5.1.1, PMTU_RAISE_TIMER."""


class Seals(Protocol):
    """What it needs to know of a tunnel."""

    def encapsulate(self, packet: bytes, now: float, /) -> bytes | None:
        """Seal an inner packet; None: there is no session now."""
        ...


class PathMtu:
    """The search of one connection. All times are seconds of one monotonic clock."""

    def __init__(self, identifier: Callable[[], bytes], *, most: int = BASE_MTU) -> None:
        """`identifier` draws the 8 random bytes that a probe is recognised by; `most` is the device's MTU, in bytes."""
        self.reach = Reach()
        self.confirmed = 0
        """The longest packet, in bytes, that got through in the latest search; 0: none yet."""
        self._is_supposed = False
        """Whether what holds is what the path before this one took."""
        self._identifier = identifier
        self._most = most
        self._use(min(most, BASE_MTU))
        self._rtt_s = 0.0
        self._round = 0
        """0: resting."""
        self._wake_at = math.inf
        self._asked: dict[bytes, int] = {}
        self._transmits: list[bytes] = []  # an empty deque has 700 bytes

    # --- in ---

    def handle_path(self, rtt_s: float, now: float) -> None:
        """There is another path, or the first one: nothing is known of it."""
        self._use(max(self.reach.mtu, min(self._most, BASE_MTU)))
        self.confirmed, self._is_supposed = 0, True
        self._rtt_s = rtt_s
        self._rest(now + BEGIN_S)

    def handle_reply(self, identifier: bytes, now: float) -> None:
        """A probe was answered, one of ours or not."""
        size = self._asked.pop(identifier, None)
        if size is None:
            return
        self.confirmed = max(self.confirmed, size)
        if size > self.reach.mtu:
            self._use(size)
        if size == self._most:
            self._rest(now + SEARCH_AGAIN_S)

    def handle_timeout(self, tunnel: Seals, now: float) -> None:
        """Do what is due; the probes of a round are sealed by the tunnel."""
        if now < self._wake_at:
            return
        if self._round == ROUNDS:
            if self.confirmed or self._is_supposed:
                self._use(self.confirmed or min(self._most, BASE_MTU))
            self._rest(now + SEARCH_AGAIN_S)
            return
        if self._round == 0:
            self.confirmed = 0
        self._round += 1
        self._wake_at = now + max(PATIENCE_S, PATIENCE_ROUND_TRIPS * self._rtt_s)
        sizes = [self._most] if self._round == 1 else [self._most, *(size for size in SIZES if size < self._most)]
        for size in sizes:
            if size > self.confirmed and (datagram := tunnel.encapsulate(self._probe(size, now), now)) is not None:
                self._transmits.append(datagram)

    # --- out ---

    def poll_transmit(self) -> bytes | None:
        """Return the next datagram, or None: it is to arrive in one piece or not at all."""
        return self._transmits.pop(0) if self._transmits else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why; None: there was no path yet."""
        if self._wake_at == math.inf:
            return None
        return self._wake_at, "path MTU"

    # --- inside ---

    def _probe(self, size: int, now: float) -> bytes:
        identifier = self._identifier()
        self._asked[identifier] = size
        return encode_control(Probe(identifier=identifier, timestamp=int(now * 1e9)), size)

    def _rest(self, until: float) -> None:
        self._is_supposed = self._is_supposed and not self.confirmed
        self._round, self._wake_at = 0, until
        self._asked.clear()

    def _use(self, mtu: int) -> None:
        self.reach.mtu = mtu
        self.reach.limit = mtu if mtu < self._most else 0
