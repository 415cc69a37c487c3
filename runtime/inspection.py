"""Letting others look into a program that is built on `exeunt.runtime` alone:

    async with Inspection(supervisor, Path("run")):
        …

While the context lasts, `exeunt ps`, `tree`, `top`, `show`, `stack`, `events`, `restart` and `stop` find the program,
below the home (`EXEUNT_HOME`) whose `run` that directory is. There the program has a directory of its name with

    pid            the process, in decimal
    control.sock   the control socket (`control`), on which everything is asked
    side.sock      the side door of this process (`side_door`), for the stacks while its loop is blocked

Where that is too long for a socket's path, the directory is `/tmp/exeunt-UID-HASH`, and the commands look there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from .control import Command, ControlServer
from .errors import LocalError
from .inspector import Inspector
from .log import rfc3339
from .outcome import Outcome
from .side_door import SideDoor
from .supervisor import Supervisor

_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), without its NUL
_BELOW_BYTES = 48  # what a run directory leaves free for the sockets below it
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_NAME_LENGTH = 24


class Inspection:
    """Serves a program's inspection while the context lasts. Enter it before or after `Supervisor.start`."""

    def __init__(
        self,
        supervisor: Supervisor,
        run_dir: Path,
        *,
        name: str | None = None,
        commands: dict[str, Command] | None = None,
    ) -> None:
        """`name` is what `--instance` calls the program, by default the supervisor's name; `commands` are further
        ones for the control socket. Raises LocalError for a name that no instance can have.
        """
        self.name = supervisor.name if name is None else name
        if not 0 < len(self.name) <= _NAME_LENGTH or not set(self.name) <= _NAME_CHARS or not self.name[0].isalnum():
            raise LocalError(f"{self.name!r} is no instance's name: use a-z, 0-9, -, _ and ., at most {_NAME_LENGTH}")
        self.directory = short_enough(run_dir.absolute()) / self.name
        self.inspector = Inspector(supervisor)
        self.control = ControlServer(
            self.directory / "control.sock",
            {"hello": self._hello, "stop": self._stop, **self.inspector.commands, **(commands or {})},
        )
        self._supervisor = supervisor
        self._started_ns = 0
        self._undo = contextlib.AsyncExitStack()
        self._leave: asyncio.Task[Outcome] | None = None

    async def __aenter__(self) -> Self:
        """Serve from now on. Raises ControlTaken when a living program of that name does, PermissionError when others
        could write where we would.
        """
        self._started_ns = time.time_ns()
        for directory in (self.directory.parent, self.directory):
            _make_private(directory)
        async with contextlib.AsyncExitStack() as undo:
            await self.control.start()
            undo.callback(self._remove)
            undo.push_async_callback(self.control.close)
            (self.directory / "pid").write_text(f"{os.getpid()}\n", encoding="ascii")
            undo.callback(self.inspector.publish_to(self.control))
            undo.callback(SideDoor(self.directory / "side.sock", self.inspector.look).close)
            self._undo = undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Serve no more; leave no file behind."""
        await self._undo.aclose()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            (self.directory / "pid").unlink()
            self.directory.rmdir()
            self.directory.parent.rmdir()  # unless others have theirs there

    async def _hello(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {
            "instance": self.name,
            "program": self.name,
            "pid": os.getpid(),
            "version": _version(),
            "started_at": rfc3339(self._started_ns),
        }

    async def _stop(self, args: dict[str, Any]) -> dict[str, Any]:
        """Have the supervisor leave. Whoever awaits `Supervisor.wait` goes on, and decides what the program does."""
        if args.get("now"):
            self._supervisor.force()
        else:
            self._leave = asyncio.create_task(self._supervisor.leave(str(args.get("reason", "shutdown"))))
        return {"trace": None}


def _version() -> str:
    """Exeunt's; nothing where it runs without having been installed."""
    try:
        return metadata.version("exeunt")
    except metadata.PackageNotFoundError:
        return ""


def short_enough(run_dir: Path) -> Path:
    """Return the directory, or the one that stands for it where sockets below it would have too long a path. The same
    rule is in `exeunt.clients.paths`, which must not import this layer to be fast; a test compares the two.
    """
    encoded = os.fsencode(run_dir)
    if len(encoded) + _BELOW_BYTES <= _SOCKET_PATH_BYTES:
        return run_dir
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return Path("/tmp") / f"exeunt-{os.geteuid()}-{digest}"  # noqa: S108 - only used when it is ours: _make_private


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{directory} is not a directory that only its owner, us, can write to")
