"""A few clients that ask a resource something through the tunnel, as a program in the client's network: the visitors of
`tests.system.crowd`.

    {"url": URL, "visitors": [[NAME, TOKEN], …]}   they come; prints who is there now
    {"ask": TEXT}                                  each asks until it is answered; prints who was
    {"ended": COUNT}                               prints, once so many have, whose connection ended, and of what
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from tests.system.crowd import Visitor, say
from tests.system.inner_packets import udp_packet

from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.runtime.wakeups import new_event_loop

ECHO_PORT: Final = 5203
_PATIENCE_S: Final = 10.0
_REPEAT_S: Final = 0.1


class AskingVisitor(Visitor):
    """One of them."""

    _wanted = b""
    _answered: asyncio.Event

    async def ask(self, text: bytes) -> bool:
        """Say whether an answer came; what is asked is said again until then."""
        self._wanted, self._answered = text, asyncio.Event()
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        while asyncio.get_running_loop().time() < until:
            self.send_packet(udp_packet(self.address, RESOURCE_ADDRESS, ECHO_PORT, text))
            try:
                await asyncio.wait_for(self._answered.wait(), _REPEAT_S)
            except TimeoutError:
                continue
            return True
        return False

    def on_packet(self, packet: bytes) -> None:
        if self._wanted and packet.endswith(self._wanted):
            self._answered.set()


async def obey(present: list[AskingVisitor], order: dict[str, Any]) -> None:
    """Do what a line says."""
    if "visitors" in order:
        for name, token in order["visitors"]:
            one = AskingVisitor(name, token, order["url"])
            await one.arrive()
            present.append(one)
        say(present=[one.name for one in present])
    elif "ask" in order:
        there = [one for one in present if not one.ended.done()]
        answers = await asyncio.gather(*(one.ask(f"{order['ask']} of {one.name}".encode()) for one in there))
        say(answered=[one.name for one, answered in zip(there, answers, strict=True) if answered])
    else:
        for ending in asyncio.as_completed([asyncio.shield(one.ended) for one in present], timeout=_PATIENCE_S):
            await ending
            if sum(one.ended.done() for one in present) >= order["ended"]:
                break
        say(ended={one.name: one.ended.result().cause for one in present if one.ended.done()})


async def serve() -> None:
    """Obey until standard input ends."""
    present: list[AskingVisitor] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await obey(present, json.loads(line))
    await asyncio.gather(*(one.close() for one in present))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
