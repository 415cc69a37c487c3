"""Many clients, as a program in the client's network: the visitors of `tests.system.crowd`, with traffic.

    {"url": URL, "visitors": [[NAME, TOKEN], …]}     they come; prints how many there are now
    {"busy": COUNT, "datagrams": ALL, "seconds": SECONDS}
                                                     so many send datagrams that are echoed; prints what became of them

A busy visitor keeps a fixed number of datagrams on their way to the resource and back (its share of ALL), and replaces
those that are lost: who is served less sends less, so unfairness shows. It seals, sends, receives and opens them in
trains, as a client with a device does: what is to be measured is the gateway. So it does with as little Python as can
be: what is ordinary does not come by its machine (`straight`), and one wake-up is for all sockets that have something,
which is read into one buffer.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import json
import resource
import select
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

from tests.bench.tunnel.straight import Outlet, Straight
from tests.bench.tunnel.window import TRAIN_MOST, Frames, Window
from tests.system.crowd import AT_ONCE, ONE_EVERY_S, Visitor, say

from exeunt.actors.batch.choice import choose
from exeunt.actors.batch.contract import MAX_DATAGRAMS, OUT_BYTES_EACH, TRAIN_BYTES
from exeunt.actors.batch.lanes import Passed
from exeunt.actors.ice.agent import Route
from exeunt.actors.ice.ancillary import EMPTY
from exeunt.actors.ice.burst import BUFFER_BYTES, MAX_READS
from exeunt.actors.ice.sockets import Sockets
from exeunt.actors.wireguard.session import Session
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.runtime.wakeups import add_reader, new_event_loop

ECHO_PORT = 5203
WARM_S = 0.5
"""Not measured: the windows are filled."""
_LOST_AFTER_S = 0.25
_FRAMES = Frames(ECHO_PORT)
_TRAIN = memoryview(bytearray(TRAIN_BYTES))
_BUFFER = memoryview(bytearray(BUFFER_BYTES))
_OUT = memoryview(bytearray(BUFFER_BYTES + MAX_DATAGRAMS * OUT_BYTES_EACH))
"""Where all of them read to, and open: as the sockets of one process do. Caches hold them."""
_RECEIVE = choose().receive
_RESOURCE = socket.inet_aton(RESOURCE_ADDRESS)


class BusyVisitor(Visitor):
    """One of them."""

    coalesces = True

    def __init__(self, name: str, token: str, url: str) -> None:
        super().__init__(name, token, url)
        self.window = Window(0, 1)
        self.sockets: Sockets | None = None
        """Those that its datagrams come and go by; it has them once it is connected."""
        self._straight: Straight | None = None
        self._outlet: Outlet | None = None
        self._is_for: tuple[Session | None, Route | None] = None, None
        self._source = b""
        self._left: Passed | None = None

    def new_sockets(self) -> Sockets:
        self.sockets = sockets = Sockets()
        sockets.buffer = _BUFFER
        if _RECEIVE is not None:
            sockets.read_with(self._receive)
        return sockets

    def begin(self, datagrams: int) -> None:
        """Keep so many datagrams on their way, half of them in a train; 0 ends it."""
        self.window = Window(datagrams, max(1, min(TRAIN_MOST, datagrams // 2)))
        self._source = socket.inet_aton(self.address)
        self._book()
        self._send_trains()
        self._drain()

    def mend(self) -> None:
        """Send again if nothing came for a while."""
        self._book()
        self.window.mend()
        self._send_trains()
        self._drain()

    def on_frames(self, out: memoryview, frames: Sequence[tuple[int, int, int]]) -> None:
        for start, end, _ in frames:
            self.window.take(_FRAMES.numbers(out[start:end]))
        self._send_trains()

    def _on_datagrams(self, buffer: memoryview, spans: array[int], _ecn: int) -> None:
        self._book()
        super()._on_datagrams(buffer, spans, _ecn)

    def _on_timer(self) -> None:
        self._book()
        super()._on_timer()

    def read(self, name: str, descriptor: int) -> None:
        """Read one of the sockets, and give to those who know what to do with it what is not ordinary."""
        read = self._receive(descriptor, _BUFFER, 0, MAX_READS, False)
        if (read[3] or (read[2] and read[2] not in EMPTY)) and self.sockets is not None:
            self._left = read
            self.sockets._read_burst(name, lonely=False)

    def _receive(self, descriptor: int, buffer: memoryview, at: int, most: int, lonely: bool) -> Passed:
        """Read, and take what is ordinary; see `ice.reading.Passing`. What was left of another reading comes first."""
        assert _RECEIVE is not None
        left, self._left = self._left, None
        if left is not None:
            return left
        at, reads, error, runs = _RECEIVE(descriptor, buffer, at, 1 if lonely else most)
        straight = self._straight
        if straight is None:
            return at, reads, error, runs, False, ()
        others = [run for run in runs if run[0] != straight.head or not self._take(straight, buffer, run[1])]
        if len(others) < len(runs):
            self._send_trains()
        return at, reads, error, others, len(others) < len(runs), ()

    def _take(self, straight: Straight, buffer: memoryview, spans: bytes) -> bool:
        """Count what came back; False: nothing was done."""
        now = time.monotonic()
        frames = straight.open(buffer, spans, _OUT, now)
        for start, end, packets in frames or ():
            numbers = _FRAMES.numbers(_OUT[start:end])
            if numbers:
                self.window.take(numbers)
            elif self._machine is not None:  # a control packet
                self._book()
                self._machine.handle_opened(_OUT, [(start, end, packets)], now)
                self._drain()
        return frames is not None

    def _send_trains(self) -> None:
        """Send what may be on its way now, and is not."""
        assert self._machine is not None
        assert self._agent is not None
        straight, outlet = self._straight, self._outlet
        while (train := self.window.next_train()) is not None:
            frame, now = _FRAMES.make(self._source, _RESOURCE, *train), time.monotonic()
            sealed = None if straight is None or outlet is None else straight.seal(frame, _TRAIN, now)
            if sealed is not None and outlet is not None:
                outlet.send(_TRAIN[: sealed.total], sealed.stride)
                continue
            spans = array("I", (0, len(frame)))
            for one in self._machine.handle_frames(frame, spans, _TRAIN, now) or ():
                self._agent.send_train(_TRAIN, one.stride, one.total)

    def _book(self) -> None:
        """Have the machine and the agent take note of what went by, and see which session and path are in use."""
        if self._machine is None or self._agent is None or self.sockets is None:
            return
        if self._straight is not None:
            books = self._straight.books()
            self._machine.handle_books(books, time.monotonic())
            if books.datagrams:
                self._agent.note_alive(books.received_at)
            if books.sent:
                self._agent.note_sent(books.sent_at)
        session, route = self._machine.session_in_use, self._agent.route()
        keys = None if session is None else session.lane_keys()
        is_direct = route is not None and route.kind == "direct"
        if session is None or keys is None or route is None or not is_direct or _RECEIVE is None:
            self._straight = self._outlet = None
        elif self._straight is None or self._is_for != (session, route):
            self._straight, self._outlet = Straight(session, keys), Outlet(self.sockets, route)
            self._is_for = session, route


class Watch:
    """Reads the sockets of many visitors: a wake-up is for all that have something."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._who: dict[int, tuple[BusyVisitor, str]] = {}
        add_reader(asyncio.get_running_loop(), self._poll.fileno(), "busy", self.read)

    def add(self, visitor: BusyVisitor) -> None:
        """Read its sockets from now on, until they are closed."""
        if visitor.sockets is None or _RECEIVE is None:
            return
        visitor.sockets.pause()
        for name, sock in visitor.sockets.descriptors().items():
            self._who[sock.fileno()] = visitor, name
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def read(self) -> None:
        """Read what is there."""
        for descriptor, _ in self._poll.poll(0):
            visitor, name = self._who[descriptor]
            visitor.read(name, descriptor)

    def close(self) -> None:
        """Read no more."""
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()


