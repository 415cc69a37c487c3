"""The states of one connection, and how it moves between them: data only. `machine` moves by it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

State = Literal["connecting", "established", "closing", "lingering", "ended"]

TRANSITIONS: Mapping[State, Mapping[str, State]] = MappingProxyType(
    {
        "connecting": {
            "handshake": "established",
            "close": "ended",
            "failed": "ended",
            "lost": "ended",
            "goodbye": "lingering",
        },
        "established": {"close": "closing", "goodbye": "lingering", "lost": "ended", "failed": "ended"},
        "closing": {"acknowledged": "ended", "goodbye": "lingering", "deadline": "ended", "lost": "ended"},
        "lingering": {"deadline": "ended"},
        "ended": {},
    }
)

DEADLINES: Final[Mapping[State, str]] = MappingProxyType(
    {
        "connecting": "the initiator's handshake is overdue",
        "closing": "goodbye deadline",
        "lingering": "linger is over",
    }
)
"""What each state's deadline is for."""
