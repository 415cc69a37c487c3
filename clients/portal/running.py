"""Whether a portal runs on a database: a lock that the kernel lets go when its process ends, however it ends.

Who is present is in the database, and true only while a portal keeps it so. The lock is on a file beside it: closing
another descriptor of the database itself would take away SQLite's locks.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class RunningMark:
    """Held by a running portal. A second portal on the same database goes without, `held` false."""

    def __init__(self, database: Path) -> None:
        self._path = _beside(database)
        self.held = False

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.held = _lock(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.held:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_running(database: Path) -> bool:
    """Whether some process holds the mark."""
    try:
        descriptor = os.open(_beside(database), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _beside(database: Path) -> Path:
    return database.with_name(f"{database.name}-running")
