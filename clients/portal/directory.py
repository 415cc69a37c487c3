"""Everything the portal was told by its administrators, as one value.

The machine works on a `Directory`; the store makes a new one whenever the database has changed. What a
change means (whose access is gone?) is then a comparison of what is with what may be, and cannot be
forgotten by one of the many ways to change a database.
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec

from exeunt.actors.portal.messages import PeerKind, Resource, Transport
from exeunt.actors.portal.static import StaticPeer


class Identity(msgspec.Struct, frozen=True):
    """Whom a token signs in."""

    kind: PeerKind
    peer_id: str
    token_id: str


class SiteRecord(msgspec.Struct, frozen=True):
    """A place with gateways, and resources that any of them can reach."""

    id: str
    name: str


class PeerRecord(msgspec.Struct, frozen=True):
    """A client or a gateway. Only gateways have a site."""

    id: str
    kind: PeerKind
    name: str
    address_ipv4: str
    address_ipv6: str
    site_id: str = ""


class ResourceRecord(msgspec.Struct, frozen=True):
    """A CIDR at a site. `for_everyone`: any client may use it that is not denied; else only those allowed."""

    id: str
    name: str
    address: str
    site_id: str
    for_everyone: bool = True


class RelayRecord(msgspec.Struct, frozen=True):
    """A relay, and the secret that it shares with the portal to recognise its credentials."""

    id: str
    host: str
    port: int
    secret: str
    transport: Transport = "udp"

    def __repr__(self) -> str:
        return f"RelayRecord(id={self.id!r})"


class StaticPeerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A client that has a WireGuard key and no token, at gateways that know it. Not all clients' resources are its when
    it has `only_named`: then each has to be allowed by a policy.
    """

    peer_id: str
    public_key: bytes
    preshared_key: bytes | None = None
    endpoint: str = ""
    persistent_keepalive_s: int | None = None
    only_named: bool = False
    gateway_ids: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"StaticPeerRecord(peer_id={self.peer_id!r})"


class Directory(msgspec.Struct, frozen=True, dict=True):
    """Who exists and who may reach what. `dict=True` gives the cached properties a place."""

    sites: dict[str, SiteRecord] = {}
    peers: dict[str, PeerRecord] = {}
    resources: dict[str, ResourceRecord] = {}
    relays: tuple[RelayRecord, ...] = ()
    tokens: dict[str, str] = {}
    """Tokens that were not revoked: id → the peer they sign in."""
    policies: dict[tuple[str, str], bool] = {}
    """(resource, client) → allowed or denied, over the resource's `for_everyone`."""
    static_peers: Mapping[str, StaticPeerRecord] = {}
    """By the id of the client that each one is."""

    @cached_property
    def active_peers(self) -> frozenset[str]:
        """Those that can sign in, or need not. Whoever has no token left has no access left either."""
        return frozenset(self.tokens.values()) | frozenset(self.static_peers)

    def may_use(self, client_id: str, resource_id: str) -> bool:
        """Whether a client may use a resource."""
        resource = self.resources.get(resource_id)
        if resource is None or client_id not in self.peers or client_id not in self.active_peers:
            return False
        static = self.static_peers.get(client_id)
        by_default = resource.for_everyone and not (static is not None and static.only_named)
        return self.policies.get((resource_id, client_id), by_default)

    def may_serve(self, gateway_id: str, resource_id: str) -> bool:
        """Whether a gateway stands where the resource is."""
        resource, gateway = self.resources.get(resource_id), self.peers.get(gateway_id)
        if resource is None or gateway is None or gateway_id not in self.active_peers:
            return False
        return gateway.kind == "gateway" and gateway.site_id == resource.site_id

    def resources_of(self, peer_id: str) -> tuple[Resource, ...]:
        """What a client may use, or what a gateway serves."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return ()
        may = self.may_use if peer.kind == "client" else self.may_serve
        return tuple(self.wire_resource(r.id) for r in self.resources.values() if may(peer_id, r.id))

    def static_peers_of(self, gateway_id: str) -> tuple[StaticPeer, ...]:
        """Whom a gateway lets in for their keys, as the gateway sees them."""
        return tuple(
            self._wire_static(record, gateway_id)
            for record in self.static_peers.values()
            if gateway_id in record.gateway_ids
        )

    def _wire_static(self, record: StaticPeerRecord, gateway_id: str) -> StaticPeer:
        peer = self.peers[record.peer_id]
        return StaticPeer(
            id=peer.id,
            name=peer.name,
            public_key=record.public_key,
            preshared_key=record.preshared_key,
            address_ipv4=peer.address_ipv4,
            address_ipv6=peer.address_ipv6,
            resource_ids=tuple(
                one for one in self.resources if self.may_use(peer.id, one) and self.may_serve(gateway_id, one)
            ),
            endpoint=record.endpoint,
            persistent_keepalive_s=record.persistent_keepalive_s if record.endpoint else None,
        )

    def wire_resource(self, resource_id: str) -> Resource:
        """A resource as peers see it."""
        record = self.resources[resource_id]
        site = self.sites[record.site_id]
        return Resource(id=record.id, name=record.name, address=record.address, site=site.name)
