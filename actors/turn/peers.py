"""Which peers a client may reach through the relay.

A relay stands on somebody's machine and sends whatever its clients ask it to. So it must not be a way into
that machine: loopback, the relay's own listening socket (a loop), link-local addresses (metadata services
live there), multicast and broadcast are refused (403; RFC 8656 section 21.2 and 21.3). Private networks are
not refused, because a gateway may well live in one; an operator who wants that names them.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from .codec import Address
from .settings import Settings

THIS_NETWORK = ip_network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3; Linux takes 0.0.0.0 for itself


class PeerPolicy:
    """Decides, for an address, whether it may be a peer."""

    def __init__(self, settings: Settings) -> None:
        self._own = settings.own_addresses
        self._denied = settings.denied_peers
        self._loopback_is_allowed = settings.allow_loopback_peers

    def permits_host(self, host: str) -> bool:
        """Decide whether a permission for this IP address may be granted."""
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return False  # a refused IPv4 address would come in again this way
        if address.is_loopback:
            return self._loopback_is_allowed
        return not (
            address.is_multicast
            or address.is_unspecified
            or address.is_link_local
            # 240/4 with the broadcast address; in IPv6 all that the IETF holds back, and NAT64 with it.
            or address.is_reserved
            or address in THIS_NETWORK
            or self._is_denied(address)
        )

    def permits(self, peer: Address) -> bool:
        """Decide the same for an address with a port."""
        return peer[1] != 0 and peer not in self._own and self.permits_host(peer[0])

    def permits_port(self, peer: Address) -> bool:
        """Decide about the port only, for a host that was permitted before: cheap, for each datagram."""
        return peer[1] != 0 and peer not in self._own

    def _is_denied(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._denied)
