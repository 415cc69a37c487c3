"""What the relay's machine tells the shell around it.

`Transmit` goes out through a socket; the events are facts about allocations. One of them asks for an answer:
after `RelayedPortChosen` the shell opens that port and says so with ``handle_port_opened`` or
``handle_port_refused``.
"""

from enum import StrEnum

import msgspec

from .codec import Address
from .discovery import Listener


class Transmit(msgspec.Struct, frozen=True):
    """A datagram to send."""

    data: bytes
    destination: Address
    allocation: int | None
    """Through which socket: that of an allocation, or (None) the one that clients talk to."""
    listener: Listener = Listener.PRIMARY
    """Which of those that clients talk to."""


class CloseReason(StrEnum):
    """Why an allocation ended."""

    RELEASED = "released"
    """The client gave it back: Refresh with lifetime 0."""
    EXPIRED = "expired"
    """The client did not refresh it in time."""
    NO_PORT = "no_port"
    """No port could be opened for it; the client was told 508."""
    SERVER_LEFT = "server_left"
    """The relay itself is leaving."""


class RelayedPortChosen(msgspec.Struct, frozen=True):
    """An allocation was granted and needs its port opened: tried at random, until one is free."""

    allocation: int
    family: int
    """4 or 6."""
    port: int


class AllocationOpened(msgspec.Struct, frozen=True):
    """A client was told its relayed address."""

    allocation: int
    identifier: str
    lifetime_s: int


class AllocationClosed(msgspec.Struct, frozen=True):
    """An allocation ended: its socket must be closed."""

    allocation: int
    identifier: str
    reason: CloseReason
    duration_s: float
    rx_bytes: int
    """Payload that came from peers."""
    tx_bytes: int
    """Payload that went to peers."""


Event = RelayedPortChosen | AllocationOpened | AllocationClosed
