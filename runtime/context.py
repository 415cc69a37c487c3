"""What is being handled right now: the causality that every new envelope inherits.

A context variable, because it follows the handler into the tasks that the handler starts, and into the thread of a
`BlockingActor`. Outside a handler there is no context: what is sent then begins a trace of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class Context(NamedTuple):
    """The envelope being handled."""

    trace: int
    cause: int
    """Id of the envelope that is being handled."""
    address: str
    """Who handles it."""
    deadline_ns: int
    """CLOCK_MONOTONIC; 0 when nobody waits."""


CURRENT: ContextVar[Context | None] = ContextVar("exeunt_current", default=None)


def current() -> Context | None:
    """Return the context of the handler that runs, or None outside of one."""
    return CURRENT.get()
