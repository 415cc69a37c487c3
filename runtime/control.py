"""The control socket: how a person, a script or a GUI speaks to a running program.

JSON Lines over a Unix stream socket in a 0700 directory. A request is `{"id":1,"command":"ps","args":{}}`; its
answer `{"id":1,"ok":true,"data":…}` or `{"id":1,"ok":false,"error":{"code":…,"message":…,"hint":…}}`. The program
registers its commands. Two are the socket's own: `events` gives the last events; after `subscribe` the connection
carries `{"event":{…}}` lines, with `{"recent":50}` beginning with the last 50 events, so that none is missed between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from .errors import AskTimeout, ExeuntError, LocalError, Refused, Unavailable
from .log import rfc3339
from .wakeups import wakeups_of

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 4 * 1024 * 1024
_EVENTS_KEPT = 500  # for who asks later
_EVENTS_WAITING = 1_000  # a subscriber that is slower than this loses events, not the program its memory

Command = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlUnavailable(ExeuntError):
    """No program answers at that socket."""


class ControlTaken(LocalError):
    """A program serves at that socket already."""


class ControlError(ExeuntError):
    """The program answered with an error."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class _Request(msgspec.Struct):
    id: int
    command: str
    args: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class _Subscribed(msgspec.Struct, frozen=True):
    """Stands in an answer: from now on this connection carries events, beginning with so many earlier ones."""

    recent: int


class ControlServer:
    """Serves commands at a socket. A command is `async (args) -> data`; it raises `ControlError` or `Refused` to
    say no.
    """

    def __init__(self, path: Path, commands: dict[str, Command]) -> None:
        self.path = path
        self.commands = commands
        self.recent: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)
        """The last events, the oldest first."""
        self._server: asyncio.Server | None = None
        self._subscribers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The directory is made 0700; a dead predecessor's socket is replaced.

        Raises ControlTaken when a living program has it, OSError when the path is no good.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _answers(self.path):
            raise ControlTaken(f"a program serves at {self.path} already")
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self.path), limit=MAX_LINE_BYTES)
        self.path.chmod(0o600)

    @property
    def subscribers(self) -> int:
        """How many follow the events."""
        return len(self._subscribers)

    def publish(self, event: dict[str, Any]) -> None:
        """Give an event to every subscriber, and keep it for later ones. `at` is filled in where it is missing."""
        event = event if "at" in event else {**event, "at": rfc3339(time.time_ns())}
        self.recent.append(event)
        for queue in self._subscribers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    async def close(self) -> None:
        """Stop listening, end every connection, remove the socket."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            self._server = None
            self.path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side left, or we leave
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await _line(reader):
            wakeups_of(asyncio.get_running_loop()).count("control")
            answer = await self._answer(line)
            data = answer.get("data")
            if isinstance(data, _Subscribed):
                await self._stream(reader, writer, {**answer, "data": "subscribed"}, data.recent)
                return
            writer.write(_encoded(answer))
            await writer.drain()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=_Request)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _error(0, "usage", f"not a request: {error}")
        if request.command == "subscribe":
            recent = request.args.get("recent", 0)
            if not isinstance(recent, int) or recent < 0:
                return _error(request.id, "usage", f"bad arguments: recent is {recent!r}")
            return {"id": request.id, "ok": True, "data": _Subscribed(recent)}
        if request.command == "events":
            return {"id": request.id, "ok": True, "data": list(self.recent)}
        command = self.commands.get(request.command)
        if command is None:
            known = ", ".join(sorted(self.commands))
            return _error(request.id, "usage", f"no such command: {request.command}", f"This program answers {known}.")
        try:
            return {"id": request.id, "ok": True, "data": msgspec.to_builtins(await command(request.args))}
        except ControlError as error:
            return _error(request.id, error.code, error.message, error.hint)
        except Refused as error:
            return _error(request.id, error.code, error.message)
        except AskTimeout as error:
            return _error(request.id, "timeout", str(error))
        except Unavailable as error:
            return _error(request.id, "unavailable", str(error))
        except (KeyError, TypeError, ValueError) as error:
            return _error(request.id, "usage", f"bad arguments: {error}")
        except Exception as error:
            logger.exception("A control command failed", extra={"event": "command_failed", "command": request.command})
            return _error(request.id, "failed", str(error))

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepted: dict[str, Any], recent: int
    ) -> None:
        """Give events until the subscriber hangs up; what else it says is passed over."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_EVENTS_WAITING)
        for event in list(self.recent)[len(self.recent) - min(recent, len(self.recent)) :]:
            queue.put_nowait(event)
        self._subscribers.add(queue)  # before anybody is told: what happens from then on is not missed
        writer.write(_encoded(accepted))
        hung_up = asyncio.ensure_future(_until_end(reader))
        following = asyncio.ensure_future(queue.get())
        try:
            while not hung_up.done():
                await asyncio.wait({hung_up, following}, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    writer.write(_encoded({"event": following.result()}))
                    await writer.drain()
                    following = asyncio.ensure_future(queue.get())
        finally:
            self._subscribers.discard(queue)
            hung_up.cancel()
            following.cancel()


async def _until_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65_536):
            pass


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)  # EAGAIN: it lives, and its backlog is full


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line; nothing at the end, or where it is longer than any request."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


def _encoded(answer: dict[str, Any]) -> bytes:
    """Write a line. What JSON cannot carry (a file name's undecodable bytes, a number too large) becomes an error."""
    try:
        return msgspec.json.encode(answer) + b"\n"
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        logger.warning(
            "An answer cannot be written as JSON", extra={"event": "answer_unwritable", "error": repr(error)}
        )
        return (
            msgspec.json.encode(_error(answer.get("id", 0), "failed", "the answer cannot be written as JSON")) + b"\n"
        )


def _error(request_id: int, code: str, message: str, hint: str | None = None) -> dict[str, Any]:
    error = {"code": code, "message": message}
    if hint:
        error["hint"] = hint
    return {"id": request_id, "ok": False, "error": error}


class ControlClient:
    """Speaks to a program from a command: blocking, one request at a time. A context manager."""

    def __init__(self, path: Path) -> None:
        """Connect. Raises ControlUnavailable when nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ControlUnavailable(f"nothing answers at {path}: {error.strerror or error}") from None
        self._file = self._socket.makefile("rb")
        self._id = 0

    def request(self, command: str, args: dict[str, Any] | None = None, timeout_s: float = 10.0) -> Any:
        """Send a command and return its data. Raises ControlError, ControlUnavailable (it left), or TimeoutError."""
        self._id += 1
        self._socket.settimeout(timeout_s)
        line = msgspec.json.encode({"id": self._id, "command": command, "args": args or {}}) + b"\n"
        try:
            self._socket.sendall(line)
            answer = self._read()
        except TimeoutError:
            raise
        except OSError as error:
            raise ControlUnavailable(str(error)) from None
        if answer.get("ok"):
            return answer.get("data")
        refusal: dict[str, Any] = answer.get("error") or {}
        raise ControlError(
            str(refusal.get("code", "failed")), str(refusal.get("message", "it failed")), refusal.get("hint")
        )

    def events(self, *, recent: int = 0) -> Iterator[dict[str, Any]]:
        """Subscribe, and yield events until the program leaves, the last `recent` ones first."""
        self.request("subscribe", {"recent": recent} if recent else None)
        self._socket.settimeout(None)
        with contextlib.suppress(ControlUnavailable):
            while True:
                yield self._read()["event"]

    def hang_up(self) -> None:
        """End the conversation from another thread: whoever waits there for an answer or an event is told."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise ControlUnavailable("the program left")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer
