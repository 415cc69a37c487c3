"""What the test and its agent processes tell each other: one JSON object a line, on stdin and stdout.

`Order`s go in, `Report`s come out; ``session`` is the number of the connect that each is about, chosen by the test.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from exeunt.actors.ice import IceServer, Lost, Path


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Make an agent, gather and connect."""

    session: int
    role: Literal["controlling", "controlled"]
    local: tuple[str, str]
    """Username fragment and password."""
    remote: tuple[str, str]
    servers: tuple[IceServer, ...]
    timeout_s: float
    relay_only: bool = False


class Hear(msgspec.Struct, frozen=True, tag="hear"):
    """A candidate of the peer; "" after the last."""

    session: int
    line: str
    generation: int


class Talk(msgspec.Struct, frozen=True, tag="talk"):
    """Send a datagram to the peer so often until `Close`; it is echoed."""

    session: int
    interval_s: float


class Hint(msgspec.Struct, frozen=True, tag="hint"):
    """Say that the network may have changed."""

    session: int


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw"):
    """A candidate of the peer that does not work any more."""

    session: int
    line: str
    generation: int


class Restart(msgspec.Struct, frozen=True, tag="restart"):
    """Find a path anew, with new credentials; `Restarted` or `Failed` follows."""

    session: int
    local: tuple[str, str]
    remote: tuple[str, str]
    generation: int
    timeout_s: float


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Close the agent; `Closed` follows."""

    session: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has started and takes orders."""


class Candidate(msgspec.Struct, frozen=True, tag="candidate"):
    """A candidate was found; "" after the last."""

    session: int
    line: str
    generation: int


class Withdrawn(msgspec.Struct, frozen=True, tag="withdrawn"):
    """A candidate that was told before does not work any more."""

    session: int
    line: str
    generation: int


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """`connect` returned."""

    session: int
    took_ms: float
    """Since gathering began."""


class Restarted(msgspec.Struct, frozen=True, tag="restarted"):
    """`restart` returned."""

    session: int
    generation: int
    took_ms: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`connect` or `restart` raised NeverConnected."""

    session: int
    reason: str


class PathTaken(msgspec.Struct, frozen=True, tag="path"):
    """The path was agreed on, or changed."""

    session: int
    path: Path


class Carried(msgspec.Struct, frozen=True, tag="carried"):
    """A datagram went to the peer and its echo came back."""

    session: int
    sent_s: float
    """When it was sent; on the machine's monotonic clock, which all processes share."""


class PathGone(msgspec.Struct, frozen=True, tag="lost"):
    """The path is lost."""

    session: int
    lost: Lost


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The agent is closed."""

    session: int
    counters: dict[str, int]


Order = Open | Hear | Withdraw | Talk | Hint | Restart | Close
SessionReport = Candidate | Withdrawn | Connected | Restarted | Failed | PathTaken | Carried | PathGone | Closed
Report = Ready | SessionReport
