"""The runtime's own messages: watching, stopping, and the talk between a supervisor and its workers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .envelope import Message, RuntimeMessage
from .errors import Failure
from .events import EVENTS

NORMAL_REASONS = frozenset({"normal", "shutdown"})
ABNORMAL_REASONS = frozenset({"crashed", "killed", "worker_died", "no_such_actor", "linked"})


class Watch(RuntimeMessage, frozen=True):
    """The sender wants to know when the recipient ends."""

    watch: int = 0
    """The watch's id."""


class Unwatch(RuntimeMessage, frozen=True):
    """The sender no longer wants to know."""

    watch: int = 0


class Link(RuntimeMessage, frozen=True):
    """The sender has tied itself to the recipient, which is to tie itself to the sender."""


class Unlink(RuntimeMessage, frozen=True):
    """The sender has undone a link."""


class Terminated(RuntimeMessage, frozen=True):
    """An actor that you watch has ended."""

    address: str
    reason: str
    """`normal`, `shutdown` or another stop reason; `crashed`, `killed`, `worker_died`, `no_such_actor`."""
    incarnation: int = 0
    failure: Failure | None = None
    watch: int = 0
    """Which watch this answers; the runtime's business."""

    @property
    def abnormal(self) -> bool:
        """Say whether nobody asked it to end."""
        return self.reason in ABNORMAL_REASONS


class Stop(RuntimeMessage, frozen=True):
    """Stop: after the current message, after all that waits (`drain`), or at once (`kill`)."""

    reason: str = "shutdown"
    how: Literal["stop", "drain", "kill"] = "stop"
    incarnation: int = 0
    """Whom this is for; 0: whoever lives there."""


class Cancel(RuntimeMessage, frozen=True):
    """Nobody waits for the answer of this ask any more."""

    ask: int


class Settled(RuntimeMessage, frozen=True):
    """A worker to another: what became of your tells to these actors here has been decided (see `flow`)."""

    rows: tuple[tuple[str, Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]], ...]
    """Actor, the id of the last tell that has been dealt with, and its window: how many may be under way."""


class StartActor(RuntimeMessage, frozen=True):
    """Supervisor to a worker's host: start this actor. Answered by `ActorStarted`, or fails."""

    name: str
    start: str
    """`package.module:Class`."""
    args: msgspec.Raw
    """msgpack of the keyword arguments."""
    incarnation: int = 1


class StopActor(RuntimeMessage, frozen=True):
    """Supervisor to a worker's host: stop this actor, and kill it if that takes too long. Answered with `Done` once it
    has ended, also when there was none.
    """

    name: str
    reason: str
    shutdown_ms: int
    """-1: as long as it takes."""
    incarnation: int = 0
    """Only this one; 0: whoever lives there."""


class ActorStarted(RuntimeMessage, frozen=True):
    """The actor's `on_start` has run."""

    address: str


class ActorExited(RuntimeMessage, frozen=True):
    """A worker's host to the supervisor: an actor has ended."""

    name: str
    worker: str
    incarnation: int
    reason: str
    failure: Failure | None = None


class WorkerReady(RuntimeMessage, frozen=True):
    """A worker's host to the supervisor: the process is up and listens."""

    worker: str
    epoch: int
    pid: int


class WorkerUp(RuntimeMessage, frozen=True):
    """Supervisor to every worker: this one can be reached there. Answered with `Done`."""

    worker: str
    epoch: int
    endpoint: str
    public_key: str = ""
    """Between machines: its CURVE key."""


class WorkerDown(RuntimeMessage, frozen=True):
    """Supervisor to every worker: this one is gone; fail what waits for it. Answered with `Done`."""

    worker: str
    epoch: int
    ring: str = ""
    """Its flight recorder's file, which says what it had handled."""
    succeeded: bool = False
    """It has handed over: what is for its actors waits for the successor."""


class WorkerChanging(RuntimeMessage, frozen=True):
    """Supervisor to every worker: this one is about to hand over; keep what is for its actors. Answered with `Done`."""

    worker: str


class LastWords(RuntimeMessage, frozen=True):
    """Supervisor to an actor: a worker has died that left this to be said (`node.deposits`), each under its key."""

    worker: str
    words: dict[str, bytes]


class Done(RuntimeMessage, frozen=True):
    """Yes, that has happened."""


class Leave(RuntimeMessage, frozen=True):
    """Supervisor to a worker's host: stop every actor, last started first, then end the process."""

    reason: str = "shutdown"


class Describe(RuntimeMessage, frozen=True):
    """Ask a worker's host who lives there."""


class ActorRow(msgspec.Struct, frozen=True, array_like=True):
    """One actor, as `exeunt ps` shows it."""

    address: str
    kind: str
    state: str
    mailbox: int
    handled_total: int
    incarnation: int
    started_ns: int
    """CLOCK_REALTIME."""
    mailbox_bound: int = 0
    handling: str = ""
    """The type of the message that it handles now."""


class Description(RuntimeMessage, frozen=True):
    """Who lives in a worker."""

    actors: tuple[ActorRow, ...]
    dead_letters_total: int
    wakeups: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """What has woken its event loop, and how often (`wakeups`)."""
    wakeups_over_s: float = 0.0
    """For how long that was counted."""


class StartChild(RuntimeMessage, frozen=True):
    """Any actor to the supervisor: start a further child by this spec (msgpack of `ChildSpec`). Answered by
    `ActorStarted`.
    """

    spec: msgspec.Raw
    under: str = ""
    """The supervisor that gets it; the root, if not said."""


class NamesChanged(RuntimeMessage, frozen=True):
    """Supervisor to every host: the addresses of its children."""

    known: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """By id."""
    gone: tuple[str, ...] = ()


class GroupJoined(RuntimeMessage, frozen=True):
    """A host to the supervisor, and the supervisor to every host: these have joined a group."""

    group: str
    members: tuple[str, ...]
    """Addresses."""
    worker: str = ""
    """Who says so; empty from the supervisor."""
    epoch: int = 0


class GroupLeft(RuntimeMessage, frozen=True):
    """A host to the supervisor, and the supervisor to every host: these have left a group, or ended."""

    group: str
    members: tuple[str, ...]
    worker: str = ""
    epoch: int = 0


MESSAGES: tuple[type[Message], ...] = (
    *EVENTS,
    Watch,
    Unwatch,
    Link,
    Unlink,
    Terminated,
    Stop,
    Cancel,
    Settled,
    StartActor,
    StopActor,
    ActorStarted,
    ActorExited,
    WorkerReady,
    WorkerUp,
    WorkerDown,
    WorkerChanging,
    LastWords,
    Done,
    Leave,
    Describe,
    Description,
    StartChild,
    NamesChanged,
    GroupJoined,
    GroupLeft,
)
