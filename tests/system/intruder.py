"""A client that keeps no rule but the protocol's: it signs in, connects, and sends whatever inner packets it is told.

It reads a JSON line (where the portal is, its name and token), prints a line when it is connected, then sends the
packets of each further line and prints how many they were.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from tests.system.crowd import Visitor, say

from exeunt.runtime.wakeups import new_event_loop


class Intruder(Visitor):
    """A visitor that can send."""

    def send(self, packet: bytes) -> None:
        """Seal an inner packet, whatever it says."""
        assert self._machine is not None
        self._machine.handle_packet(packet, time.monotonic())
        self._drain()


async def intrude() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    task = json.loads(await reader.readline())
    intruder = Intruder(task["name"], task["token"], task["url"])
    await intruder.arrive()
    say(connected=True)
    while line := await reader.readline():
        packets = [bytes.fromhex(packet) for packet in json.loads(line)]
        for packet in packets:
            intruder.send(packet)
        say(sent=len(packets))
    await intruder.leave()
    transport.close()


def main() -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(intrude())


if __name__ == "__main__":
    main()
