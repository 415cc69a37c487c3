"""The screen, at 80×24 and at 120×40, against a program that is only in memory."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from textual.pilot import Pilot

from exeunt.clients.contract import Peer
from exeunt.clients.inspection_contract import ActorRow, TreeNode
from exeunt.clients.output import Failure
from exeunt.clients.tui.app import Top
from exeunt.clients.tui.facts import Fact, Happened, Joined, Left, Looked, StatusAnswer
from exeunt.clients.tui.feed import Done, Job, Tell
from exeunt.clients.tui.main import Main
from exeunt.clients.tui.source import NotOffered
from exeunt.runtime.trace import Span, Trace, group

pytestmark = pytest.mark.slow

NARROW, WIDE = (80, 24), (120, 40)
BOTH = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "120x40"])


def actor(name: str, handled: int = 0, **changes: Any) -> ActorRow:
    fields: dict[str, Any] = {
        "address": f"client/w1/{name}", "kind": "Kind", "state": "running", "worker": "w1", "pid": 4711, "mailbox": 0,
        "handled_total": handled, "restarts": 0, "since_s": 60.0, "cpu_percent": 2.0, "rss_bytes": 1000,
    }  # fmt: skip
    return ActorRow(**{**fields, **changes})


TREE = TreeNode(
    name="client", kind="supervisor", state="running", pid=4710, children=[
        TreeNode(name="w1", kind="worker", state="running", pid=4711, children=[
            TreeNode(name="session", kind="actor", state="running"),
            TreeNode(name="peer:gateway-1", kind="actor", state="running"),
            TreeNode(name="portal", kind="actor", state="backoff")])])  # fmt: skip
STATUS = StatusAnswer(session="connected", peers=[Peer(peer="gateway-1", path="direct", endpoint="192.0.2.1:51820")])
SPAN = Span(
    id=0xABC, cause=0, trace=0xABC, from_="client/w1/session", to="client/w1/portal", message="Leave", worker="w1",
    kind="ask", sent_ns=1_000, received_ns=2_000, started_ns=3_000, ended_ns=4_000, outcome="ok",
)  # fmt: skip


class InMemory:
    """A feed and its source: tells when it is told to, answers at once, and remembers what it was asked."""

    def __init__(self) -> None:
        self.every_s = 1.0
        self.wanted: frozenset[str] = frozenset()
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.stopped = False
        self.tell: Tell = lambda _fact: None
        self._at_s = 0.0

    # as a feed

    def start(self, tell: Tell) -> None:
        self.tell = tell

    def stop(self) -> None:
        self.stopped = True

    def want(self, commands: frozenset[str]) -> None:
        self.wanted = commands

    def run(self, job: Job, done: Done) -> None:
        try:
            done(job(self))
        except NotOffered as error:
            done(Failure("not_offered", str(error)))
        except Failure as failure:
            done(failure)

    # as a source

    def converse(self) -> "InMemory":
        return self

    def join(self) -> Joined:
        return Joined(instance="client", program="client", pid=4710, version="0.1.0")

    def ask(self, command: str, type_: Any, args: dict[str, Any] | None = None) -> Any:
        self.orders.append((command, args or {}))
        if command not in self.answers:
            raise NotOffered(f"This program does not offer {command}.")
        if isinstance(self.answers[command], Exception):
            raise self.answers[command]
        return self.answers[command]

    def close(self) -> None: ...

    def hang_up(self) -> None: ...

    def events(self) -> Any:
        return iter(())

    def logs(self, actor: str | None) -> list[dict[str, Any]]:
        return [{"time": "2026-11-25T14:02:11.000Z", "severity": "INFO", "message": f"A line of {actor}."}]

    def traces(self, actor: str | None) -> list[Trace]:
        return group([SPAN])

    # for the test

    def look(self, actors: list[ActorRow], **more: Any) -> Looked:
        self._at_s += 1.0
        return Looked(at_s=self._at_s, actors=actors, **more)


class Scene:
    """A screen that a test drives and reads."""

    def __init__(self, top: Top, feed: InMemory, pilot: Pilot[None]) -> None:
        self.top, self.feed, self.pilot = top, feed, pilot

    async def tell(self, *facts: Fact) -> None:
        for fact in facts:
            self.feed.tell(fact)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*(self._key(letter) for letter in text))

    @property
    def lines(self) -> list[str]:
        """What can be read."""
        strips = self.top.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage]
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def main(self) -> Main:
        main = self.top.screen_stack[0]
        assert isinstance(main, Main)
        return main

    def rows(self, pane: str) -> list[str]:
        """The first words of a pane's lines."""
        listing = self.main.query_one(f"#{pane}")
        assert listing.display
        region = listing.content_region
        lines = self.lines[region.y : region.bottom]
        return [line[region.x : region.right].split()[0] for line in lines[1:] if line[region.x : region.right].strip()]

    @staticmethod
    def _key(letter: str) -> str:
        return {" ": "space", ":": "colon", "/": "slash", "!": "exclamation_mark", "-": "minus"}.get(letter, letter)


