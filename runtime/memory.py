"""Nodes of one process joined by memory: the transport of the `inline` engine, and of tests.

What crosses is encoded and decoded exactly as over ZeroMQ, so that two workers never share an object, and a message
that could not cross there cannot cross here. Between two workers order is kept: an envelope that is held up holds up
those behind it, as on a link. Everything happens on the loop; nothing is delivered within the call that sent it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence

from .actor import Actor
from .codec import Run
from .envelope import Envelope
from .errors import Failure, Unencodable
from .node import Node
from .wakeups import call_at

Route = Callable[[str, str, Envelope], Sequence[float]]
"""From worker, to worker, the envelope: after how many seconds each copy arrives. `()` drops it."""

_AT_ONCE = (0.0,)


class MemoryNetwork:
    """Who can be reached where. An address is any text; a node joins at one."""

    def __init__(self) -> None:
        self.route: Route | None = None
        """Decides what becomes of each envelope; None: each arrives once, at once."""
        self._joined: dict[str, MemoryTransport] = {}

    def join(self, node: Node, address: str) -> MemoryTransport:
        """Give a node its transport, at `address`. Raises ValueError when somebody is there."""
        if address in self._joined:
            raise ValueError(f"somebody is at {address} already")
        transport = self._joined[address] = MemoryTransport(self, node, address)
        node.transport = transport
        return transport

    def leave(self, address: str) -> None:
        """What is sent there from now on, or is under way, is lost."""
        self._joined.pop(address, None)

    def at(self, address: str) -> MemoryTransport | None:
        """Return who is there."""
        return self._joined.get(address)

    @property
    def under_way(self) -> int:
        """How many envelopes have been sent and have not arrived."""
        return sum(transport.under_way for transport in self._joined.values())


class MemoryTransport:
    """One node's way to the others (a `Carrier`)."""

    def __init__(self, network: MemoryNetwork, node: Node, address: str) -> None:
        self.node = node
        self.address = address
        self.closed = False
        self.frames_out_total = 0
        self.unsendable: Callable[[Envelope, Unencodable], None] = lambda _envelope, _error: None
        """Told of an envelope that cannot be encoded."""
        self.before_turn: Callable[[], None] = lambda: None
        self.after_turn: Callable[[], None] = lambda: None
        self.sent: Callable[[Run], None] | None = None
        """Told of what leaves."""
        self._codec = node.codec
        self._network = network
        self._links: dict[str, _Link] = {}

    @property
    def under_way(self) -> int:
        """How many envelopes left here and have not arrived."""
        return sum(len(link.queue) for link in self._links.values())

    def connect(self, worker: str, address: str, _public_key: str = "", /) -> None:
        """Reach `worker` there from now on; what is under way to its predecessor is lost."""
        self.disconnect(worker)
        self._links[worker] = _Link(self._network, self.node.loop, address)

    def disconnect(self, worker: str, /) -> None:
        """Forget `worker`; what is under way to it is lost."""
        link = self._links.pop(worker, None)
        if link is not None:
            link.cut()

    def knows(self, worker: str) -> bool:
        """Say whether `worker` can be sent to."""
        return worker in self._links

    def send(self, worker: str, envelope: Envelope, /) -> bool:
        """Send an envelope; False when the worker is unknown. Raises UnknownMessage as over ZeroMQ."""
        link = self._links.get(worker)
        if link is None or self.closed:
            return False
        run = self._codec.run(envelope)
        try:
            frame = self._codec.encode([run])
        except Unencodable as error:
            self.unsendable(envelope, error)
            return True
        if self.sent is not None:
            self.sent(run)
        self.frames_out_total += 1
        route = self._network.route
        for delay_s in _AT_ONCE if route is None else route(self.node.worker, worker, envelope):
            link.put(frame, delay_s)
        return True

    def close(self) -> None:
        """Leave the network. What is under way from here still arrives, as over a socket that lingers."""
        self.closed = True
        self._network.leave(self.address)

    def cut(self) -> None:
        """Leave the network as the dead do: what is under way from here is lost."""
        self.close()
        for worker in list(self._links):
            self.disconnect(worker)


class _Link:
    """The way from one worker to another: a queue in order of sending, which is the order of arrival."""

    def __init__(self, network: MemoryNetwork, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self.queue: deque[tuple[float, bytes]] = deque()
        self._network = network
        self._loop = loop
        self._address = address
        self._arrival: asyncio.Handle | None = None

    def put(self, encoded: bytes, delay_s: float) -> None:
        due = self._loop.time() + delay_s
        if self.queue:
            due = max(due, self.queue[-1][0])  # what is ahead holds it up
        self.queue.append((due, encoded))
        self._expect(at_once=delay_s <= 0)

    def cut(self) -> None:
        self.queue.clear()
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _expect(self, *, at_once: bool) -> None:
        if self._arrival is not None or not self.queue:
            return
        nothing = contextvars.Context()  # what arrives carries its causality itself
        if at_once:
            self._arrival = self._loop.call_soon(self._arrive, context=nothing)
        else:
            self._arrival = call_at(self._loop, self.queue[0][0], "delivery", self._arrive, context=nothing)

    def _arrive(self) -> None:
        self._arrival = None
        now = self._loop.time()
        arrived: list[bytes] = []
        while self.queue and self.queue[0][0] <= now:
            arrived.append(self.queue.popleft()[1])
        self._expect(at_once=False)
        there = self._network.at(self._address)
        if there is not None and arrived:
            for frame in arrived:
                there.node.handle_frame(frame)


def perish(node: Node) -> list[asyncio.Task[None]]:
    """Let a node die as a killed process does, as far as one process can: no goodbye is said, nothing more is
    recorded, sent or reported, and no `on_stop` runs. Return the tasks of its actors, which are being cancelled.
    """
    node.on_exit = _nobody_cares
    if isinstance(node.transport, MemoryTransport):
        node.transport.cut()
    recorder, node.recorder = node.recorder, None
    if recorder is not None:
        recorder.close()
    actors = list(node.actors.values())
    for actor in actors:
        actor.kill()
    tasks = [actor.lifecycle.task for actor in actors]
    return [task for task in tasks if task is not None and not task.done()]


def _nobody_cares(_actor: Actor, _reason: str, _failure: Failure | None) -> None:
    """The dead report nothing."""
