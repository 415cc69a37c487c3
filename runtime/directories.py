"""Where a program keeps its sockets, logs and rings, and how it tidies them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

_RINGS_KEPT = 3  # the lives of a worker before this one that can still be read


class Directories(msgspec.Struct, frozen=True, kw_only=True):
    """Where a program keeps its sockets, logs and rings."""

    ipc: Path
    logs: Path
    traces: Path

    def make(self) -> None:
        """Create those that are missing, closed to others."""
        for directory in (self.ipc, self.logs, self.traces):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log_file(self, node: str, worker: str) -> Path:
        """The log of a worker, over all its lives."""
        return self.logs / f"{node}.{worker}.log"

    def ring_file(self, node: str, worker: str, epoch: int) -> Path:
        """The flight recorder of one life of a worker."""
        return self.traces / f"{node}.{worker}.{epoch}.ring"

    def sweep(self, node: str, workers: Iterable[str]) -> None:
        """Remove the workers' sockets and their like, of this and earlier lives, and all but their newest rings."""
        for worker in workers:
            # `w.7` is a worker's socket, `w.7s` its side door, `w.7f` the file for its stacks, `w.7w` takes last words.
            sockets = [path for path in self.ipc.glob(f"{worker}.*") if path.suffix[1:].rstrip("sfw").isdigit()]
            rings = sorted(self.traces.glob(f"{node}.{worker}.*.ring"), key=_modified_ns)
            for path in (*sockets, *rings[:-_RINGS_KEPT]):
                with contextlib.suppress(OSError):
                    path.unlink()


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
