"""The main screen: takes facts, keys and orders, and draws."""

# pyright: reportUnknownMemberType=false
# Textual does not say of which kind its `app` is.

from __future__ import annotations

import time
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from . import describe
from .errands import Errands, Target
from .facts import STATUS, Fact, Happened
from .feed import Feed
from .filter import Filter
from .headline import headline
from .listing import Listing
from .model import ORDERS, Model, Order
from .orders import PANES, Wrong, duration, parse
from .pages import Page, Question
from .panes import Panes
from .prompt import Prompt
from .stylesheet import NARROW

TICK_S = 0.5
"""How often events that came in are drawn, and the times in the headline."""

_KEYED = frozenset({"pane", "filter", "command", "help", "sort", "pause", "logs", "traces", "restart", "zoom", "back",
                    "quit"})  # fmt: skip


class Said(Message):
    """A sentence for the person. May be posted from any thread."""

    def __init__(self, text: str, style: str) -> None:
        super().__init__()
        self.text, self.style = text, style


class Told(Message):
    """Facts wait in the inbox."""


class Main(Screen[None]):
    """The main screen."""

    AUTO_FOCUS = "#actors"
    BINDINGS: ClassVar[list[BindingType]] = [
        # With priority, so that they are obeyed in the order in which they were typed, however fast.
        Binding(key, action, show=False, priority=True)
        for key, action in (
            *((str(number), f"pane('{name}')") for number, name in enumerate(PANES, start=1)),
            ("slash", "filter"),
            ("colon", "command"),
            ("question_mark", "help"),
            ("s", "sort(1)"),
            ("S", "sort(-1)"),
            ("p,space", "pause"),
            ("l", "logs"),
            ("x", "traces"),
            ("r", "restart"),
            ("z", "zoom"),
            ("escape", "back"),
            ("q", "quit"),
        )
    ]

    def __init__(self, feed: Feed, *, write: bool, order: Order = "rate") -> None:
        super().__init__()
        self.model = Model()
        self.paused = False
        self.order: Order = order
        self._feed = feed
        self._write = write
        self._filter_text = ""
        self._inbox: SimpleQueue[Fact] = SimpleQueue()
        self._dirty = False
        self._panes = Panes(id="panes")
        self._prompt = Prompt(write=write, id="prompt")
        self._errands = Errands(self, feed, self.model, self._say, write=write)

    # --- life ---

    def compose(self) -> ComposeResult:
        """Headline, panes, the line at the bottom."""
        yield Static(id="head")
        yield self._panes
        yield self._prompt

    def on_mount(self) -> None:
        """Begin to ask."""
        self._panes.focus_last()
        self._arrange()
        self._draw()
        self.set_interval(TICK_S, self._tick)
        self._feed.start(self._tell)

    def on_unmount(self) -> None:
        """Stop asking."""
        self._feed.stop()

    def on_resize(self, event: events.Resize) -> None:
        """The tree comes and goes with the width."""
        self.set_class(event.size.width < NARROW, "-narrow")
        self._arrange()
        self._draw()

    def on_screen_suspend(self) -> None:
        """A page lies over the panes: nothing of them can be seen, so nothing is asked."""
        if not isinstance(self.app.screen, Question):
            self._feed.want(frozenset())

    def on_screen_resume(self) -> None:
        """The page has gone."""
        self._ask_for_what_is_visible()

    def on_said(self, message: Said) -> None:
        """Say it in place of the keys, until the next one is pressed."""
        self._prompt.say(message.text, message.style)

    def _say(self, text: str, style: str) -> None:
        self.post_message(Said(text, style))

    # --- facts ---

    def _tell(self, fact: Fact) -> None:
        """Take a fact, on any thread."""
        self._inbox.put(fact)
        self.post_message(Told())

    def on_told(self) -> None:
        """Take what has come. While paused it waits."""
        if self.paused:
            return
        redraw = False
        while True:
            try:
                fact = self._inbox.get_nowait()
            except Empty:
                break
            self.model.take(fact, now_s=time.monotonic(), now_ns=time.time_ns())
            self._dirty = True
            redraw = redraw or not isinstance(fact, Happened)  # events may come by the thousand; they wait for a tick
        if redraw:
            self._arrange()
            self._draw()

    # --- drawing ---

    def _tick(self) -> None:
        if self._dirty:
            self._draw()
        else:
            self._draw_head()

    def _draw(self) -> None:
        self._dirty = False
        self._draw_head()
        self._panes.fill(self.model, self.order, Filter.of(self._filter_text), self._filter_text)

    def _draw_head(self) -> None:
        now_s, now, width = time.monotonic(), datetime.now(UTC), max(1, self.size.width - 2)
        lines = headline(self.model, width=width, now_s=now_s, now=now, paused=self.paused)
        self.query_one("#head", Static).update(Text("\n").join(lines), layout=False)

    def _arrange(self) -> None:
        narrow = self.size.width < NARROW
        self._panes.settle(narrow=narrow, peers_offered=STATUS not in self.model.absent)
        self._ask_for_what_is_visible()

    def _ask_for_what_is_visible(self) -> None:
        self._feed.want(frozenset() if self.paused else self._panes.wanted)

    # --- keys ---

    def on_key(self) -> None:
        """Whatever was said has been read."""
        if self._prompt.said is not None:
            self._prompt.hush()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """While something is typed, keys are letters."""
        return self._prompt.kind is None or action not in _KEYED

    def action_quit(self) -> None:
        """Leave; the program stays."""
        self.app.exit()

    def action_pane(self, name: str) -> None:
        """Go to a pane; from it, hide it."""
        self._panes.go_or_hide(name)
        self._arrange()
        self._draw()

    def action_zoom(self) -> None:
        """One pane alone, or all."""
        self._panes.zoom()
        self._arrange()
        self._draw()

    def action_sort(self, by: int) -> None:
        """The next order."""
        self.order = ORDERS[(ORDERS.index(self.order) + by) % len(ORDERS)]
        self._draw()

    def action_pause(self) -> None:
        """Freeze, or go on."""
        self.paused = not self.paused
        self._ask_for_what_is_visible()
        self._draw()
        self.on_told()

    def action_back(self) -> None:
        """Out of what is special: first the zoom, then the filter."""
        if self._panes.zoomed is not None:
            self._panes.zoomed = None
            self._arrange()
        else:
            self._filter_text = ""
        self._draw()

    def action_help(self) -> None:
        """Keys and commands."""
        self.app.push_screen(Page("exeunt top · keys and commands", describe.keys(write=self._write)))

    def action_filter(self) -> None:
        """Begin to type a filter."""
        self._prompt.open("/", self._filter_text)

    def action_command(self) -> None:
        """Begin to type a command."""
        self._prompt.open(":")

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """A line at length."""
        self._errands.show(message.row)

    def action_logs(self) -> None:
        """Logs of the line's actor or worker."""
        self._errands.logs(self._target)

    def action_traces(self) -> None:
        """Traces of the line's actor."""
        self._errands.traces(self._target)

    def action_restart(self) -> None:
        """Restart the line's actor or worker."""
        self._errands.ask_to_restart(self._target)

    @property
    def _target(self) -> Target | None:
        current = self._panes.current
        return None if current is None else self._errands.target_of(current.chosen)

    # --- the line at the bottom ---

    def on_prompt_typed(self, message: Prompt.Typed) -> None:
        """A filter works while it is typed."""
        if message.kind == "/":
            self._filter_text = message.text
            self._draw()

    def on_prompt_entered(self, message: Prompt.Entered) -> None:
        """Done."""
        self._close_prompt()
        if message.kind == "/":
            self._filter_text = message.text.strip()
            self._draw()
        elif message.text.strip():
            try:
                order = parse(message.text)
            except Wrong as wrong:
                self._prompt.say(str(wrong), "yellow")
            else:
                self._obey(order.word, order.argument)

    def on_prompt_ended(self, _message: Prompt.Ended) -> None:
        """Nothing after all."""
        if self._prompt.kind == "/":
            self._filter_text = ""
        self._close_prompt()
        self._draw()

    def _close_prompt(self) -> None:
        self._prompt.close()
        self._panes.focus_last()

    def _obey(self, word: str, argument: str) -> None:
        match word:
            case "tree" | "actors" | "peers" | "events":
                self._panes.go(word)
                self._arrange()
            case "show" | "logs" | "traces" | "restart":
                self._run_errand(word, argument)
            case "sort":
                self.order = next(order for order in ORDERS if order == argument)
            case "filter":
                self._filter_text = argument
            case "every":
                self._feed.every_s = duration(argument)
            case "pause":
                self.action_pause()
            case "help":
                self.action_help()
            case _:
                self.app.exit()
        self._draw()

    def _run_errand(self, word: str, name: str) -> None:
        """About the actor or worker of that name; about everybody without one."""
        target = self._errands.named(name) if name else None
        if name and target is None:
            return
        match word:
            case "show" if target is not None and target.row is not None:
                self._errands.show_actor(target.row)
            case "logs":
                self._errands.logs(target)
            case "traces":
                self._errands.traces(target)
            case "restart":
                self._errands.ask_to_restart(target)
            case _:
                self._prompt.say(f"{name} is a worker; show takes an actor.", "yellow")
