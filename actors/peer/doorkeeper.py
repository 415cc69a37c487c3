"""Who knocks? The doorkeeper of a worker takes the handshake initiations that belong to no connection that is known by
its address, and leads each one to the static peer whose key it claims to have.

Anybody may knock, so every step is cheap and bounded, the cheapest first: the first MAC, which only who knows our
public key can make; under load a cookie, and a limit for each address that has proven itself by one (`CookieChecker`);
then one Diffie-Hellman computation, which tells whose key it is. Only for a key that is known does a tunnel do the
rest.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..ice import Address, Sockets
from ..wireguard import Admitted, CookieChecker, MessageType, classify, pack_source, peek_static
from .way import Outlet, Way


class Guest(Protocol):
    """A static peer."""

    def take_initiation(self, datagram: bytes, way: Way) -> None:
        """Take an initiation that claims to be its."""


class Doorkeeper:
    """The doorkeeper for one key pair. `send` sends or drops; it is used on one event loop."""

    def __init__(self, private_key: bytes, *, send: Callable[[bytes, Way], object], now: Callable[[], float]) -> None:
        self._private_key = private_key
        self._gate = CookieChecker(X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw())
        self._send = send
        self._now = now
        self._guests: dict[bytes, Guest] = {}
        self.counters: Counter[str] = Counter()
        """What was turned away, by reason."""

    def __len__(self) -> int:
        return len(self._guests)

    def expect(self, public_key: bytes, guest: Guest) -> None:
        """Lead whoever has this key to a guest, and no more to another one."""
        self._guests[public_key] = guest

    def forget(self, public_key: bytes, guest: Guest) -> None:
        """Expect a guest no more. Idempotent."""
        if self._guests.get(public_key) is guest:
            del self._guests[public_key]

    def take_batch(self, host: str, buffer: memoryview, spans: array[int], source: Address, ecn: int) -> None:
        """Take what nobody else was known for. The shared sockets call this."""
        for start, size in zip(spans[::2], spans[1::2], strict=True):
            self.take(bytes(buffer[start : start + size]), Way(host, source))

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Nothing follows. The shared sockets call this."""

    def take(self, datagram: bytes, way: Way) -> None:
        """Take one datagram."""
        if classify(datagram) is not MessageType.INITIATION:
            self.counters["no_initiation"] += 1
            return
        verdict = self._gate.admit(datagram, pack_source(*way.address), self._now())
        if not isinstance(verdict, Admitted):
            self.counters[verdict.reason] += 1
            if verdict.cookie_reply is not None:
                self._send(verdict.cookie_reply, way)
            return
        guest = self._guests.get(peek_static(self._private_key, datagram) or b"")
        if guest is None:
            self.counters["stranger"] += 1
        else:
            guest.take_initiation(datagram, way)


class Door:
    """The doorkeeper at the shared sockets of a worker: there while somebody is expected."""

    def __init__(self, sockets: Sockets, private_key: bytes) -> None:
        self._sockets = sockets
        self.keeper = Doorkeeper(private_key, send=Outlet(sockets).send, now=sockets.now)

    def open(self, public_key: bytes, guest: Guest) -> None:
        """Expect a guest. Raises OSError when there is no socket that could listen."""
        if not len(self.keeper):
            self._sockets.acquire(self.keeper)
            self._sockets.table.listen(self.keeper)
        self.keeper.expect(public_key, guest)

    def close(self, public_key: bytes, guest: Guest) -> None:
        """Expect a guest no more. Idempotent."""
        expected = len(self.keeper)
        self.keeper.forget(public_key, guest)
        if expected and not len(self.keeper):
            self._sockets.release(self.keeper)
