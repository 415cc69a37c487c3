"""Child specifications: OTP's words as data.

A supervisor keeps worker processes, and actors in them. What to do when one ends is written here, once, by whoever
designs the tree; `supervision` decides by it and `Supervisor` carries it out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Restart(StrEnum):
    """When an ended child is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """When nobody asked it to end."""
    TEMPORARY = "temporary"
    """Never."""


class Strategy(StrEnum):
    """Who is restarted together with a failed child."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    """The failed child and those started after it."""


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An actor that a supervisor keeps."""

    id: str
    """Its name in its worker, and the supervisor's name for it."""
    worker: str
    start: str
    """`package.module:Class` of an `Actor`."""
    args: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Keyword arguments of its constructor: what msgpack can carry."""
    restart: Restart = Restart.PERMANENT
    shutdown_ms: int = 5_000
    """How long its `on_stop` may take; then it is killed. 0 is OTP's `brutal_kill`."""
    significant: bool = False
    """OTP's auto-shutdown: when it ends and is not restarted, the supervisor leaves."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a supervisor keeps, and that hosts actors."""

    name: str
    restart: Restart = Restart.PERMANENT
    shutdown_ms: int = 5_000
    unprivileged: bool = False
    """Drop every capability before the first actor starts (Linux)."""
    resources: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """What it needs of its machine, in the engine's words; only `ray` places by it: `{"CPU": 2, "cellar": 0.1}`."""


class Intensity(msgspec.Struct, frozen=True, kw_only=True):
    """How many restarts in how long are too many (OTP's defaults are 1 in 5 s; ours allow a flapping network)."""

    restarts: int = 5
    period_s: float = 10.0
