"""100,000 asks that race a stop: each ends in an answer or in `ActorDead`, none in silence.

Half of them in one process, half between two nodes with ZeroMQ between them, in batches: each batch has an actor of its
own, which is stopped, drained or killed amid what it is asked.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.runtime.troupe import Number, Player, Said, Say

from exeunt.runtime import ActorDead, Ref, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.node import Node
from exeunt.runtime.reply import Reply
from exeunt.runtime.transport import Transport, endpoint

BATCHES = 100
EACH = 500
WAYS = ("stop", "drain", "kill", "by itself")


class Clerk(Player):
    """Counts the asks whose handlers have begun, and may end itself amid them."""

    def __init__(self, last: int | None) -> None:
        super().__init__()
        self.begun = 0
        self._last = last

    @receive(Say)
    def say(self, message: Say) -> Said:
        self.begun += 1
        if self.begun == self._last:
            self.stop()
        return Said(message.text)

    @receive(Number)
    async def number(self, message: Number) -> Number:
        self.begun += 1
        await asyncio.sleep(0)
        return message


async def race(home: Node, asker: Node) -> Counter[str]:
    """Ask each actor of `home` 500 times from `asker`, stopping it after a different number of them."""
    found: Counter[str] = Counter()
    for batch in range(BATCHES):
        way, after = WAYS[batch % 4], (batch * 37) % EACH
        clerk = Clerk(after if way == "by itself" else None)
        here = home.start(clerk, f"clerk{batch}")
        there = asker.ref(here.address)
        replies: list[Reply] = []
        for n in range(EACH):
            replies.append(there.ask(Number(n) if n % 50 == 3 else Say(str(n)), timeout_s=60))
            if n == after:
                _end(here, way)
            if n % 100 == batch % 100:
                await asyncio.sleep(0)
        here.stop()
        await clerk.until_ended()
        outcomes = Counter([await _outcome(reply) for reply in replies])
        if way != "kill":  # who is killed in a handler has begun what it does not answer
            assert outcomes["answered"] == clerk.begun
        found += outcomes
    return found


def _end(ref: Ref, way: str) -> None:
    if way != "by itself":
        {"stop": ref.stop, "drain": ref.drain, "kill": ref.kill}[way]()


async def _outcome(reply: Reply) -> str:
    try:
        await reply
    except ActorDead:
        return "dead"
    return "answered"


@contextlib.contextmanager
def two_nodes(directory: Path, codec: Codec) -> Generator[tuple[Node, Node]]:
    """Two nodes that know each other, joined by ZeroMQ."""
    nodes = [Node("n", worker, codec=codec) for worker in ("w1", "w2")]
    for node in nodes:
        at = endpoint(directory, node.worker, 1)
        node.transport = Transport(at, on_frame=node.handle_frame, loop=node.loop, codec=node.codec)
    nodes[0].worker_up("w2", endpoint(directory, "w2", 1))
    nodes[1].worker_up("w1", endpoint(directory, "w1", 1))
    yield nodes[0], nodes[1]
    for node in nodes:
        assert node.transport is not None
        node.transport.close()


@pytest.mark.slow
async def test_within_a_process(node: Node) -> None:
    found = await race(node, node)
    assert set(found) == {"answered", "dead"}
    assert found.total() == BATCHES * EACH
    assert len(node.asks) == 0
    assert list(node.actors) == []


@pytest.mark.slow
async def test_between_two_workers(codec: Codec, tmp_path: Path) -> None:
    with two_nodes(tmp_path, codec) as (home, asker):
        found = await race(home, asker)
        assert set(found) == {"answered", "dead"}
        assert found.total() == BATCHES * EACH
        assert len(asker.asks) == 0
        assert list(home.actors) == []
        await stop_all(home, "shutdown")
