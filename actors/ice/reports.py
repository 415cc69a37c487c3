"""What a session reports to the agent that holds it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .agent import Address, Lost, Path, RelayLoss, ignore

if TYPE_CHECKING:
    from .connection import IceConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCallbacks:
    """What a session calls, on its event loop."""

    on_candidate: Callable[[str, int], object]
    on_withdrawn: Callable[[str, int], object]
    on_batch: Callable[[int, memoryview, array[int], Address, int], object]
    """Data from a relay: the base, a buffer and spans in it, the peer's address at the relay, and the ECN field."""
    on_proven: Callable[[Address], object]
    """The peer has authenticated itself from this address."""
    on_path: Callable[[IceConnection, Path], object]
    on_quiet: Callable[[IceConnection], object]
    """Where `watches` was true: it is no more, and it may be said again."""
    on_broken: Callable[[IceConnection, RelayLoss], object]
    on_lost: Callable[[IceConnection, Lost], object]


NOBODY = SessionCallbacks(
    on_candidate=ignore,
    on_withdrawn=ignore,
    on_batch=ignore,
    on_proven=ignore,
    on_path=ignore,
    on_quiet=ignore,
    on_lost=ignore,
    on_broken=ignore,
)
