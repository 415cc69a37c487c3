"""How a command tells a running portal at once that it has changed the database: it rings.

The bell is a FIFO beside the database, in a directory that only the portal's user may enter. A byte in it means "look
now", and nothing more: what has changed is in the database. So nothing depends on it: a portal without a bell (the
file system knows no FIFOs, the database is on another host), or one whose bell somebody could not reach, sees the same
when it next looks by itself.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

_RINGS = 4096
"""So many at once are one."""


class Bell:
    """The bell of a running portal; only one portal on a database has it. Use it on one asyncio loop."""

    def __init__(self, database: Path) -> None:
        self._path = _beside(database)
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):  # of a portal that was killed
                os.mkfifo(self._path, 0o600)
            # For both ways: a FIFO that its last writer has closed would be readable for ever.
            self._descriptor = _open(self._path, os.O_RDWR)

    def listen(self, on_ring: Callable[[], None]) -> None:
        """Call `on_ring` whenever somebody has rung."""

        def heard() -> None:
            assert self._descriptor is not None
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, _RINGS)
            on_ring()

        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, heard)

    def close(self) -> None:
        """Take it down. Idempotent."""
        if self._descriptor is None:
            return
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None
        self._path.unlink(missing_ok=True)


def ring(database: Path) -> bool:
    """Have the portal that runs on the database look at it now; False when none could be told."""
    try:
        descriptor = _open(_beside(database), os.O_WRONLY)
    except OSError:  # no portal, none that listens, or not ours to ring
        return False
    try:
        return os.write(descriptor, b"\0") == 1
    except BlockingIOError:
        return True  # others have rung so often that it is full, and will be heard
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _open(path: Path, mode: int) -> int:
    """Open a FIFO, and nothing else that may lie there. Raises OSError."""
    descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileExistsError(f"{path} is no FIFO")
    return descriptor


def _beside(database: Path) -> Path:
    return database.with_name(f"{database.name}-bell")
