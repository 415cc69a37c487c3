"""Commands to a session, the events that come out of it, and what its actors say to each other about both."""

from __future__ import annotations

import msgspec

from exeunt.runtime import Message

from .device.messages import MESSAGES as DEVICE
from .endings import Ending
from .expiries import Expired
from .network.messages import MESSAGES as NETWORK
from .peer.messages import MESSAGES as PEER
from .peer.messages import PeerDescription
from .portal.actor_messages import MESSAGES as PORTAL
from .portal.messages import Resource

# --- events: what the user of a session is told ---


class TunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the tunnel interface is set up."""

    device: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    dns: tuple[str, ...] = ()


class TunInterfaceUpdated(Message, frozen=True):
    """The interface's configuration is this now. Intermediate ones may have been skipped."""

    config: TunConfig


class ResourcesUpdated(Message, frozen=True):
    """The resources are these now. Intermediate lists may have been skipped."""

    resources: tuple[Resource, ...]


class AllGatewaysOffline(Message, frozen=True):
    """Nobody can serve this resource at the moment."""

    resource_id: str


class GatewayVersionMismatch(Message, frozen=True):
    """The gateways of this resource are of a version that does not go with ours."""

    resource_id: str


class ConnectionEstablished(Message, frozen=True):
    """A connection is up."""

    connection: str
    peer: str
    path: str


class ConnectionEnded(Message, frozen=True):
    """A connection ended, and this is how."""

    ending: Ending


class Disconnected(Message, frozen=True):
    """The session is over. `requires_sign_in`: the token will not do any more."""

    reason: str
    requires_sign_in: bool = False


Event = (
    TunInterfaceUpdated
    | ResourcesUpdated
    | AllGatewaysOffline
    | GatewayVersionMismatch
    | ConnectionEstablished
    | ConnectionEnded
    | Disconnected
)


# --- between the loop, the stream and the subscriber ---


class Publish(Message, frozen=True):
    """The loop to the stream: tell the user this."""

    event: Event


class Deliver(Message, frozen=True):
    """The stream to the subscriber. Answered once the user has taken it."""

    event: Event
    number: int = 0
    """Of a delivery; the same again is the same event, told by a successor that does not know whether it was heard."""


class StreamEnded(Message, frozen=True):
    """The stream to the subscriber: there will be no more."""

    undelivered: int = 0


class Subscribe(Message, frozen=True):
    """Deliver events to this actor from now on."""

    subscriber: str


class Taken(Message, frozen=True):
    """The user has taken the event."""


# --- commands ---


class StopSession(Message, frozen=True):
    """Leave: portal, peers, stream, in that order. `cause` is told to every peer."""

    cause: str
    requires_sign_in: bool = False
    text: str = ""
    """For people, on the other side: `upgrade`, say. At most 200 bytes of it travel."""


class NetworkChanged(Message, frozen=True):
    """This host's addresses or routes are others now, or it was asleep."""

    reason: str


class IgnoreAddresses(Message, frozen=True):
    """To the watcher: these addresses are the tunnel's own, and no change of network."""

    addresses: tuple[str, ...]


class Reset(Message, frozen=True):
    """The network changed: connect to the portal anew, check every path at once."""

    reason: str


class SetDns(Message, frozen=True):
    """These are the system's DNS servers now."""

    servers: tuple[str, ...]


class SetInternetResource(Message, frozen=True):
    """Whether resources that cover the whole Internet are used."""

    enabled: bool


class DescribeSession(Message, frozen=True):
    """Ask for a `SessionDescription`."""


class KnownRelay(msgspec.Struct, frozen=True):
    """A relay that the portal has announced, without what one signs in with."""

    host: str
    port: int
    transport: str


class SessionDescription(Message, frozen=True):
    """What `exeunt status` shows."""

    session: str
    resources: tuple[Resource, ...]
    resource_states: dict[str, str]
    """By resource id: `idle`, `connecting`, `connected`, `offline`."""
    peers: tuple[PeerDescription, ...]
    problems: tuple[str, ...] = ()
    relays: tuple[KnownRelay, ...] = ()


class EverybodyAsked(Message, frozen=True):
    """An event loop that leaves, to itself: every peer was asked to close, and what they said has been handled."""

    cause: str
    initiated_by: str


class ClaimDue(Message, frozen=True):
    """An event loop to itself: connections have come or gone, and the portal link does not know yet."""


class TakeOverOverdue(Message, frozen=True):
    """An event loop to itself: a connection was handed over by its worker, and no successor has taken it yet."""

    connection: str


class StartAnswered(Message, frozen=True):
    """An event loop to itself: the supervisor has started a connection's actor, or won't."""

    connection: str


class StaticPeersDue(Message, frozen=True):
    """A gateway's event loop to itself: static peers that are wanted may not be served yet."""


class PingPeer(Message, frozen=True):
    """One round trip to a peer, named by its name, its id or its connection. Answered by `Pong`."""

    peer: str
    timeout_s: float = 5.0


MESSAGES: tuple[type[Message], ...] = (
    TunInterfaceUpdated,
    ResourcesUpdated,
    AllGatewaysOffline,
    GatewayVersionMismatch,
    ConnectionEstablished,
    ConnectionEnded,
    Disconnected,
    Publish,
    Deliver,
    StreamEnded,
    Subscribe,
    Taken,
    StopSession,
    NetworkChanged,
    IgnoreAddresses,
    Reset,
    SetDns,
    SetInternetResource,
    DescribeSession,
    SessionDescription,
    EverybodyAsked,
    ClaimDue,
    TakeOverOverdue,
    StartAnswered,
    StaticPeersDue,
    PingPeer,
    Expired,
    *DEVICE,
    *NETWORK,
    *PEER,
    *PORTAL,
)
"""Every message of the tunnel's actors: what a worker's codec must know beside the runtime's own."""
