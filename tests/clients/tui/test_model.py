"""Rates, order, filter: what the screen is told, without a screen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from exeunt.clients.contract import Peer
from exeunt.clients.inspection_contract import ActorRow, TreeNode
from exeunt.clients.tui.facts import Happened, Joined, Left, Looked, StatusAnswer
from exeunt.clients.tui.filter import Filter
from exeunt.clients.tui.meter import KEPT, Meter, sparkline
from exeunt.clients.tui.model import EVENTS_KEPT, IDLE_AFTER_S, Model
from exeunt.clients.tui.tree_line import tree_lines


def actor(name: str, handled: int = 0, **changes: Any) -> ActorRow:
    fields: dict[str, Any] = {
        "address": f"client/w1/{name}", "kind": "Kind", "state": "running", "worker": "w1", "pid": 4711, "mailbox": 0,
        "handled_total": handled, "restarts": 0, "since_s": 60.0, "cpu_percent": 2.0, "rss_bytes": 1000,
    }  # fmt: skip
    return ActorRow(**{**fields, **changes})


def joined(pid: int = 1) -> Joined:
    return Joined(instance="client", program="client", pid=pid, version="0.1.0")


def model_of(*facts: Any) -> Model:
    model = Model()
    for number, fact in enumerate(facts):
        model.take(fact, now_s=100.0 + number, now_ns=1_000_000_000 * number)
    return model


def names(model: Model, *args: Any) -> list[str]:
    return [line.name for line in model.actors(*args)]


# --- meters ---


def test_a_rate_needs_two_looks() -> None:
    meter = Meter()
    meter.take(100, 1.0)
    assert meter.rate is None
    meter.take(130, 3.0)
    assert meter.rate == 15.0


def test_a_look_at_the_same_instant_changes_nothing() -> None:
    meter = Meter()
    meter.take(100, 1.0)
    meter.take(130, 1.0)
    assert meter.rate is None


def test_a_total_that_goes_down_is_somebody_elses_from_nought() -> None:
    meter = Meter()
    meter.take(100, 1.0)
    meter.take(5, 2.0)
    assert meter.rate == 5.0


def test_a_history_is_bounded() -> None:
    meter = Meter()
    for second in range(KEPT + 10):
        meter.take(second * second, float(second))
    assert len(meter.history) == KEPT
    assert meter.history[-1] == meter.rate


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0.001, 100)), max_size=30))
def test_a_rate_is_never_negative(looks: list[tuple[int, float]]) -> None:
    meter, now_s = Meter(), 0.0
    for total, elapsed_s in looks:
        now_s += elapsed_s
        meter.take(total, now_s)
        assert meter.rate is None or meter.rate >= 0
        assert meter.still_s >= 0


@given(st.lists(st.floats(0, 1e12), max_size=100), st.integers(0, 80))
def test_a_sparkline_is_as_wide_as_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == width


def test_a_sparkline_tells_little_from_nothing() -> None:
    assert sparkline([0, 0.001, 50, 100], 6) == "  ▁▂▅█"
    assert sparkline([0, 0], 2) == "▁▁"


# --- filter ---


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("", "ab c"),
        ("peer", "b"),
        ("PEER w1", "b"),
        ("!peer", "a c"),
        ("nothing", ""),
        ("!", "ab c"),
        ("w1 !peer", "a"),
    ],
)
def test_filter(text: str, admitted: str) -> None:
    lines = {"a": "session w1", "b": "peer:gateway-1 w1", "c": "device w2"}
    assert {key for key, line in lines.items() if Filter.of(text).admits(line)} == set(admitted) - {" "}


# --- model ---


def test_actors_by_rate_then_by_name() -> None:
    model = model_of(
        joined(),
        Looked(at_s=1.0, actors=[actor("b"), actor("a"), actor("busy", 100)]),
        Looked(at_s=2.0, actors=[actor("b"), actor("a"), actor("busy", 130)]),
    )
    assert names(model) == ["busy", "a", "b"]
    assert model.actors()[0].meter.rate == 30
    assert model.totals().messages_rate == 30


@pytest.mark.parametrize(
    ("order", "first"), [("queue", "full"), ("handled", "old"), ("restarts", "frail"), ("name", "a")]
)
def test_orders(order: Any, first: str) -> None:
    rows = [actor("a"), actor("full", mailbox=9), actor("old", 10_000), actor("frail", restarts=3)]
    assert names(model_of(Looked(at_s=1.0, actors=rows)), order)[0] == first


def test_a_restarted_actor_counts_from_nought() -> None:
    model = model_of(Looked(at_s=1.0, actors=[actor("a", 10)]), Looked(at_s=2.0, actors=[actor("a", 25, restarts=1)]))
    assert model.actors()[0].meter.rate == 25


def test_an_actor_that_is_gone_is_forgotten() -> None:
    model = model_of(
        Looked(at_s=1.0, actors=[actor("a", 10)]),
        Looked(at_s=2.0, actors=[]),
        Looked(at_s=3.0, actors=[actor("a", 99)]),
    )
    assert model.actors()[0].meter.rate is None


def test_an_actor_is_idle_once_it_has_done_nothing_for_a_while() -> None:
    looks = [Looked(at_s=at_s, actors=[actor("a", 5)]) for at_s in (0.0, IDLE_AFTER_S - 1)]
    model = model_of(*looks)
    assert model.actors()[0].state == "running"
    model.take(Looked(at_s=IDLE_AFTER_S, actors=[actor("a", 5)]), now_s=0, now_ns=0)
    assert model.actors()[0].state == "idle"
    model.take(Looked(at_s=IDLE_AFTER_S + 1, actors=[actor("a", 5, mailbox=1)]), now_s=0, now_ns=0)
    assert model.actors()[0].state == "running"


def test_a_worker_counts_once() -> None:
    model = model_of(Looked(at_s=1.0, actors=[actor("a"), actor("b"), actor("c", pid=4712, worker="w2")]))
    totals = model.totals()
    assert (totals.cpu_percent, totals.rss_bytes, totals.actors) == (4.0, 2000, 3)


def test_peers_have_rates_both_ways() -> None:
    def status(rx: int, tx: int) -> StatusAnswer:
        return StatusAnswer(session="connected", peers=[Peer(peer="gateway-1", rx_bytes=rx, tx_bytes=tx)])

    model = model_of(Looked(at_s=1.0, status=status(0, 0)), Looked(at_s=2.0, status=status(1000, 10)))
    (line,) = model.peers()
    assert (line.received.rate, line.sent.rate, line.history) == (1000, 10, [1010])
    assert model.peers(Filter.of("!gateway")) == []


def test_what_was_not_asked_stays_as_it_was() -> None:
    model = model_of(Looked(at_s=1.0, actors=[actor("a")], absent=frozenset({"status"})), Looked(at_s=2.0))
    assert names(model) == ["a"]
    assert model.absent == {"status"}


def test_a_program_that_left_is_remembered_and_its_successor_begins_anew() -> None:
    look = Looked(at_s=1.0, actors=[actor("a", 100)], absent=frozenset({"status"}))
    model = model_of(joined(1), look, Left("client has left."), Left("client has left."))
    assert model.left == Left("client has left.")
    assert model.left_at_s == 102.0  # the first time
    assert names(model) == ["a"]
    model.take(joined(2), now_s=110.0, now_ns=0)
    assert model.left is None
    assert names(model) == []
    assert model.absent == frozenset()


def test_the_same_program_joined_again_goes_on() -> None:
    model = model_of(joined(), Looked(at_s=1.0, actors=[actor("a", 10)]), joined(), Left("x"), joined())
    model.take(Looked(at_s=2.0, actors=[actor("a", 15)]), now_s=0, now_ns=0)
    assert model.actors()[0].meter.rate == 5


def test_events_are_newest_first_bounded_and_filtered() -> None:
    model = Model()
    for number in range(EVENTS_KEPT + 5):
        model.take(Happened([{"type": "ActorStarted", "of": f"n/w/{number}", "at_ns": number + 1}]), now_s=0, now_ns=0)
    assert len(model.events()) == EVENTS_KEPT
    assert [line.of for line in model.events(Filter.of(f"n/w/{EVENTS_KEPT + 4}"))] == [f"n/w/{EVENTS_KEPT + 4}"]
    assert model.events()[0].of == f"n/w/{EVENTS_KEPT + 4}"


def test_recent_events_that_were_seen_are_not_shown_twice() -> None:
    one, two = ({"type": "ActorStarted", "of": name, "at_ns": 7} for name in "ab")
    model = model_of(Happened([one]), Happened([one, two]))
    assert [line.of for line in model.events()] == ["b", "a"]


def test_an_actor_is_found_by_address_and_by_its_end() -> None:
    model = model_of(Looked(at_s=1.0, actors=[actor("a"), actor("peer:a")]))
    for name in ("client/w1/a", "w1/a", "a"):
        row = model.actor_of(name)
        assert row is not None
        assert row.address == "client/w1/a"
    assert model.actor_of("") is None
    assert model.actor_of("1/a") is None


# --- the tree ---

TREE = TreeNode(
    name="client", kind="supervisor", state="running", children=[
        TreeNode(name="w1", kind="worker", state="running", children=[
            TreeNode(name="session", kind="actor", state="running"),
            TreeNode(name="portal", kind="actor", state="backoff")]),
        TreeNode(name="w2", kind="worker", state="running", children=[
            TreeNode(name="device", kind="actor", state="running")]),
    ])  # fmt: skip


def test_the_tree_is_drawn() -> None:
    lines = tree_lines(TREE)
    assert [f"{line.branch}{line.node.name}" for line in lines] == [
        "client", "├ w1", "│ ├ session", "│ └ portal", "└ w2", "  └ device",
    ]  # fmt: skip
    assert [line.target for line in lines][:3] == [None, "w1", "session"]
    assert lines[-1].worker == "w2"


def test_nested_supervisors_stand_before_the_workers() -> None:
    actor = TreeNode(name="device", kind="actor", state="running", restart="permanent", worker="w2")
    nested = replace(
        TREE,
        supervises=[
            TreeNode(name="io", kind="supervisor", state="running", restart="permanent", children=[actor]),
        ],
    )
    lines = tree_lines(nested)
    assert [f"{line.branch}{line.node.name}" for line in lines] == [
        "client", "├ io", "│ └ device",
        "└ workers", "  ├ w1", "  │ ├ session", "  │ └ portal", "  └ w2", "    └ device",
    ]  # fmt: skip
    assert [line.target for line in lines][:5] == [None, "client/io", "device", None, "w1"]
    assert lines[2].worker == "w2"


def test_a_filtered_tree_keeps_what_leads_to_what_was_found() -> None:
    lines = tree_lines(TREE, Filter.of("backoff"))
    assert [f"{line.branch}{line.node.name}" for line in lines] == ["client", "└ w1", "  └ portal"]
