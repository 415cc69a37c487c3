"""Tunnel addresses.

Each peer has a number, and the number is its place in one IPv4 and one IPv6 range. 100.64.0.0/11 lies in
the shared address space of RFC 6598, which home and company networks do not use; fd65:7865:756e::/64 is a
unique local prefix (RFC 4193) whose global id spells "exeun". Numbers are never given out twice, so that an
address in an old log still means the same peer.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

TUNNEL_IPV4 = IPv4Network("100.64.0.0/11")
TUNNEL_IPV6 = IPv6Network("fd65:7865:756e::/64")
MAX_NUMBER = TUNNEL_IPV4.num_addresses - 2
"""Without the network's own and the broadcast address."""


def tunnel_addresses(number: int) -> tuple[str, str]:
    """The IPv4 and IPv6 address of peer `number`, which counts from 1.

    Raises:
        ValueError: the ranges have no such place.
    """
    if not 1 <= number <= MAX_NUMBER:
        raise ValueError(f"no tunnel address for peer number {number}")
    return str(TUNNEL_IPV4[number]), str(TUNNEL_IPV6[number])


def resource_address(text: str) -> str:
    """The canonical CIDR of a resource; a bare address is the network of itself.

    Raises:
        ValueError: it is no CIDR, has bits set beyond its prefix, or lies in a tunnel range.
    """
    network = ip_network(text)
    for tunnel in (TUNNEL_IPV4, TUNNEL_IPV6):
        if network.version == tunnel.version and network.overlaps(tunnel):
            # The default route is a legitimate resource (all of the internet); the tunnels' own range is not.
            if network.prefixlen == 0:
                continue
            raise ValueError(f"{text} overlaps {tunnel}, which the tunnels themselves use")
    return str(network)


def host_and_port(text: str) -> tuple[str, int]:
    """`host:port`, `192.0.2.1:3478` or `[2001:db8::1]:3478`, taken apart.

    Raises:
        ValueError: it is none of them.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ip_address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, [2001:db8::1]:3478")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)
