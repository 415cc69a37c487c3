"""Following the rings of a running program: what they say from now on, also more than they can hold.

A ring keeps its newest records. To have more of them, read it before it is overwritten: each `poll` reads what was
written since the last one, and how much is new tells how soon to poll again. What was overwritten in between is
counted, not guessed.

A record may still change after it was read, when the handling that it tells of ends. So each poll reads again what the
poll before it read, and the last one (`finish`) reads all that is still there.
"""

from __future__ import annotations

import time
from pathlib import Path

from .liveness import is_alive
from .recorder import Record, Ring, RingUnreadable, read_ring
from .trace import Span, as_of, ring_files, spans_of

_NOTHING = 2**63  # more records than there will ever be


class _Followed:
    """One ring, and what was read of it."""

    def __init__(self, path: Path, position: int) -> None:
        self.path = path
        self.begun = position
        """Records that were there before, and are not wanted."""
        self.position = position
        """Records read so far, counted as the ring counts."""
        self.again = position
        """From where on the next poll reads: what the last one read may have changed since."""
        self.over = False
        """Its worker was dead before: it says nothing new."""
        self.lost = 0
        self.worker = ""
        self.records: dict[tuple[int, int], Record] = {}

    def read(self, after: int) -> int:
        """Read from `after` on; return how many records are new."""
        ring = _read(self.path, after)
        if ring is None:
            return 0
        self.worker = ring.worker
        oldest = ring.written_total - len(ring.records)
        self.lost += max(0, oldest - self.position)
        new = max(0, ring.written_total - self.position)
        self.again, self.position = self.position, max(self.position, ring.written_total)
        for record in ring.records:
            self.records[record.id, record.event] = record
        return new


class TraceFollower:
    """Collects what is recorded from its construction on, by the workers below a directory (of one instance, if
    named) that live or are started meanwhile.
    """

    def __init__(self, directory: Path, *, instance: str | None = None) -> None:
        self._directory = directory
        self._instance = instance
        self._rings: dict[Path, _Followed] = {}
        self._last_look: tuple[int, int] | None = None
        for path in self._files():
            ring = _read(path, _NOTHING)
            if ring is None:
                continue
            self._rings[path] = followed = _Followed(path, ring.written_total)
            followed.over = not is_alive(ring.pid)

    @property
    def living(self) -> int:
        """How many of the workers lived when this began, or were started since."""
        return sum(not ring.over for ring in self._rings.values())

    @property
    def records_total(self) -> int:
        """How many records were collected."""
        return sum(len(ring.records) for ring in self._rings.values())

    @property
    def lost_total(self) -> int:
        """How many records were overwritten before they were read."""
        return sum(ring.lost for ring in self._rings.values())

    def poll(self) -> int:
        """Read what is new; return how many records the busiest ring had."""
        for path in self._files():
            if path not in self._rings:
                self._rings[path] = _Followed(path, 0)  # a worker that was started since: all of it is new
        return max((ring.read(ring.again) for ring in self._rings.values() if not ring.over), default=0)

    def finish(self) -> None:
        """Read a last time, with every change to what was read before and is still there."""
        begun_ns = time.time_ns()
        self.poll()
        for ring in self._rings.values():
            if not ring.over:
                ring.read(ring.begun)
        self._last_look = (begun_ns, time.time_ns())

    def spans(self) -> list[Span]:
        """What was collected, as spans in order of time."""
        spans = spans_of((ring.worker, list(ring.records.values())) for ring in self._rings.values())
        return as_of(*self._last_look, spans) if self._last_look is not None else spans

    def _files(self) -> list[Path]:
        return ring_files(self._directory, instance=self._instance)


def _read(path: Path, after: int) -> Ring | None:
    try:
        return read_ring(path, after=after)
    except (OSError, RingUnreadable):
        return None  # removed, or of a worker that is just about to make it
