"""What `supervision` answers: facts about an end, and what is to be done about it."""

from __future__ import annotations

from typing import Generic, NamedTuple

import msgspec

from .family import LeafSpec


class Exit(NamedTuple):
    """The end of one member of the tree."""

    id: str
    reason: str


class Leaving(NamedTuple, Generic[LeafSpec]):
    """A leaf that is to be stopped."""

    spec: LeafSpec
    incarnation: int
    bounds: tuple[tuple[str, int], ...] = ()
    """(supervisor, milliseconds): so long all that is stopped below that supervisor may take together."""


class Decision(msgspec.Struct, Generic[LeafSpec], frozen=True, kw_only=True):
    """What to do about an exit. Without a `scope`: nothing."""

    by: str = ""
    """The supervisor that decided: the one that survives."""
    exits: tuple[Exit, ...] = ()
    """What ended, and then the supervisors whose end that was, innermost first."""
    stop: tuple[Leaving[LeafSpec], ...] = ()
    """These living leaves first, in this order (right to left). Those that are not in `start` are forgotten."""
    start: tuple[str, ...] = ()
    """Then these, in this order (left to right)."""
    delay_s: float = 0.0
    """Wait so long before the start."""
    scope: frozenset[str] = frozenset()
    """Every leaf whose fate this decides: what was decided about them before no longer holds."""
    give_up: bool = False
    """The root has restarted too much: stop everybody, and fail."""
    leave: bool = False
    """A significant child of the root has ended for good: stop everybody, and that is fine."""
