"""The relay's protocol: a STUN and TURN server without sockets, and the credentials it accepts."""

from .counters import Counters
from .credentials import credentials
from .messages import AllocationClosed, AllocationOpened, CloseReason, Event, RelayedPortChosen, Transmit
from .server import Server
from .settings import Settings

__all__ = [
    "AllocationClosed",
    "AllocationOpened",
    "CloseReason",
    "Counters",
    "Event",
    "RelayedPortChosen",
    "Server",
    "Settings",
    "Transmit",
    "credentials",
]
