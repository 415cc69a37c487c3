"""What a node asks of whatever carries its envelopes to other workers: ZeroMQ (`transport`) or memory (`memory`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .codec import Run
from .envelope import Envelope
from .errors import Unencodable


class Carrier(Protocol):
    """The way from one worker to the others. On its loop only."""

    unsendable: Callable[[Envelope, Unencodable], None]
    """Told of an envelope that turned out not to be encodable; the node sets it."""
    sent: Callable[[Run], None] | None
    """Told of each run that leaves; the node sets it if it keeps a record."""

    def connect(self, worker: str, address: str, public_key: str = "", /) -> None:
        """Reach `worker` there from now on; the way to its predecessor is dropped. `public_key`: between machines."""

    def disconnect(self, worker: str, /) -> None:
        """Forget `worker`; what was not sent to it is dropped."""

    def knows(self, worker: str, /) -> bool:
        """Say whether `worker` can be sent to."""
        ...

    def send(self, worker: str, envelope: Envelope, /) -> bool:
        """Send, with the rest of the loop's turn; False when the worker is unknown. Never blocks.

        Raises UnknownMessage when the message's type may not cross.
        """
        ...

    def close(self) -> None:
        """Send what waits, then close."""
