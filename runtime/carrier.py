"""What a node asks of whatever carries its envelopes to other workers: ZeroMQ (`transport`) or memory (`memory`)."""

from __future__ import annotations

from typing import Protocol


class Carrier(Protocol):
    """The way from one worker to the others. On its loop only."""

    def connect(self, worker: str, address: str, public_key: str = "", /) -> None:
        """Reach `worker` there from now on; the way to its predecessor is dropped. `public_key`: between machines."""

    def disconnect(self, worker: str, /) -> None:
        """Forget `worker`; what was not sent to it is dropped."""

    def send(self, worker: str, encoded: bytes, /) -> bool:
        """Send what `Codec.encode` gave; False when the worker is unknown. Never blocks."""
        ...

    def close(self) -> None:
        """Send what waits, then close."""
