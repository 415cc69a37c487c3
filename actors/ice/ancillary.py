"""What the kernel says beside a datagram: where it arrived, and what ICMP reported about one that was sent.

A socket that is bound to no address in particular has to be told from which one to send, and to ask at which one a
datagram arrived (IP_PKTINFO, RFC 3542 section 6 for IPv6). ICMP errors of such a socket come through its error queue
(IP_RECVERR, ip(7)): what failed, and the destination that it concerns.
"""

import errno
import socket
import struct
import sys
from functools import lru_cache

IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO = 8, 49, 50
IP_RECVERR, IPV6_RECVERR = 11, 25
MSG_ERRQUEUE = 0x2000
"""Linux's numbers; Python 3.11's `socket` has not all of them."""
ANCILLARY_BYTES = 64
"""Room for one address, and for nothing else: no other option is asked for."""
ERROR_BYTES = 256

Ancillary = list[tuple[int, int, bytes]]

_PKTINFO = struct.Struct("=i4s4s")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_FROM_ICMP = (2, 3)
"""SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6."""
UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EACCES})
"""What somebody on the way said of a destination. Anybody can say it, so it is a hint and no more."""


def sent_from(host: str) -> Ancillary:
    """Return what makes a datagram leave with this source address."""
    if ":" in host:
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, host) + bytes(4))]
    return [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, socket.inet_aton(host), bytes(4)))]


def arrived_at(received: Ancillary) -> str | None:
    """Return the local address that a datagram was sent to; None if the kernel did not say."""
    for level, kind, data in received:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return _host(data[4:8])
        if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            return _host(data[:16])
    return None


def reported(received: Ancillary) -> int | None:
    """Return the errno that ICMP stands for in an entry of the error queue; None: it did not come from ICMP."""
    for level, kind, data in received:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
            return number if origin in _FROM_ICMP else None
    return None


def prepare(sock: socket.socket) -> None:
    """Ask the kernel for both, as far as it has them."""
    if not sys.platform.startswith("linux"):
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


@lru_cache(maxsize=1024)
def _host(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
