"""What `exeunt admin` does, as functions on a store that answer with plain records.

Things are named by people: every function takes names (ids work too). Tokens appear in an answer only at
the moment they are made.
"""

from datetime import UTC, datetime
from pathlib import Path

from exeunt.actors.portal.messages import PeerKind, Transport

from .addresses import resource_address
from .directory import Directory, PeerRecord, ResourceRecord
from .errors import AlreadyExists, InvalidValue, NotFound
from .naming import checked_host_and_port, checked_name, peer_named, resource_named, site_named
from .rows import (
    Initialized,
    NewPeer,
    PeerRow,
    PolicyRow,
    RelayRow,
    ResourceRow,
    Revoked,
    SiteRow,
    TokenRow,
)
from .store import Store, new_resource_id

FIRST_SITE = "main"
FIRST_GATEWAY = "gateway-1"
FIRST_CLIENT = "client-1"
MIN_SECRET_CHARS = 16
"""Of a relay's shared secret; anybody with credentials can try guesses against it offline."""


def initialize(store: Store, database: Path, now_unix: float) -> Initialized:
    """Make a site, a gateway and a client, once.

    Raises:
        AlreadyExists: there is a site.
    """
    with store.transaction():
        if store.directory().sites:
            raise AlreadyExists(
                "The portal is set up already.", "Make further tokens with: exeunt admin client add NAME"
            )
        add_site(store, FIRST_SITE)
        gateway = add_gateway(store, FIRST_GATEWAY, site=FIRST_SITE, now_unix=now_unix)
        client = add_client(store, FIRST_CLIENT, now_unix=now_unix)
    return Initialized(FIRST_SITE, gateway, client, str(database))


def add_site(store: Store, name: str) -> SiteRow:
    """A new site."""
    site = store.add_site(checked_name(name))
    return SiteRow(site.id, site.name, 0, 0)


def sites(store: Store) -> list[SiteRow]:
    """All sites."""
    directory = store.directory()
    return [
        SiteRow(
            site.id,
            site.name,
            sum(peer.site_id == site.id for peer in directory.peers.values()),
            sum(resource.site_id == site.id for resource in directory.resources.values()),
        )
        for site in directory.sites.values()
    ]


def add_gateway(store: Store, name: str, *, site: str | None, now_unix: float) -> NewPeer:
    """A new gateway with its token. `site` may be left out where there is only one."""
    with store.transaction():
        where = site_named(store.directory(), site)
        peer = store.add_peer("gateway", checked_name(name), where.id, now_unix)
        return _new_peer(peer, store.add_token(peer, now_unix), where.name)


def add_client(store: Store, name: str, *, now_unix: float) -> NewPeer:
    """A new client with its token."""
    with store.transaction():
        peer = store.add_peer("client", checked_name(name), None, now_unix)
        return _new_peer(peer, store.add_token(peer, now_unix), None)


def renew_token(store: Store, name: str, *, now_unix: float) -> NewPeer:
    """One more token for a client or a gateway; earlier ones stay valid until they are revoked."""
    with store.transaction():
        directory = store.directory()
        peer = peer_named(directory, name)
        _refuse_static(directory, peer)
        site = directory.sites.get(peer.site_id)
        return _new_peer(peer, store.add_token(peer, now_unix), None if site is None else site.name)


def peers(store: Store, kind: PeerKind) -> list[PeerRow]:
    """All clients, or all gateways."""
    directory = store.directory()
    rows: list[PeerRow] = []
    for peer in directory.peers.values():
        if peer.kind == kind and peer.id not in directory.static_peers:
            site = directory.sites.get(peer.site_id)
            active = peer.id in directory.active_peers
            addresses = (peer.address_ipv4, peer.address_ipv6)
            rows.append(PeerRow(peer.id, peer.name, *addresses, active, None if site is None else site.name))
    return rows


def add_resource(
    store: Store, name: str, address: str, *, site: str | None, clients: tuple[str, ...] = ()
) -> ResourceRow:
    """A new resource: for everyone, or only for `clients`."""
    try:
        cidr = resource_address(address)
    except ValueError as error:
        raise InvalidValue(f"{error}.", "Write a network such as 10.20.0.0/24, or one address.") from None
    with store.transaction():
        directory = store.directory()
        where = site_named(directory, site)
        allowed = tuple(peer_named(directory, client, "client").id for client in clients)
        record = ResourceRecord(new_resource_id(), checked_name(name), cidr, where.id, for_everyone=not clients)
        store.add_resource(record, allowed)
        return _resource_row(store.directory(), record)


