"""The documents of inspection: actors, their supervision, their stacks, events and dead letters. See `contract`."""

from typing import Any, Literal

from msgspec import Struct, field

from .contract_terms import ActorState, Time, TraceId


class ActorRow(Struct, frozen=True, kw_only=True):
    """One actor, and the worker that hosts it."""

    address: str
    kind: str
    state: ActorState
    worker: str
    pid: int | None
    mailbox: int
    """How many messages wait."""
    mailbox_bound: int = 0
    handled_total: int
    handling: str | None = None
    """The type of the message that it handles now."""
    incarnation: int = 0
    restarts: int
    since_s: float
    """How long it has lived; how long it has been dead, in `backoff`."""
    answering: bool = True
    """Whether its worker answers; else this is what it said last."""
    cpu_percent: float | None
    """The worker's, since the last question."""
    rss_bytes: int | None
    """The worker's."""
    worker_epoch: int | None = None
    """Another one in each life of the worker, also where that is no process."""


class TreeNode(Struct, frozen=True, kw_only=True):
    """A supervisor, worker or actor, and what it supervises."""

    name: str
    kind: Literal["supervisor", "worker", "actor"]
    state: ActorState
    pid: int | None = None
    strategy: str | None = None
    """A supervisor's: `one_for_one`, `one_for_all`, `rest_for_one`."""
    worker_strategy: str | None = None
    """The root's, for its workers."""
    class_: str | None = field(name="class", default=None)
    restart: str | None = None
    """`permanent`, `transient` or `temporary`; null for who is nobody's child."""
    restarts: int = 0
    answering: bool = True
    address: str | None = None
    """An actor's."""
    worker: str | None = None
    """Where an actor lives."""
    children: list["TreeNode"] = []
    """Of the root its workers, of a worker the actors that live there, of a supervisor below the root its children."""
    supervises: list["TreeNode"] = []
    """Of the root only: its children, actors and supervisors, in order of start."""


class Spec(Struct, frozen=True, kw_only=True):
    """What a supervisor was told about a child."""

    start: str
    args: dict[str, Any]
    """What may be a secret is hidden."""
    restart: str
    shutdown_ms: int | Literal["infinity"]
    significant: bool


class Queue(Struct, frozen=True, kw_only=True):
    """An actor's mailbox."""

    waiting: int
    bound: int
    policy: str
    """What happens at the bound: `reject`, `drop_oldest`, `block`."""
    rejected_total: int
    dropped_total: int


class HandledMessage(Struct, frozen=True, kw_only=True):
    """One message that an actor was sent."""

    at: Time
    message: str
    from_: str = field(name="from")
    kind: str
    trace: TraceId
    count: int = 1
    """So many like it, one after the other."""
    queued_ms: float | None
    ran_ms: float | None
    outcome: str


class EventRow(Struct, frozen=True, kw_only=True):
    """Something that happened in the program."""

    type: str
    at: Time
    of: str | None = None
    """To whom: an actor's address, a worker, a supervisor."""
    fields: dict[str, Any] = {}


class Wakeups(Struct, frozen=True, kw_only=True):
    """What has woken a worker that had nothing to do."""

    worker: str
    pid: int | None
    """Workers of one process share its event loop, and so their counts."""
    over_s: float
    """The seconds over which that was counted: this life of the worker."""
    counts: dict[str, int]
    """By cause, the most frequent first; a timer's begins with `timer:`."""


class ActorDetail(ActorRow, frozen=True, kw_only=True):
    """One actor, in detail."""

    spec: Spec | None
    """Null for an actor that another one has started."""
    queue: Queue
    handled_per_s: float
    handled_over_s: float
    """The seconds over which that was counted."""
    messages: list[HandledMessage]
    """The last ones, from the flight recorder, the oldest first."""
    lives: list[dict[str, Any]]
    """Its starts, ends and restarts, the oldest first."""
    snapshot: Any
    """What its `snapshot()` returned."""
    snapshot_error: str | None
    """Why it returned nothing."""
    wakeups: Wakeups | None = None
    """Its worker's."""


class Frame(Struct, frozen=True, kw_only=True):
    """One call."""

    file: str
    line: int
    function: str
    source: str


class Handling(Struct, frozen=True, kw_only=True):
    """An actor, and the message that it has begun to handle; none in a hook such as `on_start`."""

    actor: str
    message: str | None
    from_: str | None = field(name="from")
    trace: TraceId | None
    since_s: float | None


class ThreadStack(Struct, frozen=True, kw_only=True):
    """What a thread does."""

    thread: str
    native_id: int | None
    is_loop: bool
    """Whether the worker's event loop runs on it."""
    handling: Handling | None
    frames: list[Frame]
    """The innermost first."""


class WaitingStack(Struct, frozen=True, kw_only=True):
    """Where an `async` handler that waits stands."""

    handling: Handling
    waits_for: str | None
    frames: list[Frame]
    """The innermost first."""


class ProcessStacks(Struct, frozen=True, kw_only=True):
    """The Python stacks of one process."""

    worker: str
    pid: int
    via: str
    """How they were taken: `thread`, or `signal` where no Python ran."""
    threads: list[ThreadStack]
    waiting: list[WaitingStack]
    began: list[Handling]
    """What the flight recorder knows to have begun and not to have ended."""


class DeadLetterRow(Struct, frozen=True, kw_only=True):
    """A message that nobody handled."""

    at: Time
    from_: str = field(name="from")
    to: str
    message: str
    reason: str
    trace: TraceId
    worker: str
    """Where it ended."""


class DeadLetters(Struct, frozen=True, kw_only=True):
    """The dead letters of a program."""

    totals: dict[str, int]
    """By worker, over all its lives, since the program started."""
    letters: list[DeadLetterRow]
    """The last ones, the oldest first."""


class Restart(Struct, frozen=True, kw_only=True):
    """A restart that was asked for, and has happened."""

    kind: Literal["actor", "worker", "supervisor"]
    name: str
    restarted_after_ms: float
    pid: int | None
    """The new process's, or that of the actor's worker; null for a supervisor."""
    incarnation: int | None
    """An actor's."""
    actors: int | None = None
    """How many actors a supervisor started again."""
