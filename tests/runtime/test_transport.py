"""Real ZeroMQ between two nodes on one loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq
from tests.runtime import troupe
from tests.runtime.troupe import (
    Ended,
    EndedList,
    Fail,
    NotRegistered,
    Number,
    Player,
    Refuse,
    Relay,
    Said,
    Say,
    Watcher,
    WatchIt,
)

from exeunt.runtime import Actor, ActorDead, Message, Refused, RemoteFailure, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.errors import Unencodable, UnknownMessage
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES
from exeunt.runtime.node import Node
from exeunt.runtime.transport import Transport, endpoint

Pair = tuple[Node, Node]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two nodes that know each other."""
    nodes: list[Node] = []
    for worker in ("a", "b"):
        node = Node("n", worker, codec=Codec([*MESSAGES, *troupe.MESSAGES]))
        node.transport = Transport(
            endpoint(tmp_path, worker, 1),
            on_frame=node.handle_frame,
            loop=node.loop,
            codec=node.codec,
        )
        nodes.append(node)
    a, b = nodes
    a.worker_up("b", endpoint(tmp_path, "b", 1))
    b.worker_up("a", endpoint(tmp_path, "a", 1))
    yield a, b
    for node in nodes:
        await stop_all(node, "shutdown", each_s=0.1)
        assert node.transport is not None
        node.transport.close()


def frames_out(node: Node) -> int:
    assert isinstance(node.transport, Transport)
    return node.transport.frames_out_total


async def test_an_ask_crosses_and_so_does_its_answer(pair: Pair) -> None:
    a, b = pair
    b.start(Player(), "p")
    assert (await a.ref("n/b/p").ask(Say("hello"))).text == "hello"


async def test_order_is_kept_and_many_envelopes_share_a_frame(pair: Pair) -> None:
    a, b = pair
    player = Player()
    b.start(player, "p")
    far = a.ref("n/b/p")
    for n in range(2_000):
        far.tell(Number(n))
    assert await far.ask(Number(-1)) == Number(-1)
    assert player.log == [*range(2_000), -1]
    # The first at once, the rest of the turn together, and what waited for room in the recipient's window.
    assert frames_out(a) <= 12


async def test_a_flood_is_delivered_in_full(pair: Pair) -> None:
    a, b = pair
    player = Player()
    b.start(player, "p")
    far = a.ref("n/b/p")
    assert isinstance(a.transport, Transport)
    for n in range(1_000):
        a.transport._waiting.clear()  # pyright: ignore[reportPrivateUsage] - a frame each: more than one wake-up drains
        far.tell(Number(n))
    assert await far.ask(Number(-1)) == Number(-1)
    assert player.log == [*range(1_000), -1]
    assert frames_out(a) > 1_000


async def test_errors_cross_as_themselves(pair: Pair) -> None:
    a, b = pair
    b.start(Player(), "p")
    far = a.ref("n/b/p")
    with pytest.raises(Refused, match="ask me tomorrow") as refused:
        await far.ask(Refuse())
    assert refused.value.code == "not_now"
    with pytest.raises(RemoteFailure, match="ZeroDivisionError: on purpose") as failed:
        await far.ask(Fail("ZeroDivisionError"))
    assert "troupe.py" in failed.value.failure.traceback
    with pytest.raises(ActorDead, match="n/b/p does not live"):
        await far.ask(Say("?"))


async def test_a_failure_of_a_failure_keeps_its_first_cause(pair: Pair) -> None:
    a, b = pair
    b.start(Player(), "p")
    a.start(Player(), "relay")
    with pytest.raises(ActorDead, match="nobody does not live"):
        await b.ref("n/a/relay").ask(Relay("n/b/nobody", "?"))


async def test_an_unknown_worker_is_dead(pair: Pair) -> None:
    with pytest.raises(ActorDead, match="no such worker"):
        await pair[0].ref("n/c/p").ask(Say("?"), timeout_s=60)


async def test_what_cannot_be_encoded_fails_its_ask_at_once(pair: Pair) -> None:
    a, b = pair
    b.start(Player(), "p")
    with pytest.raises(UnknownMessage):
        await a.ref("n/b/p").ask(NotRegistered(), timeout_s=60)
    with pytest.raises(Unencodable):
        await a.ref("n/b/p").ask(Say("\udc80"), timeout_s=60)
    a.ref("n/b/p").tell(NotRegistered())
    assert a.dead_letters.total == 1


async def test_an_answer_that_cannot_be_encoded_fails_the_ask_at_once(pair: Pair) -> None:
    class Wrong(Actor):
        @receive(Say)
        def say(self, _message: Say) -> Message:
            return NotRegistered()

    a, b = pair
    b.start(Wrong(), "w")
    with pytest.raises(UnknownMessage, match="NotRegistered"):
        await a.ref("n/b/w").ask(Say("?"), timeout_s=60)


async def test_an_end_is_told_across(pair: Pair) -> None:
    a, b = pair
    watcher = a.start(Watcher(), "watcher")
    await watcher.ask(WatchIt("n/b/p"))
    found: EndedList = await watcher.ask(Ended(1))
    assert found.ended[0].reason == "no_such_actor"
    ref = b.start(Player(), "p")
    await watcher.ask(WatchIt("n/b/p"))
    ref.tell(Say("x"))
    a.ref("n/b/p").tell(Fail("ValueError"))
    found = await watcher.ask(Ended(2))
    assert found.ended[1].reason == "crashed"
    assert found.ended[1].failure is not None
    assert found.ended[1].failure.message == "on purpose"


async def test_a_dead_workers_asks_fail_at_once(pair: Pair) -> None:
    a, b = pair
    b.start(troupe.Gate(), "g")
    waiting = a.ref("n/b/g").ask(troupe.Open(), timeout_s=60)
    a.worker_down("b")
    with pytest.raises(ActorDead, match="its worker died"):
        await waiting
    with pytest.raises(ActorDead, match="no such worker"):
        await a.ref("n/b/g").ask(Number(1))


async def test_garbage_from_a_socket_is_counted_and_the_next_frame_is_read(pair: Pair, tmp_path: Path) -> None:
    a, b = pair
    b.start(Player(), "p")
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.connect(endpoint(tmp_path, "b", 1))
        for parts in ([b"garbage"], [b""], [b"\x01\x00"], [b"\x02\xff\xff\xff\xff"]):
            stranger.send_multipart(parts)
        for _ in range(1_000):
            if b.malformed_total == 4:
                break
            assert await a.ref("n/b/p").ask(Say("still there?")) is not None
    assert b.malformed_total == 4


async def test_mail_for_a_predecessor_does_not_reach_its_successor(pair: Pair, tmp_path: Path) -> None:
    a, b = pair
    assert b.transport is not None
    a.worker_up("b", endpoint(tmp_path, "b", 0))  # nobody is there any more
    a.ref("n/b/p").tell(Say("old mail"))
    player = Player()
    b.start(player, "p")
    a.worker_up("b", endpoint(tmp_path, "b", 1))
    assert isinstance(await a.ref("n/b/p").ask(Say("new mail")), Said)
    assert player.log == ["new mail"]


def test_a_path_that_is_too_long_leaves_nothing_open(tmp_path: Path) -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    with pytest.raises(zmq.ZMQError):
        Transport(endpoint(tmp_path / ("x" * 120), "w", 1), on_frame=lambda _: None, loop=loop, codec=Codec([]))
    loop.close()
