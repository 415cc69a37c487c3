"""The last will of a connection: a goodbye that was sealed while all was well, and the way on which it is to be sent.

Deposited with the supervisor (`node.deposits`) whenever there is another session or another path, withdrawn when the
connection has ended in any way that it could tell of itself. If the worker dies instead, the supervisor sends it, and
the peer hears it from the address and under the keys that it knows.

Over a relay it goes as channel data, to the TURN server, through the socket to which the server has bound the channel
(RFC 8656, section 12). Over TLS nobody but ourselves can write, and a stream may have been left in the middle of a
message: there the link to the portal, which lives in another worker, is told the datagram, and has the portal pass it
on. It is sealed: for whoever carries it, it is some bytes.
"""

from __future__ import annotations

from typing import Protocol

from exeunt.runtime.deposits import Deposits
from exeunt.runtime.last_words import Told

from ..ice import Route


class WayOut(Protocol):
    """What it needs to know of an ICE agent."""

    def route(self) -> Route | None:
        """Return how somebody else could send on the path in use."""
        ...

    def channel_descriptor(self, channel: str) -> int | None:
        """Return the descriptor of a route's channel."""
        ...


class Will:
    """What is said for one connection, if its worker dies."""

    def __init__(self, deposits: Deposits, connection: str, portal_link: str) -> None:
        """`portal_link` is the address of the link's actor."""
        self._deposits = deposits
        self._key = connection
        self._portal_link = portal_link

    def renew(self, sealed: bytes | None, agent: WayOut) -> None:
        """Replace what was deposited: nothing is said when there is nothing to say, or no way to say it."""
        if sealed is None:
            self.withdraw()
            return
        route = agent.route()
        descriptor = None if route is None else agent.channel_descriptor(route.channel)
        told = Told(self._portal_link, sealed)
        if route is None or descriptor is None:
            self._deposits.put(self._key, None, b"", told=told)
            return
        self._deposits.put(
            self._key,
            descriptor,
            route.frame(sealed),
            destination=route.destination,
            source=route.source,
            told=told if route.padded else None,
        )

    def withdraw(self) -> None:
        """The connection has ended otherwise. Idempotent."""
        self._deposits.withdraw(self._key)
