"""What `:` takes. Pure: a line of text becomes an order, or a sentence about what is wrong with it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final, NamedTuple

from ..durations import parse as parse_duration
from .model import ORDERS

PANES: Final = ("tree", "actors", "peers", "events")


class Word(NamedTuple):
    """A command: what it takes, what it does."""

    argument: str
    help: str


WORDS: Final = {
    "tree": Word("", "The supervision tree."),
    "actors": Word("", "Actors, by rate."),
    "peers": Word("", "The other ends of open connections."),
    "events": Word("", "What happened, the newest first."),
    "show": Word("ACTOR", "One actor: what it is, and its state."),
    "logs": Word("[ACTOR]", "What it wrote into the log."),
    "traces": Word("[ACTOR]", "Traces that it took part in."),
    "restart": Word("ACTOR|WORKER", "Have its supervisor restart it (--write)."),
    "sort": Word("ORDER", f"Actors by {', '.join(ORDERS[:-1])} or {ORDERS[-1]}."),
    "filter": Word("[WORDS]", "As / does; without words all is shown."),
    "every": Word("DURATION", "How often to ask: 500ms, 2s."),
    "pause": Word("", "Freeze the screen, or go on."),
    "help": Word("", "Keys and commands."),
    "quit": Word("", "Leave this screen; the program stays."),
}
"""Every command. Enough of its beginning to be the only one will do."""

LEAST_S: Final = 0.1
"""Nobody reads faster, and every look costs each worker a message."""


class Wrong(ValueError):
    """It is no order; says why."""


class Order(NamedTuple):
    """What to do."""

    word: str
    argument: str = ""


def parse(text: str) -> Order:
    """Read an order.

    Raises:
        Wrong: there is none like it, or it lacks its argument.
    """
    typed, _, argument = text.strip().partition(" ")
    word, argument = _word(typed.casefold()), argument.strip()
    wants = WORDS[word].argument
    if argument and not wants:
        raise Wrong(f"{word} takes nothing.")
    if not argument and wants and not wants.startswith("["):
        raise Wrong(f"{word} takes {wants}.")
    if word == "sort" and argument not in ORDERS:
        raise Wrong(f"Sort by {', '.join(ORDERS[:-1])} or {ORDERS[-1]}.")
    if word == "every":
        duration(argument)
    return Order(word, argument)


def duration(text: str) -> float:
    """How often to ask, in seconds. Raises Wrong."""
    try:
        every_s = parse_duration(text)
    except ValueError as error:
        raise Wrong(f"{error}.") from error
    if every_s < LEAST_S:
        raise Wrong(f"At most {1 / LEAST_S:.0f} times a second.")
    return every_s


def _word(typed: str) -> str:
    if typed in WORDS:
        return typed
    if typed in {"q", "q!"}:
        return "quit"
    begun = [word for word in WORDS if typed and word.startswith(typed)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise Wrong(f"{typed} could be {' or '.join(begun)}.")
    close = get_close_matches(typed, WORDS, n=1)
    raise Wrong(f"There is no command {typed}.{f' Did you mean {close[0]}?' if close else ' ? lists them.'}")
