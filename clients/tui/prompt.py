"""The line at the bottom: what the keys do, what was just said, or what is being typed."""

from __future__ import annotations

from typing import Final, Literal

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from .orders import WORDS

Kind = Literal["/", ":"]

_KEYS: Final[tuple[tuple[str, str, int], ...]] = (
    ("/", "filter", 9), ("s", "sort", 6), ("p", "pause", 7), ("⏎", "show", 9), ("l", "logs", 5), ("x", "traces", 5),
    ("r", "restart", 4), ("1-4", "panes", 7), ("z", "zoom", 2), (":", "command", 3), ("?", "help", 10),
    ("q", "quit", 8),
)  # fmt: skip


def keys(width: int, *, write: bool) -> Text:
    """What the keys do, as much of it as fits; what matters most stays."""
    kept = [key for key in _KEYS if write or key[0] != "r"]
    while sum(len(key) + len(text) + 3 for key, text, _ in kept) - 2 > width and len(kept) > 1:
        kept.remove(min(kept, key=lambda key: key[2]))
    line = Text(no_wrap=True, end="")
    for number, (key, text, _) in enumerate(kept):
        line.append("  " if number else "")
        line.append(key, style="bold")
        line.append(f" {text}", style="dim")
    return line


class _Line(Input):
    """Lets go with esc."""

    def on_key(self, event: events.Key) -> None:
        """Esc, and backspace where nothing is left to take away."""
        if event.key == "escape" or (event.key == "backspace" and not self.value):
            event.stop()
            event.prevent_default()
            self.post_message(Prompt.Ended(""))


class Prompt(Horizontal):
    """The line at the bottom."""

    class Typed(Message):
        """The text so far."""

        def __init__(self, kind: Kind, text: str) -> None:
            super().__init__()
            self.kind, self.text = kind, text

    class Entered(Typed):
        """The text, and that is it."""

    class Ended(Message):
        """Nothing after all."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    def __init__(self, *, write: bool, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.kind: Kind | None = None
        """What is being typed, if anything."""
        self.said: Text | None = None
        self._write = write

    def compose(self) -> ComposeResult:
        """Keys and input; one of them is hidden."""
        yield Static(id="keys")
        yield Static(id="sign")
        line = _Line(id="line", compact=True, suggester=None)
        line.display = False
        yield line

    def on_resize(self) -> None:
        """As much as fits."""
        self._draw()

    def open(self, kind: Kind, text: str = "") -> None:
        """Begin to type."""
        self.kind = kind
        line = self.query_one("#line", Input)
        line.suggester = SuggestFromList([*WORDS], case_sensitive=False) if kind == ":" else None
        with line.prevent(Input.Changed):
            line.value = text
        line.cursor_position = len(text)
        self._draw()
        self.screen.set_focus(line)  # at once: `focus()` would come after keys that wait already

    def close(self) -> None:
        """Show the keys again."""
        self.kind = None
        self._draw()

    def say(self, text: str, style: str = "") -> None:
        """Say something in place of the keys."""
        self.said = Text(text, style=style, no_wrap=True, overflow="ellipsis", end="")
        self._draw()

    def hush(self) -> None:
        """Show the keys again."""
        self.said = None
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Pass it on."""
        event.stop()
        if self.kind is not None:
            self.post_message(self.Typed(self.kind, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Pass it on."""
        event.stop()
        if self.kind is not None:
            self.post_message(self.Entered(self.kind, event.value))

    def _draw(self) -> None:
        typing = self.kind is not None
        self.query_one("#line", Input).display = typing
        self.query_one("#sign", Static).display = typing
        self.query_one("#sign", Static).update(Text(self.kind or "", style="bold"), layout=False)
        shown = self.query_one("#keys", Static)
        shown.display = not typing
        shown.update(self.said if self.said is not None else keys(self.size.width, write=self._write), layout=False)