def resources(store: Store) -> list[ResourceRow]:
    """All resources."""
    directory = store.directory()
    return [_resource_row(directory, record) for record in directory.resources.values()]


def remove_resource(store: Store, name: str) -> ResourceRow:
    """Remove a resource. Whoever uses it loses it."""
    with store.transaction():
        directory = store.directory()
        record = resource_named(directory, name)
        row = _resource_row(directory, record)
        store.remove_resource(record.id)
        return row


def set_policy(store: Store, client: str, resource: str, *, allowed: bool) -> PolicyRow:
    """Allow or deny a client a resource."""
    with store.transaction():
        directory = store.directory()
        peer, record = peer_named(directory, client, "client"), resource_named(directory, resource)
        store.set_policy(record.id, peer.id, allowed=allowed)
        return PolicyRow(peer.name, record.name, allowed)


def policies(store: Store) -> list[PolicyRow]:
    """All exceptions to whom resources are for."""
    directory = store.directory()
    return [
        PolicyRow(directory.peers[client].name, directory.resources[resource].name, allowed)
        for (resource, client), allowed in sorted(directory.policies.items())
    ]


def add_relay(store: Store, address: str, secret: str, transport: Transport = "udp") -> RelayRow:
    """A relay that shares `secret` with the portal (coturn: `static-auth-secret`)."""
    if len(secret) < MIN_SECRET_CHARS:
        raise InvalidValue(
            f"The relay's secret has fewer than {MIN_SECRET_CHARS} characters.",
            "Make one with: openssl rand -base64 32",
        )
    host, port = checked_host_and_port(address)
    relay = store.add_relay(host, port, secret, transport)
    return RelayRow(relay.id, transport, host, port)


def relays(store: Store) -> list[RelayRow]:
    """All relays."""
    return [RelayRow(relay.id, relay.transport, relay.host, relay.port) for relay in store.directory().relays]


def remove_relay(store: Store, address: str) -> list[RelayRow]:
    """Remove the relays with this id, or at this address."""
    with store.transaction():
        found = [r for r in relays(store) if r.id == address]
        if not found:
            host, port = checked_host_and_port(address)
            found = [r for r in relays(store) if (r.host, r.port) == (host, port)]
        if not found:
            raise NotFound(f"There is no relay {address!r}.", "See: exeunt admin relay list")
        for relay in found:
            store.remove_relay(relay.id)
        return found


def tokens(store: Store) -> list[TokenRow]:
    """All tokens, revoked ones too."""
    return [
        TokenRow(
            token.id,
            token.kind,
            token.peer,
            rfc3339(token.created_at),
            None if token.revoked_at is None else rfc3339(token.revoked_at),
        )
        for token in store.tokens()
    ]


def revoke(store: Store, target: str, *, now_unix: float) -> Revoked:
    """Take away a token (by its id), all tokens of a client or gateway, or `CLIENT:RESOURCE`.

    A running portal notices within its polling interval and ends what is going on.
    """
    client, colon, resource = target.partition(":")
    with store.transaction():
        if colon:
            policy = set_policy(store, client, resource, allowed=False)
            return Revoked(peer=policy.client, resource=policy.resource)
        token = next((t for t in store.tokens() if t.id == target), None)
        if token is not None:
            return Revoked(token.peer, tokens=store.revoke_tokens(token=token.id, now_unix=now_unix))
        directory = store.directory()
        peer = peer_named(directory, target)
        _refuse_static(directory, peer)
        return Revoked(peer.name, tokens=store.revoke_tokens(peer_id=peer.id, now_unix=now_unix))


def _refuse_static(directory: Directory, peer: PeerRecord) -> None:
    if peer.id in directory.static_peers:
        raise InvalidValue(
            f"{peer.name} has a WireGuard key and no token.",
            f"Take its access away with: exeunt admin peer remove {peer.name}",
        )


def _new_peer(peer: PeerRecord, token: str, site: str | None) -> NewPeer:
    return NewPeer(peer.id, peer.name, token, peer.address_ipv4, peer.address_ipv6, site)


def _resource_row(directory: Directory, record: ResourceRecord) -> ResourceRow:
    clients = tuple(
        peer.name
        for peer in directory.peers.values()
        if peer.kind == "client" and directory.may_use(peer.id, record.id)
    )
    site = directory.sites[record.site_id].name
    return ResourceRow(record.id, record.name, record.address, site, clients, record.for_everyone)


def rfc3339(unix_s: float) -> str:
    """A time in Unix seconds as RFC 3339 UTC, with milliseconds."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
