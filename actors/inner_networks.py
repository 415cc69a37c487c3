"""What the portal says about inner addresses, read once and made canonical.

The portal is trusted with who may reach what, and not with syntax: a malformed network in a list must cost that one
resource, not the session. Canonical, because routes and firewall entries are compared as text.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable

import msgspec

from .portal.messages import Client, Joined, Resource
from .portal.static import StaticPeer

logger = logging.getLogger(__name__)

Grant = tuple[str, str]
"""A client's address, and a network that it may reach."""


def readable_resources(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Return by id the resources of a type that we know, with canonical networks; log the unreadable ones."""
    found: dict[str, Resource] = {}
    for resource in resources:
        if resource.type != "cidr":
            continue  # a later version's
        try:
            found[resource.id] = canonical(resource)
        except ValueError:
            logger.warning("A resource is no network", extra={"event": "resource_malformed", "resource": resource.id})
    return found


def canonical(resource: Resource) -> Resource:
    """Return the resource with its network in canonical form. Raises ValueError when it is none."""
    return msgspec.structs.replace(resource, address=str(ipaddress.ip_network(resource.address)))


def client_addresses(client: Client | StaticPeer) -> tuple[str, ...]:
    """Return a client's tunnel addresses in canonical form. Raises ValueError when one is malformed."""
    addresses = (ipaddress.IPv4Address, client.address_ipv4), (ipaddress.IPv6Address, client.address_ipv6)
    return tuple(str(kind(text)) for kind, text in addresses if text)


def tunnel_addresses(joined: Joined) -> tuple[str, ...]:
    """Return our own tunnel addresses as the device takes them."""
    pairs = ((joined.address_ipv4, 32), (joined.address_ipv6, 128))
    return tuple(f"{address}/{bits}" for address, bits in pairs if address)


def host_networks(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return each address as the network that holds it alone."""
    return tuple(str(ipaddress.ip_network(address)) for address in addresses)


def grants(addresses: Iterable[str], network: str) -> frozenset[Grant]:
    """Pair a client's addresses with a network of the same IP version."""
    version = ipaddress.ip_network(network).version
    return frozenset((one, network) for one in addresses if ipaddress.ip_address(one).version == version)


def covers_internet(network: str) -> bool:
    """Say whether a network is a default route."""
    return ipaddress.ip_network(network).prefixlen == 0
