"""What is said to and by a peer connection."""

from __future__ import annotations

from typing import Any

import msgspec

from exeunt.runtime import Message

from ..endings import Ending
from ..ice import Path
from ..portal.messages import Transport
from ..wireguard.timing import INNER_MTU_BYTES


class RelayServer(msgspec.Struct, frozen=True, kw_only=True):
    """A STUN/TURN server and what to sign in with."""

    host: str
    port: int
    transport: Transport = "udp"
    username: str = ""
    password: str = ""


class PeerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a connection needs to know when it starts; the actor's one argument."""

    connection: str
    peer: str
    """The other end's name."""
    peer_id: str
    side: str
    """`client` (initiator, controlling) or `gateway`."""
    private_key: bytes
    peer_public_key: bytes
    preshared_key: bytes
    local_username: str
    local_password: str
    remote_username: str
    remote_password: str
    servers: tuple[RelayServer, ...] = ()
    networks: tuple[str, ...] = ()
    """Inner networks that this peer may send from, and that lead to it."""
    mtu: int = INNER_MTU_BYTES
    """Of the device, in bytes."""
    excluded_hosts: tuple[str, ...] = ()
    """Our own tunnel addresses: never offered as candidates."""
    relay_only: bool = False
    lost_after_s: float = 15.0
    idle_after_s: float | None = None
    """Without traffic for so long we end the connection as `idle`; None: never."""
    owner: str
    """Address of the event loop; when it dies, the connection says its goodbyes by itself."""
    portal_link: str
    """Address of the portal link, which carries candidates."""
    endings_file: str
    inherits: bool = False
    """Go on with what a predecessor in this worker has handed over."""


class AddCandidates(Message, frozen=True):
    """The peer's candidates of one ICE session, as they come from the portal."""

    candidates: tuple[str, ...]
    end: bool = False
    generation: int = 0
    withdrawn: tuple[str, ...] = ()
    """Earlier ones that do not work any more."""


class SetServers(Message, frozen=True):
    """These are the STUN and TURN servers from now on."""

    servers: tuple[RelayServer, ...]


class RestartPath(Message, frozen=True, kw_only=True):
    """Find a path anew with these credentials, while the old one stays in use (RFC 8445 section 9)."""

    generation: int
    local_username: str
    local_password: str
    remote_username: str
    remote_password: str


class Moved(Message, frozen=True):
    """This host's network is another one: have paths found anew."""

    reason: str


class SetNetworks(Message, frozen=True):
    """These inner networks are the peer's from now on."""

    networks: tuple[str, ...]


class Hint(Message, frozen=True):
    """Something suggests that the peer may be gone: probe it at once. Nothing ends by a hint alone.

    `kind` is how the portal knows (`left`, `reset`, `silent`, `ended`; see its `PeerGone`), or `hint` where it is not
    the portal; `cause` is what the peer told the portal.
    """

    reason: str
    kind: str = "hint"
    cause: str = ""


class WillHeard(Message, frozen=True):
    """The portal has passed on what it says is the peer's last will. The session knows whether it is."""

    datagram: bytes


class Close(Message, frozen=True):
    """Say goodbye and end. Answered by `PeerEnded` once the goodbye is acknowledged or its deadline is over."""

    cause: str
    initiated_by: str = "us"
    evidence: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    text: str = ""
    """For people, on the other side."""


class Ping(Message, frozen=True):
    """One round trip through the tunnel; answered by `Pong`."""

    timeout_s: float = 5.0


class Pong(Message, frozen=True):
    """A round trip, and the path it took."""

    rtt_ms: float
    path: str
    endpoint: str = ""
    """Where our datagrams go; what is relayed there, goes on from there."""
    local_relay: str = ""
    """The address that our relay lends us, where the path leads through it."""
    remote_relay: str = ""
    """The address that the peer's relay lends it, where the path leads through that."""

    @classmethod
    def by(cls, rtt_ms: float, path: Path | None) -> Pong:
        """Make one of the path in use."""
        if path is None:
            return cls(rtt_ms, "direct")
        local, remote = (
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in (path.local, path.remote)
        )
        return cls(
            rtt_ms,
            path.kind,
            endpoint=remote,
            local_relay=local if path.local_type == "relay" else "",
            remote_relay=remote if path.remote_type == "relay" else "",
        )


class DescribePeer(Message, frozen=True):
    """Ask for a `PeerDescription`."""


class PeerDescription(Message, frozen=True):
    """A connection, as `exeunt status` shows it."""

    connection: str
    peer: str
    state: str
    path: str | None
    endpoint: str | None
    rtt_ms: float | None
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int
    last_seen_s_ago: float | None = None
    """Since the last authenticated sign of life."""
    generation: int = 0
    """Of the ICE session: how often paths were found anew."""
    handshakes: int = 0
    """Completed since the connection began, or since its worker was restarted."""
    path_mtu_bytes: int | None = None
    """What has been found to get through in one piece, inside the tunnel; None: nothing yet."""


class PeerConnected(Message, frozen=True):
    """To the owner: packets flow."""

    connection: str
    path: str
    handshake_rtt_ms: float


class PeerPathChanged(Message, frozen=True):
    """To the owner: the path is another one now."""

    connection: str
    path: str


class PortalDoubted(Message, frozen=True):
    """To the owner: the portal did not answer this connection, so the link to it may be dead."""

    connection: str


class PeerEnded(Message, frozen=True):
    """To the owner, once: the connection ended. Its actor may linger to acknowledge repetitions."""

    connection: str
    ending: Ending


MESSAGES: tuple[type[Message], ...] = (
    AddCandidates,
    SetServers,
    RestartPath,
    Moved,
    SetNetworks,
    Hint,
    WillHeard,
    Close,
    Ping,
    Pong,
    DescribePeer,
    PeerDescription,
    PeerConnected,
    PeerPathChanged,
    PeerEnded,
    PortalDoubted,
)
