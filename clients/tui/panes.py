"""The four panes: which of them are there, which has the cursor, and what they show."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from . import rows
from .event_line import EventLine
from .facts import PS, STATUS, TREE
from .filter import Filter
from .listing import Listing
from .model import ActorLine, Model, Order, PeerLine
from .orders import PANES
from .tree_line import TreeLine


class Panes(Horizontal):
    """Tree, actors, peers, events."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._panes = _listings()
        self.zoomed: str | None = None
        """The pane that is shown alone."""
        self._hidden: set[str] = set()
        self._asked_for: set[str] = set()
        self._narrow = False
        self._peers_offered = True
        self._peers_height = 0
        self._titles: dict[str, str] = {}
        self._last = "actors"
        """The pane that had the cursor last."""

    def compose(self) -> ComposeResult:
        """The tree beside the others."""
        yield self._panes[TREE]
        with Vertical(id="column"):
            yield self._panes["actors"]
            yield self._panes["peers"]
            yield self._panes["events"]

    def pane(self, name: str) -> Listing[Any]:
        """One of them."""
        return self._panes[name]

    @property
    def seen(self) -> frozenset[str]:
        """Those that can be seen."""
        return frozenset(name for name in PANES if self._is_visible(name))

    @property
    def current(self) -> Listing[Any] | None:
        """The one with the cursor."""
        focused = self.screen.focused  # `has_focus` comes later than keys that wait already
        return next((pane for pane in map(self.pane, PANES) if pane is focused), None)

    @property
    def wanted(self) -> frozenset[str]:
        """What the program has to be asked for what can be seen: the headline sums up actors and peers."""
        wanted = {PS}
        if TREE in self.seen:
            wanted.add(TREE)
        if "peers" not in self._hidden and (self._peers_offered or "peers" in self.seen):
            wanted.add(STATUS)
        return frozenset(wanted)

    def on_descendant_focus(self) -> None:
        """Remember it: a prompt takes the cursor away."""
        if self.current is not None:
            self._last = str(self.current.id)

    def focus_last(self) -> None:
        """Give the cursor back to the pane that had it."""
        if self._is_visible(self._last):
            self._focus(self._last)
        else:
            self._focus_any()

    # --- arranging ---

    def settle(self, *, narrow: bool, peers_offered: bool) -> None:
        """Show and hide, for this width, and this program."""
        self._narrow, self._peers_offered = narrow, peers_offered
        self._arrange()

    def go(self, name: str) -> None:
        """To a pane; one that is not there appears, in a narrow place alone."""
        self._hidden.discard(name)
        self._asked_for.add(name)
        if self.zoomed is not None and self.zoomed != name:
            self.zoomed = None
        if not self._is_visible(name):
            self.zoomed = name
        self._arrange(name)

    def go_or_hide(self, name: str) -> None:
        """To a pane; from it, hide it. The last one stays."""
        if self.current is not self.pane(name):
            self.go(name)
            return
        if self.zoomed == name:
            self.zoomed = None
        else:
            self._hidden.add(name)
        self._asked_for.discard(name)
        if not self.seen:
            self._hidden.discard(name)
        self._arrange()

    def zoom(self) -> None:
        """The pane alone, or all again."""
        current = self.current
        self.zoomed = None if self.zoomed is not None or current is None else str(current.id)
        self._arrange()

    def _is_visible(self, name: str) -> bool:
        if self.zoomed is not None:
            return name == self.zoomed
        if name in self._hidden:
            return False
        if name == TREE:
            return not self._narrow
        return name != "peers" or self._peers_offered or name in self._asked_for

    def _arrange(self, focus: str | None = None) -> None:
        seen = self.seen
        for name in seen:
            self.pane(name).display = True
        column = self.query_one("#column")
        column.display = column.display or bool(seen - {TREE})
        # Before the pane that has the cursor is hidden: Textual would choose a successor.
        if focus is not None:
            self._focus(focus)
        elif not self._is_visible(self._last):
            self._focus_any()
        for name in PANES:
            self.pane(name).display = name in seen
        column.display = bool(seen - {TREE})
        self.pane(TREE).set_class(seen == frozenset({TREE}), "alone")

    def _focus_any(self) -> None:
        first = next(name for name in ("actors", "events", "peers", TREE) if self._is_visible(name))
        self._focus(first)

    def _focus(self, name: str) -> None:
        # At once: `focus()` would come after keys that wait already.
        self._last = name
        self.screen.set_focus(self.pane(name))

    # --- filling ---

    def fill(self, model: Model, order: Order, shown: Filter, text: str) -> None:
        """Show what the model has."""
        away = model.left is not None
        by = f" · /{text}" if shown else ""
        lines: dict[str, list[Any]] = {
            "tree": model.tree_lines(shown),
            "actors": model.actors(order, shown),
            "peers": model.peers(shown),
            "events": model.events(shown),
        }
        titles = {"tree": "tree", "actors": f"actors · by {order}", "peers": "peers", "events": "events"}
        for number, name in enumerate(PANES, start=1):
            pane = self.pane(name)
            pane.fill(lines[name], empty=_empty(name, model, shown), faded=away and name != "events")
            count = f" ({len(lines[name])})" if name in {"actors", "peers"} and lines[name] else ""
            title, _, rest = titles[name].partition(" ")
            title = f"{number} {title}{count}{f' {rest}' if rest else ''}{escape(by)}"
            if title != self._titles.get(name):
                self._titles[name] = title
                pane.border_title = title
        self._size_peers(len(lines["peers"]))

    def _size_peers(self, count: int) -> None:
        """As high as it must be, and never more than a third."""
        peers = self.pane("peers")
        frame = 2 if self._narrow else 3
        most = max(frame + 1, self.size.height // 3)
        height = 0 if self.zoomed == "peers" else min(max(count, 1) + frame, most)
        if height != self._peers_height:  # every change is a layout
            self._peers_height = height
            peers.styles.height = height or "1fr"


def _listings() -> dict[str, Listing[Any]]:
    return {
        "tree": Listing[TreeLine](rows.TREE_COLUMNS, rows.node, lambda line: line.path, id="tree", headed=False),
        "actors": Listing[ActorLine](rows.ACTOR_COLUMNS, rows.actor, lambda line: line.row.address, id="actors"),
        "peers": Listing[PeerLine](rows.PEER_COLUMNS, rows.peer, lambda line: line.peer.peer, id="peers"),
        "events": Listing[EventLine](
            rows.EVENT_COLUMNS, rows.event, lambda line: (line.at_ns, line.facts), id="events", follows_top=True
        ),
    }


def _empty(name: str, model: Model, shown: Filter) -> str:
    """What a pane says that has no lines."""
    command = {"tree": TREE, "actors": PS, "peers": STATUS}.get(name)
    if command is not None and command in model.absent:
        return f"This program does not offer {command}."
    known = {"tree": model.tree, "actors": model.actor_rows, "peers": model.status}
    if name in known and known[name] is None:
        return "Nothing is known yet." if model.left is None else "The program is away."
    if shown:
        return "Nothing matches; esc takes the filter off."
    return {"peers": "No connection is open.", "events": "Nothing has happened since this screen was opened."}.get(
        name, "There is none."
    )
