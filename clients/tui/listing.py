"""A list of lines with a cursor: what every pane is.

It draws only the lines that can be seen, so a program of 100,000 actors costs no more to show than one of ten. The
cursor stays with its line when the order changes, but not before somebody has moved it: until then it is at the top.
"""

# pyright: reportUnknownMemberType=false
# Textual does not say of which kind its `app` is.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .grid import Column, Grid

Row = TypeVar("Row")

_CURSOR = Style(reverse=True)
_AWAY = Style(dim=True)


class Listing(ScrollView, Generic[Row], can_focus=True):
    """Lines of one kind."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, show=False, priority=True)
        for key, action in (
            ("up,k", "move(-1)"),
            ("down,j", "move(1)"),
            ("pageup,ctrl+b", "page(-1)"),
            ("pagedown,ctrl+f", "page(1)"),
            ("home,g", "go(0)"),
            ("end,G", "go(-1)"),
            ("enter,d", "choose"),
        )
    ]

    class Chosen(Message):
        """Somebody wants to see more of a line."""

        def __init__(self, listing: Listing[Any], row: Any) -> None:
            super().__init__()
            self.listing = listing
            self.row = row

    def __init__(
        self,
        columns: Sequence[Column],
        cells: Callable[[Row, Grid], Sequence[Text]],
        key_of: Callable[[Row], object],
        *,
        id: str,  # noqa: A002 - Textual's name
        headed: bool = True,
        follows_top: bool = False,
    ) -> None:
        """`key_of` tells lines apart; with `follows_top` a cursor on the first line stays on the first line."""
        super().__init__(id=id)
        self.rows: Sequence[Row] = ()
        self.cursor = 0
        self.faded = False
        """Whether what is shown is not so any more."""
        self._columns = columns
        self._cells = cells
        self._key_of = key_of
        self._head = 1 if headed else 0
        self._follows_top = follows_top
        self._moved = False
        self._empty = ""
        self._grid_width = 0
        self._grid = Grid.fit(columns, 1)

    @property
    def chosen(self) -> Row | None:
        """The line below the cursor."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def fill(self, rows: Sequence[Row], *, empty: str = "", faded: bool = False) -> None:
        """Show these lines; the sentence, where there are none."""
        before = self.chosen
        self.rows, self._empty, self.faded = rows, empty, faded
        if not self._moved or (self._follows_top and self.cursor == 0) or before is None:
            self.cursor = 0 if not self._moved else self._within(self.cursor)
        else:
            key = self._key_of(before)
            found = next((number for number, row in enumerate(rows) if self._key_of(row) == key), self.cursor)
            self.cursor = self._within(found)
        self._measure()
        self._follow_cursor()
        self.refresh()

    def select(self, key: object) -> None:
        """Put the cursor on a line."""
        for number, row in enumerate(self.rows):
            if self._key_of(row) == key:
                self.action_go(number)

    # --- drawing ---

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        if y == 0:  # a scroll bar may have come or gone since
            self._fit(self.scrollable_content_region.width)
        width = self._grid_width
        if y < self._head:
            return self._strip(self._grid.head(), width)
        number = y - self._head + self.scroll_offset.y
        if number >= len(self.rows):
            sentence = _styled(self._empty if number == 0 else "", _AWAY)
            sentence.truncate(width, overflow="ellipsis")
            return self._strip(sentence, width)
        line = self._grid.line(self._cells(self.rows[number], self._grid))
        if number == self.cursor and self.has_focus:
            line.truncate(width, pad=True)
            return self._strip(_styled(line.plain, _CURSOR), width)
        if self.faded:
            line = _styled(line.plain, _AWAY)
        return self._strip(line, width)

    def _strip(self, line: Text, width: int) -> Strip:
        base = self.rich_style
        segments = list(Segment.apply_style(line.render(self.app.console), base))
        return Strip(segments).adjust_cell_length(width, base)

    def _fit(self, width: int) -> None:
        if width == self._grid_width:
            return
        self._grid_width = width
        self._grid = Grid.fit(self._columns, max(1, width))

    def _measure(self) -> None:
        self.virtual_size = Size(0, len(self.rows) + self._head)

    # --- moving ---

    def action_move(self, by: int) -> None:
        """Move the cursor by so many lines."""
        self.action_go(self._within(self.cursor + by))

    def action_page(self, by: int) -> None:
        """Move the cursor by so many pages."""
        self.action_move(by * max(1, self._visible - 1))

    def action_go(self, number: int) -> None:
        """Move the cursor to a line; -1 is the last."""
        self._moved = True
        self.cursor = self._within(len(self.rows) - 1 if number < 0 else number)
        self._follow_cursor()
        self.refresh()

    def action_choose(self) -> None:
        """Show more of the line below the cursor."""
        if self.chosen is not None:
            self.post_message(self.Chosen(self, self.chosen))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to where the mouse is; twice, show more."""
        number = event.y - self._head + self.scroll_offset.y
        if event.y >= self._head and number < len(self.rows):
            self.action_go(number)
            if event.chain == 2:
                self.action_choose()

    def on_resize(self) -> None:
        """Fit the columns again."""
        self._measure()
        self._follow_cursor()

    @property
    def _visible(self) -> int:
        return max(0, self.size.height - self._head)

    def _within(self, number: int) -> int:
        return max(0, min(number, len(self.rows) - 1))

    def _follow_cursor(self) -> None:
        top = self.scroll_offset.y
        if self.cursor < top:
            top = self.cursor
        elif self.cursor >= top + self._visible:
            top = self.cursor - self._visible + 1
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, immediate=True)


def _styled(text: str, style: Style) -> Text:
    """A line in one style. As a span: Text.render passes over a style of the whole."""
    return Text(no_wrap=True, end="").append(text, style)
