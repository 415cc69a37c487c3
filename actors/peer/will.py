"""The last will of a connection: a goodbye that was sealed while all was well, and the way on which it is to be sent.

Deposited with the supervisor (`node.deposits`) whenever there is another session or another path, withdrawn when the
connection has ended in any way that it could tell of itself. If the worker dies instead, the supervisor sends it, and
the peer hears it from the address and under the keys that it knows.

Over a relay it goes as channel data, to the TURN server, through the socket to which the server has bound the channel
(RFC 8656, section 12). Over TLS nobody but ourselves can write, so there is none; the peer then learns from the portal.
"""

from __future__ import annotations

import struct

from exeunt.runtime.deposits import Deposits

_LENGTH = struct.Struct("!H")
_CHANNEL_BYTES = 2


class Will:
    """What is said for one connection, if its worker dies."""

    def __init__(self, deposits: Deposits, connection: str) -> None:
        self._deposits = deposits
        self._key = connection

    def renew(
        self,
        sealed: bytes | None,
        descriptor: int | None,
        *,
        destination: tuple[str, int] | None = None,
        source: str | None = None,
        channel: bytes = b"",
    ) -> None:
        """Replace what was deposited; nothing is said when there is nothing to say, or no way to say it.

        `descriptor` is of the socket that the path leaves from, `channel` the TURN channel's number, two bytes, if it
        leads over a relay of ours.
        """
        if sealed is None or descriptor is None:
            self.withdraw()
            return
        if channel:
            # A sealed packet is a multiple of 16 bytes: on a stream no padding follows it (RFC 8656, section 12.5).
            sealed = channel[:_CHANNEL_BYTES] + _LENGTH.pack(len(sealed)) + sealed
        self._deposits.put(self._key, descriptor, sealed, destination=destination, source=source)

    def withdraw(self) -> None:
        """The connection has ended otherwise. Idempotent."""
        self._deposits.withdraw(self._key)