@asynccontextmanager
async def scene(size: tuple[int, int], *, write: bool = False, offered: bool = True) -> AsyncGenerator[Scene]:
    feed = InMemory()
    top = Top(feed, write=write)
    async with top.run_test(size=size) as pilot:
        shown = Scene(top, feed, pilot)
        more: dict[str, Any] = {"tree": TREE, "status": STATUS} if offered else {"absent": frozenset({"status"})}
        for handled in (0, 1):
            rows = [
                actor("session", 10 * handled),
                actor("peer:gateway-1", 50 * handled, mailbox=2),
                actor("portal", 0, state="backoff", restarts=4),
            ]
            await shown.tell(feed.join(), feed.look(rows, **more))
        yield shown
    assert feed.stopped


@BOTH
async def test_everything_is_there(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        assert shown.rows("actors") == ["peer:gateway-1", "session", "portal"]  # by rate
        assert shown.rows("peers") == ["gateway-1"]
        assert "● connected" in shown.lines[0]
        assert "3 actors   60 msg/s   queued 2   restarts 4" in shown.lines[1]
        assert "↻ backoff" in shown.text
        assert "? help  q quit" in shown.lines[-1]
        assert len(shown.lines) == size[1]
        assert all(len(line) <= size[0] for line in shown.lines)


async def test_at_80_columns_the_tree_gives_way_and_is_not_asked_for() -> None:
    async with scene(NARROW) as shown:
        assert "session" not in {line.strip("├└│ ●◐") for line in shown.lines}
        assert shown.feed.wanted == {"ps", "status"}
        await shown.press("1")
        assert shown.feed.wanted == {"ps", "status", "tree"}
        assert "├ ● session" in shown.text
        assert "MSG/S" not in shown.text  # it has the place for itself
        await shown.press("1")
        assert "MSG/S" in shown.text
        assert shown.feed.wanted == {"ps", "status"}


async def test_at_120_columns_the_tree_is_beside() -> None:
    async with scene(WIDE) as shown:
        assert shown.feed.wanted == {"ps", "status", "tree"}
        assert "├ ● session" in shown.text
        await shown.pilot.resize_terminal(*NARROW)
        await shown.pilot.pause()
        assert shown.feed.wanted == {"ps", "status"}
        assert "├ ● session" not in shown.text


@BOTH
async def test_panes_are_left_hidden_and_alone(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("3")
        assert "3 peers (1)" in shown.text
        await shown.press("3")
        assert "3 peers" not in shown.text
        assert "status" not in shown.feed.wanted
        await shown.press("4", "z")
        assert "4 events" in shown.text
        assert "2 actors" not in shown.text
        await shown.press("escape")
        assert "2 actors" in shown.text
        await shown.press("2", "2", "4", "4", "1", "1", "3", "3")
        assert any(name in shown.text for name in ("1 tree", "2 actors", "3 peers", "4 events"))  # one always stays


@BOTH
async def test_filter(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("slash")
        await shown.type("gateway")
        assert shown.rows("actors") == ["peer:gateway-1"]  # while it is typed
        assert shown.lines[-1].strip() == "/gateway"
        await shown.press("enter")
        assert "2 actors (1) · by rate · /gateway" in shown.text
        await shown.press("slash")
        await shown.type(" !peer")
        assert "Nothing matches" in shown.text
        await shown.press("escape")
        assert len(shown.rows("actors")) == 3


@BOTH
async def test_letters_that_are_keys_can_be_typed_at_once(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.pilot.press("slash", *"splxrzq")  # without a pause, as from a slow line
        await shown.pilot.pause()
        assert shown.lines[-1].strip() == "/splxrzq"
        assert not shown.main.paused


@BOTH
async def test_sort(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        orders: list[tuple[str, str]] = []
        for _ in range(5):
            await shown.press("s")
            orders.append((str(shown.main.order), shown.rows("actors")[0]))
        assert orders == [
            ("queue", "peer:gateway-1"), ("handled", "peer:gateway-1"), ("restarts", "portal"),
            ("name", "peer:gateway-1"), ("rate", "peer:gateway-1"),
        ]  # fmt: skip
        await shown.press("S")
        assert "by name" in shown.text


@BOTH
async def test_the_cursor_stays_with_its_actor(size: tuple[int, int]) -> None:
    async with scene(size, write=True) as shown:
        await shown.press("down", "down")  # portal
        await shown.press("s", "s", "s")  # by restarts, it is the first
        assert shown.rows("actors")[0] == "portal"
        await shown.press("r")
        assert "Restart the actor portal?" in shown.text


@BOTH
async def test_pause_freezes_and_asks_nothing(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("p")
        assert "paused" in shown.text
        assert shown.feed.wanted == frozenset()
        await shown.tell(shown.feed.look([actor("new")]))
        assert shown.rows("actors") == ["peer:gateway-1", "session", "portal"]
        await shown.press("space")
        assert shown.rows("actors") == ["new"]
        assert "ps" in shown.feed.wanted


@BOTH
async def test_help(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("question_mark")
        assert "keys and commands" in shown.text
        assert "pause, go on" in shown.text
        assert shown.feed.wanted == frozenset()  # nothing of the program can be seen
        await shown.press("escape")
        assert "2 actors" in shown.text
        assert "ps" in shown.feed.wanted


@BOTH
async def test_describe(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("d")
        assert "This program does not offer show." in shown.text
        assert "handled_total  50" in shown.text
        await shown.press("escape")
        shown.feed.answers["show"] = {"address": "client/w1/peer:gateway-1", "snapshot": {"phase": "open"}}
        await shown.press("enter")
        assert shown.feed.orders[-1] == ("show", {"actor": "client/w1/peer:gateway-1"})
        assert "  phase  open" in shown.text
        await shown.press("q")
        shown.feed.answers["show"] = Failure("not_running", "client has left.")
        await shown.press("d")
        assert "client has left." in shown.text


async def test_peers_events_and_nodes_are_described_too() -> None:
    async with scene(WIDE) as shown:
        await shown.tell(Happened([{"type": "GaveUp", "of": "client", "child": "w1"}]), shown.feed.look([actor("a")]))
        for pane, found in (("3", "endpoint"), ("4", "child  w1"), ("1", "children")):
            await shown.press(pane, "enter")
            assert found in shown.text
            await shown.press("escape")


@BOTH
async def test_logs_and_traces(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("l")
        assert "A line of client/w1/peer:gateway-1." in shown.text
        await shown.press("escape", "x")
        assert "Leave" in shown.text
        assert "traces of peer:gateway-1" in shown.text
        await shown.press("enter")
        assert "trace 0000000000000abc" in shown.text
        await shown.press("escape", "escape")
        assert "2 actors" in shown.text


@BOTH
async def test_restart_only_when_allowed_and_confirmed(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.press("r")
        assert "Read-only" in shown.lines[-1]
        assert shown.feed.orders == []
    async with scene(size, write=True) as shown:
        shown.feed.answers["restart"] = {"target": "x"}
        for no in ("n", "escape", "enter"):
            await shown.press("r")
            assert "Restart the actor peer:gateway-1?" in shown.text
            assert "ps" in shown.feed.wanted  # it can be seen behind the question
            await shown.press(no)
        assert shown.feed.orders == []
        await shown.press("r", "y")
        assert shown.feed.orders == [("restart", {"target": "client/w1/peer:gateway-1"})]
        assert "peer:gateway-1 is being restarted." in shown.lines[-1]
        shown.feed.answers["restart"] = Failure("no_such_actor", "There is no such actor.")
        await shown.press("r", "y")
        assert "There is no such actor." in shown.lines[-1]


async def test_a_worker_is_restarted_from_the_tree() -> None:
    async with scene(WIDE, write=True) as shown:
        shown.feed.answers["restart"] = {"target": "w1"}
        await shown.press("1", "r")
        assert "no actor and no worker" in shown.lines[-1]  # the supervisor
        await shown.press("down", "r")
        assert "its actors (3) end without a goodbye" in " ".join(shown.text.replace("│", " ").split())
        await shown.press("y")
        assert shown.feed.orders == [("restart", {"target": "w1"})]


async def test_a_supervisor_is_restarted_by_its_name() -> None:
    async with scene(WIDE, write=True) as shown:
        nested = TreeNode(name="paths", kind="supervisor", state="running", restart="permanent")
        await shown.tell(shown.feed.look([], tree=replace(TREE, supervises=[nested])))
        shown.feed.answers["restart"] = {"target": "client/paths"}
        await shown.press("colon")
        await shown.type("restart paths")
        await shown.press("enter")
        assert "Restart the supervisor paths?" in shown.text
        assert "All actors below it" in shown.text
        await shown.press("y")
        assert shown.feed.orders == [("restart", {"target": "client/paths"})]


@BOTH
async def test_commands(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        steps: list[tuple[str, Callable[[], bool]]] = [
            ("sort restarts", lambda: "by restarts" in shown.text),
            ("filter portal", lambda: shown.rows("actors") == ["portal"]),
            ("filter", lambda: len(shown.rows("actors")) == 3),
            ("every 5s", lambda: shown.feed.every_s == 5.0),
            ("events", lambda: "4 events" in shown.text),
            ("shwo a", lambda: "Did you mean show?" in shown.lines[-1]),
            ("show nobody", lambda: "There is no actor or worker nobody." in shown.lines[-1]),
            ("show w1", lambda: "w1 is a worker; show takes an actor." in shown.lines[-1]),
            ("restart portal", lambda: "Read-only" in shown.lines[-1]),
            ("pause", lambda: shown.main.paused),
            ("logs portal", lambda: "A line of client/w1/portal." in shown.text),
        ]
        for text, check in steps:
            await shown.press("colon")
            await shown.type(text)
            await shown.press("enter")
            assert check(), text
        await shown.press("escape", "colon", "q", "enter")
        assert not shown.top.is_running or shown.top._exit  # pyright: ignore[reportPrivateUsage]


@BOTH
async def test_the_program_leaves_and_comes_back(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.tell(Left("client has left."))
        assert "✖ left 1 s ago; waiting" in shown.lines[0]
        assert shown.rows("actors") == ["peer:gateway-1", "session", "portal"]  # as they were last
        await shown.tell(Joined(instance="client", program="client", pid=5000, version="0.1.0"))
        assert "waiting" not in shown.text
        await shown.tell(shown.feed.look([actor("session", 3)], status=STATUS))
        assert shown.rows("actors") == ["session"]


@BOTH
async def test_a_program_without_status_has_no_pane_of_peers(size: tuple[int, int]) -> None:
    async with scene(size, offered=False) as shown:
        assert "3 peers" not in shown.text
        assert "● running" in shown.lines[0]
        assert "status" not in shown.feed.wanted
        await shown.press("3")
        assert "This program does not offer status." in shown.text


@BOTH
async def test_before_the_first_answer(size: tuple[int, int]) -> None:
    top = Top(InMemory())
    async with top.run_test(size=size) as pilot:
        shown = Scene(top, InMemory(), pilot)
        assert "◐ asking" in shown.lines[0]
        assert "Nothing is known yet." in shown.text
        await shown.press("down", "enter", "l", "escape", "r", "q")


@BOTH
async def test_events_are_newest_first(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        events = [{"type": f"Event{number}", "of": "client/w1/a", "at_ns": number + 1} for number in range(50)]
        await shown.tell(Happened(events), shown.feed.look([actor("a")]))
        shown_events = [line for line in shown.lines if "Event" in line]
        assert "Event49" in shown_events[0]
        assert "w1/a" in shown_events[0]


@BOTH
async def test_many_actors_scroll(size: tuple[int, int]) -> None:
    async with scene(size) as shown:
        await shown.tell(shown.feed.look([actor(f"a{number:05}") for number in range(20_000)], status=STATUS))
        await shown.press("end")
        assert shown.rows("actors")[-1] == "a19999"
        await shown.press("home")
        assert shown.rows("actors")[0] == "a00000"
        await shown.press("pagedown", "down", "up")
        assert "RESTARTS" in shown.text  # beside the scroll bar


async def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    feed = InMemory()
    top = Top(feed)
    async with top.run_test(size=NARROW) as pilot:
        shown = Scene(top, feed, pilot)
        await shown.tell(feed.join(), feed.look([actor("portal", state="backoff")], status=STATUS))
        strips = top.screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage]
        styles = {segment.style for strip in strips for segment in strip if segment.style is not None}
        assert all(style.color is None or style.color.is_default for style in styles)
        assert "↻ backoff" in shown.text
    assert os.environ.get("NO_COLOR") in (None, "1")
