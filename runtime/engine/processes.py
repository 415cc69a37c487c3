"""Each worker a process of this machine, joined by ZeroMQ below a 0700 directory. The engine of a program."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence

import psutil

from ..directories import Directories
from ..node import Node
from ..process import WorkerProcess, families, kill_remaining, start_context, stop_start_helpers
from ..transport import Transport, endpoint
from ..worker import Boot
from .engine import Worker


class Processes:
    """Starts worker processes by forkserver, else spawn, and notices their end by their sentinels."""

    kind = "processes"
    clocks_differ = False
    passes_descriptors = True

    def __init__(self, directories: Directories, preload: Sequence[str] = ()) -> None:
        """`preload`: modules that are imported once in the fork server, so that workers start faster."""
        self._directories = directories
        self._context = start_context(preload)
        self._family: list[psutil.Process] = []

    def join(self, node: Node, epoch: int) -> str:
        """Bind the supervisor's socket."""
        at = self.endpoint(node.worker, epoch)
        node.transport = Transport(at, on_frame=node.handle_frame, loop=node.loop, codec=node.codec)
        return at

    def endpoint(self, worker: str, epoch: int) -> str:
        """Return the socket of that incarnation."""
        return endpoint(self._directories.ipc, worker, epoch)

    def public_key(self, worker: str, epoch: int) -> str:
        """Return nothing: on one machine the directory decides who gets in."""
        return ""

    async def gather(self) -> None:
        """Do nothing: the rings are here."""

    def start(self, boot: Boot, on_end: Callable[[Worker], None]) -> WorkerProcess:
        """Start a process. A successor is a fresh one: the fork server has the code of when the program began, and a
        worker may be restarted in order to run other code.
        """
        process = WorkerProcess(multiprocessing.get_context("spawn") if boot.inherits else self._context, boot)
        process.start(on_end)
        return process

    def take_stock(self, workers: Iterable[Worker]) -> None:
        """Remember the workers and everything below them: their orphans become init's children."""
        self._family = families(worker.pid for worker in workers)

    def clear(self) -> tuple[str, ...]:
        """Kill what outlives its worker; end multiprocessing's own processes."""
        leftovers = kill_remaining(self._family)
        self._family = []
        stop_start_helpers()
        return leftovers
