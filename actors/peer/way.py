"""Ways to static peers, and sending on them through a worker's shared sockets."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..ice import Address, Sockets
from ..ice.ancillary import Ancillary, sent_from
from ..ice.sockets import channel_of


class Way(NamedTuple):
    """How a peer is reached. `host` is the address of ours that it knows; empty: the kernel chooses one."""

    host: str
    address: Address


class Outlet:
    """Sends or drops, as everything here does."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    def reaches(self, address: Address) -> bool:
        """Say whether there is a socket for addresses of this family."""
        return self._sockets.sender(channel_of(address[0])) is not None

    def send(self, datagram: bytes | memoryview, way: Way) -> bool:
        """Send now or drop; tell which."""
        sender = self._sockets.sender(channel_of(way.address[0]))
        return sender is not None and sender.send(datagram, _from(way.host), way.address)

    def send_train(self, train: memoryview, stride: int, way: Way, ecn: int) -> int:
        """Send datagrams of `stride` bytes each, the last maybe shorter; return how many went."""
        sender = self._sockets.sender(channel_of(way.address[0]))
        return 0 if sender is None else sender.send_train(train, stride, _from(way.host), way.address, ecn)


@lru_cache(256)
def _from(host: str) -> Ancillary:
    return sent_from(host) if host else ()
