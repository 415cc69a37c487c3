"""The documents that scripts rely on: what each ``--json`` prints, as structs.

Rules: within a version fields are only added; times are RFC 3339 UTC; every number's unit is in its key; ids
are strings (64 bits do not survive a JavaScript number); a field that has no value is ``null``. A value that
may gain members (a cause, a state) is typed ``str`` with its known members as examples, so that an older
reader survives a newer writer. `DOCUMENTS` names them all; ``docs/contract/`` holds their JSON Schemas, which
`exeunt.clients.schemas` writes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from .check_contract import Check
from .contract_portal import Agreement, ReportedEnding, Sessions
from .contract_terms import Cause, PathKind, Time, TraceId
from .exposition import Family
from .inspection_contract import ActorDetail, ActorRow, DeadLetters, EventRow, ProcessStacks, Restart, TreeNode, Wakeups

SpanOutcome = Annotated[str, Meta(examples=["ok", "failed", "refused", "dropped", "cancelled", "pending"])]


class Problem(Struct, frozen=True, kw_only=True):
    """Something a person should look at, though the command succeeded."""

    code: str
    message: str
    hint: str | None = None


class Error(Struct, frozen=True, kw_only=True):
    """Why a command failed, and the command to run next."""

    code: str
    message: str
    hint: str | None = None


class Ending(Struct, frozen=True, kw_only=True):
    """One ended connection, as one side saw it."""

    connection: str
    peer: str
    side: Literal["client", "gateway"]
    cause: Cause
    initiated_by: Literal["us", "peer", "supervisor", "portal", "network"]
    evidence: dict[str, Any]
    """What the cause was concluded from."""
    detection_ms: float | None
    """From the event to knowing of it."""
    acknowledged: bool | None
    """Whether the other side confirmed the goodbye; null where none was due."""
    started_at: Time
    ended_at: Time
    last_seen_at: Time | None
    rx_bytes: int
    tx_bytes: int
    path: PathKind | None


class Resource(Struct, frozen=True, kw_only=True):
    """Something that the portal lets this client reach, or this gateway serve."""

    name: str
    address: str
    state: str | None = None
    site: str | None = None


class Peer(Struct, frozen=True, kw_only=True):
    """The other end of a connection that is up."""

    peer: str
    path: PathKind | None = None
    endpoint: str | None = None
    rtt_ms: float | None = None
    handshake_age_s: float | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    last_seen_s_ago: float | None = None
    """Since the last authenticated sign of life."""
    generation: int = 0
    """How often paths were found anew."""
    handshakes: int = 0
    """Completed since the connection began, or since the worker that has it was restarted."""
    path_mtu_bytes: int | None = None
    """The longest packet in the tunnel that is known to get through to it in one piece; None: not known."""


class Status(Struct, frozen=True, kw_only=True):
    """The session, what can be reached in it, and through whom."""

    session: Literal["signed_out", "connecting", "connected", "leaving"]
    resources: list[Resource] = []
    peers: list[Peer] = []


class Pong(Struct, frozen=True, kw_only=True):
    """One round trip through the tunnel; without a time and a path where no answer came."""

    peer: str
    rtt_ms: float | None = None
    path: PathKind | None = None
    seq: int = 0
    endpoint: str | None = None
    """Where our datagrams go: to the peer, to its relay, or on from ours."""
    local_relay: str | None = None
    """The address that our relay lends us; null where the path does not lead through it."""
    remote_relay: str | None = None
    """The same of the peer's relay."""


class SpanRow(Struct, frozen=True, kw_only=True):
    """One message, from being sent to having been handled."""

    id: TraceId
    cause: TraceId | None
    """The span whose handler sent this message; null where a trace begins."""
    from_: str = field(name="from")
    to: str
    message: str
    worker: str
    """The one that handled it, or sent it if nobody did."""
    sent_ns: int | None
    """Unix time, like the three below."""
    received_ns: int | None
    started_ns: int | None
    ended_ns: int | None
    outcome: SpanOutcome
    count: int = 1
    """A burst of equal messages is one span; their ids are ``id`` and those that follow it."""
    kind: Annotated[str, Meta(examples=["tell", "ask", "reply", "failure", "system"])] = "tell"


class TraceDocument(Struct, frozen=True, kw_only=True):
    """Everything one message caused."""

    id: TraceId
    started_at: Time
    duration_ms: float
    outcome: SpanOutcome
    """The worst of its spans'."""
    spans: list[SpanRow]


class TraceRow(Struct, frozen=True, kw_only=True):
    """One line of the list of traces."""

    id: TraceId
    message: str
    """The first one, which caused the others."""
    from_: str = field(name="from")
    to: str
    spans: int
    workers: int
    started_at: Time
    duration_ms: float
    outcome: SpanOutcome
    """The worst of its spans'."""


