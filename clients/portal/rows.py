"""What `exeunt admin` answers: plain records, the `data` of its JSON documents."""

import msgspec

from exeunt.actors.portal.messages import PeerKind, Transport


class NewPeer(msgspec.Struct, frozen=True):
    """A client or a gateway that was just made. `token` cannot be shown again."""

    id: str
    name: str
    token: str
    address_ipv4: str
    address_ipv6: str
    site: str | None = None


class Initialized(msgspec.Struct, frozen=True):
    """The first site, with the first gateway and client."""

    site: str
    gateway: NewPeer
    client: NewPeer
    database: str


class SiteRow(msgspec.Struct, frozen=True):
    """A site, and how much there is in it."""

    id: str
    name: str
    gateways: int
    resources: int


class PeerRow(msgspec.Struct, frozen=True):
    """A client or a gateway."""

    id: str
    name: str
    address_ipv4: str
    address_ipv6: str
    active: bool
    """Whether it has a token that was not revoked."""
    site: str | None = None


class ResourceRow(msgspec.Struct, frozen=True):
    """A resource, and whom it is for."""

    id: str
    name: str
    address: str
    site: str
    clients: tuple[str, ...]
    """Names of those who may use it."""
    for_everyone: bool


class RelayRow(msgspec.Struct, frozen=True):
    """A relay, without its secret."""

    id: str
    transport: Transport
    host: str
    port: int


class PolicyRow(msgspec.Struct, frozen=True):
    """An exception to whom a resource is for."""

    client: str
    resource: str
    allowed: bool


class TokenRow(msgspec.Struct, frozen=True):
    """A token, without anything secret. Times are RFC 3339 UTC."""

    id: str
    kind: PeerKind
    peer: str
    created_at: str
    revoked_at: str | None


class Revoked(msgspec.Struct, frozen=True):
    """What was taken away."""

    peer: str | None = None
    resource: str | None = None
    tokens: int = 0


class StaticPeerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A client that speaks WireGuard and nothing else."""

    id: str
    name: str
    public_key: str
    address_ipv4: str
    address_ipv6: str
    gateways: tuple[str, ...]
    """Those that let it in, in order of preference."""
    resources: tuple[str, ...]
    endpoint: str | None
    """Where its gateways begin the handshake; null: they wait for it."""


class NewStaticPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A static peer, and what it has to be told. The configuration may hold secrets."""

    peer: StaticPeerRow
    endpoint: str | None
    """Of the gateway; null: unknown."""
    configuration: str | None
    """For wg-quick(8); null where it was written into `file`."""
    file: str | None = None

    def __repr__(self) -> str:
        return f"NewStaticPeer(peer={self.peer!r})"
