"""What the portal and its peers say to each other.

A *peer* is a client or a gateway. It opens one websocket to the portal, signs in with a bearer token in the
request's header, and sends `Join`; the portal answers `Joined`, and nothing else is said before that. Each
text frame is one JSON object whose `type` names one of the structs below. Unknown types and unknown fields
are tolerated, so that either end may be upgraded first.

A *connection* is one client and one gateway. It is created by the portal together with everything the two
need to find and authenticate each other: an id, a preshared key (the psk of Noise_IKpsk2) and ICE
credentials for both sides. A client that wants a second resource behind the same gateway is answered with
the same connection again.

    client                        portal                        gateway
      | RequestAuthorization        |                              |
      |---------------------------->| Authorize                    |
      |                             |----------------------------->|
      |                             |                   Authorized |
      |       AuthorizationCreated  |<-----------------------------|
      |<----------------------------|                              |
      |<======================== IceCandidates ===================>|

The client is always the controlling ICE agent (RFC 8445 section 6.1.1) and the initiator of the WireGuard
handshake.

Keys are `bytes` here and base64 (RFC 4648 section 4) on the wire. Times called `expires_at` are Unix
seconds.
"""

import re
from typing import Annotated, Any, Literal

import msgspec

from .reports import MAX_OBSERVATIONS, EndingReport, Observation, Side
from .static import MAX_STATIC_PEERS, Listener, StaticPeer
from .texts import PRINTABLE, Id, Name, Text, Word

MAX_PEER_FRAME_BYTES = 64 * 1024
"""The longest frame that the portal accepts from a peer."""

MAX_PORTAL_FRAME_BYTES = 1024 * 1024
"""The longest frame that a peer accepts from its portal: a join is answered with every resource, some 150
bytes each.
"""

MAX_CANDIDATES = 64
"""Candidates in one message. A host with ten addresses and two relays offers about forty."""

MAX_CLAIMS = 256
"""Connections claimed in one message. With four resources each they take about 40 kB."""

_ICE_CHARS = r"\A[A-Za-z0-9+/]*\Z"

Candidate = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=PRINTABLE)]
Candidates = Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MAX_CANDIDATES)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Ref = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
StaticPeers = Annotated[tuple[StaticPeer, ...], msgspec.Meta(max_length=MAX_STATIC_PEERS)]

PeerKind = Literal["client", "gateway"]
Transport = Literal["udp", "tcp", "tls"]
GoneKind = Literal["left", "reset", "silent", "ended"]
FailureReason = Literal["not_found", "offline", "forbidden", "version_mismatch"]

_SECRET_FIELDS = frozenset({"password", "preshared_key"})
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def _snake_case(name: str) -> str:
    return _WORD_START.sub("_", name).lower()


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A value inside a message. Its secrets stay out of its `repr`, and so out of logs and tracebacks."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields as `repr` and rich show them."""
        return [(f, "…" if f in _SECRET_FIELDS else getattr(self, f)) for f in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__rich_repr__())})"


class Message(Fact, frozen=True, kw_only=True, tag_field="type", tag=_snake_case):
    """A whole frame. `RequestAuthorization` travels as `{"type": "request_authorization", …}`."""


# What messages are made of.


class IceCredentials(Fact, frozen=True, kw_only=True):
    """One side's ICE credentials: ufrag and password (RFC 8445 section 5.3) of ice-chars (RFC 8839)."""

    username: Annotated[str, msgspec.Meta(min_length=4, max_length=256, pattern=_ICE_CHARS)]
    password: Annotated[str, msgspec.Meta(min_length=22, max_length=256, pattern=_ICE_CHARS)]


class Relay(Fact, frozen=True, kw_only=True):
    """A STUN/TURN server and the credentials to use it with until `expires_at`."""

    id: Id
    transport: Transport = "udp"
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Port
    username: str
    password: str
    expires_at: int


class Resource(Fact, frozen=True, kw_only=True):
    """What a client may reach: for now always `type` "cidr", with `address` a CIDR.

    Skip types you do not know.
    """

    id: Id
    name: Name
    type: Annotated[str, msgspec.Meta(max_length=32)] = "cidr"
    address: Annotated[str, msgspec.Meta(max_length=255)]
    site: Name


class Client(Fact, frozen=True, kw_only=True):
    """A client, as a gateway needs to know it."""

    id: Id
    name: Name
    public_key: Key
    address_ipv4: str
    address_ipv6: str


