"""What is done about one line: show it at length, read its logs or traces, have it restarted.

Each opens a page at once and fills it when the answer has come; nothing here waits.
"""

# pyright: reportUnknownMemberType=false
# Textual does not say of which kind its `app` is.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import structs
from rich.console import RenderableType
from textual.screen import Screen

from ..inspection_contract import ActorRow
from ..output import Failure
from . import describe
from .event_line import EventLine
from .feed import Feed, Job
from .model import ActorLine, Model, PeerLine
from .pages import Fetched, Page, Question, TracesPage
from .source import NotOffered, Source
from .tree_line import TreeLine

Say = Callable[[str, str], None]


class Target(NamedTuple):
    """An actor, a worker or a supervisor."""

    name: str
    """What it is restarted, and found in logs, by: an actor's address, a worker's name, `program/name`."""
    row: ActorRow | None
    """None for all but an actor."""

    @property
    def kind(self) -> str:
        """What it is."""
        if self.row is not None:
            return "actor"
        return "supervisor" if "/" in self.name else "worker"

    @property
    def short(self) -> str:
        """What a person calls it."""
        return self.name.rpartition("/")[2]


class Errands:
    """Does them for the main screen."""

    def __init__(self, screen: Screen[None], feed: Feed, model: Model, say: Say, *, write: bool) -> None:
        self._screen = screen
        self._feed = feed
        self._model = model
        self._say = say
        self._write = write

    def target_of(self, line: Any) -> Target | None:
        """The actor or worker that a line is about, if any."""
        match line:
            case ActorLine(row=row):
                return Target(row.address, row)
            case TreeLine(node=node, worker=worker) if node.kind == "actor":
                found = self._model.actor_of(f"{worker}/{node.name}" if worker else node.name)
                return Target(node.name if found is None else found.address, found)
            case TreeLine(target=str(target)):
                return Target(target, None)
            case EventLine(of=of) if found := self._model.actor_of(of):
                return Target(found.address, found)
            case _:
                return None

    def named(self, name: str) -> Target | None:
        """The actor or worker of this name, if there is one."""
        row = self._model.actor_of(name)
        if row is not None:
            return Target(row.address, row)
        workers = {row.worker for row in self._model.actor_rows or ()}
        if name in workers:
            return Target(name, None)
        for line in self._model.tree_lines():
            if line.node.kind == "supervisor" and line.node.name == name and line.target is not None:
                return Target(line.target, None)
        self._say(f"There is no actor or worker {name}.", "yellow")
        return None

    # --- reading ---

    def show(self, line: Any) -> None:
        """A line at length."""
        match line:
            case PeerLine(peer=peer, received=received, sent=sent):
                rates = {"received_bytes_per_s": received.rate, "sent_bytes_per_s": sent.rate}
                self._screen.app.push_screen(
                    Page(f"peer {peer.peer}", describe.fields({**structs.asdict(peer), **rates}))
                )
            case EventLine(event=event):
                self._screen.app.push_screen(Page(f"event {line.type} · {line.clock} UTC", describe.fields(event)))
            case _:
                target = self.target_of(line)
                if target is not None and target.row is not None:
                    self.show_actor(target.row)
                elif isinstance(line, TreeLine):
                    facts = {**structs.asdict(line.node), "children": [child.name for child in line.node.children]}
                    self._screen.app.push_screen(Page(f"{line.node.kind} {line.node.name}", describe.fields(facts)))

    def show_actor(self, row: ActorRow) -> None:
        """An actor: what the program says of it, or, where it offers no `show`, what is known of it here."""

        def ask(source: Source) -> tuple[dict[str, Any], str]:
            conversation = source.converse()
            try:
                return conversation.ask("show", dict[str, Any], {"actor": row.address}), ""
            except NotOffered as missing:
                return structs.asdict(row), f"{missing} This is what ps says of it."
            finally:
                conversation.close()

        self._open(Page(row.address, draw=lambda answer: describe.fields(*answer)), ask)

    def logs(self, target: Target | None) -> None:
        """What it wrote into the log; what everybody wrote, without one."""
        name = None if target is None else target.name
        of = "everybody" if target is None else target.short

        def render(lines: list[dict[str, Any]]) -> RenderableType:
            return describe.log(lines)

        self._open(Page(f"logs of {of}", draw=render, at_end=True), lambda source: source.logs(name))

    def traces(self, target: Target | None) -> None:
        """Traces that it took part in; all, without one."""
        name = None if target is None or target.row is None else target.row.address
        of = "everybody" if name is None or target is None else target.short
        self._open(TracesPage(f"traces of {of}"), lambda source: source.traces(name))

    def _open(self, page: Page | TracesPage, job: Job) -> None:
        def fetched(result: Any) -> None:
            page.post_message(Fetched(result))

        page.when_there = lambda: self._feed.run(job, fetched)
        self._screen.app.push_screen(page)

    # --- restarting ---

    def ask_to_restart(self, target: Target | None) -> None:
        """Ask whether it is meant, then do it."""
        if not self._write:
            self._say("Read-only. exeunt top --write may restart actors.", "yellow")
        elif target is None:
            self._say("This line is no actor and no worker.", "yellow")
        else:
            question, consequence = self._question(target)

            def answered(yes: bool | None) -> None:
                if yes:
                    self._restart(target)

            self._screen.app.push_screen(Question(question, consequence), answered)

    def _question(self, target: Target) -> tuple[str, str]:
        if target.row is not None:
            return (
                f"Restart the actor {target.short}?",
                "What waits in its mailbox is lost. Its supervisor starts a successor at the same address.",
            )
        if target.kind == "supervisor":
            return (
                f"Restart the supervisor {target.short}?",
                "All actors below it are stopped, from right to left, and started again, from left to right.",
            )
        hosted = sum(row.worker == target.name for row in self._model.actor_rows or ())
        return (
            f"Restart the worker {target.short}?",
            f"Its process is killed: its actors ({hosted}) end without a goodbye, and are started again.",
        )

    def _restart(self, target: Target) -> None:
        def ask(source: Source) -> Any:
            conversation = source.converse()
            try:
                return conversation.ask("restart", dict[str, Any], {"target": target.name})
            finally:
                conversation.close()

        def answered(result: Any) -> None:
            if isinstance(result, Failure):
                self._say(result.error.message, "red")
            else:
                self._say(f"{target.short} is being restarted.", "green")

        self._feed.run(ask, answered)