class Crowd:
    """All of them."""

    def __init__(self) -> None:
        self._watch = Watch()
        self._present: list[BusyVisitor] = []

    async def obey(self, order: dict[str, Any]) -> None:
        """Do what a line says."""
        if "visitors" in order:
            turn = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._arrive(turn, order["url"], *one) for one in order["visitors"]))
            gc.collect()
            gc.freeze()  # who is there stays
            say(connected=len(self._present))
        else:
            say(**await self._work(self._present[: order["busy"]], order["datagrams"], order["seconds"]))

    async def _arrive(self, turn: asyncio.Semaphore, url: str, name: str, token: str) -> None:
        async with turn:
            one = BusyVisitor(name, token, url)
            await one.arrive()
            self._present.append(one)
            self._watch.add(one)
            await asyncio.sleep(ONE_EVERY_S * AT_ONCE)

    @staticmethod
    async def _work(visitors: list[BusyVisitor], datagrams: int, seconds: float) -> dict[str, Any]:
        """Return how many datagrams each got back while it was measured, how many all got back and lost from beginning
        to end, and the processor time that this process had meanwhile.
        """
        began_s = time.process_time()
        for one in visitors:
            one.begin(datagrams // len(visitors))
        await _tend(visitors, WARM_S)
        before = [one.window.echoed for one in visitors]
        await _tend(visitors, seconds)
        windows = [one.window for one in visitors]
        each = [one.echoed - earlier for one, earlier in zip(windows, before, strict=True)]
        for one in visitors:
            one.begin(0)
        return {
            "each": each,
            "total": sum(one.echoed for one in windows),
            "lost": sum(one.lost for one in windows),
            "cpu_s": time.process_time() - began_s,
        }

    async def close(self) -> None:
        """Release everything."""
        self._watch.close()
        await asyncio.gather(*(one.close() for one in self._present))


async def _tend(visitors: list[BusyVisitor], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while (left := until - loop.time()) > 0:
        await asyncio.sleep(min(left, _LOST_AFTER_S))
        for one in visitors:
            one.mend()


async def serve() -> None:
    """Obey until standard input ends."""
    crowd, loop = Crowd(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await crowd.obey(json.loads(line))
    await crowd.close()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
