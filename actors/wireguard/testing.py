"""For tests: two tunnels, a wire between them that can lose, and a clock that moves only when told.

pair = TunnelPair()
pair.client.connect(pair.now)
pair.settle()
pair.send("client", packet)
assert pair.received["gateway"] == [packet]
"""

import random
from collections.abc import Callable
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..batch.choice import choose
from ..batch.contract import Kernel
from .cookie import CookieChecker
from .events import TunnelEvent
from .index import PrefixedIndices
from .timing import Limits
from .tunnel import Tunnel

Side: TypeAlias = Literal["client", "gateway"]

SIDES: tuple[Side, Side] = ("client", "gateway")
_UNIX_START_NS = 1_800_000_000 * 10**9


def public_key(private_key: bytes) -> bytes:
    """Return the public key of a raw private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def ipv4_packet(size: int = 60, fill: int = 0) -> bytes:
    """Return an inner packet of this size whose header says so; the rest is filler."""
    return bytes([0x45, 0]) + size.to_bytes(2, "big") + bytes([fill]) * (size - 4)


class TunnelPair:
    """A client (the initiator) and a gateway. Delivery takes no time and keeps order.

    The wire swallows what a side in `cut` sends, and every datagram for which `lost` is true. `carried` has all that
    were sent, also the lost.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        preshared_key: bytes = b"\x07" * 32,
        persistent_keepalive_s: float | None = None,
        client_gate: CookieChecker | None = None,
        gateway_gate: CookieChecker | None = None,
        kernel: Callable[[], Kernel] = choose,
        seed: int = 1,
    ) -> None:
        self.now = 1000.0
        self._kernel = kernel
        self.private_keys: dict[Side, bytes] = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
        self._limits = limits
        self._preshared_key = preshared_key
        self.client = self._tunnel("client", seed, persistent_keepalive_s=persistent_keepalive_s, gate=client_gate)
        self.gateway = self._tunnel("gateway", seed + 1, gate=gateway_gate)
        self.tunnels: dict[Side, Tunnel] = {"client": self.client, "gateway": self.gateway}
        self.cut: set[Side] = set()
        self.lost: Callable[[bytes], bool] = lambda _: False
        self.carried: list[tuple[Side, bytes]] = []
        self.received: dict[Side, list[bytes]] = {"client": [], "gateway": []}
        self.events: dict[Side, list[TunnelEvent]] = {"client": [], "gateway": []}

    def connect(self) -> None:
        """Let the client begin a handshake, and carry everything that follows from it."""
        self.client.connect(self.now)
        self.settle()

    def send(self, side: Side, packet: bytes) -> None:
        """Send an inner packet from a side, and carry everything that follows from it."""
        datagram = self.tunnels[side].encapsulate(packet, self.now)
        if datagram is not None:
            self._carry(side, datagram)
        self.settle()

    def settle(self) -> None:
        """Carry datagrams until neither side has one to send."""
        quiet = False
        while not quiet:
            quiet = True
            for side in SIDES:
                while (datagram := self.tunnels[side].poll_transmit()) is not None:
                    quiet = False
                    self._carry(side, datagram)
        for side in SIDES:
            while (event := self.tunnels[side].poll_event()) is not None:
                self.events[side].append(event)

    def advance(self, seconds: float) -> None:
        """Let time pass, serving every timer at its own time."""
        until = self.now + seconds
        while (wake := self._next_wake()) is not None and wake[0] <= until:
            self.now = max(self.now, wake[0])
            self.tunnels[wake[1]].handle_timeout(self.now)
            self.settle()
        self.now = until

    def _next_wake(self) -> tuple[float, Side] | None:
        wakes: list[tuple[float, Side]] = []
        for side in SIDES:
            wake = self.tunnels[side].poll_timeout()
            if wake is not None:
                wakes.append((wake[0], side))
        return min(wakes, default=None)

    def _carry(self, sender: Side, datagram: bytes) -> None:
        self.carried.append((sender, datagram))
        if sender in self.cut or self.lost(datagram):
            return
        receiver: Side = "gateway" if sender == "client" else "client"
        packet = self.tunnels[receiver].handle_datagram(datagram, self.now, sender.encode())
        if packet is not None:
            self.received[receiver].append(packet)

    def _tunnel(
        self,
        side: Side,
        seed: int,
        *,
        persistent_keepalive_s: float | None = None,
        gate: CookieChecker | None = None,
    ) -> Tunnel:
        peer: Side = "gateway" if side == "client" else "client"
        return Tunnel(
            private_key=self.private_keys[side],
            peer_public_key=public_key(self.private_keys[peer]),
            preshared_key=self._preshared_key,
            initiator=side == "client",
            allocate_index=PrefixedIndices(SIDES.index(side) + 1),
            rng=random.Random(seed),  # noqa: S311 - jitter, and the same in every run
            persistent_keepalive_s=persistent_keepalive_s,
            limits=self._limits,
            gate=gate,
            kernel=self._kernel,
            wall_clock_ns=lambda: _UNIX_START_NS + int(self.now * 10**9),
        )
