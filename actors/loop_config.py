"""What an event loop is told when it starts, and what it remembers of each connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from exeunt.runtime import ChildSpec

from .peer.messages import Close
from .peer_workers import device_actor, device_name, hand_over_path


class LoopConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a client's or a gateway's event loop."""

    instance: str
    side: str
    """`client` or `gateway`."""
    private_key: bytes
    device: str
    """The first worker's TUN device; the others' are named after it."""
    mtu: int
    ipc: str
    """The directory in which the device actors take their TUN descriptors."""
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

    @property
    def devices(self) -> tuple[str, ...]:
        """The TUN devices, in the order of the workers."""
        return tuple(device_name(self.device, index) for index in range(len(self.peer_workers)))

    def device_of(self, worker: str) -> str:
        """Return a peers worker's TUN device. Raises ValueError when there is no such worker."""
        return device_name(self.device, self.peer_workers.index(worker))

    def device_actor_of(self, worker: str) -> str:
        """Return the name of its device actor. Raises ValueError when there is no such worker."""
        return device_actor(self.peer_workers.index(worker))

    def hand_over_of(self, worker: str) -> str:
        """Return where that one takes the descriptor."""
        return hand_over_path(Path(self.ipc), worker)


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
