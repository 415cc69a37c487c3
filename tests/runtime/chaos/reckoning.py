"""Whether it all adds up: every message, by what the actors wrote, against what the flight recorders say.

A tell is handled once, or is a dead letter once. A third fate is left only to those whose sender's process was killed:
a tell may die with it before it has left, and so may one that waited in a mailbox of the same process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.runtime.chaos.book import NAMED, Facts
from tests.runtime.chaos.cast import NUMBERED

from exeunt.runtime.envelope import ASK, LIFE_SHIFT, TELL
from exeunt.runtime.recorder import DEFAULT_CAPACITY, Event, Record, Ring, read_ring

_HANDLED = frozenset({Event.STARTED, Event.ENDED, Event.FAILED, Event.REFUSED})
_BURST = 64  # messages that share a record are counted when it is complete


class Reckoning:
    """All books and all rings of one run."""

    def __init__(self, books: Path, rings: Path, *, killed: set[int], lost: set[int] | None = None) -> None:
        """`killed` are pids of processes, or lives of workers; `lost` what a network has lost, on purpose."""
        self.facts = [Facts(file) for file in sorted(books.glob("*.book"))]
        self.rings = [read_ring(file) for file in sorted(rings.glob("*.ring"))]
        self.lost = lost or set()
        self.killed_pids = killed
        self.killed = {facts.life for facts in self.facts if {facts.pid, facts.life} & killed}
        """The lives of workers that were killed."""
        self.told = {id_: to for facts in self.facts for id_, to in facts.told.items()}
        self.begun: Counter[int] = Counter()
        for facts in self.facts:
            self.begun += facts.begun
        self.recorded: Counter[int] = Counter()
        """Whose handlers had begun, as the flight recorders say."""
        self.dropped: Counter[int] = Counter()
        self.dead_letters = 0
        """As the flight recorders' headers count them, of all messages."""
        for ring in self.rings:
            self._read(ring)
        self.asked = {id_: to for facts in self.facts for id_, to in facts.asked.items()}
        self.ended = {id_: how for facts in self.facts for id_, how in facts.ended.items()}

    def _read(self, ring: Ring) -> None:
        for record in ring.records:
            if record.message not in NUMBERED:
                continue
            if _is_handled(record):
                self.recorded.update(_ids(record))
            elif record.event == Event.DROPPED and record.kind == TELL:
                self.dropped.update(_ids(record))
        self.dead_letters += ring.dead_letters_total

    @property
    def lost_with_sender(self) -> set[int]:
        """The tells of a killed process that nobody has seen."""
        unseen = set(self.told) - set(self.recorded) - set(self.dropped)
        return {id_ for id_ in unseen if id_ >> LIFE_SHIFT in self.killed}

    def check(self) -> None:
        """Fail where something does not add up."""
        self._check_rings()
        self._check_tells()
        self._check_asks()

    def _check_rings(self) -> None:
        """The runtime's counters are those of its records, and its records say what the actors say."""
        assert self.rings
        for ring in self.rings:
            of = (ring.worker, ring.epoch)
            assert ring.written_total <= DEFAULT_CAPACITY, f"{of}: evidence was overwritten; have fewer faults"
            dropped = _count(record for record in ring.records if record.kind == TELL and record.event == Event.DROPPED)
            handled = _count(record for record in ring.records if record.kind in (TELL, ASK) and _is_handled(record))
            running = _count(record for record in ring.records if record.event == Event.STARTED)
            slack = 1 if ring.pid in self.killed_pids else 0  # it may have died between a record and its count
            assert 0 <= dropped - ring.dead_letters_total <= slack, of
            assert 0 <= handled - running - ring.handled_total <= _BURST * slack, of
        unwritten = self.recorded - self.begun  # it was killed when the handler was about to write so
        assert not self.begun - self.recorded, "actors have handled what no flight recorder knows"
        assert unwritten.total() <= len(self.killed)

    def _check_tells(self) -> None:
        assert max(self.begun.values()) == 1, "a message was handled twice"
        assert max(self.recorded.values()) == 1
        assert max(self.dropped.values(), default=0) <= 1, "a message was a dead letter twice"
        tells_begun = {id_ for id_ in self.recorded if id_ in self.told}
        dead = {id_ for id_ in self.dropped if id_ in self.told}
        assert not tells_begun & dead, "a message was handled, and a dead letter"
        assert not set(self.dropped) - set(self.told)
        assert not set(self.recorded) - set(self.told) - set(self.asked)
        silent = set(self.told) - tells_begun - dead - self.lost_with_sender - self.lost
        assert not silent, f"{len(silent)} tells were lost in silence: {[self.told[one] for one in silent][:5]}"
        by_the_network = self.lost & set(self.told) - tells_begun - dead - self.lost_with_sender
        assert len(self.told) == len(tells_begun) + len(dead) + len(self.lost_with_sender) + len(by_the_network)

    def _check_asks(self) -> None:
        assert set(self.ended.values()) <= NAMED, set(self.ended.values()) - NAMED
        open_ = {id_ for id_ in self.asked if id_ not in self.ended and id_ >> LIFE_SHIFT not in self.killed}
        assert not open_, f"{len(open_)} asks have never ended"
        answered = {id_ for id_, how in self.ended.items() if how == "answered"}
        assert not answered - set(self.recorded), "an ask was answered that nobody has handled"

    def summary(self) -> dict[str, object]:
        """The figures, for people."""
        return {
            "lives": len(self.rings),
            "tells": len(self.told),
            "handled": sum(1 for id_ in self.recorded if id_ in self.told),
            "dead letters": len(self.dropped),
            "lost with their sender": len(self.lost_with_sender),
            "lost by the network": len(self.lost),
            "asks": len(self.asked),
            **dict(Counter(self.ended.values()).most_common()),
            "slowest ask, ms": max(facts.slowest_ms for facts in self.facts),
        }


def _is_handled(record: Record) -> bool:
    """Whether its handler had begun."""
    return record.event in _HANDLED or (record.event == Event.CANCELLED and record.ran_ns > 0)


def _count(records: Iterable[Record]) -> int:
    return sum(record.count for record in records)


def _ids(record: Record) -> range:
    return range(record.id, record.id + record.count)
