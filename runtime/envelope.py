"""Messages, and the envelope that carries one.

A message is a frozen `msgspec.Struct` (subclass `Message`); its tag is its name and version. An `Envelope` is all that
ever crosses a process: who, to whom, why (trace and cause), until when, and the message.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

Chain = tuple[tuple[str, int], ...]
"""Who waits for an answer, outermost first: each an address, and the id of the envelope that it handles meanwhile."""


def _tag(name: str) -> str:
    return f"{name}/1"


class Message(msgspec.Struct, frozen=True, array_like=True, tag_field="tag", tag=_tag):
    """What actors say to each other: a frozen struct, registered by its class's name and version.

    Give `tag="Name/2"` in the class statement when a new version cannot be read by older code; adding fields with
    defaults at the end needs no new version.
    """


def _own_tag(name: str) -> str:
    return f"exeunt.{name}/1"


class RuntimeMessage(Message, frozen=True, tag=_own_tag):
    """A message of the runtime's own: no name of it is taken from those who use the runtime."""


class Kind(IntEnum):
    """What an envelope is for."""

    TELL = 1
    ASK = 2
    REPLY = 3
    """Answers the ask whose id is this envelope's `cause`."""
    FAILURE = 4
    """As REPLY, and the body is a `Failure`."""
    SYSTEM = 5
    """For the runtime itself: watch, stop. Does not wait behind ordinary messages."""


# The same as plain numbers: looking up a member of an enum costs more than comparing two numbers.
TELL, ASK, REPLY, FAILURE, SYSTEM = (int(kind) for kind in Kind)


LIFE_SHIFT = 40
"""The bits of an id that count; those above say which life of a worker it is of."""
LIVES = 1 << 24


class Envelope(msgspec.Struct, gc=False):
    """A message under way."""

    id: int
    """Unique in a node's life: 24 random bits of the worker, 40 bits counted."""
    trace: int
    """Id of the envelope that began it all."""
    cause: int
    """Id of the envelope during whose handling this was sent; 0 at the root. Of a reply: the ask's id."""
    sender: str
    to: str
    kind: int
    deadline_ns: int
    """Until when somebody waits, in nanoseconds of the machine's CLOCK_MONOTONIC; 0: nobody does."""
    body: Any
    """The message; a `Failure`; or None (an empty reply)."""
    chain: Chain = ()
    """Of an ask: who waits for it to be answered."""
    received_ns: int = 0
    """CLOCK_REALTIME of its arrival here; never crosses a process."""
    origin: str = ""
    """The worker whose flow-control window it takes up; empty for what was sent in this one."""
