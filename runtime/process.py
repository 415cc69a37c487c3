"""The operating system's side of a worker: start the process, notice its end, prove that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec
import psutil

from . import worker as worker_module
from .wakeups import add_reader
from .worker import Boot

_FORK_SERVER_DIED = 255
_MOMENT_S = 0.3  # from a worker's last report to the end of what it had started


def start_context(preload: Sequence[str]) -> BaseContext:
    """Return forkserver where it exists (half of spawn's start time), with `preload` imported there once; else
    spawn.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker_module.__name__, *preload])
    return context


class WorkerProcess:
    """One incarnation of a worker."""

    def __init__(self, context: BaseContext, boot: Boot) -> None:
        self.boot = boot
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Done with the pid when the worker listens; fails when it ends before that."""
        self.ended = asyncio.Event()
        process_type: Any = vars(type(context))["Process"]  # the base context's stub does not know it
        self._pid = 0
        self._exit_code: int | None = None
        self._process: BaseProcess = process_type(
            target=worker_module.main,
            args=(msgspec.msgpack.encode(boot),),
            name=f"{boot.node}:{boot.worker}",
            daemon=False,
        )

    def start(self, on_end: Callable[[WorkerProcess], None]) -> None:
        """Start the process; `on_end` is called on the loop at once when it has ended, by its sentinel."""
        self._process.start()
        self._pid = self._process.pid or 0
        loop = asyncio.get_running_loop()
        sentinel: int = self._process.sentinel

        def gone() -> None:
            loop.remove_reader(sentinel)
            self._process.join()
            self._exit_code = self._process.exitcode
            self._lost_track()
            self._process.close()  # its two descriptors need not wait for whoever still looks at this one
            self.ended.set()
            if not self.ready.done():
                self.ready.set_exception(
                    RuntimeError(f"worker {self.boot.worker} ended with {self.exit_code} at its start")
                )
                self.ready.exception()
            on_end(self)

        add_reader(loop, sentinel, "worker", gone)

    async def until_ready(self) -> int:
        """Wait until the worker listens; return its pid. Raises RuntimeError when it ends before that."""
        return await asyncio.shield(self.ready)  # whoever gives up waiting must not cancel it for the others

    @property
    def is_ready(self) -> bool:
        """Say whether the worker has reported that it listens."""
        return self.ready.done() and self.ready.exception() is None

    @property
    def pid(self) -> int:
        """Its process id; 0 before it started."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """As multiprocessing's: negative for a signal, None while it lives."""
        return self._exit_code if self.ended.is_set() else self._process.exitcode

    @property
    def exit_reason(self) -> str:
        """In words."""
        code = self.exit_code
        if code is None:
            return "running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _lost_track(self) -> None:
        """Kill a worker that outlives the fork server: whoever reports its end is gone, and so we would not hear of it.

        multiprocessing then gives 255 as its exit code, which no worker uses.
        """
        if self._exit_code == _FORK_SERVER_DIED:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL it."""
        if not self.ended.is_set() and self._process.is_alive():
            self._process.kill()


def stop_start_helpers() -> None:
    """End multiprocessing's own helper processes (fork server, resource tracker), which would outlive us by a moment.

    Their stop methods are private but old; where one is missing, the helper ends when our end of its pipe closes.
    """
    if sys.platform == "win32" or multiprocessing.active_children():
        return  # somebody else in this process still needs them
    for module, name in (
        (multiprocessing.forkserver, "_forkserver"),
        (multiprocessing.resource_tracker, "_resource_tracker"),
    ):
        helper = getattr(module, name, None)
        pid = getattr(helper, "_forkserver_pid", None)
        if pid is not None:
            # It holds nothing but imported modules; taking those down politely would cost a tenth of a second.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stop = getattr(helper, "_stop", None)
        if stop is not None and getattr(helper, "_pid", 0) is not None:  # None: an inherited one, not ours to end
            stop()


def families(pids: Iterable[int]) -> list[psutil.Process]:
    """Return these processes and everything below them. Ask before they end: their orphans become init's children."""
    wanted = set(pids)
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):  # parents come before their children
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid in wanted or process.ppid() in wanted:
                wanted.add(process.pid)
                found.append(process)
    return found


def kill_remaining(processes: Iterable[psutil.Process]) -> tuple[str, ...]:
    """Give processes that are about to end a moment; kill those that stay, and name them."""
    _, alive = psutil.wait_procs(list(processes), timeout=_MOMENT_S)
    left: list[str] = []
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{process.pid} {process.name()}")
                process.kill()
    return tuple(left)
