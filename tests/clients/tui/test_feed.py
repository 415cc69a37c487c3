"""The feed against a real control socket: what it asks, what it tells, and that it outlives the program."""

import asyncio
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exeunt.clients.instances import pick
from exeunt.clients.output import DEFAULTS, Failure, Options
from exeunt.clients.paths import Paths
from exeunt.clients.tui.facts import Fact, Happened, Joined, Left, Looked
from exeunt.clients.tui.feed import LiveFeed, look_at
from exeunt.clients.tui.source import ControlSource, NotOffered
from exeunt.runtime.control import ControlError

from ..conftest import AppendLog, StartProgram

PS: list[dict[str, Any]] = [
    {"address": "client/w1/a", "kind": "A", "state": "running", "worker": "w1", "pid": 7, "mailbox": 0,
     "handled_total": 3, "restarts": 0, "since_s": 1.0, "cpu_percent": None, "rss_bytes": None},
]  # fmt: skip
TREE: dict[str, Any] = {"name": "client", "kind": "supervisor", "state": "running", "children": []}
STATUS = {"session": "connected", "problems": [{"code": "relay", "message": "Slow."}]}
ALL = frozenset({"ps", "tree", "status"})


class Watched:
    """A feed, and the facts that it told."""

    def __init__(self, paths: Paths) -> None:
        self.source = ControlSource(pick(paths, DEFAULTS), paths, DEFAULTS)
        self.feed = LiveFeed(self.source, every_s=0.02)
        self._facts: queue.Queue[Fact] = queue.Queue()

    def start(self, wanted: frozenset[str] = ALL) -> None:
        self.feed.want(wanted)
        self.feed.start(self._facts.put)

    def next(self, kind: Any, such: Callable[[Any], bool] = lambda _fact: True) -> Any:
        """Wait for a fact of this kind, such as that; others are passed over."""
        while True:
            fact = self._facts.get(timeout=20)
            if isinstance(fact, kind) and such(fact):
                return fact


@pytest.fixture
def watch(paths: Paths) -> Iterator[Callable[[], Watched]]:
    started: list[Watched] = []

    def start() -> Watched:
        started.append(Watched(paths))
        return started[-1]

    yield start
    for watched in started:
        watched.feed.stop()
        watched.feed.join(20)


def test_it_asks_what_is_wanted(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    program = start_program(ps=PS, tree=TREE, status=STATUS)
    watched = watch()
    watched.start(frozenset({"ps"}))
    assert watched.next(Joined).instance == "client"
    look = watched.next(Looked)
    assert (look.actors[0].address, look.tree, look.status) == ("client/w1/a", None, None)
    assert {name for name, _ in program.calls} <= {"hello", "ps", "events"}
    watched.feed.want(ALL)
    look = watched.next(Looked, lambda look: look.tree is not None)
    assert look.status.problems[0].message == "Slow."
    assert (look.absent, look.troubles) == (frozenset(), {})


def test_what_a_program_does_not_offer_is_absent(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    start_program(ps=PS, tree=TREE)
    watched = watch()
    watched.start()
    look = watched.next(Looked)
    assert look.absent == {"status"}
    assert look.actors is not None


def test_an_error_is_a_trouble_not_the_end(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    def failing(_args: Any) -> Any:
        raise ControlError("failed", "The tree fell.")

    start_program(ps=PS, tree=failing, status={"session": "asleep"})
    watched = watch()
    watched.start()
    look = watched.next(Looked)
    assert look.troubles["tree"] == "The tree fell."
    assert "this version does not understand" in look.troubles["status"]
    assert watched.next(Looked).actors is not None


def test_it_tells_that_the_program_left_and_that_it_is_back(
    start_program: StartProgram, watch: Callable[[], Watched], paths: Paths
) -> None:
    program = start_program(ps=PS)
    watched = watch()
    watched.start()
    watched.next(Looked)
    program.leave()
    assert "client" in watched.next(Left).why
    program.come_back()
    watched.next(Joined)
    assert watched.next(Looked).actors is not None


def test_it_notices_while_it_asks_nothing(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    program = start_program(ps=PS)
    watched = watch()
    watched.start(frozenset())
    watched.next(Joined)
    program.leave()
    watched.next(Left)
    assert "ps" not in {name for name, _ in program.calls}


def test_events_come_recent_ones_first(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    recent = {"type": "WorkerStarted", "of": "w1", "at": "2026-11-26T00:00:00Z"}
    program = start_program(ps=PS)
    program.publish(recent)
    watched = watch()
    watched.start()
    assert watched.next(Happened) == Happened([recent])
    event = {"type": "ActorEnded", "of": "client/w1/a", "at": "2026-11-26T00:00:01Z"}
    program.publish(event)
    assert watched.next(Happened) == Happened([event])


def test_a_job_gets_its_answer_or_why_there_is_none(start_program: StartProgram, watch: Callable[[], Watched]) -> None:
    start_program(ps=PS, restart={"target": "a"})
    watched = watch()
    done: queue.Queue[Any] = queue.Queue()

    def ask(command: str) -> Any:
        def job(source: Any) -> Any:
            conversation = source.converse()
            try:
                return conversation.ask(command, dict[str, Any], {"target": "a"})
            finally:
                conversation.close()

        watched.feed.run(job, done.put)
        return done.get(timeout=20)

    assert ask("restart") == {"target": "a"}
    refused = ask("show")
    assert isinstance(refused, Failure)
    assert refused.error.message == "This program does not offer show."
    watched.feed.run(lambda _source: 1 // 0, done.put)
    assert done.get(timeout=20).error.code == "internal"


def test_a_program_that_does_not_answer_is_a_trouble(start_program: StartProgram, paths: Paths) -> None:
    async def never(_args: Any) -> None:
        await asyncio.sleep(3600)

    start_program(ps=never)
    source = ControlSource(pick(paths, DEFAULTS), paths, Options(timeout_s=0.05))
    conversation = source.converse()
    try:
        assert "did not answer" in look_at(conversation, frozenset({"ps"})).troubles["ps"]
    finally:
        conversation.close()


def test_not_offered_is_told_from_other_refusals(start_program: StartProgram, paths: Paths) -> None:
    def bad(_args: Any) -> Any:
        raise ValueError("no")

    start_program(ps=bad)
    conversation = ControlSource(pick(paths, DEFAULTS), paths, DEFAULTS).converse()
    try:
        with pytest.raises(Failure, match="bad arguments"):
            conversation.ask("ps", dict[str, Any])
        with pytest.raises(NotOffered):
            conversation.ask("status", dict[str, Any])
    finally:
        conversation.close()


def test_logs_of_an_actor_of_this_program(start_program: StartProgram, paths: Paths, append_log: AppendLog) -> None:
    start_program(ps=PS)
    append_log("one", node="client", actor="client/w1/a", worker="w1")
    append_log("two", node="client", actor="client/w1/b", worker="w1")
    append_log("three", node="portal", actor="portal/w1/a", worker="w1")
    source = ControlSource(pick(paths, DEFAULTS), paths, DEFAULTS)
    assert [line["message"] for line in source.logs("client/w1/a")] == ["one"]
    assert [line["message"] for line in source.logs("w1")] == ["one", "two"]
    assert [line["message"] for line in source.logs(None)] == ["one", "two"]
    assert source.traces(None) == []
