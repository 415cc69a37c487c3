"""Whether the other end of a connection is still there."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import zmq
from tests.runtime.conftest import until

from exeunt.runtime import lifeline
from exeunt.runtime.lifeline import Lifeline


class Line:
    """A socket that can be reached, and one that watches whether it can."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.server = self.context.socket(zmq.ROUTER)
        self.server.bind("tcp://127.0.0.1:0")
        self.client = self.context.socket(zmq.DEALER)
        self.client.setsockopt(zmq.RECONNECT_IVL, 2)
        self.lost: list[str] = []
        self.lifeline = Lifeline(self.client, asyncio.get_running_loop(), self.lost.append)

    async def up(self) -> None:
        self.client.connect(self.server.get_string(zmq.LAST_ENDPOINT).rstrip("\0"))
        await until(lambda: self.lifeline.is_up)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    yield line
    line.lifeline.close()
    line.context.destroy(linger=0)


async def test_a_listener_that_closes_is_refused_once(line: Line) -> None:
    await line.up()
    line.server.close(linger=0)
    await until(lambda: line.lost)
    assert line.lost == [lifeline.REFUSED]
    line.lifeline.close()  # idempotent


async def test_a_first_connection_that_never_comes_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "FIRST_S", 0.05)
    line = Line()
    line.client.connect("tcp://127.0.0.1:1")
    await until(lambda: line.lost)
    assert line.lost == [lifeline.SILENT]
    line.context.destroy(linger=0)
