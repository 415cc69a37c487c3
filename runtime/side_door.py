"""The side door of a worker: a thread that says what goes on while the loop does not.

What is asked through mailboxes waits behind whatever blocks the loop, and leaves traces among those that one wants to
look at. So each process of a program has one more thread, which sleeps on a Unix socket beside the others of the
program, and costs nothing until somebody knocks. It answers one request a connection: a line of JSON in, msgpack out.

It needs the interpreter's lock. Where an extension keeps that, a real-time signal has `faulthandler` write the stacks
of all threads into a file beside the socket; the handler is C and runs at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from .errors import AskTimeout, Unavailable

logger = logging.getLogger(__name__)

_REQUEST_BYTES = 4096
_CALLER_S = 1.0  # for a caller to say what it wants; others wait behind it
_LOOK_AGAIN_S = 0.02  # a dump of some threads takes less than a millisecond, and nothing tells us of its end
_LOOKS = 50

Answer = Callable[[bytes], bytes]


def socket_path(ipc: Path, worker: str, epoch: int) -> Path:
    """Return where that life of a worker can be knocked at. `Directories.sweep` knows the name as well."""
    return ipc / f"{worker}.{epoch}s"


def dump_path(ipc: Path, worker: str, epoch: int) -> Path:
    """Return the file that the signal has written."""
    return ipc / f"{worker}.{epoch}f"


class SideDoor:
    """Answers at a socket, on a daemon thread of its own. `answer` runs there too."""

    def __init__(self, path: Path, answer: Answer) -> None:
        """Raises OSError when the path is no good."""
        self.path = path
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(8)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="exeunt-side-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the door, and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return  # closed
            with caller:
                try:
                    caller.settimeout(_CALLER_S)
                    caller.sendall(self._answer(_line(caller)))
                except OSError:
                    pass  # it did not wait
                except Exception:
                    logger.exception("The side door failed", extra={"event": "side_door_failed"})


def _line(caller: socket.socket) -> bytes:
    data = b""
    while b"\n" not in data and len(data) < _REQUEST_BYTES:
        more = caller.recv(_REQUEST_BYTES)
        if not more:
            break
        data += more
    return data


async def knock(path: Path, request: bytes, *, timeout_s: float) -> bytes:
    """Ask at a side door. Raises Unavailable when nobody is there, AskTimeout when it does not answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(request + b"\n")
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        raise AskTimeout(f"{path.name} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise Unavailable(f"{path.name}: {error.strerror or error}") from None
    if not answer:
        raise Unavailable(f"{path.name} hung up")
    return answer


# --- for when no Python can run ---


def _signal_number() -> int | None:
    # Not the lowest real-time signals, which libraries take first. Elsewhere than on Linux there are none.
    return signal.SIGRTMIN + 6 if sys.platform == "linux" else None


def dump_on_signal(path: Path) -> None:
    """Have the signal write this process's stacks to `path` from now on. Raises OSError when the path is no good."""
    number = _signal_number()
    if number is None:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "wb", buffering=0)
    faulthandler.register(number, file, all_threads=True, chain=False)  # which keeps the file


async def signalled_dump(path: Path, pid: int) -> str:
    """Send the signal, and return what was written. Raises Unavailable when nothing was.

    A process that has not made its file has not said what the signal means, and would be ended by it: it gets none.
    """
    number = _signal_number()
    if number is None:
        raise Unavailable(f"process {pid} does not answer: something keeps the interpreter's lock")
    try:
        os.truncate(path, 0)
        os.kill(pid, number)
    except OSError as error:
        raise Unavailable(f"process {pid} cannot be looked into: {error.strerror}") from None
    before = b""
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_AGAIN_S)
        dump = _read(path)
        if dump and dump == before:
            return dump.decode(errors="replace")
        before = dump
    raise Unavailable(f"process {pid} does not even answer a signal: it is stopped, or waits in the kernel")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # its program has just tidied up
