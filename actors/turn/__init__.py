"""The relay's protocol: a STUN and TURN server without sockets, and the credentials it accepts."""

from .counters import Counters
from .credentials import credentials
from .discovery import Listener, Origins
from .messages import AllocationClosed, AllocationOpened, CloseReason, Event, RelayedPortChosen, Transmit
from .server import Server
from .settings import Settings

__all__ = [
    "AllocationClosed",
    "AllocationOpened",
    "CloseReason",
    "Counters",
    "Event",
    "Listener",
    "Origins",
    "RelayedPortChosen",
    "Server",
    "Settings",
    "Transmit",
    "credentials",
]
