"""What the kernel says beside a datagram: where it arrived, and what ICMP reported about one that was sent.

A socket that is bound to no address in particular has to be told from which one to send, and to ask at which one a
datagram arrived (IP_PKTINFO, RFC 3542 section 6 for IPv6). ICMP errors of such a socket come through its error queue
(IP_RECVERR, ip(7)): what failed, and the destination that it concerns. With a train of datagrams comes the length of
each (UDP_GRO, udp(7)), and goes (UDP_SEGMENT); the ECN field of the outer header (RFC 3168) comes with each, and goes.
"""

import contextlib
import errno
import socket
import struct
import sys
from functools import lru_cache
from typing import NamedTuple

IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO = 8, 49, 50
IP_RECVERR, IPV6_RECVERR = 11, 25
MSG_ERRQUEUE = 0x2000
IP_TOS, IP_RECVTOS, IPV6_RECVTCLASS, IPV6_TCLASS = 1, 13, 66, 67
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
"""Linux's numbers; Python 3.11's `socket` has not all of them."""
ANCILLARY_BYTES = 128
"""Room for one address, a length and a traffic class: nothing else is asked for."""
ERROR_BYTES = 512
ECN_MASK = 3

EMPTY = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR})
"""What a call says of a socket that has nothing now."""

Ancillary = tuple[tuple[int, int, bytes], ...]

_PKTINFO = struct.Struct("=i4s4s")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_FROM_HERE, _FROM_ICMP = (1,), (2, 3)
"""SO_EE_ORIGIN_LOCAL; SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6."""
UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EACCES})
"""What somebody on the way said of a destination. Anybody can say it, so it is a hint and no more."""


@lru_cache(maxsize=64)
def sent_from(host: str) -> Ancillary:
    """Return what makes a datagram leave with this source address."""
    if ":" in host:
        return ((socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, host) + bytes(4)),)
    return ((socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, socket.inet_aton(host), bytes(4))),)


def marked(family: int, ecn: int) -> Ancillary:
    """Return what makes a datagram leave with this ECN field."""
    if not ecn:
        return ()
    if family == socket.AF_INET6:
        return ((socket.IPPROTO_IPV6, IPV6_TCLASS, struct.pack("=i", ecn)),)
    return ((socket.IPPROTO_IP, IP_TOS, struct.pack("=i", ecn)),)


def segmented(stride: int) -> tuple[int, int, bytes]:
    """Return what makes the kernel cut what is sent into datagrams of this length; only the last may be shorter."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", stride)


class Arrival(NamedTuple):
    """What the kernel says of something that arrived."""

    host: str | None
    """The local address that it was sent to; None: not known."""
    segment: int = 0
    """It is a train of datagrams of this length; 0: one datagram."""
    ecn: int = 0


@lru_cache(maxsize=1024)
def arrival_of(received: Ancillary) -> Arrival:
    """Read what came with something. Mostly it is one of a few, hence the cache; who invents others only empties it."""
    host, segment, ecn = None, 0, 0
    for level, kind, data in received:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            host = _host(data[4:8])
        elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            host = _host(data[:16])
        elif (level, kind) in ((socket.IPPROTO_IP, IP_TOS), (socket.IPPROTO_IPV6, IPV6_TCLASS)):
            ecn = int.from_bytes(data, sys.byteorder) & ECN_MASK  # one byte, or an int
        elif (level, kind) == (SOL_UDP, UDP_GRO):
            segment = int.from_bytes(data, sys.byteorder)
    return Arrival(host, segment, ecn)


@lru_cache(maxsize=1024)
def arrived(place: bytes) -> Arrival:
    """Read the same from one byte of the ECN field and the local address, which may be missing; without a segment."""
    return Arrival(_host(place[1:]) if len(place) > 1 else None, 0, place[0])


class Reported(NamedTuple):
    """An entry of the error queue."""

    errno: int
    info: int
    """With EMSGSIZE the largest packet that fits, in bytes; 0: not known."""


def reported(received: Ancillary) -> Reported | None:
    """Return what ICMP, or of the length this host, says of a datagram that was sent; None: it says something else."""
    for level, kind, data in received:
        if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
            number, origin, _, _, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
            if origin in _FROM_ICMP or (origin in _FROM_HERE and number == errno.EMSGSIZE):
                return Reported(number, info if number == errno.EMSGSIZE else 0)
            return None
    return None


def has_segmentation(sock: socket.socket) -> bool:
    """Say whether the kernel cuts trains that are sent."""
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


def prepare_trains(sock: socket.socket) -> bool:
    """Ask for trains and for the ECN field, as far as the kernel has them; say whether there may be trains."""
    with contextlib.suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def prepare(sock: socket.socket) -> None:
    """Ask the kernel for addresses and errors, as far as it has them."""
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
