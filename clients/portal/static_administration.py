"""What `exeunt admin peer` does: clients that speak WireGuard and nothing else, as functions on a store.

Such a client has a key instead of a token, and is given a tunnel address and a place in the policies like any other.
It does not sign in, so it must be told beforehand at which gateway to knock: one of the site, or those that are named.
"""

import base64
import binascii

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from exeunt.actors.portal.static import MAX_STATIC_PEERS, Listener

from .directory import Directory, PeerRecord, StaticPeerRecord
from .errors import InvalidValue, NotFound
from .naming import checked_host_and_port, checked_name, peer_named, resource_named, site_named
from .rows import NewStaticPeer, StaticPeerRow
from .store import Store
from .wg_quick import Tunnel, configuration, endpoint, key_text

_KEY_BYTES = 32
_MAX_KEEPALIVE_S = 65535  # as in wg(8)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a new static peer. Names are the administrator's."""

    public_key: bytes
    private_key: bytes | None = None
    """If it was made here; it is told once, and not kept."""
    preshared_key: bytes | None = None
    site: str | None = None
    gateways: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    """None named: whatever is for everyone."""
    endpoint: str = ""
    persistent_keepalive_s: int | None = None

    def __repr__(self) -> str:
        return "Wishes()"


def add(store: Store, name: str, wishes: Wishes, *, now_unix: float) -> NewStaticPeer:
    """A new static peer, with its configuration."""
    keepalive_s = wishes.persistent_keepalive_s
    if keepalive_s is not None and not 1 <= keepalive_s <= _MAX_KEEPALIVE_S:
        raise InvalidValue(f"A keepalive interval has 1 to {_MAX_KEEPALIVE_S} seconds.")
    if wishes.endpoint:
        checked_host_and_port(wishes.endpoint)
    with store.transaction():
        gateways = _gateways(store.directory(), wishes)
        listeners = store.static_peers.listeners()
        for gateway in gateways:
            _check_gateway(store.directory(), listeners, gateway)
            if wishes.public_key == listeners[gateway.id].public_key:
                raise InvalidValue("That is the gateway's own key.", "Give the peer's: wg pubkey < private-key")
        resources = [resource_named(store.directory(), one) for one in wishes.resources]
        for resource in resources:
            if resource.site_id not in {gateway.site_id for gateway in gateways}:
                raise InvalidValue(
                    f"{resource.name} cannot be reached through {gateways[0].name}.",
                    "Name a gateway of its site with --gateway.",
                )
        peer = store.add_peer("client", checked_name(name), None, now_unix)
        record = StaticPeerRecord(
            peer_id=peer.id,
            public_key=wishes.public_key,
            preshared_key=wishes.preshared_key,
            endpoint=wishes.endpoint,
            persistent_keepalive_s=keepalive_s,
            only_named=bool(resources),
            gateway_ids=tuple(gateway.id for gateway in gateways),
        )
        store.add_static_peer(record, tuple(one.id for one in resources))
        return _new(store, record, wishes.private_key)


def configuration_of(store: Store, name: str) -> NewStaticPeer:
    """A static peer's configuration as it would be now; its private key is not known here."""
    return _new(store, _static_named(store.directory(), name), None)


def listed(store: Store) -> list[StaticPeerRow]:
    """All static peers."""
    directory = store.directory()
    return [_row(directory, record) for record in directory.static_peers.values()]


def remove(store: Store, name: str) -> StaticPeerRow:
    """Remove a static peer. Its gateways let nothing of it through any more."""
    with store.transaction():
        directory = store.directory()
        row = _row(directory, _static_named(directory, name))
        store.remove_peer(row.id)
        return row


def read_key(text: str, what: str) -> bytes:
    """A key as WireGuard's tools write it.

    Raises:
        InvalidValue: it is none, or no key that WireGuard could use.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise InvalidValue(f"The {what} key is no WireGuard key.", "It has 44 characters: see wg pubkey and wg genpsk.")
    return key


def read_public_key(text: str) -> bytes:
    """A public key. Raises InvalidValue, also for a point of low order: nobody could keep a secret with it."""
    key = read_key(text, "public")
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise InvalidValue("The public key is none that WireGuard could use.") from None
    return key


def new_key_pair() -> tuple[bytes, bytes]:
    """A private key and its public one."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def _gateways(directory: Directory, wishes: Wishes) -> list[PeerRecord]:
    if wishes.gateways:
        return [peer_named(directory, one, "gateway") for one in dict.fromkeys(wishes.gateways)]
    site = site_named(directory, wishes.site)
    found = [peer for peer in directory.peers.values() if peer.site_id == site.id]
    if not found:
        raise NotFound(f"There is no gateway at {site.name} yet.", "Make one with: exeunt admin gateway add NAME")
    if len(found) > 1:
        raise InvalidValue(
            f"There are several gateways at {site.name}.", "Name one with --gateway, or more in order of preference."
        )
    return found


def _check_gateway(directory: Directory, listeners: dict[str, Listener], gateway: PeerRecord) -> None:
    if gateway.id not in listeners:
        raise InvalidValue(
            f"{gateway.name} does not listen for WireGuard peers, or has not joined since it does.",
            "Start it with: exeunt gateway run --listen 51820",
        )
    if sum(gateway.id in one.gateway_ids for one in directory.static_peers.values()) >= MAX_STATIC_PEERS:
        raise InvalidValue(
            f"{gateway.name} has {MAX_STATIC_PEERS} WireGuard peers already.", "Name another one with --gateway."
        )


def _static_named(directory: Directory, name: str) -> StaticPeerRecord:
    for record in directory.static_peers.values():
        if name in (record.peer_id, directory.peers[record.peer_id].name):
            return record
    raise NotFound(f"There is no WireGuard peer {name!r}.", "See: exeunt admin peer list")


def _row(directory: Directory, record: StaticPeerRecord) -> StaticPeerRow:
    peer = directory.peers[record.peer_id]
    return StaticPeerRow(
        id=peer.id,
        name=peer.name,
        public_key=key_text(record.public_key),
        address_ipv4=peer.address_ipv4,
        address_ipv6=peer.address_ipv6,
        gateways=tuple(directory.peers[one].name for one in record.gateway_ids),
        resources=tuple(directory.resources[one].name for one in _resource_ids(directory, record)),
        endpoint=record.endpoint or None,
    )


def _resource_ids(directory: Directory, record: StaticPeerRecord) -> list[str]:
    return [
        one
        for one in directory.resources
        if directory.may_use(record.peer_id, one)
        and any(directory.peers[gateway].site_id == directory.resources[one].site_id for gateway in record.gateway_ids)
    ]


def _new(store: Store, record: StaticPeerRecord, private_key: bytes | None) -> NewStaticPeer:
    directory = store.directory()
    row = _row(directory, record)
    listeners = store.static_peers.listeners()
    gateways = [(directory.peers[one].name, listeners[one]) for one in record.gateway_ids if one in listeners]
    tunnel = Tunnel(
        name=row.name,
        public_key=record.public_key,
        private_key=private_key,
        preshared_key=record.preshared_key,
        addresses=(row.address_ipv4, row.address_ipv6),
        networks=tuple(dict.fromkeys(directory.resources[one].address for one in _resource_ids(directory, record))),
        persistent_keepalive_s=record.persistent_keepalive_s,
    )
    return NewStaticPeer(
        peer=row,
        endpoint=next((endpoint(listener) for _, listener in gateways), None),
        configuration=configuration(tunnel, gateways),
    )
