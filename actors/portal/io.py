"""The link to the portal with its socket and clock attached: the thin shell around `LinkMachine`."""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from exeunt.runtime.wakeups import call_later

from .events import (
    CloseSocket,
    LinkDenied,
    LinkDown,
    LinkEvent,
    LinkJoined,
    LinkLeft,
    LinkMessage,
    LinkState,
    OpenSocket,
    SendFrame,
    SocketCommand,
)
from .machine import LinkCounters, LinkMachine
from .messages import AskEvidence, Evidence, FromPeer, Join, LiveConnection
from .socket import PortalSocket

_log = logging.getLogger(__name__)


class Link:
    """A link that keeps itself up until it is closed, left or denied.

    Everything runs on the asyncio loop on which `start` is called, `on_event` too; it must not block. `url`
    is a whole websocket URL (see `websocket_url`). `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        url: str,
        token: str,
        join: Join,
        *,
        on_event: Callable[[LinkEvent], None],
        rng: random.Random,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._token = token
        self._on_event = on_event
        self._now = now
        self._machine = LinkMachine(join, rng=rng)
        self._socket: PortalSocket | None = None
        self._ending_sockets: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._left: asyncio.Future[bool] | None = None
        self._questions: dict[int, asyncio.Future[Evidence]] = {}
        self._last_ref = 0
        self._draining = False

    @property
    def state(self) -> LinkState:
        """Where the link is; see `machine.TRANSITIONS`."""
        return self._machine.state

    @property
    def counters(self) -> LinkCounters:
        """What was seen and dropped so far."""
        return self._machine.counters

    def start(self) -> None:
        """Connect. Also a nudge while the link waits for its next try."""
        self._machine.handle_start(self._now())
        self._drain()

    def reset(self) -> None:
        """The network has changed: connect anew, at once."""
        self._machine.handle_reset(self._now())
        self._drain()

    def set_connections(self, connections: tuple[LiveConnection, ...]) -> None:
        """Which connections the next join claims as alive; the portal revokes those it does not allow."""
        self._machine.handle_connections(connections)

    def send(self, message: FromPeer, join: int | None = None) -> None:
        """Send a message, or hold it until the link is up (see `Outbox` for what is held, and
        `LinkMachine.handle_send` for `join`).
        """
        self._machine.handle_send(message, self._now(), join)
        self._drain()

    def take_unsaid(self) -> tuple[FromPeer, ...]:
        """Take out what the portal may not have heard, for another link to say. This one is to be closed then."""
        return self._machine.take_unsaid(self._now())

    async def evidence(self, connection: str, timeout_s: float) -> Evidence | None:
        """Ask what the portal knows of a connection; None if the link is down or no answer comes in time."""
        if self._machine.state != "joined":
            return None
        self._last_ref += 1
        ref = self._last_ref
        answer: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()
        self._questions[ref] = answer
        try:
            self.send(AskEvidence(ref=ref, connection=connection))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._questions[ref]

    async def leave(self, reason: str, timeout_s: float = 0.25) -> bool:
        """Say goodbye. Whether the portal acknowledged it within `timeout_s`.

        Ends of connections may still be sent, until `close`.
        """
        if self._left is None:
            if self._machine.state == "closed":
                return False
            self._left = asyncio.get_running_loop().create_future()
            self._machine.handle_leave(reason, timeout_s, self._now())
            self._drain()
        return await asyncio.shield(self._left)

    async def close(self) -> None:
        """Close without a goodbye, and wait until the socket is gone. Does nothing the second time."""
        self._machine.handle_close()
        self._drain()
        if self._ending_sockets:
            await asyncio.wait(self._ending_sockets)

    # From the socket; one that was replaced no longer reports.

    def on_opened(self, socket: PortalSocket) -> None:
        """See `SocketOwner`."""
        self._machine.handle_opened(self._now())
        self._drain()

    def on_refused(self, socket: PortalSocket, status: int, retry_after_s: float | None) -> None:
        """See `SocketOwner`."""
        self._machine.handle_refused(status, retry_after_s, self._now())
        self._drain()

    def on_frame(self, socket: PortalSocket, frame: str | bytes) -> None:
        """See `SocketOwner`."""
        self._machine.handle_frame(frame, self._now())
        self._drain()

    def on_closed(self, socket: PortalSocket, reason: str) -> None:
        """See `SocketOwner`."""
        self._machine.handle_closed(reason, self._now())
        self._drain()

    # Inside.

    def _on_timer(self) -> None:
        self._timer = None
        self._machine.handle_timeout(self._now())
        self._drain()

    def _drain(self) -> None:
        """Carry out what the machine decided.

        An event's receiver may call back in here; the outer call goes on.
        """
        if self._draining:
            return
        self._draining = True
        try:
            while True:
                while (command := self._machine.poll_transmit()) is not None:
                    self._carry_out(command)
                event = self._machine.poll_event()
                if event is None:
                    break
                self._tell(event)
        finally:
            self._draining = False
        self._set_timer()

    def _carry_out(self, command: SocketCommand) -> None:
        match command:
            case OpenSocket():
                self._stop_socket()
                self._socket = PortalSocket(self._url, self._token, self)
            case SendFrame(frame=frame) if self._socket is not None:
                self._socket.send(frame)
            case CloseSocket():
                self._stop_socket()
            case _:
                pass

    def _stop_socket(self) -> None:
        if self._socket is not None:
            task = self._socket.task
            self._ending_sockets.add(task)
            task.add_done_callback(self._ending_sockets.discard)
            self._socket.stop()
            self._socket = None

    def _tell(self, event: LinkEvent) -> None:
        match event:
            case LinkLeft(acknowledged=acknowledged):
                if self._left is not None and not self._left.done():
                    self._left.set_result(acknowledged)
                return
            case LinkMessage(message=Evidence() as evidence):
                question = self._questions.get(evidence.ref)
                if question is not None and not question.done():
                    question.set_result(evidence)
                return
            case LinkJoined():
                _log.info("The portal confirmed the join.")
            case LinkDown(was_joined=True):
                _log.info("The link to the portal was lost.", extra={"reason": event.reason})
            case LinkDenied():
                _log.info("The portal denied the link.", extra={"reason": event.reason})
            case _:
                pass
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  # the receiver's fault must not cost us the link that it needs to recover
            _log.exception("The receiver of a link event failed.")

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timeout = self._machine.poll_timeout()
        if timeout is not None:
            delay_s = max(0.0, timeout[0] - self._now())
            self._timer = call_later(asyncio.get_running_loop(), delay_s, f"portal {timeout[1]}", self._on_timer)
