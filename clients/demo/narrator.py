"""Telling the story while it happens: rich on a terminal, plain lines elsewhere, nothing at all with `--json`.

What is told goes to stdout: for a person it is the command's result. Each line carries the seconds since the
curtain rose.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from ..output import ACCENT, Options, console
from .resource import Download

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType


_TIME_WIDTH: Final = 8


class Narrator:
    """Tells what happens."""

    def __init__(self, options: Options) -> None:
        self._silent = options.json or options.quiet
        self._console = console(options)
        self._began = time.monotonic()

    def title(self, text: str, explanation: str) -> None:
        """Open with what this scene is about."""
        if not self._silent:
            self._console.print(Text(text, style=f"bold {ACCENT}"))
            self._console.print(Text(explanation, style="dim"))
            self._console.print()

    def say(self, sentence: str, *, mark: str = "●", style: str = "green") -> None:
        """Tell one thing that has just happened."""
        if not self._silent:
            line = Table.grid(padding=(0, 1, 0, 0))
            line.add_column(width=_TIME_WIDTH, justify="right", style="dim")
            line.add_column(width=1, style=style)
            line.add_column()  # a long sentence wraps in its own column
            line.add_row(f"{time.monotonic() - self._began:.2f} s", mark, sentence)
            self._console.print(line)

    def pause(self) -> None:
        """Leave a line free."""
        if not self._silent:
            self._console.print()

    def show(self, heading: str, view: RenderableType) -> None:
        """Show a table or a diagram under a heading."""
        if not self._silent:
            self._console.print()
            self._console.print(Text(heading, style="bold"))
            self._console.print(view, crop=False)

    @property
    def width(self) -> int:
        """How wide a diagram may be."""
        return min(self._console.width, 110)

    @contextmanager
    def downloading(self, size: int) -> Generator[Callable[[Download], None]]:
        """Show a download's progress; off a terminal, only the result is told."""
        if self._silent or not self._console.is_terminal:
            yield lambda _download: None
            return
        columns = (
            TextColumn("          {task.description}"),
            BarColumn(complete_style=ACCENT),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("download", total=size)
            yield lambda download: progress.update(task, completed=download.received)
