"""Our side of handshakes that the peer begins: authenticate, refuse replays, answer.

An initiation can be recorded and sent again; it would make us replace the waiting session and answer to nowhere. So
each carries a timestamp, and only one above the last accepted counts (WireGuard paper, section 5.1). A new tunnel for
the same key pair starts without that memory: there a replay still costs an answer, but never becomes a session, since
only who knows the ephemeral secret can send the first packet.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .drop import DropReason
from .handshake import StaticKeys, TransportKeys, read_initiation
from .mac import MacSigner
from .noise import SealError
from .timing import Limits
from .wire import decode_initiation, encode_response


class Responder:
    """Answers the initiations of one peer."""

    def __init__(self, keys: StaticKeys, signer: MacSigner, limits: Limits) -> None:
        self._keys = keys
        self._signer = signer
        self._limits = limits
        self.newest_timestamp = b""
        """Of the initiations accepted so far."""
        self._accepted_at = float("-inf")

    def answer(
        self, datagram: bytes | memoryview, new_index: Callable[[], int], now: float
    ) -> tuple[bytes, TransportKeys] | DropReason:
        """Return the response datagram and the new session's keys, or why there is none.

        The first MAC has been checked. Nothing changes before the initiation is proven to be the peer's and new.
        """
        if now < self._accepted_at + 1 / self._limits.initiations_per_second:
            return DropReason.RATE_LIMITED
        try:
            received = read_initiation(self._keys, decode_initiation(datagram))
            if received.timestamp <= self.newest_timestamp:
                return DropReason.REPLAYED_INITIATION
            local_index = new_index()
            response, keys = received.respond(local_index, X25519PrivateKey.generate())
        except SealError:
            return DropReason.BAD_HANDSHAKE
        self.newest_timestamp = received.timestamp
        self._accepted_at = now
        return self._signer.sign(encode_response(response), local_index, now), keys
