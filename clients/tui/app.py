"""The application around the main screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen

from .feed import Feed
from .main import Main
from .model import Order
from .stylesheet import CSS, THEME


class Top(App[None]):
    """`exeunt top`. It asks `feed`, and never waits for it."""

    CSS = CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, feed: Feed, *, write: bool = False, order: Order = "rate") -> None:
        # With the terminal's own colours, NO_COLOR takes them off altogether; else it would leave greys.
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self._feed = feed
        self._write = write
        self._order: Order = order

    def get_default_screen(self) -> Screen[None]:
        """The main screen."""
        return Main(self._feed, write=self._write, order=self._order)
