"""`exeunt top`: a live view of a program's actors, peers and events."""

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..durations import Duration
from ..instances import pick
from ..output import DEFAULTS, Options, console, fail, show
from ..paths import current
from ..tui.model import Order
from ..tui.orders import LEAST_S

if TYPE_CHECKING:
    from ..tui.source import ControlSource


def run(
    *,
    every: Duration = 1.0,
    sort: Order = "rate",
    write: Annotated[bool, Parameter(name=["--write"], negative="--readonly", show_default=False)] = False,
    once: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Watch a program live: its tree, its actors by rate, its peers, its events.

    Args:
        every: How often to ask.
        sort: The order of actors.
        write: Allow actors and workers to be restarted from the screen. --readonly is the default.
        once: Print one frame, without a screen. It takes as long as --every, for a rate needs two looks.
        options: The options that every command takes.
    """
    if options.json:
        fail("usage", "top prints no documents.", "exeunt ps --json, tree --json and status --json do.")
    if every < LEAST_S:
        fail("usage", f"--every {every:g}s is too often.", f"Ask at most every {LEAST_S * 1000:.0f}ms.")
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not once and not on_terminal:
        fail("usage", "top needs a terminal.", "exeunt top --once prints one frame.")
    from ..tui.source import ControlSource

    paths = current()
    source = ControlSource(pick(paths, options), paths, options)
    if once:
        _print_frame(source, every, sort, options)
        return 0
    return _open_screen(source, every, sort, options, write=write)


def _open_screen(source: "ControlSource", every_s: float, sort: Order, options: Options, *, write: bool) -> int:
    if options.color == "never":
        os.environ["NO_COLOR"] = "1"
    elif options.color == "always":
        os.environ.pop("NO_COLOR", None)
    from ..tui.app import Top  # a quarter of a second that nothing else needs
    from ..tui.feed import LiveFeed

    top = Top(LiveFeed(source, every_s=every_s), write=write, order=sort)
    top.run()
    return top.return_code or 0


def _print_frame(source: "ControlSource", every_s: float, sort: Order, options: Options) -> None:
    from ..tui.facts import PS, STATUS, Happened
    from ..tui.feed import look_at
    from ..tui.frame import frame
    from ..tui.model import Model

    model = Model()
    conversation = source.converse()
    try:
        joined, first = conversation.join(), look_at(conversation, frozenset({PS, STATUS}))
        time.sleep(every_s)
        second = look_at(conversation, frozenset({PS, STATUS}) - first.absent)
    finally:
        conversation.close()
    for fact in (joined, Happened(source.recent_events()), first, second):
        model.take(fact, now_s=time.monotonic(), now_ns=time.time_ns())
    width = console(options).width
    show(frame(model, width=min(width, 200), now_s=time.monotonic(), order=sort), options)
