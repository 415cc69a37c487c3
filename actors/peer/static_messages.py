"""What a static peer's actor is told when it starts, and what it leaves to a successor."""

from __future__ import annotations

import msgspec

from ..wireguard import TunnelSnapshot
from .way import Way


class StaticPeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that it needs to know; the actor's one argument."""

    connection: str
    peer: str
    """Its name."""
    private_key: bytes
    """Of the gateway, for all its static peers."""
    peer_public_key: bytes
    preshared_key: bytes | None = None
    networks: tuple[str, ...]
    """Inner networks that this peer may send from, and that lead to it."""
    endpoint: str = ""
    """HOST:PORT where it can be called; empty: it comes to us."""
    persistent_keepalive_s: float | None = None
    owner: str
    """Address of the event loop; when it dies, the connection ends."""
    endings_file: str
    inherits: bool = False
    """Go on with what a predecessor in this worker has handed over."""

    def __repr__(self) -> str:
        return f"StaticPeerConfig({self.connection!r})"


class StaticSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a successor needs. It holds secrets: it goes through memory only."""

    tunnel: TunnelSnapshot
    way: Way | None
    indices: tuple[int, int]
    """The prefix of the tunnel's session indices, by which the sockets find it, and where they go on."""
    since_ns: int
    """When the connection began, wall-clock."""

    def __repr__(self) -> str:
        return "StaticSnapshot()"
