"""What a NAT does, found out as RFC 5780 does: from several places, with several sockets.

*Filtering* (RFC 5780 section 4.4): after one datagram to a server, which other places may answer it? *Mapping* (section
4.3): does the port stay the same for another address, and for another port of the same address?
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from enum import StrEnum
from typing import NamedTuple, Self

from exeunt.clients.lab import Namespace

Address = tuple[str, int]
PORT, OTHER_PORT = 3478, 3479
INSIDE_PORT = 40_000
TIMEOUT_S = 5.0


class Dependence(StrEnum):
    """On what of the remote endpoint a NAT's behaviour depends (RFC 4787 sections 4.1 and 5)."""

    NONE = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address and port-dependent"


class Behaviour(NamedTuple):
    """What was found out about a NAT."""

    mapping: Dependence
    filtering: Dependence


class Probe:
    """A socket behind the NAT, and four places outside: two addresses with two ports each. A context manager."""

    def __init__(self, host: Namespace, own: str, outside: Namespace, servers: tuple[str, str]) -> None:
        self._stack = ExitStack()
        self.inside = self._open(host, own, INSIDE_PORT)
        first, second = servers
        self.first = self._open(outside, first, PORT)
        self.first_other_port = self._open(outside, first, OTHER_PORT)
        self.second = self._open(outside, second, PORT)
        self.second_other_port = self._open(outside, second, OTHER_PORT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def mapped(self, place: socket.socket) -> Address:
        """Where the socket appears to come from, at this place."""
        self.inside.sendto(b"who am I?", place.getsockname()[:2])
        host, port = place.recvfrom(100)[1][:2]
        return str(host), int(port)

    def admits(self, place: socket.socket, to: Address) -> bool:
        """Whether a datagram from here comes in; one that must come in is sent behind it to end the wait."""
        place.sendto(b"stranger", to)
        self.first.sendto(b"friend", to)
        is_admitted = self.inside.recvfrom(100)[0] == b"stranger"
        if is_admitted:
            assert self.inside.recvfrom(100)[0] == b"friend"
        return is_admitted

    def behaviour(self) -> Behaviour:
        """Find out both. Filtering comes first, since asking for the mapping tells the NAT of more places."""
        address = self.mapped(self.first)
        if self.admits(self.second_other_port, address):
            filtering = Dependence.NONE
        elif self.admits(self.first_other_port, address):
            filtering = Dependence.ADDRESS
        else:
            filtering = Dependence.ADDRESS_AND_PORT
        by_address, by_port = self.mapped(self.second), self.mapped(self.second_other_port)
        if by_address == by_port == address == self.mapped(self.first):
            mapping = Dependence.NONE
        elif by_address == by_port:
            mapping = Dependence.ADDRESS
        else:
            mapping = Dependence.ADDRESS_AND_PORT
        return Behaviour(mapping, filtering)

    def _open(self, place: Namespace, address: str, port: int) -> socket.socket:
        return self._stack.enter_context(udp(place, address, port))


def udp(place: Namespace, address: str, port: int = 0) -> socket.socket:
    """A UDP socket that lives in this namespace."""

    def inside() -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        bound.settimeout(TIMEOUT_S)
        try:
            bound.bind((address, port))
        except OSError:
            bound.close()
            raise
        return bound

    return place.run(inside)
