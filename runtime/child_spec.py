"""Child specifications: OTP's words as data.

A supervisor keeps worker processes, and actors in them. What to do when one ends is written here, once, by whoever
designs the tree; `supervision` decides by it and `Supervisor` carries it out. Supervisors nest: a `SupervisorSpec`
may stand wherever a `ChildSpec` may. It is data: no process and no actor belongs to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from .backoff import Backoff


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


class Intensity(msgspec.Struct, frozen=True, kw_only=True):
    """How many restarts in how long are too many (OTP's defaults are 1 in 5 s; ours allow a flapping network)."""

    restarts: int = 5
    period_s: float = 10.0


ROOT_ID = "/"
"""The id of every tree's root: no other member can have it."""

Patience: TypeAlias = int | Literal["infinity"]
"""Milliseconds that an end may take; then it is a kill. 0 is OTP's `brutal_kill`."""


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
    shutdown_ms: Patience = 5_000
    """How long its `on_stop` may take; then it is killed. 0 is OTP's `brutal_kill`."""
    significant: bool = False
    """OTP's auto-shutdown: when it ends and is not restarted, its supervisor ends. The root leaves."""
    hands_over: bool = False
    """When its worker hands over it is started again in the successor, also if it is temporary: it goes on there, and
    so has not ended.
    """
    backoff: Backoff | None = None
    """How long to wait before it is started again; None: as its supervisor says."""

    def __post_init__(self) -> None:
        _check(self.id, self.shutdown_ms)


class SupervisorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor below a supervisor: its children share a strategy and an intensity, and a fate.

    When they fail too often it stops them from right to left and ends itself, with the reason `restart_intensity`.
    Its parent then decides about it as about any child. When it is started again, all the children of its spec are,
    from left to right, also those that had ended for good; children that were added later are not.
    """

    id: str
    """Unique in the whole tree, as every id is."""
    children: Sequence[ChildSpec | SupervisorSpec]
    """From left to right in order of start."""
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Intensity = Intensity()
    restart: Restart = Restart.PERMANENT
    shutdown_ms: Patience = "infinity"
    """How long its parent lets it stop all its children; each child's own patience holds as well."""
    significant: bool = False
    backoff: Backoff | None = None
    """Before it is started again; also its children's, where they have none. None: as its supervisor says."""

    def __post_init__(self) -> None:
        _check(self.id, self.shutdown_ms)


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a supervisor keeps, and that hosts actors."""

    name: str
    restart: Restart = Restart.PERMANENT
    shutdown_ms: Patience = 5_000
    """How long its actors may take to stop when it is told to leave; then it is killed."""
    unprivileged: bool = False
    """Drop every capability before the first actor starts (Linux)."""
    hands_over: bool = False
    """When it is restarted on request, its actors are stopped with the reason `hand_over`, and may leave what they have
    to its successor (`inheritance`). Where that is not possible, it is killed as any other worker.
    """
    resources: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """What it needs of its machine, in the engine's words; only `ray` places by it: `{"CPU": 2, "cellar": 0.1}`."""
    significant: bool = False
    """When it ends and is not started again, the program leaves."""
    backoff: Backoff | None = None
    """How long to wait before it is started again; None: as the program says."""

    @property
    def id(self) -> str:
        """Its name: what the supervisor knows it by."""
        return self.name

    def __post_init__(self) -> None:
        _check(self.name, self.shutdown_ms)


def _check(name: str, shutdown_ms: Patience) -> None:
    if not name or ("/" in name and name != ROOT_ID):
        raise ValueError(f"a name is not empty and has no slash: {name!r}")
    if isinstance(shutdown_ms, int) and shutdown_ms < 0:
        raise ValueError(f"{name}: shutdown_ms is not negative: {shutdown_ms}")
