"""UDP sockets and addresses as the relay needs them."""

import errno
import resource
import socket

from aioice.ice import get_host_addresses

from exeunt.actors.ice.ancillary import prepare_trains
from exeunt.actors.ice.whole import permit_fragments

Address = tuple[str, int]
WILDCARDS = ("0.0.0.0", "::")

# 1 MiB holds about 60 ms of 1,200-byte datagrams at 100 Mbit/s, the kernel's own accounting included.
RECEIVE_BUFFER_BYTES = 1 << 20


def udp_socket(address: Address) -> socket.socket:
    """Bind a non-blocking UDP socket; an IPv6 one takes IPv6 only. Raises OSError."""
    bound = socket.socket(family_of(address[0]), socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        prepare_trains(bound)
        permit_fragments(bound)  # as RFC 8656 section 14.9 leaves it to a relay where no DONT-FRAGMENT is asked for
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def allow_sockets(count: int) -> int:
    """Have this process open so many sockets, as far as its hard limit goes; answer how many of them it may open.

    The soft limit is 1,024 nearly everywhere, for the sake of programs that call select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def family_of(host: str) -> socket.AddressFamily:
    """Answer the address family of an IP address in text form."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address_of(bound: socket.socket) -> Address:
    """Answer where a socket is bound."""
    host, port = bound.getsockname()[:2]
    return str(host), int(port)


def outbound_host(family: socket.AddressFamily) -> str:
    """Answer the address that our datagrams to the world leave from. Nothing is sent; raises OSError."""
    # Documentation addresses (RFC 5737, RFC 3849): only the routing table is asked.
    remote = "198.51.100.1" if family == socket.AF_INET else "2001:db8::1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((remote, 9))
        return address_of(probe)[0]


def own_hosts() -> list[str]:
    """Answer every address of this machine; of the loopback ones the usual two."""
    return [*get_host_addresses(use_ipv4=True, use_ipv6=True), "127.0.0.1", "::1"]


def errno_name(error: OSError) -> str:
    """Answer an error's short name, such as ``ENETUNREACH``: what errors are counted by."""
    return errno.errorcode.get(error.errno or 0, "unknown")
