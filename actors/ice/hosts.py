"""The addresses of this host that may be offered to a peer (RFC 8445 section 5.1.1.1), and those of servers."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable

import psutil

from .agent import Address

MAX_HOST_ADDRESSES = 16
"""More (a container host has hundreds) would make more pairs than an agent may check."""


def is_offerable(host: str) -> bool:
    """Whether a peer elsewhere might reach the address: the filter that applies when none is configured."""
    address = ipaddress.ip_address(host)
    return not (address.is_loopback or address.is_link_local)


def host_addresses(accepts: Callable[[str], bool] | None) -> list[str]:
    """List this host's unicast addresses that the filter accepts, in the system's order, loopback last."""
    accepts = accepts or is_offerable
    found: list[str] = []
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            if entry.family not in (socket.AF_INET, socket.AF_INET6) or "%" in entry.address:
                continue
            host = str(ipaddress.ip_address(entry.address))
            if host not in found and accepts(host):
                found.append(host)
    found.sort(key=lambda host: ipaddress.ip_address(host).is_loopback)
    return found[:MAX_HOST_ADDRESSES]


async def resolve(host: str, port: int) -> list[Address]:
    """Resolve a server's name; an address needs no lookup. Raises OSError."""
    try:
        return [(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except UnicodeError as error:  # not a name that DNS could know
        raise OSError("the server's name is not well-formed") from error
    return list(dict.fromkeys((str(sockaddr[0]), port) for *_, sockaddr in found))
