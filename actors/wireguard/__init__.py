"""The WireGuard protocol, pure: bytes and times in, bytes and events out.

`Tunnel` is one peer. `CookieChecker` stands in front of all tunnels of one key pair. `classify`, `receiver_index` and
`peek_static` find the tunnel a datagram belongs to. Read `tunnel.py` first; `timing.py` has every number.
"""

from .cookie import Admitted, CookieChecker, Gate, Refused, pack_source
from .drop import DropReason
from .events import HandshakeCompleted, HandshakeFailed, SessionExpired, TunnelEvent
from .handshake import peek_static
from .index import PrefixedIndices
from .snapshot import TunnelSnapshot
from .timing import ICE_REKEY_ATTEMPT_TIME_S, Limits
from .transport import Frame
from .tunnel import Tunnel
from .wire import MessageType, classify, receiver_index

__all__ = [
    "ICE_REKEY_ATTEMPT_TIME_S",
    "Admitted",
    "CookieChecker",
    "DropReason",
    "Frame",
    "Gate",
    "HandshakeCompleted",
    "HandshakeFailed",
    "Limits",
    "MessageType",
    "PrefixedIndices",
    "Refused",
    "SessionExpired",
    "Tunnel",
    "TunnelEvent",
    "TunnelSnapshot",
    "classify",
    "pack_source",
    "peek_static",
    "receiver_index",
]
