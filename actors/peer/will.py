"""The last will of a connection: a goodbye that was sealed while all was well, and the way on which it is to be sent.

Deposited with the supervisor (`node.deposits`) whenever there is another session or another path, withdrawn when the
connection has ended in any way that it could tell of itself. If the worker dies instead, the supervisor sends it, and
the peer hears it from the address and under the keys that it knows.

Over a relay it goes as channel data, to the TURN server, through the socket to which the server has bound the channel
(RFC 8656, section 12). Over TLS nobody but ourselves can write, so there is none; the peer then learns from the portal.
"""

from __future__ import annotations

from exeunt.runtime.deposits import Deposits

from ..ice import Route


class Will:
    """What is said for one connection, if its worker dies."""

    def __init__(self, deposits: Deposits, connection: str) -> None:
        self._deposits = deposits
        self._key = connection

    def renew(self, sealed: bytes | None, route: Route | None, descriptor: int | None) -> None:
        """Replace what was deposited: nothing is said when there is nothing to say, or no way to say it. `descriptor`
        is the route's channel's.
        """
        if sealed is None or route is None or descriptor is None:
            self.withdraw()
            return
        self._deposits.put(
            self._key, descriptor, route.frame(sealed), destination=route.destination, source=route.source
        )

    def withdraw(self) -> None:
        """The connection has ended otherwise. Idempotent."""
        self._deposits.withdraw(self._key)
