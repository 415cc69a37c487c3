"""Raw pyzmq: what ZeroMQ and a loop cost without any runtime on top.

`watched` is the reference: DEALER and ROUTER whose descriptors two uvloop loops watch, as this runtime does it.
`blocking` waits in the call. `pushpull` is one way.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
import zmq

from ..protocol import BODY, TELLS, Figures, Measure, asks_per_s, awaited_times_ns, latency, serve, times_ns

_DRAIN = 200


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    return zmq.Context()


class Watched:
    """A socket whose descriptor the loop watches. It is edge-triggered: it is drained whenever it fires."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(socket.fileno(), self.drain)

    def on_parts(self, parts: list[bytes]) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        for _ in range(_DRAIN):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self.on_parts(parts)
        self._loop.call_soon(self.drain)


class WatchedEcho(Watched):
    def on_parts(self, parts: list[bytes]) -> None:
        self.socket.send_multipart(parts, zmq.DONTWAIT)


class WatchedAsker(Watched):
    """Answers come in the order of the questions, so a queue of futures is enough."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        super().__init__(socket)
        self._waiting: deque[asyncio.Future[bytes]] = deque()

    def ask(self) -> asyncio.Future[bytes]:
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(reply)
        self.socket.send(BODY, zmq.DONTWAIT)
        if int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # sending may have swallowed the descriptor's edge
            self._loop.call_soon(self.drain)
        return reply

    def on_parts(self, parts: list[bytes]) -> None:
        self._waiting.popleft().set_result(parts[-1])


def echo_watched(address: str) -> None:
    async def run() -> None:
        socket = new_context().socket(zmq.ROUTER)
        socket.bind(address)
        WatchedEcho(socket).drain()
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def echo_blocking(address: str) -> None:
    socket = new_context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        socket.send_multipart(socket.recv_multipart())


def count_pulled(address: str) -> None:
    """Say on a second socket when each batch of `TELLS` has come."""
    context = new_context()
    pull, done = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    pull.set_hwm(0)
    pull.bind(address)
    done.connect(f"{address}.done")
    while True:
        for _ in range(TELLS):
            pull.recv()
        done.send(b"")


@contextlib.contextmanager
def other_side(target: Any) -> Any:
    """Run `target` in a process; give its address."""
    with tempfile.TemporaryDirectory() as directory:
        address = f"ipc://{directory}/raw"
        process = multiprocessing.get_context("spawn").Process(target=target, args=(address,), daemon=True)
        process.start()
        try:
            yield address
        finally:
            process.kill()
            process.join()


@asynccontextmanager
async def watched() -> AsyncGenerator[dict[str, Measure]]:
    with other_side(echo_watched) as address:
        socket = new_context().socket(zmq.DEALER)
        socket.connect(address)
        asker = WatchedAsker(socket)
        await asker.ask()

        async def ask() -> Figures:
            return latency(await awaited_times_ns(asker.ask))

        async def asks() -> Figures:
            return {"asks_per_s": await asks_per_s(asker.ask)}

        yield {"ask": ask, "asks": asks}
        socket.close(linger=0)


@asynccontextmanager
async def blocking() -> AsyncGenerator[dict[str, Measure]]:
    with other_side(echo_blocking) as address:
        socket = new_context().socket(zmq.DEALER)
        socket.connect(address)

        def round_trip() -> None:
            socket.send(BODY)
            socket.recv()

        round_trip()
        yield {"ask": lambda: latency(times_ns(round_trip))}
        socket.close(linger=0)


@asynccontextmanager
async def pushpull() -> AsyncGenerator[dict[str, Measure]]:
    with other_side(count_pulled) as address:
        context = new_context()
        push, done = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        push.set_hwm(0)
        done.bind(f"{address}.done")
        push.connect(address)

        def tells() -> Figures:
            began = time.perf_counter()
            for _ in range(TELLS):
                push.send(BODY)
            done.recv()
            return {"tells_per_s": TELLS / (time.perf_counter() - began)}

        tells()
        yield {"tells": tells}
        push.close(linger=0)
        done.close(linger=0)


if __name__ == "__main__":
    serve({"watched": watched, "blocking": blocking, "pushpull": pushpull}[sys.argv[1]], loop=uvloop.new_event_loop)
