"""Our side of handshakes that we begin: one attempt at a time, repeated until answered or given up.

Each repetition is a new initiation with a new ephemeral key, timestamp and index, so a late response to an earlier one
is not accepted, and the round trip measured is that of the message which was answered.
"""

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .handshake import SentInitiation, StaticKeys, TransportKeys, initiate
from .mac import MacSigner
from .noise import TimestampSource
from .wire import Response, encode_initiation


class FinishedAttempt(msgspec.Struct, frozen=True):
    """An attempt that the peer answered."""

    keys: TransportKeys
    rtt_s: float
    initiations: int


class Initiator:
    """Makes initiations to one peer and reads the responses.

    `wall_clock_ns` is read for the timestamp in an initiation. It cannot be the caller's monotonic `now`: the peer
    compares it with those of earlier lives of our key.
    """

    def __init__(self, keys: StaticKeys, signer: MacSigner, wall_clock_ns: Callable[[], int]) -> None:
        self._keys = keys
        self._signer = signer
        self._wall_clock_ns = wall_clock_ns
        self.timestamps = TimestampSource()
        """Of our initiations."""
        self._sent: SentInitiation | None = None
        self.started_at = 0.0
        """When the first initiation of the latest attempt left."""
        self.last_sent_at = float("-inf")
        """When the latest initiation left."""
        self.initiations = 0
        """How many initiations the latest attempt has sent."""

    @property
    def local_index(self) -> int | None:
        """The index that the awaited response will carry, or None when no attempt is under way."""
        return self._sent.local_index if self._sent else None

    def start(self, local_index: int, now: float) -> bytes:
        """Begin an attempt; return its first datagram."""
        self.started_at = now
        self.initiations = 0
        return self.repeat(local_index, now)

    def repeat(self, local_index: int, now: float) -> bytes:
        """Return one more initiation of the attempt under way; only this one can still be answered."""
        timestamp = self.timestamps.next(self._wall_clock_ns())
        message, self._sent = initiate(self._keys, local_index, timestamp, X25519PrivateKey.generate())
        self.last_sent_at = now
        self.initiations += 1
        return self._signer.sign(encode_initiation(message), local_index, now)

    def finish(self, response: Response, now: float) -> FinishedAttempt | None:
        """End the attempt with the peer's response; None when the response is not to the latest initiation.

        Raises:
            SealError: the response is forged; the attempt goes on.
        """
        if self._sent is None or self._sent.local_index != response.receiver:
            return None
        keys = self._sent.finish(response)
        self._sent = None
        return FinishedAttempt(keys, now - self.last_sent_at, self.initiations)

    def cancel(self) -> None:
        """End the attempt without a session, and forget its secrets."""
        self._sent = None
