"""Columns of a width that does not change from one look to the next, so that nothing jumps about.

A column has a width; one of them takes what is left. Where there is too little, the columns that matter least go, one
after the other, until the rest fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.text import Text

GAP: Final = "  "


class Column(NamedTuple):
    """One column."""

    title: str
    width: int
    """What it gets; of the one that grows, the least."""
    right: bool = False
    """Whether its cells are aligned to the right."""
    keep: int = 99
    """The column with the least number goes first."""
    grows: bool = False
    most: int = 10_000
    """It never grows beyond."""


class Grid(NamedTuple):
    """Columns, fitted into a width: (which of them, how wide)."""

    columns: tuple[Column, ...]
    shown: tuple[tuple[int, int], ...]

    @classmethod
    def fit(cls, columns: Sequence[Column], width: int, *, without: frozenset[str] = frozenset()) -> Grid:
        """Leave out what does not fit, share out what is left. Those `without` are left out in any case."""
        kept = [index for index, column in enumerate(columns) if column.title not in without]
        while len(kept) > 1 and _needed(columns, kept) > width:
            kept.remove(min(kept, key=lambda index: columns[index].keep))
        widths = {index: columns[index].width for index in kept}
        growing = [index for index in kept if columns[index].grows]
        left = width - _needed(columns, kept)
        while growing and left > 0:
            growing = [index for index in growing if widths[index] < columns[index].most]
            for index in growing[:left]:
                widths[index] += 1
            left -= len(growing[:left])
        if left < 0:  # not even the last one fits
            widths[kept[0]] = max(1, width)
        return cls(tuple(columns), tuple(widths.items()))

    def width_of(self, title: str) -> int:
        """How wide a column is; 0 if it is left out."""
        return next((width for index, width in self.shown if self.columns[index].title == title), 0)

    def head(self) -> Text:
        """The line of headings."""
        return self.line([Text(column.title, style="dim") for column in self.columns])

    def line(self, cells: Sequence[Text]) -> Text:
        """One line. There is a cell for every column, also for those left out."""
        made = Text(no_wrap=True, end="")
        for place, (index, width) in enumerate(self.shown):
            cell = cells[index].copy()
            cell.truncate(width, overflow="ellipsis")
            cell.align("right" if self.columns[index].right else "left", width)
            if place:
                made.append(GAP)
            made.append_text(cell)
        return made


def _needed(columns: Sequence[Column], kept: Sequence[int]) -> int:
    return sum(columns[index].width for index in kept) + len(GAP) * (len(kept) - 1)
