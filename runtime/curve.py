"""Who may connect over TCP: CURVE keys per node, and an allow-list that is asked for each connection.

On one machine the 0700 directory decides who may connect. A TCP port is open to everybody, so there each node has a
key pair (CurveZMQ, RFC 26 of the ZeroMQ project): a connection is encrypted, the one who connects knows whom it
reaches by that node's public key, and the one who is reached asks its `Gatekeeper` whether that public key is
known. ZeroMQ asks over a socket inside the process (ZAP, RFC 27). Nothing that a stranger sends after that reaches
a node: ZeroMQ drops the connection first.

Two ways to be refused, both counted: the handshake fails (no CURVE, another protocol, a wrong server key), which
the socket's monitor reports; or it gets as far as the allow-list and the key isn't there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec
import zmq
import zmq.utils.monitor
import zmq.utils.z85

from .wakeups import add_reader

logger = logging.getLogger(__name__)

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # RFC 27: one handler for a context
_ZAP_VERSION = b"1.0"
_DOMAIN = b"exeunt"  # RFC 27: without one, libzmq does not ask about CURVE clients
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_DRAIN_BUDGET = 200  # requests a wake-up; then the loop gets a turn


class CurveKeys(msgspec.Struct, frozen=True):
    """A node's key pair, each 40 characters of Z85 (RFC 32 of the ZeroMQ project)."""

    public: str
    secret: str

    @classmethod
    def generate(cls) -> CurveKeys:
        """Make a new pair, from the operating system's randomness."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())

    def __repr__(self) -> str:
        return f"CurveKeys(public={self.public!r})"  # a secret does not belong into logs


class Gatekeeper:
    """Decides who may connect to the sockets of one ZeroMQ context, and counts whom it refuses. On its loop only."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        loop: asyncio.AbstractEventLoop,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self.allowed: set[str] = set()
        """The public keys of those who may connect. May be changed at any time; it counts when one connects."""
        self.refused_total = 0
        """Connections that were refused."""
        self._context = context
        self._loop = loop
        self._on_refused = on_refused
        self._closed = False
        self._zap = context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(_ZAP_ENDPOINT)
        self._monitors: list[zmq.Socket[bytes]] = []
        self._guarded: list[zmq.Socket[bytes]] = []
        self._watch(self._zap)

    def guard(self, socket: zmq.Socket[bytes], keys: CurveKeys) -> None:
        """Have a socket, before it is bound, accept only those who are allowed."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
        monitor = socket.get_monitor_socket(_HANDSHAKE_FAILED)
        self._monitors.append(monitor)
        self._guarded.append(socket)
        self._watch(monitor)

    def close(self) -> None:
        """Stop. Close the guarded sockets after this."""
        self._closed = True
        for socket in (self._zap, *self._monitors):
            with contextlib.suppress(ValueError, OSError):
                self._loop.remove_reader(int(socket.getsockopt(zmq.FD)))
        for guarded in self._guarded:
            guarded.disable_monitor()
        for socket in (self._zap, *self._monitors):
            socket.close(linger=0)

    # --- inside ---

    def _watch(self, socket: zmq.Socket[bytes]) -> None:
        add_reader(self._loop, int(socket.getsockopt(zmq.FD)), "zeromq", self._readable, socket)
        self._loop.call_soon(self._readable, socket)  # the descriptor is edge-triggered

    def _readable(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(_DRAIN_BUDGET):
            if self._closed:
                return
            try:
                parts = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError:
                return  # nothing there (Again), or closing
            if socket is self._zap:
                socket.send_multipart(self._decision(parts), zmq.DONTWAIT)
            else:
                self._failed(parts)
        self._loop.call_soon(self._readable, socket)

    def _decision(self, request: list[bytes]) -> list[bytes]:
        """Answer a ZAP request: version, id, domain, address, identity, mechanism, credentials (RFC 27)."""
        id_ = request[1] if len(request) > 1 else b""
        known = (
            len(request) == 7
            and request[0] == _ZAP_VERSION
            and request[5] == b"CURVE"
            and len(request[6]) == 32
            and zmq.utils.z85.encode(request[6]).decode() in self.allowed
        )
        if known:
            return [_ZAP_VERSION, id_, b"200", b"OK", b"", b""]
        return [_ZAP_VERSION, id_, b"400", b"not on the allow-list", b"", b""]

    def _failed(self, parts: list[bytes]) -> None:
        event = zmq.utils.monitor.parse_monitor_message(parts)
        reason = str(zmq.Event(event["event"]).name)
        self.refused_total += 1
        logger.warning("A connection was refused", extra={"event": "connection_refused", "reason": reason})
        if self._on_refused is not None:
            self._on_refused(reason)
