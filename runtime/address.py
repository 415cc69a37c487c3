"""Where an actor lives: `node/worker/name`.

A *node* is one running program, a *worker* one of its processes, a *name* one actor in it. An address survives a
restart of its actor; what tells predecessor from successor is the incarnation, a number that the supervisor counts
up.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PART = re.compile(r"[A-Za-z0-9$_.:@-]{1,100}")


class Address(NamedTuple):
    """The address of an actor, the same from near and far."""

    node: str
    worker: str
    name: str

    def __str__(self) -> str:
        return f"{self.node}/{self.worker}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `node/worker/name`. Raises ValueError when it isn't one."""
        parts = text.split("/")
        if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
            raise ValueError(f"not an address (node/worker/name): {text[:120]!r}")
        return cls(*parts)
