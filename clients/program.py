"""What every program in the foreground has in common: a name, a lock, a log, a control socket, manners with signals.

A program is known by its instance name. Its directory below the run directory holds `pid` (locked as long as it
lives, so that a second one of that name is refused) and `control.sock`. The first SIGINT or SIGTERM begins the
leave; the second forces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import msgspec

from exeunt.runtime import log
from exeunt.runtime.control import Command, ControlServer
from exeunt.runtime.portrait import stacks_document
from exeunt.runtime.side_door import SideDoor
from exeunt.runtime.stacks import take

from .notify import notify
from .output import Options, fail, now_rfc3339, talk
from .paths import Paths, ensure_private, is_instance_name

logger = logging.getLogger(__name__)


class Program:
    """A running program. Made by `running_program`."""

    def __init__(self, kind: str, instance: str, paths: Paths, options: Options, control: ControlServer) -> None:
        self.kind = kind
        self.instance = instance
        self.paths = paths
        self.options = options
        self.control = control
        self.leaving = asyncio.Event()
        """Set by the first signal, or by `exeunt stop`."""
        self.forced = False
        self.on_leave: Callable[[str], None] = lambda _cause: None
        """Called once, with the cause to tell: `shutting_down` or `signed_out`."""
        self.on_force: Callable[[], None] = lambda: None
        self.on_network_changed: Callable[[], None] = lambda: None
        """SIGHUP."""
        self.look: Callable[[bytes], bytes] = lambda _request: msgspec.msgpack.encode(take(()))
        """Answers at the side door, on its thread."""

    def leave(self, cause: str) -> None:
        """Begin to leave; the second time, force it."""
        if self.leaving.is_set():
            self.force()
            return
        self.leaving.set()
        notify("STOPPING=1")
        self.on_leave(cause)

    def force(self) -> None:
        """Leave at once."""
        self.forced = True
        self.leaving.set()
        self.on_force()

    def network_changed(self) -> None:
        """SIGHUP."""
        self.on_network_changed()

    def on_look(self, request: bytes) -> bytes:
        """Somebody knocks at the side door: on its thread."""
        return self.look(request)

    def ready(self) -> None:
        """Tell the service manager that the program can be used."""
        notify("READY=1")

    def say(self, sentence: str) -> None:
        """Say something to the person who watches."""
        talk(self.options, sentence)

    def on_signal(self, number: signal.Signals) -> None:
        """SIGINT or SIGTERM."""
        first = not self.leaving.is_set()
        logger.info("A signal asks us to leave", extra={"event": "signal", "signal": number.name, "first": first})
        if number is signal.SIGINT:
            self.say("Leaving; again to force." if first else "Forced.")
        self.leave("shutting_down")


@asynccontextmanager
async def running_program(
    kind: str, *, paths: Paths, options: Options, log_level: str = "INFO"
) -> AsyncGenerator[Program]:
    """Be a program while the context lasts. Raises Failure when one of that name runs already (exit 1)."""
    instance = options.instance or kind
    if not is_instance_name(instance):
        fail("usage", f"{instance!r} is not an instance's name.", "Use a-z, 0-9, - and _, at most 24 characters.")
    run_dir = ensure_private(paths.instance_run_dir(instance))
    ensure_private(paths.state_dir / instance)
    lock = _lock(paths, instance)
    level = "DEBUG" if options.verbose else log_level
    log.configure(paths.log_dir / f"{instance}.log", level=level, node=instance, worker="supervisor", pid=os.getpid())
    control = ControlServer(paths.control_socket(instance), {})
    program = Program(kind, instance, paths, options, control)
    control.commands.update(_basic_commands(program))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, program.on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, program.network_changed)
    await control.start()
    door = SideDoor(paths.side_door(instance), program.on_look)
    logger.info("The program starts", extra={"event": "program_started", "program": kind, "version": version("exeunt")})
    try:
        yield program
    finally:
        door.close()
        await control.close()
        logger.info("The program has left", extra={"event": "program_left", "program": kind})
        logging.shutdown()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        with contextlib.suppress(OSError):
            paths.pid_file(instance).unlink()
            (run_dir / "ipc").rmdir()
        with contextlib.suppress(OSError):  # other programs may still have theirs there
            run_dir.rmdir()
            run_dir.parent.rmdir()
        os.close(lock)


def _lock(paths: Paths, instance: str) -> int:
    """Take the instance's pid file, or say who has it."""
    path = paths.pid_file(instance)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        fail(
            "already_running",
            f"A program called {instance} runs already (pid {pid}).",
            f"Stop it with exeunt stop --instance {instance}, or choose another name with --instance NAME.",
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _basic_commands(program: Program) -> dict[str, Command]:
    started_at, started = now_rfc3339(), time.monotonic()

    async def hello(_args: dict[str, Any]) -> dict[str, Any]:
        return {
            "instance": program.instance,
            "program": program.kind,
            "pid": os.getpid(),
            "version": version("exeunt"),
            "started_at": started_at,
        }

    async def stop(args: dict[str, Any]) -> dict[str, Any]:
        if args.get("now"):
            asyncio.get_running_loop().call_soon(program.force)
        else:
            program.leave(str(args.get("reason", "shutting_down")))
        return {"trace": None}

    async def ps(_args: dict[str, Any]) -> list[dict[str, Any]]:
        return [_own_row(program, time.monotonic() - started)]

    async def tree(_args: dict[str, Any]) -> dict[str, Any]:
        return {"name": program.instance, "kind": "supervisor", "state": "running", "pid": os.getpid(), "children": []}

    async def stack(_args: dict[str, Any]) -> list[dict[str, Any]]:
        return [stacks_document("main", take(()), ())]

    return {"hello": hello, "stop": stop, "ps": ps, "tree": tree, "stack": stack}


def _own_row(program: Program, since_s: float) -> dict[str, Any]:
    """A program without actors is one row: itself."""
    import psutil

    process = psutil.Process()
    return {
        "address": f"{program.instance}/main/{program.kind}",
        "kind": program.kind,
        "state": "stopping" if program.leaving.is_set() else "running",
        "worker": "main",
        "pid": process.pid,
        "mailbox": 0,
        "handled_total": 0,
        "restarts": 0,
        "since_s": round(since_s, 3),
        "cpu_percent": process.cpu_percent(),
        "rss_bytes": process.memory_info().rss,
    }
