"""Things at length, as text: an actor, a peer, an event, a log, what the keys do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard, cast

from rich.console import Group, RenderableType
from rich.text import Text

from ..output import ACCENT, Failure
from ..views.log import render as render_log_line
from ..views.printable import printable
from .orders import WORDS

KEYS: Final = (
    ("1 2 3 4", "go to tree, actors, peers, events; again: hide it"),
    ("tab", "the next pane"),
    ("z", "the pane alone, or all again"),
    ("↑ ↓ j k  g G", "move the cursor"),
    ("enter d", "show more of the line"),
    ("/", "filter by words, !word for without; esc takes it off"),
    ("s S", "order of actors: the next, the one before"),
    ("p space", "pause, go on"),
    ("l", "logs of the actor"),
    ("x", "traces that the actor took part in"),
    ("r", "restart the actor or worker; asks first (--write)"),
    (":", "command"),
    ("? esc q", "this page, back, quit (the program stays)"),
)


def fields(facts: Mapping[str, Any], note: str = "") -> RenderableType:
    """A mapping as lines, what is inside it indented; a note above, if any."""
    lines = list(_lines(facts, ""))
    parts = [Text(printable(note), style="yellow"), Text()] if note else []
    return Group(*parts, *(lines or [Text("Nothing.", style="dim")]))


def failure(error: Failure) -> RenderableType:
    """Why there is nothing to show."""
    parts = [Text(printable(error.error.message), style="yellow")]
    if error.error.hint:
        parts.append(Text(printable(error.error.hint), style="dim"))
    return Group(*parts)


def log(lines: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Log lines, oldest first."""
    if not lines:
        return Text("It has written nothing into the log.", style="dim")
    return Group(*(render_log_line(line) for line in lines))


def keys(*, write: bool) -> RenderableType:
    """The page behind `?`."""
    width = max(len(key) for key, _ in KEYS)
    lines = [Text.assemble((key.ljust(width + 3), ACCENT), text) for key, text in KEYS]
    lines += [Text(), Text("Commands, after a colon; the beginning will do", style="bold")]
    usages = {name: f"{name} {word.argument}".strip() for name, word in WORDS.items()}
    width = max(map(len, usages.values()))
    lines += [Text.assemble((usages[name].ljust(width + 3), ACCENT), word.help) for name, word in WORDS.items()]
    mode = "Orders are given: started with --write." if write else "Read-only: start with --write to restart actors."
    marks = Text.assemble(
        ("● running  ", "green"), ("◐ starting, relay  ", "yellow"), ("↻ backoff  ", "yellow"), ("○ idle  ", "dim"),
        ("✖ failed", "red"),
    )  # fmt: skip
    return Group(*lines, Text(), marks, Text(mode, style="dim"))


def _lines(facts: Mapping[str, Any], indent: str) -> Iterable[Text]:
    width = max((len(printable(key)) for key in facts), default=0)
    for key, value in facts.items():
        name = Text(f"{indent}{printable(key).ljust(width)}  ", style=ACCENT, overflow="fold")
        if isinstance(value, Mapping) and value:
            yield name
            yield from _lines(cast("Mapping[str, Any]", value), indent + "  ")
        elif _structured(value):
            yield name
            yield from _items(value, indent + "  ")
        else:
            yield name.append(_value(value), style="none")


def _structured(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a list that holds more than plain values."""
    return isinstance(value, list) and any(map(_is_structure, cast("Iterable[Any]", value)))


def _is_structure(value: Any) -> bool:
    return isinstance(value, (Mapping, list))


def _items(values: list[Any], indent: str) -> Iterable[Text]:
    for item in values:
        if isinstance(item, Mapping):
            pairs = cast("Mapping[str, Any]", item).items()
            yield Text(indent + "  ".join(f"{printable(key)}={_value(value)}" for key, value in pairs))
        else:
            yield Text(f"{indent}{_value(item)}")


def _value(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(_value(one) for one in cast("list[Any]", value)) or "none"
        case Mapping():
            return "none"
        case _:
            return printable(value)
