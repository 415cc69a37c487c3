"""What a connection's machine tells its owner: past-tense facts, and what it wants of those who find paths."""

from __future__ import annotations

from typing import Any

import msgspec

from ..endings import Cause, Initiator
from .restarts import RestartWanted


class Connected(msgspec.Struct, frozen=True):
    """The first handshake is complete: packets flow."""

    handshake_rtt_ms: float


class SessionChanged(msgspec.Struct, frozen=True):
    """The tunnel's keys are other ones: `seal_last_will` gives another datagram."""


class PongReceived(msgspec.Struct, frozen=True):
    """A probe of ours came back. `token` is what `handle_ping` was given."""

    token: int
    rtt_ms: float


class PathDoubted(msgspec.Struct, frozen=True):
    """Have ICE check the path urgently: the peer may be gone."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The connection ended, and this is why."""

    cause: Cause
    initiated_by: Initiator
    evidence: dict[str, Any]
    detection_ms: float | None
    acknowledged: bool | None


Event = Connected | SessionChanged | PongReceived | PathDoubted | RestartWanted | Ended
