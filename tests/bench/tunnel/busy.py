"""Many clients, as a program in the client's network: the visitors of `tests.system.crowd`, with traffic.

    {"url": URL, "visitors": [[NAME, TOKEN], …]}     they come; prints how many there are now
    {"busy": COUNT, "datagrams": ALL, "seconds": SECONDS}
                                                     so many send datagrams that are echoed; prints what became of them

A busy visitor keeps a fixed number of datagrams on their way to the resource and back (its share of ALL), and replaces
those that are lost: who is served less sends less, so unfairness shows. It seals, sends, receives and opens them in
trains, as a client with a device does: what is to be measured is the gateway.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Any

from tests.bench.tunnel.window import TRAIN_MOST, Frames, Window
from tests.system.crowd import AT_ONCE, ONE_EVERY_S, Visitor, say

from exeunt.actors.batch.contract import TRAIN_BYTES
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.runtime.wakeups import new_event_loop

ECHO_PORT = 5203
WARM_S = 0.5
"""Not measured: the windows are filled."""
_LOST_AFTER_S = 0.25
_FRAMES = Frames(ECHO_PORT)
_TRAIN = memoryview(bytearray(TRAIN_BYTES))
_RESOURCE = socket.inet_aton(RESOURCE_ADDRESS)


class BusyVisitor(Visitor):
    """One of them."""

    coalesces = True

    def __init__(self, name: str, token: str, url: str) -> None:
        super().__init__(name, token, url)
        self.window = Window(0, 1)

    def begin(self, datagrams: int) -> None:
        """Keep so many datagrams on their way, half of them in a train; 0 ends it."""
        self.window = Window(datagrams, max(1, min(TRAIN_MOST, datagrams // 2)))
        self._send_trains()
        self._drain()

    def mend(self) -> None:
        """Send again if nothing came for a while."""
        self.window.mend()
        self._send_trains()
        self._drain()

    def on_frames(self, out: memoryview, frames: Sequence[tuple[int, int, int]]) -> None:
        for start, end, _ in frames:
            self.window.take(_FRAMES.numbers(out[start:end]))
        self._send_trains()

    def _send_trains(self) -> None:
        """Send what may be on its way now, and is not."""
        assert self._machine is not None
        assert self._agent is not None
        source = socket.inet_aton(self.address)
        while (train := self.window.next_train()) is not None:
            frame = _FRAMES.make(source, _RESOURCE, *train)
            spans = array("I", (0, len(frame)))
            for sealed in self._machine.handle_frames(frame, spans, _TRAIN, time.monotonic()) or ():
                self._agent.send_train(_TRAIN, sealed.stride, sealed.total)


class Crowd:
    """All of them."""

    def __init__(self) -> None:
        self._present: list[BusyVisitor] = []

    async def obey(self, order: dict[str, Any]) -> None:
        """Do what a line says."""
        if "visitors" in order:
            turn = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._arrive(turn, order["url"], *one) for one in order["visitors"]))
            say(connected=len(self._present))
        else:
            say(**await self._work(self._present[: order["busy"]], order["datagrams"], order["seconds"]))

    async def _arrive(self, turn: asyncio.Semaphore, url: str, name: str, token: str) -> None:
        async with turn:
            one = BusyVisitor(name, token, url)
            await one.arrive()
            self._present.append(one)
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
