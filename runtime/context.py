"""What is being handled right now: the causality that every new envelope inherits.

A context variable that holds the envelope, because it follows the handler into the tasks that the handler starts, and
into the thread of a `BlockingActor`. Outside a handler there is none: what is sent then begins a trace of its own.
"""

from __future__ import annotations

from contextvars import ContextVar

from .envelope import Chain, Envelope, Kind

CURRENT: ContextVar[Envelope | None] = ContextVar("exeunt_current", default=None)


def current() -> Envelope | None:
    """Return the envelope that is being handled, or None outside of a handler."""
    return CURRENT.get()


def stand_in(trace: int, cause: int, address: str, deadline_ns: int = 0, chain: Chain = ()) -> Envelope:
    """Return what can be put where the handled envelope is, for work that belongs to a trace and handles no message:
    an actor's start, an answer that is given later, a command from outside.

    `cause` is the id that what is sent meanwhile names as its cause, `address` who sends it.
    """
    return Envelope(cause, trace, 0, "", address, Kind.SYSTEM, deadline_ns, None, chain)
