"""ZeroMQ between workers: frames in, frames out, nothing else.

Each worker binds one PULL below a 0700 directory and connects a PUSH to every other worker, lazily; a PUSH only sends,
the PULL only receives (a ROUTER would cost a second frame with each: who sent it is in the envelope). So one
descriptor is watched, the PULL's, and it is edge-triggered: it is drained whenever it fires (`zmq.asyncio` measured
20 times slower one way).

Below the directory nobody else gets in. Over TCP everybody does, so there a transport has CURVE keys, and an
allow-list of others' (`curve`). There it connects with its first message, not before: by then the supervisor has made
both ends known to each other. And there it can watch its connections (`lifeline`).

An endpoint carries the worker's epoch. Without it, mail that was queued for a dead worker would be delivered to its
successor.

The first envelope of a loop turn leaves at once, the rest of the turn in one frame (2.1 × the tells of always batching,
same latency as never batching).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import zmq

from .batch import Batch
from .codec import MAX_ENVELOPE_BYTES, Codec, Run
from .curve import CurveKeys, Gatekeeper
from .envelope import Envelope
from .errors import LocalError, Unencodable
from .lifeline import Lifeline
from .wakeups import add_reader

_DRAIN_BUDGET = 200  # frames a wake-up; then the loop gets a turn, so that a flood cannot starve timers
_RECONNECT_MS = 2  # libzmq's default of 100 ms would be most of a worker's start
_LINGER_MS = 200  # what close may wait for the kernel to take the last frames


def endpoint(directory: Path, worker: str, epoch: int) -> str:
    """Return the ZeroMQ endpoint of a worker's incarnation."""
    return f"ipc://{directory}/{worker}.{epoch}"


def _nothing() -> None:
    """Until a node says what to do."""


