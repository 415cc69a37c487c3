"""What a supervisor needs from whatever runs its workers.

A supervisor decides (`supervision`), keeps actors (`children`) and keeps workers (`workforce`) the same way
wherever they run. An engine is the rest, and it is small: start a worker, notice its end, kill it, carry messages
to it, and prove at the end that nothing of it is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from ..node import Node
from ..worker import Boot


class Worker(Protocol):
    """One incarnation of a worker."""

    boot: Boot
    ready: asyncio.Future[int]
    """Done with the pid when the worker listens; fails with RuntimeError when it ends before that."""
    ended: asyncio.Event

    @property
    def pid(self) -> int:
        """The process it runs in; 0 before it started."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether the worker has reported that it listens."""
        ...

    @property
    def exit_reason(self) -> str:
        """How it ended, in words; `running` before that."""
        ...

    async def until_ready(self) -> int:
        """Wait until the worker listens; return its pid. Raises RuntimeError when it ends before that."""
        ...

    def kill(self) -> None:
        """End it at once: none of its actors says goodbye. Idempotent."""


class Engine(Protocol):
    """Runs the workers of one supervisor. On its loop only."""

    kind: str
    """`inline`, `processes` or `ray`."""
    clocks_differ: bool
    """Whether workers run on machines whose clocks have nothing to do with each other."""
    passes_descriptors: bool
    """Whether workers are other processes of this machine: what they have open can be handed over and outlive them."""

    def join(self, node: Node, epoch: int) -> str:
        """Give the supervisor's own node its transport; return where workers reach it."""
        ...

    def endpoint(self, worker: str, epoch: int) -> str:
        """Return where that incarnation of a worker is reached."""
        ...

    def public_key(self, worker: str, epoch: int) -> str:
        """Return by which CURVE key that incarnation is known; nothing where there are no keys."""
        ...

    async def gather(self) -> None:
        """Bring here what workers on other machines have recorded so far, for whoever reads the rings."""

    def start(self, boot: Boot, on_end: Callable[[Worker], None]) -> Worker:
        """Start a worker; `on_end` is called on the loop, once, as soon as it has ended, however it did."""
        ...

    def take_stock(self, workers: Iterable[Worker]) -> None:
        """Remember what runs below these workers: they are about to end."""

    def clear(self) -> tuple[str, ...]:
        """After every worker has ended: kill what is left of them, and name it; let go of what the engine holds."""
        ...
