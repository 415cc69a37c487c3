"""What an event loop is told when it starts, and what it remembers of each connection."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from exeunt.runtime import ChildSpec

from .peer.messages import Close


class LoopConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a client's or a gateway's event loop."""

    instance: str
    side: str
    """`client` or `gateway`."""
    private_key: bytes
    device: str
    mtu: int
    hand_over: str
    """Where the device actor takes the TUN descriptor."""
    endings_file: str
    peer_workers: tuple[str, ...]
    lost_after_s: float
    idle_after_s: float | None = None
    """Without traffic for so long a connection is ended as `idle`; None: never."""
    relay_only: bool = False
    masquerade: bool = True
    listen_port: int = 0
    """A gateway's UDP port for static peers; 0: it has none."""
    listen_key: bytes = b""
    """Its private key for them, which stays when it is restarted."""
    manages_device: bool = True
    """False for an embedded client: the app opens the device and gives it by `set_tun`."""


@dataclass(slots=True)
class PeerRecord:
    """A connection, as its event loop knows it."""

    connection: str
    peer: str
    peer_id: str
    worker: str
    address: str
    """Of its actor."""
    resource_ids: set[str] = field(default_factory=set[str])
    networks: tuple[str, ...] = ()
    state: str = "connecting"
    """`connecting`, `connected`, `closing` (it was told to say goodbye), `ended` (its actor may linger)."""
    path: str | None = None
    started_ns: int = 0
    spec: ChildSpec | None = None
    """Of its actor, for the successor of a worker that is restarted. It has keys: it stays in memory."""
    handed_over: bool = False
    """Its worker is being restarted; nobody lives at its address until the successor has taken over."""
    static: bool = False
    """It is a static peer: the portal knows nothing of the connection."""
    close: Close | None = None
    """What it was told when it was told to end."""