class Transport:
    """The sockets of one worker. On its loop only."""

    def __init__(
        self,
        bind: str,
        *,
        on_frame: Callable[[bytes], None],
        loop: asyncio.AbstractEventLoop,
        codec: Codec,
        keys: CurveKeys | None = None,
        on_lost: Callable[[str, str], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        """`bind` is an `ipc://` endpoint, or a `tcp://` one (port 0: any), which needs `keys`. Raises LocalError
        without them, ZMQError when the endpoint is no good.

        With `keys`: `on_lost` is called with a worker to which the connection has ended for good, and how
        (`lifeline`); `on_refused` with why a stranger was refused.
        """
        if bind.startswith("tcp://") and keys is None:
            raise LocalError("over TCP a transport needs CURVE keys: everybody can connect to a port")
        self._on_frame = on_frame
        self._loop = loop
        self._codec = codec
        self.unsendable: Callable[[Envelope, Unencodable], None] = lambda _envelope, _error: None
        """Told of an envelope that turned out not to be encodable."""
        self.sent: Callable[[Run], None] | None = None
        """Told of each run that leaves."""
        self.before_turn: Callable[[], None] = _nothing
        """Called before what has come is delivered."""
        self.after_turn: Callable[[], None] = _nothing
        """Called after: to have actors handle it at once, rather than a turn later."""
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.RCVHWM, 0)  # bounds are the mailboxes': a high-water mark counts frames
        self._pull.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.MAXMSGSIZE, 2 * MAX_ENVELOPE_BYTES)  # who sends more is cut off before we hold it
        self._keys = keys
        self._known: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._on_lost = on_lost
        self._lifelines: dict[str, Lifeline] = {}
        self._gatekeeper: Gatekeeper | None = None
        if keys is not None:
            self._gatekeeper = Gatekeeper(self._context, loop, on_refused)
            self._gatekeeper.guard(self._pull, keys)
        try:
            self._pull.bind(bind)
        except zmq.ZMQError:
            self._close_pull()
            raise
        self.endpoint = str(self._pull.get_string(zmq.LAST_ENDPOINT)).rstrip("\0")
        """Where it is reached; with TCP, the port that was chosen."""
        self._fd = int(self._pull.getsockopt(zmq.FD))
        add_reader(loop, self._fd, "zeromq", self._readable)
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._silenced: dict[str, zmq.Socket[bytes]] = {}
        self._waiting: dict[str, Batch | None] = {}
        self._flush_scheduled = False
        self._in_turn = False
        self.frames_in_total = 0
        self.frames_out_total = 0

    @property
    def refused_total(self) -> int:
        """Connections of strangers that were refused."""
        return self._gatekeeper.refused_total if self._gatekeeper is not None else 0

    def allow(self, worker: str, public_key: str) -> None:
        """Know a worker by its public key: it may connect, and when we connect to it, it must be the one.

        The worker's earlier key is forgotten; a connection that stands is not cut. Raises LocalError where there are
        no keys.
        """
        if self._gatekeeper is None:
            raise LocalError("this transport has no CURVE keys")
        self.disallow(worker)
        self._known[worker] = public_key
        self._gatekeeper.allowed.add(public_key)

    def disallow(self, worker: str) -> None:
        """Accept no further connection from it."""
        key = self._known.pop(worker, None)
        if key is not None and self._gatekeeper is not None and key not in self._known.values():
            self._gatekeeper.allowed.discard(key)

    def connect(self, worker: str, address: str, public_key: str = "", /) -> None:
        """Reach `worker` there from now on; a connection to its predecessor is dropped.

        With keys: allows `public_key`; without one, raises LocalError for a worker that was not allowed before.
        """
        if public_key:
            self.allow(worker, public_key)
        if self._keys is not None and worker not in self._known:
            raise LocalError(f"the public key of {worker} is not known: allow it first")
        self._drop(worker)
        self._addresses[worker] = address
        if self._keys is None:
            self.open(worker)

    def open(self, worker: str) -> zmq.Socket[bytes] | None:
        """Connect now, rather than with the first message. Returns None when the worker is unknown."""
        address = self._addresses.get(worker)
        if address is None or worker in self._peers:
            return self._peers.get(worker)
        push = self._context.socket(zmq.PUSH)
        push.setsockopt(zmq.SNDHWM, 0)
        push.setsockopt(zmq.LINGER, _LINGER_MS)
        push.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        if self._keys is not None:
            push.setsockopt(zmq.CURVE_SERVERKEY, self._known[worker].encode())
            push.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            push.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
            if self._on_lost is not None:
                self._lifelines[worker] = Lifeline(push, self._loop, functools.partial(self._on_lost, worker))
        push.connect(address)
        self._peers[worker] = push
        return push

    def silence(self, worker: str) -> None:
        """Send nothing more to `worker`, but go on watching the connection: it is being killed."""
        self._addresses.pop(worker, None)
        self._waiting.pop(worker, None)
        push = self._peers.pop(worker, None)
        if push is not None:
            self._silenced[worker] = push

    def disconnect(self, worker: str, /) -> None:
        """Forget `worker`; what was not sent to it is dropped, and its key no longer opens a connection."""
        self._drop(worker)
        self.disallow(worker)

    def _drop(self, worker: str) -> None:
        self._addresses.pop(worker, None)
        lifeline = self._lifelines.pop(worker, None)
        if lifeline is not None:
            lifeline.close()
        self._waiting.pop(worker, None)
        for sockets in (self._peers, self._silenced):
            push = sockets.pop(worker, None)
            if push is not None:
                push.close(linger=0)

    def knows(self, worker: str) -> bool:
        """Say whether `worker` can be sent to."""
        return worker in self._addresses

    def send(self, worker: str, envelope: Envelope, /) -> bool:
        """Send, the first envelope of a turn at once; False when the worker is unknown. Never blocks.

        Raises UnknownMessage for a type that the codec does not know.
        """
        push = self._peers.get(worker) or self.open(worker)
        if push is None:
            return False
        if worker in self._waiting:
            batch = self._waiting[worker]
            if batch is None:
                batch = self._waiting[worker] = Batch(self._codec)
            if batch.add(envelope):
                self._waiting[worker] = None
                self._send_batch(push, batch)
            return True
        first = Batch(self._codec)
        first.add(envelope)
        self._waiting[worker] = None  # the rest of this turn waits for its end
        self._send_batch(push, first)
        if not self._flush_scheduled and not self._in_turn:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return True

    def close(self) -> None:
        """Send what waits, then close; takes at most the linger time."""
        self._flush()
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._fd)
        for lifeline in self._lifelines.values():
            lifeline.close()
        for push in self._peers.values():
            push.close()
        for push in self._silenced.values():
            push.close(linger=0)
        self._addresses.clear()
        self._peers.clear()
        self._silenced.clear()
        self._close_pull()

    def _close_pull(self) -> None:
        if self._gatekeeper is not None:
            self._gatekeeper.close()
        self._pull.close()
        self._context.term()

    def _flush(self) -> None:
        self._flush_scheduled = False
        waiting, self._waiting = self._waiting, {}
        for worker, batch in waiting.items():
            push = self._peers.get(worker)
            if batch and push is not None:
                self._send_batch(push, batch)

    def _send_batch(self, push: zmq.Socket[bytes], batch: Batch) -> None:
        if self.sent is not None:
            for run in batch.runs:
                self.sent(run)
        for frame in batch.frames(self.unsendable):
            self.frames_out_total += 1
            push.send(frame, zmq.DONTWAIT)

    def _readable(self) -> None:
        drained = False
        self._in_turn = True
        self.before_turn()
        try:
            drained = self._drain()
        finally:
            self.after_turn()
            self._in_turn = False
            if self._waiting:
                self._flush()
            if not drained:  # the descriptor is edge-triggered: it won't fire again for what is left
                self._loop.call_soon(self._readable)

    def _drain(self) -> bool:
        pull = self._pull
        if pull.closed:
            return True
        for _ in range(_DRAIN_BUDGET):
            if not int(pull.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return True
            self.frames_in_total += 1
            self._on_frame(pull.recv(zmq.DONTWAIT))
        return False
