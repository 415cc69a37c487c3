"""Many clients, as a program in the client's network: the visitors of `tests.system.crowd`, with traffic.

    {"url": URL, "visitors": [[NAME, TOKEN], …]}     they come; prints how many there are now
    {"busy": COUNT, "seconds": SECONDS}              so many echo datagrams; prints how many each got back

A busy visitor keeps a fixed number of datagrams on their way to the resource and back, and replaces those that are
lost: who is served less sends less, so unfairness shows.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import sys
from typing import Any

from tests.system.crowd import AT_ONCE, ONE_EVERY_S, Visitor, say

from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.runtime.wakeups import new_event_loop

DATAGRAM_BYTES = 1200
ECHO_PORT = 5203
_ON_THE_WAY = 200
"""Datagrams of all visitors together, at least two each."""
_LOST_AFTER_S = 0.25


class BusyVisitor(Visitor):
    """One of them."""

    echoed = 0
    _window = 0
    _seen = 0

    def begin(self, window: int) -> None:
        """Keep so many datagrams on their way; 0 ends it."""
        self._window, self.echoed, self._seen = window, 0, 0
        for _ in range(window):
            self.send_packet(self._request())

    def mend(self) -> None:
        """Send again if nothing came for a while."""
        if self._seen == self.echoed:
            for _ in range(self._window):
                self.send_packet(self._request())
        self._seen = self.echoed

    def on_packet(self, packet: bytes) -> None:
        if self._window and len(packet) == 28 + DATAGRAM_BYTES:
            self.echoed += 1
            self.send_packet(self._request())

    def _request(self) -> bytes:
        addresses = socket.inet_aton(self.address) + socket.inet_aton(RESOURCE_ADDRESS)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + DATAGRAM_BYTES, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
        total = sum(struct.unpack("!10H", ip))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        udp = struct.pack("!HHHH", 40_000, ECHO_PORT, 8 + DATAGRAM_BYTES, 0)
        return ip[:10] + struct.pack("!H", ~total & 0xFFFF) + ip[12:] + udp + bytes(DATAGRAM_BYTES)


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
            say(each=await self._work(self._present[: order["busy"]], order["seconds"]))

    async def _arrive(self, turn: asyncio.Semaphore, url: str, name: str, token: str) -> None:
        async with turn:
            one = BusyVisitor(name, token, url)
            await one.arrive()
            self._present.append(one)
            await asyncio.sleep(ONE_EVERY_S * AT_ONCE)

    @staticmethod
    async def _work(visitors: list[BusyVisitor], seconds: float) -> list[int]:
        window = max(2, _ON_THE_WAY // len(visitors))
        for one in visitors:
            one.begin(window)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, _LOST_AFTER_S))
            for one in visitors:
                one.mend()
        each = [one.echoed for one in visitors]
        for one in visitors:
            one.begin(0)
        return each

    async def close(self) -> None:
        """Release everything."""
        await asyncio.gather(*(one.close() for one in self._present))


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
