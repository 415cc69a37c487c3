"""What is known of the program, and the lines that a screen shows of it. Pure: facts in, with the time; lines out.

Actors and peers are followed from look to look by their names, because only the difference between two looks is a
rate. Who is not in a look any more is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple, get_args

from ..contract import Peer
from ..inspection_contract import ActorRow, TreeNode
from .event_line import EventLine, event_line
from .facts import Fact, Happened, Joined, Left, Looked, StatusAnswer
from .filter import Filter
from .meter import Meter
from .tree_line import TreeLine, tree_lines

Order = Literal["rate", "queue", "handled", "restarts", "name"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)

IDLE_AFTER_S: Final = 10.0
"""An actor that runs and has handled nothing for so long is shown as idle."""

EVENTS_KEPT: Final = 1_000

EVERYTHING: Final = Filter()


class ActorLine(NamedTuple):
    """One actor."""

    row: ActorRow
    name: str
    state: str
    """As the program says, or `idle`."""
    meter: Meter
    """Its messages."""


class PeerLine(NamedTuple):
    """One peer."""

    peer: Peer
    received: Meter
    sent: Meter

    @property
    def history(self) -> list[float]:
        """Bytes a second, both ways."""
        return [one + other for one, other in zip(self.received.history, self.sent.history, strict=False)]


class Totals(NamedTuple):
    """The program in a few numbers. None where it is not known."""

    actors: int
    queued: int
    restarts: int
    messages_rate: float | None
    cpu_percent: float | None
    rss_bytes: int | None


class Model:
    """Takes facts, answers lines."""

    def __init__(self) -> None:
        self.program: Joined | None = None
        self.left: Left | None = None
        """Set while the program is away."""
        self.left_at_s = 0.0
        self.actor_rows: list[ActorRow] | None = None
        self.tree: TreeNode | None = None
        self.status: StatusAnswer | None = None
        self.absent: frozenset[str] = frozenset()
        """Commands that the program does not offer."""
        self.troubles: dict[str, str] = {}
        self._events: deque[EventLine] = deque(maxlen=EVENTS_KEPT)
        self._messages: dict[str, Meter] = {}
        self._restarts: dict[str, int] = {}
        self._received: dict[str, Meter] = {}
        self._sent: dict[str, Meter] = {}

    def take(self, fact: Fact, *, now_s: float, now_ns: int) -> None:
        """Take a fact. `now_s` is monotonic, `now_ns` the time of day for events that carry none."""
        match fact:
            case Joined():
                self._join(fact)
            case Left():
                if self.left is None:
                    self.left_at_s = now_s
                self.left = fact
            case Looked():
                self._look(fact)
            case Happened(events=events):
                self._happen([event_line(event, seen_ns=now_ns) for event in events])

    def actors(self, order: Order = "rate", shown: Filter = EVERYTHING) -> list[ActorLine]:
        """The actors that the filter admits, in this order; equal ones by name."""
        lines = [self._actor(row) for row in self.actor_rows or ()]
        lines = [line for line in lines if shown.admits(line.row.address, line.row.kind, line.state, line.row.worker)]
        return sorted(lines, key=lambda line: _rank(line, order))

    def peers(self, shown: Filter = EVERYTHING) -> list[PeerLine]:
        """The peers that the filter admits, by name."""
        peers = sorted(self.status.peers if self.status is not None else (), key=lambda peer: peer.peer)
        return [
            PeerLine(peer, self._received[peer.peer], self._sent[peer.peer])
            for peer in peers
            if shown.admits(peer.peer, peer.path or "", peer.endpoint or "")
        ]

    def events(self, shown: Filter = EVERYTHING) -> list[EventLine]:
        """The events that the filter admits, the newest first."""
        return [line for line in reversed(self._events) if shown.admits(line.clock, line.type, line.of, line.facts)]

    def tree_lines(self, shown: Filter = EVERYTHING) -> list[TreeLine]:
        """The supervision tree, as far as the filter admits it."""
        return [] if self.tree is None else tree_lines(self.tree, shown)

    def totals(self) -> Totals:
        """The program in a few numbers."""
        rows = self.actor_rows or []
        rates = [meter.rate for meter in self._messages.values() if meter.rate is not None]
        workers = {row.pid: row for row in rows if row.pid is not None}.values()
        cpu = [row.cpu_percent for row in workers if row.cpu_percent is not None]
        rss = [row.rss_bytes for row in workers if row.rss_bytes is not None]
        return Totals(
            actors=len(rows),
            queued=sum(row.mailbox for row in rows),
            restarts=sum(row.restarts for row in rows),
            messages_rate=sum(rates) if rates else None,
            cpu_percent=sum(cpu) if cpu else None,
            rss_bytes=sum(rss) if rss else None,
        )

    def actor_of(self, name: str) -> ActorRow | None:
        """The actor with this address, or the first whose address ends in it: `name`, `worker/name`."""
        rows = self.actor_rows or ()
        return next((row for row in rows if name and f"/{row.address}".endswith(f"/{name}")), None)

    # --- inside ---

    def _join(self, fact: Joined) -> None:
        if self.program is not None and (self.program.pid, self.program.started_at) != (fact.pid, fact.started_at):
            self._messages.clear()  # another process, whose totals begin anew
            self._restarts.clear()
            self._received.clear()
            self._sent.clear()
            self.actor_rows = self.tree = self.status = None
            self.absent, self.troubles = frozenset(), {}
        self.program, self.left = fact, None

    def _look(self, fact: Looked) -> None:
        self.absent |= fact.absent  # what is not asked any more, because of that, is still not there
        self.troubles = fact.troubles
        if fact.actors is not None:
            self.actor_rows = fact.actors
            self._measure(fact.actors, fact.at_s)
        if fact.tree is not None:
            self.tree = fact.tree
        if fact.status is not None:
            self.status = fact.status
            present = {peer.peer for peer in fact.status.peers}
            _follow(self._received, present)
            _follow(self._sent, present)
            for peer in fact.status.peers:
                self._received[peer.peer].take(peer.rx_bytes, fact.at_s)
                self._sent[peer.peer].take(peer.tx_bytes, fact.at_s)

    def _measure(self, rows: list[ActorRow], at_s: float) -> None:
        _follow(self._messages, {row.address for row in rows})
        for row in rows:
            meter = self._messages[row.address]
            if row.restarts != self._restarts.get(row.address, row.restarts):
                meter.begin_anew()
            meter.take(row.handled_total, at_s)
        self._restarts = {row.address: row.restarts for row in rows}

    def _happen(self, lines: list[EventLine]) -> None:
        # Those from before we came may have been seen before the program was away.
        if len(lines) > 1:
            known = {(line.at_ns, line.type, line.of, line.facts) for line in self._events}
            lines = [line for line in lines if (line.at_ns, line.type, line.of, line.facts) not in known]
        self._events.extend(lines)

    def _actor(self, row: ActorRow) -> ActorLine:
        meter = self._messages[row.address]
        idle = row.state == "running" and row.mailbox == 0 and meter.still_s >= IDLE_AFTER_S
        return ActorLine(row, name_of(row.address), "idle" if idle else row.state, meter)


def name_of(address: str) -> str:
    """The last part of `node/worker/name`."""
    return address.rpartition("/")[2]


def _rank(line: ActorLine, order: Order) -> tuple[float, str]:
    numbers: dict[Order, float] = {
        "rate": line.meter.rate or 0.0,
        "queue": line.row.mailbox,
        "handled": line.row.handled_total,
        "restarts": line.row.restarts,
        "name": 0,
    }
    return -numbers[order], line.row.address if order != "name" else line.name


def _follow(meters: dict[str, Meter], present: set[str]) -> None:
    for gone in meters.keys() - present:
        del meters[gone]
    for name in present:
        meters.setdefault(name, Meter())
