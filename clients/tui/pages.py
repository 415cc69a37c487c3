"""Screens over the screen: a page of text, a list of traces, a question."""

# pyright: reportUnknownMemberType=false
# Textual does not say of which kind its `app` is.

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from exeunt.runtime.trace import Trace

from ..output import Failure
from ..views import tree as trace_tree
from ..views.design import state
from ..views.hops import interval
from ..views.printable import clock, printable
from . import describe
from .grid import Column, Grid
from .listing import Listing


class Fetched(Message):
    """What a page waited for. May be posted from any thread."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


def _nothing() -> None:
    """Nothing is waited for."""


class Page(Screen[None]):
    """Text that scrolls."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,d", "back", show=False),
        Binding("j", "scroll('down')", show=False),
        Binding("k", "scroll('up')", show=False),
        Binding("g", "scroll('home')", show=False),
        Binding("G", "scroll('end')", show=False),
    ]

    def __init__(
        self,
        title: str,
        body: RenderableType | None = None,
        *,
        draw: Callable[[Any], RenderableType] = str,
        at_end: bool = False,
    ) -> None:
        """Without a body it waits for `Fetched`, whose result `draw` turns into one."""
        super().__init__()
        self.when_there: Callable[[], None] = _nothing
        """Called once the page can take `Fetched`."""
        self.title = title
        self._body = body
        self._draw = draw
        self._at_end = at_end

    def compose(self) -> ComposeResult:
        """Title, text, keys."""
        yield Static(Text(printable(self.title), style="bold"), classes="page-title")
        body = Text("Asking…", style="dim") if self._body is None else self._body
        with VerticalScroll(classes="page-body"):
            yield Static(body, classes="page-text")
        yield Static(Text("esc back   ↑ ↓ scroll   g G begin, end", style="dim"), classes="page-foot")

    def on_mount(self) -> None:
        """Ask."""
        self.when_there()

    def on_fetched(self, message: Fetched) -> None:
        """Show what came."""
        result = message.result
        body = describe.failure(result) if isinstance(result, Failure) else self._draw(result)
        self.query_one(".page-text", Static).update(body)
        if self._at_end:
            self.query_one(VerticalScroll).scroll_end(animate=False)

    def action_back(self) -> None:
        """Leave the page."""
        self.dismiss()

    def action_scroll(self, where: str) -> None:
        """As the arrows do."""
        body = self.query_one(VerticalScroll)
        moves = {"down": body.scroll_down, "up": body.scroll_up, "home": body.scroll_home, "end": body.scroll_end}
        moves[where](animate=False)


TRACE_COLUMNS = (
    Column("BEGAN UTC", 12),
    Column("MESSAGE", 16, grows=True, most=40),
    Column("FROM", 10, keep=6, grows=True, most=30),
    Column("TO", 10, keep=7, grows=True, most=30),
    Column("TOOK", 9, right=True),
    Column("SPANS", 5, right=True, keep=8),
    Column("OUTCOME", 10, keep=9),
)


class TracesPage(Screen[None]):
    """Traces; one of them in full behind enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "back", show=False)]

    def __init__(self, title: str) -> None:
        super().__init__()
        self.when_there: Callable[[], None] = _nothing
        """Called once the page can take `Fetched`."""
        self.title = title
        self._listing = Listing[Trace](TRACE_COLUMNS, _trace_cells, lambda trace: trace.id, id="traces")

    def compose(self) -> ComposeResult:
        """Title, list, keys."""
        yield Static(Text(printable(self.title), style="bold"), classes="page-title")
        yield self._listing
        yield Static(Text("enter show   esc back", style="dim"), classes="page-foot")

    def on_mount(self) -> None:
        """Ask, and say so."""
        self._listing.fill([], empty="Reading the flight recorders…")
        self.when_there()

    def on_fetched(self, message: Fetched) -> None:
        """Show what came."""
        if isinstance(message.result, Failure):
            self._listing.fill([], empty=message.result.error.message)
        else:
            self._listing.fill(message.result, empty="It took part in no trace that is still recorded.")

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Show one in full."""
        message.stop()
        self.app.push_screen(Page(f"trace {message.row.id:016x}", trace_tree.render(message.row)))

    def action_back(self) -> None:
        """Leave the page."""
        self.dismiss()


def _trace_cells(trace: Trace, _grid: Grid) -> tuple[Text, ...]:
    began = datetime.fromtimestamp(trace.started_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return (
        Text(clock(began.removesuffix("+00:00"), digits=3), style="dim"),
        Text(printable(trace.root.message), style="cyan"),
        Text(printable(trace.root.from_.rpartition("/")[2])),
        Text(printable(trace.root.to.rpartition("/")[2])),
        Text(interval(trace.duration_ns / 1e6)),
        Text(str(len(trace.spans))),
        state(trace.outcome),
    )


class Question(ModalScreen[bool]):
    """Asks before something happens. Only `y` is a yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q,enter", "answer(False)", show=False),
    ]

    def __init__(self, question: str, consequence: str) -> None:
        super().__init__()
        self._question = question
        self._consequence = consequence

    def compose(self) -> ComposeResult:
        """The question, what it means, the keys."""
        with Vertical(id="question"):
            yield Static(Text(printable(self._question), style="bold"))
            yield Static(Text(printable(self._consequence)))
            yield Static(Text("y yes   n no", style="dim"))

    def action_answer(self, yes: bool) -> None:
        """Take the answer."""
        self.dismiss(yes)
