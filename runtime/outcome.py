"""How a program ended."""

from __future__ import annotations

import msgspec

from .shutdown import PhaseReport


class Outcome(msgspec.Struct, frozen=True):
    """How the program ended."""

    failed: bool
    reason: str
    leftovers: tuple[str, ...] = ()
    """Processes that had to be killed at the very end; empty when all is well."""
    phases: tuple[PhaseReport, ...] = ()
    """How long each phase of the shutdown took, and what was cut off."""

    def __repr__(self) -> str:
        """Leave out what differs each time."""
        return f"Outcome(failed={self.failed}, reason={self.reason!r}, leftovers={self.leftovers})"
