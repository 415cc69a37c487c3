"""What a relay is started with, and what of that its machine must know.

What was not given is found out from the sockets that the relay listens on, so that on an ordinary host with
one address a secret is all that a relay needs.
"""

import socket
from collections.abc import Mapping
from ipaddress import ip_network

import msgspec

from exeunt.actors.turn import Listener, Origins, Settings

from .relay_sockets import WILDCARDS, Address, address_of, outbound_host, own_hosts


class RelayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay is started with."""

    secret: str
    """Shared with whoever issues credentials (see `exeunt.actors.turn.credentials`)."""
    listen: tuple[Address, ...] = (("0.0.0.0", 3478),)
    """Where clients reach it: at most one address per family. Port 0: any free one."""
    other_listen: tuple[Address, ...] = ()
    """A second address per family, of another host and port: for NAT behaviour discovery (RFC 5780)."""
    public_ipv4: str | None = None
    """What peers see relayed datagrams come from; None: found out, if it listens on IPv4."""
    public_ipv6: str | None = None
    """The same for IPv6."""
    other_public_ipv4: str | None = None
    """The host of the second IPv4 address as clients see it; None: the one that is listened on."""
    realm: str = "exeunt"
    min_port: int = 49152
    max_port: int = 65535
    default_lifetime_s: int = 600
    max_allocations: int = 4096
    max_allocations_per_user: int = 64
    max_allocations_per_gateway: int = 2048
    denied_peers: tuple[str, ...] = ()
    """Networks (CIDR) that no client may reach through the relay."""
    allow_loopback_peers: bool = False


class RelayStartError(Exception):
    """The relay can't start: an address that can't be bound or found, or settings that make no sense."""


def settings_for(
    config: RelayConfig, listening: Mapping[socket.AddressFamily, socket.socket], origins: tuple[Origins, ...] = ()
) -> Settings:
    """Answer the machine's settings, for a relay that listens on these bound sockets, and on those of `origins`.

    Raises:
        RelayStartError: there is no public address.
        ValueError: settings that make no sense.
    """
    public_ipv4 = config.public_ipv4 or _public_host(socket.AF_INET, listening)
    public_ipv6 = config.public_ipv6 or _public_host(socket.AF_INET6, listening)
    seen = tuple(_as_seen(each, config) for each in origins)
    own = _own_addresses(listening, public_ipv4, public_ipv6) | _corners(origins) | _corners(seen)
    return Settings(
        secret=config.secret,
        public_ipv4=public_ipv4,
        public_ipv6=public_ipv6,
        realm=config.realm,
        min_port=config.min_port,
        max_port=config.max_port,
        default_lifetime_s=config.default_lifetime_s,
        max_allocations=config.max_allocations,
        max_allocations_per_user=config.max_allocations_per_user,
        max_allocations_per_gateway=config.max_allocations_per_gateway,
        origins=seen,
        own_addresses=frozenset(own),
        denied_peers=tuple(ip_network(each, strict=False) for each in config.denied_peers),
        allow_loopback_peers=config.allow_loopback_peers,
    )


def _public_host(family: socket.AddressFamily, listening: Mapping[socket.AddressFamily, socket.socket]) -> str | None:
    if family not in listening:
        return None
    host = address_of(listening[family])[0]
    if host not in WILDCARDS:
        return host
    try:
        return outbound_host(family)
    except OSError as error:
        raise RelayStartError(f"no public address was given, and none was found: {error}") from error


def _own_addresses(listening: Mapping[socket.AddressFamily, socket.socket], *public: str | None) -> set[Address]:
    """Answer every address at which the listening sockets can be reached, so that none becomes a peer."""
    own: set[Address] = set()
    for each in listening.values():
        host, port = address_of(each)
        own.add((host, port))
        own.update((alias, port) for alias in public if alias is not None)
        if host in WILDCARDS:
            own.update((alias, port) for alias in own_hosts())
    return own


def _as_seen(bound: Origins, config: RelayConfig) -> Origins:
    """Answer the addresses by which clients know a pair: behind a one-to-one NAT not those that are bound."""
    first = config.public_ipv4 if bound.family == 4 else config.public_ipv6
    second = config.other_public_ipv4 if bound.family == 4 else None
    return Origins((first or bound.primary[0], bound.primary[1]), (second or bound.other[0], bound.other[1]))


def _corners(origins: tuple[Origins, ...]) -> set[Address]:
    """Answer all four addresses of each pair."""
    return {each.address(listener) for each in origins for listener in Listener}
