"""Datagrams that arrive in one piece or not at all, and all others, which may be cut up on their way.

IPv4 datagrams of a tunnel go without "don't fragment", as WireGuard sends them: where a link is too narrow they become
fragments, and not nothing. Only what measures the path must not be cut up (RFC 8899 section 3), so the bit is set for
the one call that sends it. What ICMP says of the path changes nothing in either case (`IP_PMTUDISC_OMIT` and
`IP_PMTUDISC_PROBE`, ip(7)): anybody can forge it.

In IPv6 no router fragments. There the kernel cuts up what is longer than ICMP says (RFC 8201), down to 1,280 bytes.
"""

import contextlib
import socket
from typing import Final, Protocol

from .agent import Route

_OPTIONS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),  # IP_MTU_DISCOVER
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),  # IPV6_MTU_DISCOVER
}
_PROBE, _OMIT = 3, 5
"""IP_PMTUDISC_*; the numbers of IPv6 are the same."""


class WayOut(Protocol):
    """What it needs to know of an ICE agent."""

    def send(self, datagram: bytes | memoryview) -> None:
        """Send on the path in use, or drop."""

    def route(self) -> Route | None:
        """Return how somebody else could send on the path in use."""
        ...

    def channel_descriptor(self, channel: str) -> int | None:
        """Return the descriptor of a route's channel."""
        ...


def permit_fragments(sock: socket.socket) -> None:
    """Have an IPv4 socket's datagrams be fragmented where need be; as far as the kernel knows that."""
    if sock.family == socket.AF_INET:
        with contextlib.suppress(OSError):
            sock.setsockopt(*_OPTIONS[socket.AF_INET], _OMIT)


def send_whole(agent: WayOut, datagram: bytes) -> None:
    """Send a datagram that nobody may fragment, or drop it: also where the path has no socket of its own."""
    route = agent.route()
    descriptor = None if route is None else agent.channel_descriptor(route.channel)
    if descriptor is None:
        return
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        return
    option = _OPTIONS.get(sock.family)
    try:
        if option is not None:
            before = sock.getsockopt(*option)
            sock.setsockopt(*option, _PROBE)
            agent.send(datagram)
            sock.setsockopt(*option, before)
    except OSError:
        return
    finally:
        sock.detach()  # it is somebody else's