class LastHandledRow(Struct, frozen=True, kw_only=True):
    """What an actor handled last, in one life of its worker."""

    address: str
    worker: str
    pid: int
    """The worker's process."""
    alive: bool
    """Whether that process still runs. If not, an actor whose outcome is ``pending`` died in the middle of it."""
    trace: TraceId
    id: TraceId
    """The message's span."""
    message: str
    from_: str = field(name="from")
    started_at: Time
    ran_ms: float | None
    """``null`` where it has not finished."""
    outcome: SpanOutcome
    waiting: int
    """Messages that were in its mailbox and that it had not begun to handle."""


class TraceFile(Struct, frozen=True, kw_only=True):
    """A file that traces were written into."""

    file: str
    format: Literal["chrome", "firefox", "otlp", "jsonl"]
    traces: int
    spans: int
    file_bytes: int
    lost_records: int = 0
    """Of a recording: how many records a busy ring overwrote before they were read."""


class Moment(Struct, frozen=True, kw_only=True):
    """One entry of a timeline."""

    at: Time
    text: str
    source: Annotated[str, Meta(examples=["record", "log", "portal", "peer"])]
    """Who says so: this side's record or log, the portal, or the other end."""
    fields: dict[str, Any] = {}


class Why(Struct, frozen=True, kw_only=True):
    """An ending, explained."""

    ending: Ending
    explanation: list[str]
    timeline: list[Moment]
    other_side: ReportedEnding | None = None
    """How the other end says that it ended; null where it is not known."""
    told_by: Annotated[str, Meta(examples=["portal", "record"])] | None = None
    """Who told that: the portal, or the other end's own record on this machine."""
    agreement: Agreement | None = None
    """Whether both ends name the same cause; null where the other end's is not known."""


class MetricsFile(Struct, frozen=True, kw_only=True):
    """A file that metrics were written into."""

    file: str
    samples: int
    file_bytes: int


class Departure(Struct, frozen=True, kw_only=True):
    """A program that was asked to leave, and did."""

    instance: str
    pid: int
    reason: Literal["shutting_down", "signed_out"]
    trace: TraceId | None
    left_after_ms: float
    endings: int
    unacknowledged: int
    """Of those endings, the ones whose goodbye nobody confirmed."""


class SignIn(Struct, frozen=True, kw_only=True):
    """What signing in stored, and which program was told."""

    portal_url: str
    token_file: str
    instances: list[str]
    """The running clients that were told; none if none runs."""


class SignOut(Struct, frozen=True, kw_only=True):
    """What signing out stopped and removed."""

    departures: list[Departure]
    token_removed: bool


class Directories(Struct, frozen=True, kw_only=True):
    """Every place in use."""

    config_dir: str
    state_dir: str
    log_dir: str
    trace_dir: str
    run_dir: str
    config_file: str
    sockets: list[str]
    """The control sockets of the programs that run now."""


class Version(Struct, frozen=True, kw_only=True):
    """What is installed."""

    version: str
    python: str
    platform: str
    libraries: dict[str, str]


class Leftovers(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a program failed to remove, by kind. Kinds without any are left out: ``{}`` is the proof."""

    processes: list[str] = []
    namespaces: list[str] = []
    devices: list[str] = []
    routes: list[str] = []
    rules: list[str] = []
    sockets: list[str] = []


class Demo(Struct, frozen=True, kw_only=True):
    """What a demonstration measured."""

    connect_ms: float
    first_byte_ms: float
    download_bytes: int
    download_mbit_s: float
    sha256_ok: bool
    path: PathKind
    sign_out_ms: float
    """From the command to the process's exit."""
    endings: list[Ending]
    """From both sides."""
    drained: bool
    workers: list[int]
    """Process ids."""
    leftovers: Leftovers


DOCUMENTS: Mapping[str, Any] = MappingProxyType(
    {
        "exeunt.admin.sessions/2": Sessions,
        "exeunt.check/1": Check,
        "exeunt.dead-letters/1": DeadLetters,
        "exeunt.demo/1": Demo,
        "exeunt.endings/1": list[Ending],
        "exeunt.events/1": EventRow,
        "exeunt.log/1": dict[str, Any],
        "exeunt.metrics/1": list[Family],
        "exeunt.metrics-file/1": MetricsFile,
        "exeunt.paths/1": Directories,
        "exeunt.ping/1": Pong,
        "exeunt.ps/1": list[ActorRow],
        "exeunt.restart/1": Restart,
        "exeunt.show/1": ActorDetail,
        "exeunt.sign-in/1": SignIn,
        "exeunt.sign-out/1": SignOut,
        "exeunt.stack/1": list[ProcessStacks],
        "exeunt.status/1": Status,
        "exeunt.stop/1": Departure,
        "exeunt.trace/1": TraceDocument,
        "exeunt.trace-file/1": TraceFile,
        "exeunt.trace-last/1": list[LastHandledRow],
        "exeunt.traces/1": list[TraceRow],
        "exeunt.tree/1": TreeNode,
        "exeunt.version/1": Version,
        "exeunt.wakeups/1": list[Wakeups],
        "exeunt.why/1": Why,
    }
)
"""Each schema's name and the type of its ``data``; ``exeunt.error/1`` stands apart, with its ``error``."""
