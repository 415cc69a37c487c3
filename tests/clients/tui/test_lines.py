"""What lines look like: columns that fit, the headline, events, orders, things at length."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from rich.text import Text

from exeunt.clients.contract import Peer, Problem
from exeunt.clients.inspection_contract import ActorRow
from exeunt.clients.output import Failure
from exeunt.clients.tui import describe, rows
from exeunt.clients.tui.event_line import event_line
from exeunt.clients.tui.facts import Joined, Left, Looked, StatusAnswer
from exeunt.clients.tui.frame import frame
from exeunt.clients.tui.grid import Column, Grid
from exeunt.clients.tui.headline import headline
from exeunt.clients.tui.model import Model
from exeunt.clients.tui.orders import Order, Wrong, parse
from exeunt.clients.views.printable import printable

NOW = datetime(2026, 11, 25, 14, 2, tzinfo=UTC)


def text_of(view: RenderableType) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def busy() -> Model:
    model = Model()
    hello = Joined(instance="client", program="client", pid=1, version="0.1.0", started_at="2026-11-25T13:58:40.000Z")
    model.take(hello, now_s=0, now_ns=0)
    for at_s in (1.0, 2.0):
        row = ActorRow(
            address="client/w1/a", kind="A", state="running", worker="w1", pid=7, mailbox=3,
            handled_total=int(at_s) * 12, restarts=1, since_s=9.0, cpu_percent=3.0, rss_bytes=50_000_000,
        )  # fmt: skip
        peers = [Peer(peer="gateway-1", path="direct", rx_bytes=int(at_s) * 1024), Peer(peer="gateway-2", path="relay")]
        problem = Problem(code="relay", message="gateway-2 is reached through a relay.")
        status = StatusAnswer(session="connected", peers=peers, problems=(problem,))
        model.take(Looked(at_s=at_s, actors=[row], status=status), now_s=at_s, now_ns=0)
    return model


# --- columns ---


@pytest.mark.parametrize("columns", [rows.ACTOR_COLUMNS, rows.PEER_COLUMNS, rows.EVENT_COLUMNS, rows.TREE_COLUMNS])
@given(width=st.integers(1, 300), word=st.text(max_size=60))
def test_a_line_is_never_wider_than_its_place(columns: tuple[Column, ...], width: int, word: str) -> None:
    grid = Grid.fit(columns, width)
    line = grid.line([Text(printable(word)) for _ in columns])
    assert line.cell_len <= width
    assert grid.head().cell_len <= width


def test_what_matters_least_goes_first() -> None:
    columns = (Column("A", 4, grows=True), Column("B", 4, keep=2), Column("C", 4, keep=1))
    assert Grid.fit(columns, 20).shown == ((0, 8), (1, 4), (2, 4))
    assert Grid.fit(columns, 12).shown == ((0, 6), (1, 4))
    assert Grid.fit(columns, 5).shown == ((0, 5),)
    assert Grid.fit(columns, 2).shown == ((0, 2),)


def test_columns_share_what_is_left_up_to_their_most() -> None:
    columns = (Column("A", 2, grows=True, most=4), Column("B", 2, grows=True))
    assert Grid.fit(columns, 20).shown == ((0, 4), (1, 14))


def test_in_80_columns_the_queue_and_the_restarts_are_seen() -> None:
    shown = Grid.fit(rows.ACTOR_COLUMNS, 78).head().plain.split()
    assert shown == ["ACTOR", "WORKER", "STATE", "MSG/S", "TREND", "QUEUE", "RESTARTS"]
    assert Grid.fit(rows.PEER_COLUMNS, 78).head().plain.split()[-1] == "ENDPOINT"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.04, "0"), (0.4, "0.4"), (12, "12"), (8812, "8812"), (12_500, "12.5k"), (400_000, "400k"),
     (3_100_000, "3.1M"), (7e12, "7000G")],
)  # fmt: skip
def test_amounts_are_short(value: float, shown: str) -> None:
    assert rows.amount(value) == shown


# --- the headline ---


def test_the_headline_says_what_matters() -> None:
    first, second = (line.plain for line in headline(busy(), width=200, now_s=2.0, now=NOW))
    assert first == "exeunt 0.1.0   client   ● connected   pid 1   up 3m 20s   1/2 peers direct   ↓ 1 KiB/s ↑ 0 B/s"
    numbers = "1 actor   12 msg/s   queued 3   restarts 1   cpu 3 %   47.7 MiB"
    assert second == f"{numbers}   ! gateway-2 is reached through a relay."


def test_a_short_headline_leaves_out_what_matters_least() -> None:
    first, second = (line.plain for line in headline(busy(), width=60, now_s=2.0, now=NOW))
    assert first == "client   ● connected   1/2 peers direct   ↓ 1 KiB/s ↑ 0 B/s"
    assert second == "1 actor   12 msg/s   ! gateway-2 is reached through a relay."


@given(width=st.integers(1, 200))
def test_the_headline_fits(width: int) -> None:
    assert all(line.cell_len <= width for line in headline(busy(), width=width, now_s=2.0, now=NOW, paused=True))


def test_the_headline_of_a_program_that_left() -> None:
    model = busy()
    model.take(Left("client has left."), now_s=10.0, now_ns=0)
    assert "client   ✖ left 5 s ago; waiting" in headline(model, width=80, now_s=15.0, now=NOW)[0].plain


def test_the_headline_before_anything_is_known() -> None:
    assert [line.plain for line in headline(Model(), width=80, now_s=0.0, now=NOW)] == ["exeunt   ◐ asking", ""]


def test_a_frame_is_plain_lines() -> None:
    shown = frame(busy(), width=80, now_s=2.0, now=NOW).plain.splitlines()
    assert shown[3].split() == ["ACTOR", "WORKER", "STATE", "MSG/S", "QUEUE", "RESTARTS", "FOR"]
    assert shown[4].split() == ["a", "w1", "●", "running", "12", "3", "1", "9", "s"]
    assert any("gateway-2" in line and "◐ relay" in line for line in shown)
    assert all(len(line) <= 80 for line in shown)


# --- events ---


def test_an_event_of_the_runtime() -> None:
    event = {"type": "ActorEnded", "of": "n/w/a", "at_ns": 1_500_000_000, "reason": "crashed", "error": "", "n": 0.5}
    line = event_line(event, seen_ns=0)
    assert (line.clock, line.type, line.of, line.facts, line.level) == (
        "00:00:01", "ActorEnded", "n/w/a", "reason=crashed n=0.5", "bad",
    )  # fmt: skip


def test_an_actor_that_ended_as_asked_is_nothing_bad() -> None:
    assert event_line({"type": "ActorEnded", "reason": "normal"}, seen_ns=0).level == "ok"


def test_an_event_without_a_time_happened_when_it_was_seen() -> None:
    assert event_line({"type": "ResourcesUpdated", "at": "soon"}, seen_ns=3_000_000_000).clock == "00:00:03"
    assert event_line({"type": "X", "at": "2026-11-25T14:02:11.000Z"}, seen_ns=0).clock == "14:02:11"


def test_an_event_with_structures_is_short() -> None:
    event: dict[str, Any] = {"type": "ResourcesUpdated", "resources": [{"name": "files", "site": None}], "more": {}}
    assert event_line(event, seen_ns=0).facts == "resources=[{name=files}]"


# --- orders ---


@pytest.mark.parametrize(
    ("text", "order"),
    [("q", Order("quit")), ("pe", Order("peers")), (" Sort queue ", Order("sort", "queue")), ("logs", Order("logs")),
     ("filter a b", Order("filter", "a b")), ("every 500ms", Order("every", "500ms")), ("show a", Order("show", "a"))],
)  # fmt: skip
def test_orders(text: str, order: Order) -> None:
    assert parse(text) == order


@pytest.mark.parametrize(
    ("text", "why"),
    [("p", "p could be peers or pause."), ("evnts", "Did you mean events?"), ("xyzzy", "There is no command xyzzy."),
     ("show", "show takes ACTOR."), ("tree x", "tree takes nothing."), ("sort up", "Sort by rate"),
     ("every never", "is not a duration"), ("every 1ms", "At most 10 times a second.")],
)  # fmt: skip
def test_what_is_no_order_is_explained(text: str, why: str) -> None:
    with pytest.raises(Wrong, match=why.replace("?", r"\?")):
        parse(text)


# --- at length ---


def test_fields_are_lines_and_what_is_inside_is_indented() -> None:
    facts: dict[str, Any] = {
        "address": "n/w/a", "spec": {"restart": "permanent"}, "last": [{"message": "Count", "ms": 0.25}, 3],
        "none": None, "pids": [1, 2], "empty": {}, "alive": True, "evil": "\x1b[2J",
    }  # fmt: skip
    shown = [line.rstrip() for line in text_of(describe.fields(facts, "A note.")).splitlines()]
    assert shown == [
        "A note.", "", "address  n/w/a", "spec", "  restart  permanent", "last", "  message=Count  ms=0.25", "  3",
        "none     –", "pids     1, 2", "empty    none", "alive    yes", "evil     \\x1b[2J",
    ]  # fmt: skip


def test_nothing_and_failures_say_so() -> None:
    assert text_of(describe.fields({})).strip() == "Nothing."
    assert text_of(describe.log([])).strip() == "It has written nothing into the log."
    failure = text_of(describe.failure(Failure("timeout", "No answer.", "Try again.")))
    assert failure.split("\n")[:2] == ["No answer.", "Try again."]


def test_the_help_says_whether_orders_are_given() -> None:
    assert "Read-only" in text_of(describe.keys(write=False))
    assert "Read-only" not in text_of(describe.keys(write=True))
