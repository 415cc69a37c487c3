"""The event stream: what a slow user gets, and that it ends when, and only when, there can be no more."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.actors.notes import Notes
from tests.actors.stage import resource

from exeunt.actors import event_stream
from exeunt.actors.event_stream import QUEUED, EventQueue, EventStream
from exeunt.actors.messages import (
    MESSAGES,
    AllGatewaysOffline,
    ConnectionEstablished,
    Deliver,
    Disconnected,
    Event,
    GatewayVersionMismatch,
    Publish,
    ResourcesUpdated,
    StreamEnded,
    Subscribe,
    Taken,
    TunConfig,
    TunInterfaceUpdated,
)
from exeunt.actors.session import EventStream as Iterator
from exeunt.actors.session import Session, SessionConfig, Subscriber
from exeunt.runtime import Actor, Directories, Message, Outcome, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node

LOOP = "n/control/event-loop"


def tun(mtu: int) -> TunInterfaceUpdated:
    return TunInterfaceUpdated(TunConfig(device="exeunt0", mtu=mtu, addresses=(), routes=()))


def resources(count: int) -> ResourcesUpdated:
    return ResourcesUpdated(tuple(resource(number, "10.0.0.0/8") for number in range(count)))


def established(number: int) -> ConnectionEstablished:
    return ConnectionEstablished(f"c-{number}", "gw-1", "direct")


def drained(queue: EventQueue) -> list[Event]:
    found: list[Event] = []
    while (event := queue.pop()) is not None:
        found.append(event)
    return found


# --- the queue ---


def test_only_the_latest_value_is_kept() -> None:
    queue = EventQueue()
    for number in range(5):
        queue.push(tun(1280 + number))
        queue.push(resources(number))
    assert drained(queue) == [tun(1284), resources(4)]


def test_notifications_keep_their_order_and_come_after_the_latest_values() -> None:
    queue = EventQueue()
    for event in (established(1), tun(1280), Disconnected("x")):
        queue.push(event)
    assert len(queue) == 3
    assert drained(queue) == [tun(1280), established(1), Disconnected("x")]
    assert len(queue) == 0


def test_the_same_complaint_about_the_same_resource_is_made_once() -> None:
    queue = EventQueue()
    offline, mismatch = AllGatewaysOffline("r-1"), GatewayVersionMismatch("r-1")
    for event in (offline, offline, AllGatewaysOffline("r-2"), mismatch, mismatch, offline):
        queue.push(event)
    assert drained(queue) == [offline, AllGatewaysOffline("r-2"), mismatch, offline]


def test_after_a_connection_the_same_complaint_is_news_again() -> None:
    queue = EventQueue()
    for event in (AllGatewaysOffline("r-1"), established(1), AllGatewaysOffline("r-1")):
        queue.push(event)
    assert drained(queue) == [AllGatewaysOffline("r-1"), established(1), AllGatewaysOffline("r-1")]


def test_notifications_are_bounded_and_the_oldest_go() -> None:
    queue = EventQueue()
    for number in range(QUEUED + 7):
        queue.push(established(number))
    queue.push(tun(1280))
    assert queue.dropped_total == 7
    assert drained(queue) == [tun(1280), *(established(number) for number in range(7, QUEUED + 7))]


# --- the actor ---


class Crash(Message, frozen=True):
    pass


class PlayedLoop(Actor):
    def say(self, *events: Event) -> None:
        for event in events:
            self.node.local("event-stream").tell(Publish(event))

    @receive(Crash)
    def on_crash_wanted(self, message: Crash) -> None:
        raise RuntimeError("on purpose")


class User(Actor):
    """Takes events while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.events: list[Event] = []
        self.undelivered: int | None = None
        self.began = asyncio.Event()

    @receive(Deliver)
    async def on_deliver(self, message: Deliver) -> Taken:
        self.began.set()
        await self.gate.wait()
        self.events.append(message.event)
        return Taken()

    @receive(StreamEnded)
    def on_ended(self, message: StreamEnded) -> Taken:
        self.undelivered = message.undelivered
        return Taken()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node("n", "control", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
    yield node
    await stop_all(node, "shutdown", each_s=0.2)


def started(node: Node) -> tuple[PlayedLoop, EventStream]:
    loop, stream = PlayedLoop(), EventStream(LOOP)
    node.start(loop, "event-loop")
    node.start(stream, "event-stream")
    return loop, stream


def subscribed(node: Node, name: str = "user") -> User:
    user = User()
    node.local("event-stream").tell(Subscribe(str(node.start(user, name))))
    return user


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def ended(actor: Actor) -> None:
    await asyncio.wait_for(actor.until_ended(), 5)


async def test_events_reach_the_user_and_the_end_follows_the_loops(node: Node) -> None:
    loop, stream = started(node)
    user = subscribed(node)
    await settle()
    loop.say(established(1), established(2))
    loop.ref.stop()
    await ended(stream)
    assert user.events == [established(1), established(2)]
    assert user.undelivered == 0
    assert stream.exit_reason == "normal"


async def test_the_stream_stands_as_long_as_its_loop(node: Node) -> None:
    loop, stream = started(node)
    loop.say(Disconnected("the portal says no"))
    user = subscribed(node)
    await settle()
    assert user.events == [Disconnected("the portal says no")]
    assert stream.state == "running"


async def test_events_wait_for_a_subscriber(node: Node) -> None:
    loop, _ = started(node)
    loop.say(tun(1280), tun(1300), established(1))
    await settle()
    user = subscribed(node)
    await settle()
    assert user.events == [tun(1300), established(1)]


async def test_a_slow_user_gets_the_newest_value(node: Node) -> None:
    loop, _ = started(node)
    user = subscribed(node)
    user.gate.clear()
    await settle()
    for number in range(10):
        loop.say(tun(1280 + number))
        await settle()
    user.gate.set()
    await settle()
    assert user.events == [tun(1280), tun(1289)]


async def test_a_crashed_loop_is_a_disconnect_not_silence(node: Node) -> None:
    loop, stream = started(node)
    user = subscribed(node)
    await settle()
    loop.say(established(1))
    loop.ref.tell(Crash())
    await ended(stream)
    assert user.events == [established(1), Disconnected("the event loop crashed: RuntimeError: on purpose")]
    assert user.undelivered == 0


async def test_a_loop_that_was_killed_is_a_disconnect_too(node: Node) -> None:
    loop, stream = started(node)
    user = subscribed(node)
    await settle()
    loop.kill()
    await ended(stream)
    assert user.events == [Disconnected("the event loop killed")]


async def test_a_loop_that_never_lived_is_a_disconnect(node: Node) -> None:
    stream, user = EventStream(LOOP), User()
    node.start(stream, "event-stream")
    node.local("event-stream").tell(Subscribe(str(node.start(user, "user"))))
    await ended(stream)
    assert user.events in ([Disconnected("the event loop no_such_actor")], [])


async def test_a_user_who_takes_nothing_does_not_hold_up_the_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LAST_DELIVERY_S", 0.03)
    loop, stream = started(node)
    user = subscribed(node)
    user.gate.clear()
    await settle()
    loop.say(established(1), established(2), established(3))
    await user.began.wait()
    loop.ref.stop()
    began = node.loop.time()
    await ended(stream)
    assert node.loop.time() - began < 1.0
    assert user.events == []
    assert stream._pump is not None  # pyright: ignore[reportPrivateUsage]
    await settle()
    assert stream._pump.done(), "no task is left"  # pyright: ignore[reportPrivateUsage]


async def test_a_user_who_died_does_not_hold_up_the_end(node: Node) -> None:
    loop, stream = started(node)
    user = subscribed(node)
    await settle()
    user.kill()
    await settle()
    loop.say(established(1), established(2))
    await settle()
    loop.ref.stop()
    began = node.loop.time()
    await ended(stream)
    assert node.loop.time() - began < 0.2


async def test_another_user_may_take_over(node: Node) -> None:
    loop, stream = started(node)
    first = subscribed(node)
    await settle()
    first.kill()
    await settle()
    loop.say(established(1))
    await settle()
    second = subscribed(node, "second")
    loop.say(established(2))
    loop.ref.stop()
    await ended(stream)
    assert second.events == [established(2)]
    assert second.undelivered == 1, "the first one was under way to somebody dead"


async def test_a_successor_goes_on_and_tells_again_what_was_not_confirmed(node: Node) -> None:
    notes = node.deposits = Notes()
    loop, stream = started(node)
    subscriber = Subscriber()
    node.local("event-stream").tell(Subscribe(str(node.start(subscriber, "events"))))
    await settle()
    loop.say(established(1), established(2), tun(1280), tun(1300), AllGatewaysOffline("r-1"))
    await settle()
    stream.ref.stop("hand_over")
    await ended(stream)
    notes.succeeds = True
    node.start(EventStream(LOOP), "event-stream")
    loop.say(AllGatewaysOffline("r-1"), established(3))
    await settle()
    loop.ref.stop()
    events = await asyncio.wait_for(Iterator(subscriber).drain(), 5)
    assert events == [tun(1300), established(1), established(2), AllGatewaysOffline("r-1"), established(3)]
    assert subscriber.undelivered == 0


async def test_a_stream_to_which_nothing_was_left_does_not_begin(node: Node) -> None:
    notes = node.deposits = Notes()
    notes.succeeds = True
    _, stream = started(node)
    await ended(stream)
    assert stream.exit_reason == "crashed"


async def test_without_any_user_it_ends_with_its_loop(node: Node) -> None:
    loop, stream = started(node)
    loop.say(established(1))
    await settle()
    loop.ref.stop()
    await ended(stream)
    assert stream.exit_reason == "normal"


# --- the user's end ---


async def test_the_iterator_ends_after_the_last_event(node: Node) -> None:
    loop, _ = started(node)
    subscriber = Subscriber()
    node.local("event-stream").tell(Subscribe(str(node.start(subscriber, "events"))))
    await settle()
    loop.say(tun(1280), established(1))
    loop.ref.stop()
    events = Iterator(subscriber)
    assert await asyncio.wait_for(events.drain(), 5) == [tun(1280), established(1)]
    assert await asyncio.wait_for(events.drain(), 5) == []
    assert subscriber.undelivered == 0


async def test_a_user_who_reads_late_gets_what_waited(node: Node) -> None:
    loop, stream = started(node)
    subscriber = Subscriber()
    node.local("event-stream").tell(Subscribe(str(node.start(subscriber, "events"))))
    await settle()
    loop.say(established(1))
    loop.ref.stop()
    await ended(stream)
    assert await asyncio.wait_for(Iterator(subscriber).drain(), 5) == [established(1)]


class PlayedSupervisor:
    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Outcome:
        return await asyncio.shield(self.outcome)


@pytest.mark.parametrize(
    ("failed", "last"), [(True, [Disconnected("the session's processes ended: killed")]), (False, [])]
)
async def test_the_iterator_ends_even_if_the_streams_own_process_died(
    failed: bool, last: list[Event], tmp_path: Path
) -> None:
    supervisor: Any = PlayedSupervisor()
    config = SessionConfig(
        side="client",
        instance="killed",
        portal_url="ws://127.0.0.1:9",
        token_file=tmp_path / "token",
        name="killed",
        external_id="killed",
        directories=Directories(ipc=tmp_path, logs=tmp_path, traces=tmp_path),
        endings_file=tmp_path / "endings.jsonl",
    )
    subscriber = Subscriber()
    session = Session(config, supervisor, subscriber)
    reading = asyncio.ensure_future(Iterator(subscriber).drain())
    await settle()
    await subscriber.on_deliver(Deliver(established(1)))
    await settle()
    assert not reading.done()
    supervisor.outcome.set_result(Outcome(failed, "killed"))
    assert await asyncio.wait_for(reading, 5) == [established(1), *last]
    assert (await session.ended()).failed is failed
