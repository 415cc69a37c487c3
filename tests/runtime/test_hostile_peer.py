"""Somebody who can connect, and means harm: what it sends is refused and counted, and ends nothing."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime import troupe
from tests.runtime.conftest import until
from tests.runtime.troupe import Gate, Number, Open, Player, Say, Watcher, WatchIt

from exeunt.runtime import Terminated
from exeunt.runtime.batch import Batch
from exeunt.runtime.codec import MAX_ENVELOPE_BYTES, MAX_RUN, VERSION, Codec, MalformedFrame, Run
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES, Cancel, Link, Settled, Stop, Unlink, Unwatch, Watch
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Recorder
from exeunt.runtime.transport import Transport, endpoint

CODEC = Codec([*MESSAGES, *troupe.MESSAGES])
STRANGER = "n/x/stranger"


class Line:
    """A node that listens, and a socket towards it that sends what it likes."""

    def __init__(self, node: Node, socket: "zmq.Socket[bytes]") -> None:
        self.node = node
        self.socket = socket

    async def send(self, *frames: bytes) -> None:
        """Send, and return when all of them have been read."""
        transport = self.node.transport
        assert isinstance(transport, Transport)
        before = transport.frames_in_total
        for frame in frames:
            self.socket.send(frame)
        await until(lambda: transport.frames_in_total >= before + len(frames))
        await asyncio.sleep(0)

    async def say(self, *messages: Message, to: str = "n/a/p", kind: Kind = Kind.SYSTEM, cause: int = 0) -> None:
        """Send messages in frames that are well formed."""
        await self.send(*(frame(message, to=to, kind=kind, cause=cause) for message in messages))


def frame(body: object, *, to: str, kind: Kind, cause: int = 0, id_: int = 7, sender: str = STRANGER) -> bytes:
    batch = Batch(CODEC)
    batch.add(Envelope(id_, id_, cause, sender, to, kind, 0, body))
    return CODEC.encode(batch.runs)


def raw(*runs: Any) -> bytes:
    return bytes([VERSION]) + msgspec.msgpack.encode(list(runs))


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    recorder = Recorder(tmp_path / "n.a.1.ring", worker="a", epoch=1, capacity=1024)
    node = Node("n", "a", codec=CODEC, recorder=recorder)
    node.transport = Transport(endpoint(tmp_path, "a", 1), on_frame=node.handle_frame, loop=node.loop, codec=CODEC)
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(endpoint(tmp_path, "a", 1))
    yield Line(node, socket)
    await stop_all(node, "shutdown", each_s=0.1)
    node.transport.close()
    recorder.close()
    context.destroy(linger=0)


async def is_well(node: Node, name: str = "well") -> None:
    assert await node.start(Player(), name).ask(Say("well?")) is not None


async def test_random_frames_are_counted(line: Line) -> None:
    chance = random.Random(1)
    frames = [chance.randbytes(chance.randrange(300)) for _ in range(500)]
    frames += [bytes([VERSION]) + chance.randbytes(chance.randrange(300)) for _ in range(500)]
    good = frame(Say("x"), to="n/a/p", kind=Kind.TELL)
    for _ in range(500):  # a good one with some bytes of it changed
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        frames.append(bytes(bad))
    await line.send(*frames)
    assert line.node.malformed_total > 1_000
    await is_well(line.node)


async def test_other_versions_are_refused(line: Line) -> None:
    good = frame(Say("x"), to="n/a/p", kind=Kind.TELL)
    await line.send(*(bytes([version]) + good[1:] for version in range(256) if version != VERSION))
    assert line.node.malformed_total == 255
    assert line.node.dead_letters.total == 0


async def test_a_huge_frame_is_refused(line: Line) -> None:
    line.node.start(Player(), "p")
    big = raw([1, 0, 0, STRANGER, "n/a/p", 1, 0, [], [["Say/1", "x" * (MAX_ENVELOPE_BYTES + 100)]]])
    await line.send(big)
    assert line.node.malformed_total == 1
    actor = line.node.actors["p"]
    assert actor.handled_total == 0
    await is_well(line.node)


async def test_who_sends_far_too_much_is_cut_off_before_it_is_read(line: Line) -> None:
    line.socket.send(bytes(2 * MAX_ENVELOPE_BYTES + 1))
    transport = line.node.transport
    assert isinstance(transport, Transport)
    while transport.frames_in_total == 0:  # it connects again, and what was on its way when it was cut off is lost
        line.socket.send(b"")
        await asyncio.sleep(0)
    assert line.node.malformed_total >= 1
    await is_well(line.node)


async def test_a_flood_of_garbage_does_not_fill_the_log(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    await line.send(*[b"garbage"] * 1_000)
    assert line.node.malformed_total == 1_000
    assert sum("malformed" in record.message for record in caplog.records) <= 3
    assert len(line.node.events.recent) <= 3


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of four billion runs
        b"\x91" * 5_000,  # lists within lists
        msgspec.msgpack.encode([[1, 0, 0, "s" * 1_000_000, "n/a/p", 1, 0, [], []]]),
        msgspec.msgpack.encode([[1, 0, 0, STRANGER, "t" * 1_000, 1, 0, [], []]]),
        msgspec.msgpack.encode([[1, 0, 0, STRANGER, "n/a/p", 1, 0, [], [None] * (MAX_RUN + 1)]]),
        msgspec.msgpack.encode([[1, 0, 0, STRANGER, "n/a/p", 2, 0, [[STRANGER, 1]] * 300, [None]]]),
        msgspec.msgpack.encode([[1, 0, 0, STRANGER, "n/a/p", 3, 0, [], [None, None]]]),
        msgspec.msgpack.encode([[(1 << 64) - 2, 0, 0, STRANGER, "n/a/p", 1, 0, [], [None] * 3]]),
        msgspec.msgpack.encode([[-1, 0, 0, STRANGER, "n/a/p", 1, 0, [], [None]]]),
        msgspec.msgpack.encode([[1, 0, 0, STRANGER, "n/a/p", 9, 0, [], [None]]]),
    ],
)
async def test_frames_that_promise_more_than_they_may(line: Line, damaged: bytes) -> None:
    line.node.start(Player(), "p")
    await line.send(bytes([VERSION]) + damaged)
    assert line.node.malformed_total == 1
    await is_well(line.node)


async def test_the_largest_ids_there_are_do_no_harm(line: Line) -> None:
    player = Player()
    line.node.start(player, "p")
    top = (1 << 64) - 1
    await line.send(raw([top, top, top, STRANGER, "n/a/p", 1, top, [], [["Say/1", "x"]]]))
    await until(lambda: player.log)
    await is_well(line.node)


async def test_a_fault_in_the_machinery_is_said_and_keeps_nobody_from_its_turn(line: Line) -> None:
    node = line.node
    said: list[str] = []
    node.loop.set_exception_handler(lambda _loop, context: said.append(context["message"]))
    first, second = Player(), Player()
    for name, player in (("p", first), ("q", second)):
        await node.start(player, name).ask(Say("up"))

    def broken() -> None:
        raise OSError("the disk is full")

    first.lifecycle.pump = broken  # type: ignore[method-assign]
    node.local("p").tell(Say("x"))
    assert await node.local("q").ask(Say("y")) is not None
    assert said == ["the machinery of n/a/p"]
    node.actors.pop("p")


async def test_replies_again_and_to_nothing(line: Line) -> None:
    gate = Gate()
    ref = line.node.start(gate, "g")
    reply = ref.ask(Open())
    await gate.entered.wait()
    gate.gate.set()
    answer = await reply
    await line.say(*[troupe.Said("false")] * 50, to="n/a/$outside", kind=Kind.REPLY, cause=1 << 40)
    assert answer == troupe.Said("open")
    assert len(line.node.asks) == 0
    await is_well(line.node)


async def test_an_end_that_is_told_again(line: Line) -> None:
    watcher = Watcher()
    ref = line.node.start(watcher, "w")
    player = line.node.start(Player(), "p")
    await ref.ask(WatchIt("n/a/p"))
    watch = line.node.watches.id_of("n/a/w", "n/a/p")
    player.stop()
    await until(lambda: watcher.ended)
    line.node.start(Player(), "p")
    await ref.ask(WatchIt("n/a/p"))
    await line.say(*[Terminated("n/a/p", "crashed", watch=watch)] * 20, to="n/a/w")
    await line.say(Terminated("n/a/other", "crashed"), Terminated("", ""), to="n/a/w")
    assert len(watcher.ended) == 1
    assert line.node.watches.id_of("n/a/w", "n/a/p") not in (0, watch)


async def test_settled_again_and_with_false_counts(line: Line, tmp_path: Path) -> None:
    node = line.node
    node.worker_up("b", endpoint(tmp_path, "b", 1))
    node.worker_up("x", endpoint(tmp_path, "x", 1))
    for n in range(100):
        node.ref("n/b/p").tell(Number(n))
    box = node.outboxes.of("n/b/p")
    # Nobody speaks for another worker's actors.
    await line.say(Settled((("n/b/p", 50, 16), ("n/b/nobody", 1, 16))), Settled((("", 1, 1),)))
    assert (box.outstanding, box.window) == (100, 1024)
    far_ahead = next(node.ids) + 1_000_000
    never_sent = Settled((("n/b/p", 1 << 62, 16),))
    await line.send(frame(never_sent, to="n/a/$node", kind=Kind.SYSTEM, sender="n/b/$node"))
    assert box.outstanding == 100
    forged = Settled((("n/b/p", far_ahead, 1 << 62), ("n/b/nobody", 5, 5)))
    await line.send(*[frame(forged, to="n/a/$node", kind=Kind.SYSTEM, sender="n/b/$node")] * 3)
    assert (box.outstanding, len(box.unsettled)) == (0, 0)
    assert node.outboxes.known("n/b/nobody") is None
    # None below one, which would make room vanish.
    before = node.malformed_total
    for rows in ([["n/b/p", -1_000, 16]], [["n/b/p", 1, 0]], [["n/b/p", 1, -1]], [["n/b/p", 1 << 63, 1]]):
        await line.send(raw([1, 0, 0, "n/b/$node", "n/a/$node", 5, 0, [], [["Settled/1", rows]]]))
    assert node.malformed_total >= before + 3
    for n in range(20):
        node.ref("n/b/p").tell(Number(n))
    assert node.outboxes.of("n/b/p").outstanding == 20


async def test_orders_for_nobody(line: Line) -> None:
    node = line.node
    player = Player()
    node.start(player, "p")
    await node.local("p").ask(Say("up"))
    orders: list[Message] = [
        Cancel(1 << 50),
        Unwatch(5),
        Unlink(),
        Stop(incarnation=77),
        Stop(how="kill", incarnation=9),
    ]
    for to in ("n/a/p", "n/a/nobody", "n/b/p", "", "x", "n/a/$node", "m/a/p"):
        await line.say(*orders, to=to)
    for to in ("n/a/nobody", "n/b/p", "", "m/a/p"):
        await line.say(Stop(), Stop(how="drain"), Stop(how="kill"), Link(), Watch(3), to=to)
    assert player.state == "running"
    assert node.watches.is_empty
    await is_well(node)


async def test_messages_that_are_sent_again_are_handled_and_settled_at_most_to_nothing(line: Line) -> None:
    """Delivery is at most once since no transport of ours repeats; who does, is believed, and breaks no count."""
    player = Player()
    line.node.start(player, "p")
    tell = frame(Say("again"), to="n/a/p", kind=Kind.TELL)
    ask = frame(Say("asked"), to="n/a/p", kind=Kind.ASK, sender="n/a/$outside")
    await line.send(*[tell] * 30, *[ask] * 30)
    await until(lambda: len(player.log) == 60)
    assert len(line.node.asks) == 0


async def test_a_flood_of_tells_fills_a_mailbox_and_no_more(line: Line) -> None:
    class Small(Gate):
        mailbox_bound = 100

    gate = Small()
    line.node.start(gate, "g").tell(Open())
    await gate.entered.wait()
    run = [["Number/1", 1]] * MAX_RUN
    frames = [raw(*([[n * 1_000_000, 0, 0, STRANGER, "n/a/g", 1, 0, [], run]] * 10)) for n in range(1, 6)]
    await line.send(*frames)
    assert len(gate.mailbox) == 100
    assert gate.mailbox.ordinary is not None
    assert len(gate.mailbox.ordinary) <= 101
    assert line.node.dead_letters.total == 50 * MAX_RUN - 100
    assert len(line.node.dead_letters.recent) <= 200
    gate.gate.set()
    await until(lambda: gate.lifecycle.is_idle)


def _frames() -> st.SearchStrategy[bytes]:
    numbers = st.integers(-2, (1 << 64) - 1) | st.integers(0, 9)
    texts = st.sampled_from(["", "n/a/p", "n/a/$node", "n/b/p", STRANGER]) | st.text(max_size=5)
    values = st.none() | numbers | texts | st.lists(st.none() | numbers | texts, max_size=3)
    kinds_of_message: list[type[Message]] = [*MESSAGES, Say, Number]
    tags = st.sampled_from([f"{kind.__name__}/1" for kind in kinds_of_message])
    bodies: st.SearchStrategy[Any] = st.builds(_body, tags, st.lists(values, max_size=4)) | values
    chain = st.lists(st.tuples(texts, numbers), max_size=2)
    kinds = st.integers(0, 6)
    run = st.tuples(numbers, numbers, numbers, texts, texts, kinds, numbers, chain, st.lists(bodies, max_size=3))
    return st.lists(run, max_size=3).map(_pack)


def _body(tag: str, rest: list[Any]) -> list[Any]:
    return [tag, *rest]


def _pack(runs: list[Any]) -> bytes:
    return bytes([VERSION]) + msgspec.msgpack.encode(runs)


@settings(max_examples=400, deadline=None)
@given(frames=st.lists(_frames() | st.binary(max_size=40), max_size=5))
def test_no_frame_whatever_ends_anything(frames: list[bytes]) -> None:
    """Well formed or not, in any order: nothing is raised, and who was not told to stop lives."""
    raised: list[Any] = []

    async def main() -> None:
        node = Node("n", "a", codec=CODEC)
        node.loop.set_exception_handler(lambda _loop, context: raised.append(context))
        node.start(Player(), "q")
        node.start(Player(), "p")
        await asyncio.sleep(0)
        for one in frames:
            node.handle_frame(one)
            await asyncio.sleep(0)
        assert await node.local("q").ask(Say("well?")) is not None
        await stop_all(node, "shutdown", each_s=0.1)

    asyncio.run(main())
    assert raised == []


def test_what_a_frame_holds_is_bounded_when_it_is_read() -> None:
    with pytest.raises(MalformedFrame, match="the bound is"):
        list(CODEC.runs(bytes([VERSION]) + os.urandom(16) + bytes(MAX_ENVELOPE_BYTES)))
    runs: list[Run] = list(CODEC.runs(raw([1, 0, 0, STRANGER, "n/a/p", 1, 0, [], [None] * MAX_RUN])))
    assert len(runs[0].bodies) == MAX_RUN
