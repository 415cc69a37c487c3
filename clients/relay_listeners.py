"""The sockets at which clients reach a relay: one per address family, or four where it has another address.

Four are what NAT behaviour discovery needs (see `exeunt.actors.turn.discovery`). Each answer must leave from exactly
the address that it names, so none of the four may be bound to the wildcard address: the kernel would choose a sender.
"""

import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from exeunt.actors.turn import Listener, Origins

from .relay_config import RelayConfig, RelayStartError
from .relay_sockets import WILDCARDS, Address, address_of, family_of, udp_socket


class Listeners:
    """All sockets that clients may talk to, bound. Raises RelayStartError, and ValueError for what makes no sense."""

    def __init__(self, config: RelayConfig) -> None:
        self._primary: dict[socket.AddressFamily, socket.socket] = {}
        self._others: dict[tuple[socket.AddressFamily, Listener], socket.socket] = {}
        try:
            for address in config.listen:
                self._listen(address)
            for address in config.other_listen:
                self._listen_elsewhere(address)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[tuple[Listener, socket.socket]]:
        yield from ((Listener.PRIMARY, each) for each in self._primary.values())
        yield from ((listener, each) for (_, listener), each in self._others.items())

    @property
    def primary(self) -> Mapping[socket.AddressFamily, socket.socket]:
        """The announced one of each family."""
        return MappingProxyType(self._primary)

    def find(self, family: socket.AddressFamily, listener: Listener) -> socket.socket | None:
        """Answer a socket, if it is there."""
        return self._primary.get(family) if listener is Listener.PRIMARY else self._others.get((family, listener))

    @property
    def origins(self) -> tuple[Origins, ...]:
        """The pair of addresses of each family that has another one, as bound."""
        pairs = [
            Origins(address_of(self._primary[family]), address_of(bound))
            for (family, listener), bound in self._others.items()
            if listener is Listener.OTHER_BOTH
        ]
        return tuple(pairs)

    def close(self) -> None:
        """Close them all. Idempotent."""
        for _, each in self:
            each.close()
        self._primary.clear()
        self._others.clear()

    def _listen(self, address: Address) -> None:
        family = family_of(address[0])
        if family in self._primary:
            raise ValueError("A relay listens on one address per family.")
        self._primary[family] = _bound(address)

    def _listen_elsewhere(self, other: Address) -> None:
        family = family_of(other[0])
        primary = self._primary.get(family)
        if primary is None or (family, Listener.OTHER_BOTH) in self._others:
            raise ValueError("A relay has one other address per family, beside the one that it listens on.")
        host, port = address_of(primary)
        if host in WILDCARDS or other[0] in WILDCARDS:
            raise ValueError("With another address, the relay must listen on addresses that are named, on no wildcard.")
        # The port is chosen first, where any will do: both hosts use the same two.
        bound = self._others[family, Listener.OTHER_BOTH] = _bound(other)
        self._others[family, Listener.OTHER_PORT] = _bound((host, address_of(bound)[1]))
        self._others[family, Listener.OTHER_HOST] = _bound((other[0], port))


def _bound(address: Address) -> socket.socket:
    try:
        return udp_socket(address)
    except (OSError, OverflowError) as error:
        raise RelayStartError(f"{address[0]} port {address[1]} can't be bound: {error}") from error
