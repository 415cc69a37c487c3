"""A static peer, decided without a socket: somebody who speaks WireGuard, but neither ICE nor control packets. Pure.

The *way* to it is where its last authenticated datagram came from, and at which of our addresses that arrived
(WireGuard paper, section 2.1): a telephone that changes networks is followed without a word. Nobody can be told
goodbye, silence is no ending, and what ends such a connection is our side's doing alone.

    connecting    nothing authentic has come yet
    established   a handshake has completed, however long ago
    ended         nothing goes in or out any more
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from ..batch.contract import Sealed
from ..endings import Cause, Initiator
from ..ice import Address
from ..wireguard import HandshakeCompleted, Tunnel, TunnelSnapshot
from .events import Connected, Ended
from .way import Way

State = Literal["connecting", "established", "ended"]


class StaticConnection:
    """The connection to one static peer. After each input, drain `poll_transmit` and `poll_event`. All times are
    seconds of one monotonic clock.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self.state: State = "connecting"
        self.way: Way | None = None
        """None: it has to come to us."""
        self._events: deque[Connected | Ended] = deque()

    # --- inputs ---

    def handle_endpoint(self, address: Address, now: float) -> None:
        """The peer can be called at this address, if it has not been heard from somewhere else already."""
        if self.way is None and self.state != "ended":
            self.way = Way("", address)
            self.tunnel.connect(now)

    def handle_moved(self, now: float) -> None:
        """Our own address may be another one: a handshake from there tells the peer."""
        if self.way is not None and self.state == "established":
            self.way = Way("", self.way.address)
            self.tunnel.connect(now)

    def handle_datagrams(
        self, buffer: memoryview, spans: array[int], out: memoryview, way: Way, now: float, *, coalesce: bool
    ) -> Sequence[tuple[int, int, int]]:
        """Take in a burst of datagrams that all came the same way (see `Tunnel.handle_datagrams`); return the frames
        for the device that are in `out` now.
        """
        if self.state == "ended":
            return ()
        before = self.tunnel.rx_bytes
        frames = self.tunnel.handle_datagrams(buffer, spans, out, now, coalesce=coalesce)
        if self.tunnel.rx_bytes != before:  # it counts what is authentic, and nothing else may move us
            self.way = way
        self._drain_tunnel()
        return frames

    def handle_packet(self, packet: bytes, now: float) -> bytes | None:
        """Seal an inner packet; None: it waits for a handshake, or is lost for want of one."""
        return None if self.state == "ended" else self.tunnel.encapsulate(packet, now)

    def handle_frames(
        self, buffer: memoryview, spans: array[int], train: memoryview, now: float
    ) -> Sequence[Sealed] | None:
        """Seal what frames stand for, or the first of them; None: nothing could, and each packet is to go to
        `handle_packet`.
        """
        if self.state == "ended":
            return [Sealed(0, 0, 0)] * (len(spans) // 2)
        return self.tunnel.seal_frames(buffer, spans, train, now)

    def handle_close(self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any]) -> None:
        """End. There is nobody to tell."""
        if self.state != "ended":
            self.state = "ended"
            ended = Ended(
                cause=cause, initiated_by=initiated_by, evidence=evidence, detection_ms=None, acknowledged=None
            )
            self._events.append(ended)

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self.state != "ended":
            self.tunnel.handle_timeout(now)
            self._drain_tunnel()

    def resume(self, tunnel: TunnelSnapshot, way: Way | None, now: float) -> None:
        """Go on where a predecessor stopped. Raises ValueError when the snapshot contradicts itself."""
        self.tunnel.resume(tunnel, now)
        self.way = way
        if tunnel.handshake_at is not None:
            self.state = "established"

    # --- outputs ---

    def poll_transmit(self) -> bytes | None:
        """Return the next datagram to send on the way, or None."""
        return None if self.state == "ended" else self.tunnel.poll_transmit()

    def poll_event(self) -> Connected | Ended | None:
        """Return the next event, or None."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why."""
        return None if self.state == "ended" else self.tunnel.poll_timeout()

    # --- inside ---

    def _drain_tunnel(self) -> None:
        while (event := self.tunnel.poll_event()) is not None:
            if isinstance(event, HandshakeCompleted) and self.state == "connecting":
                self.state = "established"
                self._events.append(Connected(event.rtt_ms))
