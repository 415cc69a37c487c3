"""Causality: every message carries its trace, its cause and its deadline."""

import asyncio
import time
from pathlib import Path

from tests.runtime.troupe import (
    Context,
    Ended,
    Finish,
    Number,
    Player,
    Relay,
    Say,
    Thinker,
    UnwatchIt,
    Watcher,
    WatchIt,
    Where,
    here,
)

from exeunt.runtime import Actor, Message, Terminated, receive
from exeunt.runtime.context import current
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import read_ring
from exeunt.runtime.trace import Trace, group, spans_of


def traces(tmp_path: Path) -> list[Trace]:
    ring = read_ring(tmp_path / "n.w.1.ring")
    return group(spans_of([(ring.worker, ring.records)]))


def steps(trace: Trace) -> list[str]:
    return [f"{span.kind} {span.message} {span.outcome}" for span in trace.spans]


async def test_outside_of_actors_there_is_no_context() -> None:
    assert current() is None


async def test_a_message_from_outside_begins_a_trace(node: Node) -> None:
    ref = node.start(Player(), "p")
    first: Context = await ref.ask(Where())
    second: Context = await ref.ask(Where())
    assert first.trace == first.cause
    assert second.trace == second.cause
    assert first.trace != second.trace


async def test_a_deadline_travels_with_the_ask(node: Node) -> None:
    before = time.monotonic_ns()
    found: Context = await node.start(Player(), "p").ask(Where(), timeout_s=60)
    assert before + 60_000_000_000 <= found.deadline_ns <= time.monotonic_ns() + 60_000_000_000


async def test_every_hop_of_a_relay_is_in_one_trace(node: Node, tmp_path: Path) -> None:
    node.start(Player(), "b")
    await node.start(Player(), "a").ask(Relay("n/w/b", "x"))
    await node.start(Thinker(), "t").ask(Relay("n/w/b", "x"))
    near, far = traces(tmp_path)
    expected = ["ask Relay ok", "ask Say ok", "reply Said ok", "reply Said ok"]
    assert sorted(steps(near)) == sorted(steps(far)) == sorted(expected)
    for trace in (near, far):
        by_message = {(span.kind, span.message): span for span in trace.spans}
        assert by_message["ask", "Say"].cause == by_message["ask", "Relay"].id == trace.id


async def test_what_a_task_of_a_handler_sends_belongs_to_the_handlers_message(node: Node) -> None:
    got: asyncio.Future[Context] = asyncio.get_running_loop().create_future()

    class Starter(Actor):
        @receive(Say)
        def say(self, _message: Say) -> None:
            self.background = asyncio.create_task(self._work())

        @receive(Number)
        def number(self, _message: Number) -> None:
            got.set_result(here())

        async def _work(self) -> None:
            await asyncio.sleep(0)
            self.ref.tell(Number(1))

    ref = node.start(Starter(), "s")
    await ref.ask(Say("x"))
    ref.tell(Say("another message in between"))
    found = await got
    assert found.trace != found.cause


async def test_the_news_of_an_end_belongs_to_what_ended_it(node: Node, tmp_path: Path) -> None:
    class Chained(Watcher):
        @receive(Terminated)
        def terminated(self, message: Terminated) -> None:
            super().terminated(message)
            self.ref.tell(Number(1))

        @receive(Number)
        def number(self, _message: Number) -> None: ...

    watcher = node.start(Chained(), "watcher")
    await watcher.ask(WatchIt("n/w/p"))
    ref = node.start(Player(), "p")
    await watcher.ask(Ended(1))
    await watcher.ask(WatchIt("n/w/p"))
    await ref.ask(Finish())
    await watcher.ask(Ended(2))
    await watcher.ask(UnwatchIt("n/w/p"))
    trace = next(trace for trace in traces(tmp_path) if trace.root.message == "Finish")
    assert [span.message for span in trace.spans] == ["Finish", "None", "Terminated", "Terminated", "Number"]
    assert trace.outcome == "ok"


async def test_nothing_waits_in_a_trace_of_watching(node: Node, tmp_path: Path) -> None:
    node.start(Player(), "p")
    watcher = node.start(Watcher(), "watcher")
    await watcher.ask(WatchIt("n/w/p"))
    await watcher.ask(WatchIt("n/w/nobody"))
    await watcher.ask(Ended(1))
    await watcher.ask(UnwatchIt("n/w/p"))
    assert {trace.outcome for trace in traces(tmp_path)} == {"ok"}


async def test_outcomes_are_told_apart(node: Node, tmp_path: Path) -> None:
    class Picky(Player): ...

    ref = node.start(Picky(), "p")
    messages: list[Message] = [Number(1), Where()]
    for message in messages:
        await ref.ask(message)
    node.local("nobody").tell(Say("?"))
    found = [(trace.root.message, trace.outcome) for trace in traces(tmp_path)]
    assert found == [("Number", "ok"), ("Where", "ok"), ("Say", "dropped")]
