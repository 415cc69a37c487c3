"""One websocket to the portal, from its handshake to its end. It decides nothing.

It reports to its owner until it is told to `stop`, and never after: the owner has gone on to another socket
by then.

Whenever this program ends the websocket, it does so with a close frame, after what was queued. The portal takes a TCP
connection that ends without one for the death of this process (`PeerGone.kind` "reset"), and so it must be nothing
else.
"""

import asyncio
import contextlib
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from exeunt.runtime.wakeups import wakeups_of

from .messages import MAX_PORTAL_FRAME_BYTES
from .timing import CLOSE_LIMIT_S

QUEUE_LIMIT = 2048
"""Frames waiting to be written, the ends of all connections of a large gateway among them.

The kernel's buffer comes on top; more means that the portal does not read.
"""


class SocketOwner(Protocol):
    """Who is told what happens on a socket."""

    def on_opened(self, socket: "PortalSocket") -> None:
        """The handshake is complete."""

    def on_refused(self, socket: "PortalSocket", status: int, retry_after_s: float | None) -> None:
        """The handshake was answered with another HTTP status than 101. The socket has ended."""

    def on_frame(self, socket: "PortalSocket", frame: str | bytes) -> None:
        """A frame arrived."""

    def on_closed(self, socket: "PortalSocket", reason: str) -> None:
        """The socket has ended, or never came to be."""


class PortalSocket:
    """A websocket and the task that runs it. Lives on the running asyncio loop."""

    def __init__(self, url: str, token: str, owner: SocketOwner) -> None:
        self._url = url
        self._token = token
        self._owner: SocketOwner | None = owner
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(QUEUE_LIMIT)
        self.task = asyncio.get_running_loop().create_task(self._run(), name="portal-socket")

    def send(self, frame: str) -> None:
        """Queue a text frame. A portal that does not read is a lost portal."""
        try:
            self._outgoing.put_nowait(frame)
        except asyncio.QueueFull:
            self._end("the portal does not read what we write")
            self.task.cancel()

    def stop(self) -> None:
        """Close, and report nothing more."""
        self._owner = None
        self.task.cancel()

    async def _run(self) -> None:
        try:
            async with connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                user_agent_header="exeunt",
                compression=None,
                proxy=None,
                open_timeout=None,  # the link machine keeps all time limits
                ping_interval=None,  # and sends heartbeats of its own
                close_timeout=CLOSE_LIMIT_S,
                max_size=MAX_PORTAL_FRAME_BYTES,
                max_queue=64,
                create_connection=_CountedConnection,
            ) as websocket:
                await self._converse(websocket)
        except InvalidStatus as answer:
            headers = answer.response.headers
            retry_after_s = _retry_after_s(headers.get("Retry-After", ""))
            if self._owner is not None:
                owner, self._owner = self._owner, None
                owner.on_refused(self, answer.response.status_code, retry_after_s)
        except (OSError, WebSocketException, EOFError, ValueError) as error:
            self._end(_reason(error))
        else:
            self._end("the portal closed the connection")

    async def _converse(self, websocket: ClientConnection) -> None:
        writer = asyncio.get_running_loop().create_task(self._write(websocket), name="portal-writer")
        try:
            if self._owner is not None:
                self._owner.on_opened(self)
            async for frame in websocket:
                if self._owner is not None:
                    self._owner.on_frame(self, frame)
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await self._write_rest(websocket)

    async def _write(self, websocket: ClientConnection) -> None:
        # A failed write is also a failed read, and the reader reports it.
        with contextlib.suppress(ConnectionClosed):
            while True:
                await websocket.send(await self._outgoing.get())

    async def _write_rest(self, websocket: ClientConnection) -> None:
        # A portal that does not read costs us this time, and what was queued; the close frame follows all the same.
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                while not self._outgoing.empty():
                    await websocket.send(self._outgoing.get_nowait())

    def _end(self, reason: str) -> None:
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.on_closed(self, reason)


class _CountedConnection(ClientConnection):
    """A connection that counts how often the portal wakes us."""

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        wakeups_of(self.loop).count("portal")
        super().data_received(data)


def _reason(error: Exception) -> str:
    """What went wrong, for a user's eyes: without the addresses that an OSError's own text carries."""
    match error:
        case ConnectionClosed():
            return "the connection to the portal broke"
        case ConnectionRefusedError():
            return "the portal refused the connection"
        case OSError(strerror=str(text)) if text:
            return f"the portal cannot be reached: {text.partition('(')[0].strip()}"
        case _:
            return f"the portal cannot be reached: {type(error).__name__}"


def _retry_after_s(value: str) -> float | None:
    # RFC 9110 section 10.2.3 also allows a date; portals send seconds.
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
