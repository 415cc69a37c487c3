"""The portal as a web application: two websockets and a health check, Starlette on uvicorn.

TLS is left to a reverse proxy in front, as certificates and their renewal usually are.
"""

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Generator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from exeunt.actors.portal.messages import MAX_PEER_FRAME_BYTES, PeerKind

from .bell import Bell
from .counters import PortalCounters
from .events import ClosedHow, CloseSession
from .io import PeerQueue, PortalIO
from .running import RunningMark
from .store import Store

SHUTDOWN_LIMIT_S = 1
"""For websockets to answer the closing handshake when the portal stops."""
_TRY_AGAIN_LATER = 1013  # RFC 6455 section 7.4.1, registered at IANA
_NO_CLOSE_FRAME = (1005, 1006)  # RFC 6455 section 7.4.1; these two are in no frame

_log = logging.getLogger(__name__)


class PortalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen and what to remember. Port 0 takes any free one."""

    database: Path
    host: str = "127.0.0.1"
    port: int = 8080
    authorization_lifetime_s: float | None = None


async def serve_until(
    stop: asyncio.Event,
    config: PortalConfig,
    ready: Callable[[str], None],
    *,
    count: Callable[[PortalCounters], None] | None = None,
) -> None:
    """Run the portal until `stop` is set.

    `ready` is called with its URL once it can be reached; `count`, before that, with counters that go on counting.

    Raises:
        OSError: the address cannot be listened on, or the database's file not be opened.
        sqlite3.DatabaseError: the database is none, or of a newer version.
    """
    with contextlib.closing(_listen(config.host, config.port)) as listener, RunningMark(config.database) as mark:
        if not mark.held:
            _log.warning("Another portal runs on this database: neither knows of the other's peers.")
        portal = PortalIO(
            Store(config.database),
            rng=random.Random(),  # noqa: S311  # spreads load; secrets come from the operating system
            authorization_lifetime_s=config.authorization_lifetime_s,
            bell=Bell(config.database) if mark.held else None,
        )
        if count is not None:
            count(portal.counters)
        try:
            portal.start()
            await _serve(portal, listener, stop, ready)
        finally:
            portal.close()


def application(portal: PortalIO) -> Starlette:
    """The ASGI application of a portal."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def client(websocket: WebSocket) -> None:
        await _attend(portal, websocket, "client")

    async def gateway(websocket: WebSocket) -> None:
        await _attend(portal, websocket, "gateway")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            WebSocketRoute("/v1/client", client),
            WebSocketRoute("/v1/gateway", gateway),
        ]
    )


class _Server(uvicorn.Server):
    """A server that leaves the process's signals to those who own the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _serve(portal: PortalIO, listener: socket.socket, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
    server = _Server(
        uvicorn.Config(
            application(portal),
            ws="websockets-sansio",
            ws_max_size=MAX_PEER_FRAME_BYTES,
            ws_per_message_deflate=False,  # compressed frames can be a thousand times their size
            ws_ping_interval=None,  # peers send heartbeats
            lifespan="off",
            log_config=None,
            log_level="warning",  # below that uvicorn logs addresses
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_LIMIT_S,
        )
    )

    async def end() -> None:
        await stop.wait()
        portal.stopping()
        server.should_exit = True

    # The listener accepts from here on, in the kernel's queue; uvicorn takes over within the same moment.
    listener.listen(2048)
    ready(_url_of(listener))
    ending = asyncio.create_task(end(), name="portal-stop")
    try:
        await server.serve(sockets=[listener])
    finally:
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending


async def _attend(portal: PortalIO, websocket: WebSocket, kind: PeerKind) -> None:
    """One websocket, from the check of its token to its end."""
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    identity = portal.authenticate(kind, token) if scheme.lower() == "bearer" else None
    if identity is None:
        # RFC 9110 section 11.6.1: a 401 names the scheme it wants.
        refusal = JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": "Bearer"})
        await websocket.send_denial_response(refusal)
        return
    await websocket.accept()
    session_id, queue = portal.open(identity)
    reader = asyncio.create_task(_read(portal, session_id, websocket), name=f"portal-read-{session_id}")
    tasks: list[asyncio.Task[Any]] = [
        reader,
        asyncio.create_task(_write(queue, websocket), name=f"portal-write-{session_id}"),
        asyncio.create_task(_watch(queue, websocket), name=f"portal-watch-{session_id}"),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        portal.closed(session_id, _how(reader, queue))
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, WebSocketDisconnect):
                raise outcome


def _how(reader: asyncio.Task[bool], queue: PeerQueue) -> ClosedHow:
    """How a websocket ended of which one task has ended: that of `_read`, if nobody here has closed it."""
    if queue.lost.is_set():
        return "not_reading"
    finished = reader.done() and not reader.cancelled() and reader.exception() is None
    return "reset" if finished and reader.result() else "closed"


async def _read(portal: PortalIO, session_id: int, websocket: WebSocket) -> bool:
    """Pass on what arrives until the end. Whether that came without a close frame."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            # For a close frame the server gives a reason too, if an empty one; 1012 is its own, when it stops.
            return "reason" not in message and message["code"] in _NO_CLOSE_FRAME
        text = message.get("text")
        portal.frame(session_id, cast("str | bytes", message.get("bytes") if text is None else text))


async def _write(queue: PeerQueue, websocket: WebSocket) -> None:
    while True:
        item = await queue.get()
        if isinstance(item, CloseSession):
            await websocket.close(item.code, item.reason)
            return
        await websocket.send_text(item)


async def _watch(queue: PeerQueue, websocket: WebSocket) -> None:
    await queue.lost.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_LIMIT_S):
            await websocket.close(_TRY_AGAIN_LATER, "not reading")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ip_address(host).version == 6 else f"http://{host}:{port}"
