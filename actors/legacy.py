"""What an event loop leaves to its successor when the `control` worker is restarted: all that it has decided by, apart
from its configuration, which both have from their spec. It holds keys: it goes through memory only.
"""

from __future__ import annotations

import msgspec

from .inner_networks import Grant
from .loop_config import PeerRecord
from .peer.messages import RelayServer
from .portal.messages import Joined, Resource


class Expiry(msgspec.Struct, frozen=True):
    """An authorisation that ends by itself."""

    connection: str
    resource_id: str
    expires_at: int
    """Unix seconds."""


class Granted(msgspec.Struct, frozen=True):
    """What the firewall lets through for the sake of one resource of one connection."""

    connection: str
    resource_id: str
    grants: tuple[Grant, ...]


class LoopLegacy(msgspec.Struct, kw_only=True):
    """What both sides' event loops leave."""

    session: str
    joined: Joined | None
    resources: dict[str, Resource]
    relays: tuple[RelayServer, ...]
    peers: tuple[PeerRecord, ...]
    ended: tuple[str, ...]
    """Connections that must not come back to life."""
    problems: dict[str, str]
    expiries: tuple[Expiry, ...] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ClientLegacy(LoopLegacy, kw_only=True):
    """A client's."""

    requested: dict[str, float]
    """Times here are seconds of the monotonic clock, which all processes of a host share."""
    offline: tuple[str, ...]
    excluded: dict[str, float]
    dns: tuple[str, ...]
    uses_internet: bool


class GatewayLegacy(LoopLegacy, kw_only=True):
    """A gateway's."""

    granted: tuple[Granted, ...]