class LiveConnection(Fact, frozen=True, kw_only=True):
    """A connection that outlived the link to the portal; `peer_id` is the other end's id."""

    connection: Id
    peer_id: Id
    resource_ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=256)] = ()


# From a peer to the portal.


class Join(Message, frozen=True, kw_only=True):
    """The first message.

    `external_id` is the device's own lasting identity; `connections` those still alive.
    """

    name: Name
    external_id: Id
    public_key: Key
    version: Word
    connections: Annotated[tuple[LiveConnection, ...], msgspec.Meta(max_length=MAX_CLAIMS)] = ()
    complete: bool = True
    """Whether that is all of them. Else the rest follows in `ClaimConnections`, after the join."""
    listener: Listener | None = None
    """A gateway's, for static peers."""


class ClaimConnections(Message, frozen=True, kw_only=True):
    """More connections that are still alive: a busy gateway's do not fit into one frame."""

    connections: Annotated[tuple[LiveConnection, ...], msgspec.Meta(max_length=MAX_CLAIMS)]


class Heartbeat(Message, frozen=True, kw_only=True):
    """Sent every ten seconds; answered with `HeartbeatReply` of the same `ref`."""

    ref: Ref


class RequestAuthorization(Message, frozen=True, kw_only=True):
    """A client wants to use a resource, but not through these gateways, which failed it a moment ago."""

    resource_id: Id
    excluded_gateway_ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=64)] = ()


class Authorized(Message, frozen=True, kw_only=True):
    """A gateway is ready for the connection of the `Authorize` with this `ref`."""

    ref: Id


class ConnectionEnded(Message, frozen=True, kw_only=True):
    """Either end of a connection saw it end.

    The portal forgets it, so that its id is never handed out again.
    """

    connection: Id
    cause: Word
    report: EndingReport | None = None
    """How that end tells it; kept for both ends and for the portal's administrators."""


class RestartIce(Message, frozen=True, kw_only=True):
    """An end of a connection asks for new ICE credentials for both (RFC 8445 section 2.4): paths shall be found anew.

    Answered to both ends with `IceRestarted`; two requests within a second are one.
    """

    connection: Id
    reason: Word = ""


class AskEvidence(Message, frozen=True, kw_only=True):
    """An end of an ended connection asks what the portal knows of it; answered with `Evidence` of the same `ref`."""

    ref: Ref
    connection: Id


class Leaving(Message, frozen=True, kw_only=True):
    """Goodbye.

    A gateway that said so is not chosen any more; the portal answers `Left` once that is in effect.
    """

    reason: Word


# In both directions.


class LastWill(Message, frozen=True, kw_only=True):
    """An end has died; this it had left to be said: its goodbye, sealed. The portal hands it to the other end, once."""

    connection: Id
    datagram: Annotated[bytes, msgspec.Meta(min_length=32, max_length=1472)]


class IceCandidates(Message, frozen=True, kw_only=True):
    """Trickled candidates (RFC 8838) as SDP candidate attributes, relayed to the other end of the connection.

    `end` says that this side has no more (RFC 8838 section 13) of this `generation`: 0 belongs to the credentials that
    came with the connection, others to those of the `IceRestarted` with the same number. `withdrawn` are earlier ones
    that do not work any more, such as those of a relay that is gone.
    """

    connection: Id
    candidates: Candidates = ()
    end: bool = False
    generation: Generation = 0
    withdrawn: Candidates = ()


# From the portal to a peer.


class Joined(Message, frozen=True, kw_only=True):
    """The whole state, in answer to `Join`.

    A client's `site` is empty; a gateway's resources are those of its site.
    """

    peer_id: Id
    name: Name
    site: str = ""
    address_ipv4: str
    address_ipv6: str
    resources: tuple[Resource, ...] = ()
    relays: tuple[Relay, ...] = ()
    static_peers: StaticPeers = ()
    """A gateway's, and so is the next message."""


class StaticPeersChanged(Message, frozen=True, kw_only=True):
    """To a gateway: the complete new list of its static peers. Who is not in it any more has lost all access."""

    static_peers: StaticPeers


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """The answer to `Heartbeat`."""

    ref: Ref


