"""Whether the other end of a connection is still there.

On one machine the kernel says when a process ends. Between machines only the connection can: it is watched through
ZeroMQ's monitor, and kept honest by heartbeats (ZMTP 3.1, PING and PONG), which ZeroMQ's own thread answers, so that
a handler which blocks its loop is not taken for dead. When a connection is gone, ZeroMQ tries to make it again:

- refused: that machine answers, and nobody listens there any more. A listener lives as long as its process, so this
  is an end, known within milliseconds.
- silence: the machine is lost, or cut off from us, or its process is stopped. After `SILENT_S` that counts as an end.
  Nobody can tell the three apart from here; whoever is cut off comes to the same conclusion about us.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import zmq
import zmq.utils.monitor

from .wakeups import add_reader, call_later

HEARTBEAT_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 3_000
"""A connection on which nothing was heard for so long is given up, and made anew."""
SILENT_S = 2.0
"""How long that may take. So a machine that falls silent is lost after 3 + 2 to 1 + 3 + 2 seconds."""
FIRST_S = 10.0
"""How long the first connection may take: the other end may have a cold start before it."""

REFUSED = "nobody listens there any more"
SILENT = "it does not answer any more"

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_DRAIN_BUDGET = 50  # events a wake-up


class Lifeline:
    """Watches a socket that connects to one endpoint. On its loop only."""

    def __init__(
        self, socket: zmq.Socket[bytes], loop: asyncio.AbstractEventLoop, on_lost: Callable[[str], None]
    ) -> None:
        """Make it before the socket connects. `on_lost` is called once, with `REFUSED` or `SILENT`."""
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
        self._socket = socket
        self._loop = loop
        self._on_lost = on_lost
        self.is_up = False
        """Whether the connection stands."""
        self._was_up = False
        self._monitor = socket.get_monitor_socket(_EVENTS)
        self._fd = int(self._monitor.getsockopt(zmq.FD))
        self._closed = False
        self._timer: asyncio.TimerHandle | None = call_later(loop, FIRST_S, "lifeline", self._lost, SILENT)
        add_reader(loop, self._fd, "zeromq", self._readable)
        loop.call_soon(self._readable)  # the descriptor is edge-triggered

    def close(self) -> None:
        """Watch no longer. Close the socket after this."""
        if self._closed:
            return
        self._closed = True
        self._wait_no_longer()
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._fd)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)

    # --- inside ---

    def _readable(self) -> None:
        for _ in range(_DRAIN_BUDGET):
            if self._closed:
                return
            try:
                parts = self._monitor.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError:
                return  # nothing there (Again)
            self._happened(zmq.utils.monitor.parse_monitor_message(parts)["event"])
        self._loop.call_soon(self._readable)

    def _happened(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._was_up = self.is_up = True
            self._wait_no_longer()
        elif event == zmq.EVENT_DISCONNECTED and self.is_up:
            self.is_up = False
            self._timer = call_later(self._loop, SILENT_S, "lifeline", self._lost, SILENT)
        elif event == zmq.EVENT_CLOSED and self._was_up and not self.is_up:
            self._lost(REFUSED)  # an attempt to connect anew failed

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lost(self, how: str) -> None:
        self.close()
        self._on_lost(how)
