"""Who may use the processor: a few who make ready at once, or one whose event is being measured.

A machine on which two programs start does not answer within milliseconds, whatever runs on it. What starts and leaves
takes a share; what is timed in milliseconds is alone, since it is the programs that are measured and not the queue.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Processor:
    """So many shares. Each thread takes one at a time: a share, or all."""

    def __init__(self, shares: int) -> None:
        self._shares = shares
        self._taken = 0
        self._waits_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def share(self) -> Generator[None]:
        """Be one of a few. Who waits to be alone goes first."""
        with self._taking(1):
            yield

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the only one."""
        with self._changed:
            self._waits_alone += 1
        try:
            with self._taking(self._shares):
                yield
        finally:
            with self._changed:
                self._waits_alone -= 1
                self._changed.notify_all()

    @contextmanager
    def _taking(self, count: int) -> Generator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._has(count))
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()

    def _has(self, count: int) -> bool:
        return self._taken + count <= self._shares and (count == self._shares or not self._waits_alone)