class AuthorizationCreated(Message, frozen=True, kw_only=True):
    """The client may use the resource through this gateway, which expects it.

    A `connection` that the client already has gains the resource; nothing else about it changes.
    """

    connection: Id
    resource_id: Id
    gateway_id: Id
    gateway_name: Name
    gateway_public_key: Key
    gateway_address_ipv4: str
    gateway_address_ipv6: str
    preshared_key: Key
    local_ice: IceCredentials
    remote_ice: IceCredentials
    expires_at: int | None = None


class AuthorizationFailed(Message, frozen=True, kw_only=True):
    """The client may not, or at the moment cannot, use the resource."""

    resource_id: Id
    reason: FailureReason


class Authorize(Message, frozen=True, kw_only=True):
    """The gateway shall expect this client on this connection, and answer `Authorized`."""

    ref: Id
    connection: Id
    client: Client
    resource: Resource
    preshared_key: Key
    local_ice: IceCredentials
    remote_ice: IceCredentials
    expires_at: int | None = None


class RevokeAccess(Message, frozen=True, kw_only=True):
    """To a gateway: the client lost this resource.

    A connection without any resource left ends as `access_revoked`.
    """

    client_id: Id
    resource_id: Id
    connection: Id


class AccessRevoked(Message, frozen=True, kw_only=True):
    """To a client: it lost this resource on this connection. See `RevokeAccess`."""

    resource_id: Id
    connection: Id


class ResourcesChanged(Message, frozen=True, kw_only=True):
    """The complete new list."""

    resources: tuple[Resource, ...]


class RelaysChanged(Message, frozen=True, kw_only=True):
    """The complete new list, or the old one with credentials that last longer."""

    relays: tuple[Relay, ...]


class PeerGone(Message, frozen=True, kw_only=True):
    """The other end of the connection left the portal or was lost, or says that the connection has ended.

    A hint to probe it; it may be perfectly alive. `kind` is how the portal knows:

    - `left`: it said `Leaving`, with the reason in `cause`.
    - `reset`: the kernel closed its link with neither `Leaving` nor a close frame (RFC 6455 section 5.5.1), as it does
      for a process that has died; or it has come back and knows nothing of the connection.
    - `silent`: its heartbeats are missing, or the link was closed in good order; nothing follows from it.
    - `ended`: it reported `ConnectionEnded`, with that `cause`.
    """

    connection: Id
    reason: Text
    kind: GoneKind = "silent"
    cause: Word = ""


class IceRestarted(Message, frozen=True, kw_only=True):
    """To both ends: find paths anew with these credentials. `generation` counts from 1 for each connection.

    Later `IceCandidates` name it. The path in use stays in use until there is a better one.
    """

    connection: Id
    generation: Generation
    local_ice: IceCredentials
    remote_ice: IceCredentials


class Evidence(Message, frozen=True, kw_only=True):
    """What the portal may tell an end of this connection: both ends' reports, and what it observed, oldest first.

    Empty for whoever is no end of it, as for a connection that never was.
    """

    ref: Ref
    connection: Id
    reports: dict[Side, EndingReport] = {}
    observations: Annotated[tuple[Observation, ...], msgspec.Meta(max_length=MAX_OBSERVATIONS)] = ()


class Left(Message, frozen=True, kw_only=True):
    """`Leaving` has taken effect."""


class Disconnect(Message, frozen=True, kw_only=True):
    """The portal ends this link for good: do not come back unasked. `requires_sign_in`: nor with this token.

    A portal that merely restarts just closes the socket.
    """

    reason: Text
    requires_sign_in: bool = False


class Error(Message, frozen=True, kw_only=True):
    """A frame of yours was not understood or not allowed. The link lives on."""

    code: Text
    message: Text = ""


FromPeer = (
    Join
    | ClaimConnections
    | Heartbeat
    | RequestAuthorization
    | Authorized
    | ConnectionEnded
    | RestartIce
    | AskEvidence
    | IceCandidates
    | LastWill
    | Leaving
    | Error
)

FromPortal = (
    Joined
    | HeartbeatReply
    | AuthorizationCreated
    | AuthorizationFailed
    | Authorize
    | RevokeAccess
    | AccessRevoked
    | IceCandidates
    | LastWill
    | ResourcesChanged
    | RelaysChanged
    | StaticPeersChanged
    | PeerGone
    | IceRestarted
    | Evidence
    | Left
    | Disconnect
    | Error
)
