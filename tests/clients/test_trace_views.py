"""The views of a trace: exact text, for traces in which everything happens that can."""

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, Group, RenderableType
from tests.runtime.damaged_spans import damaged_spans

from exeunt.clients.views import hops, mermaid, sequence, tree, waterfall
from exeunt.runtime.trace import Span, Trace, group

MS = 1_000_000
START_NS = 1_800_000_000_000_000_000


def _span(  # noqa: PLR0917 - a line of a table
    id_: int, cause: int, from_: str, to: str, message: str, at_ms: float, **changes: object
) -> Span:
    at = START_NS + int(at_ms * MS)
    fields: dict[str, object] = {
        "kind": "tell", "worker": (to or from_).split("/")[1], "sent_ns": at, "received_ns": at + MS // 10,
        "started_ns": at + MS // 5, "ended_ns": at + MS, "outcome": "ok",
    }  # fmt: skip
    return Span(id=id_, cause=cause, trace=1, from_=from_, to=to, message=message, **(fields | changes))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


_UNHANDLED = {"started_ns": None, "ended_ns": None}

TRACE = Trace(
    1,
    [
        _span(1, 0, "c/control/cli", "c/control/session", "Stop", 0),
        _span(2, 1, "c/control/session", "c/control/event_loop", "Stop", 0.4),
        _span(3, 2, "c/control/event_loop", "c/control/portal", "Leave", 0.6, outcome="failed"),
        _span(4, 2, "c/control/event_loop", "c/peers-1/gateway-1", "Close", 0.7, kind="ask",
              ended_ns=START_NS + 12 * MS),
        _span(5, 4, "c/peers-1/gateway-1", "c/control/event_loop", "Closed", 11, kind="reply", **_UNHANDLED),
        _span(6, 4, "c/peers-1/gateway-1", "c/peers-1/gateway-1", "Release", 11.5, outcome="dropped", **_UNHANDLED),
    ],
)  # fmt: skip


def _plain(view: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, file=None, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(Group(view), crop=False)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_tree() -> None:
    assert _plain(tree.render(TRACE)) == [
        "0000000000000001  Stop  12.00 ms  ✖ failed  6 messages, 2 workers",
        "",
        "MESSAGE                             WORKER    QUEUED       RAN",
        "● Stop → session                    control  0.10 ms   0.80 ms",
        "└─ ● Stop → event_loop              control  0.10 ms   0.80 ms",
        "   ├─ ✖ Leave → portal              control  0.10 ms   0.80 ms",
        "   └─ ● Close → gateway-1 ↩ Closed  peers-1  0.10 ms  11.10 ms",
        "      └─ ▼ Release → gateway-1      peers-1        –   dropped",
        "",
        "↩ answered with  ▼ dropped",
    ]


UNWELL = Trace(
    1,
    [
        _span(1, 0, "", "c/w/shop", "Order", 0, kind="ask", count=3, ended_ns=START_NS + 9 * MS),
        _span(4, 3, "c/w/shop", "c/w/till", "Pay", 1, kind="ask", outcome="refused"),
        _span(5, 4, "c/w/till", "c/w/shop", "Failure", 2, kind="failure", **_UNHANDLED),
        _span(6, 3, "c/w/shop", "c/w/till", "Pay", 3, kind="ask", outcome="cancelled", received_ns=None, **_UNHANDLED),
        _span(7, 3, "c/w/shop", "c/w/till", "Pay", 4, kind="ask", outcome="pending", ended_ns=None),
        _span(8, 7, "c/w/till", "c/w/shop", "Paid", 5, kind="reply", outcome="dropped", **_UNHANDLED),
        _span(9, 2, "c/w/shop", "c/w/till", "Pay", 6, count=1200),
    ],
)  # fmt: skip


def test_a_tree_tells_every_outcome_from_the_others() -> None:
    assert _plain(tree.render(UNWELL)) == [
        "0000000000000001  Order  9.00 ms  ▼ dropped  1,208 messages, 1 worker",
        "",
        "MESSAGE                    WORKER   QUEUED        RAN",
        "● Order ×3 → shop          w       0.10 ms    8.80 ms",
        "├─ ⊘ Pay → till ↩ Failure  w       0.10 ms    0.80 ms",
        "├─ ○ Pay ↻2 → till         w             –  cancelled",
        "├─ ◐ Pay ↻3 → till         w       0.10 ms    pending",
        "│  └─ ▼ ↩ Paid → shop      w             –    dropped",
        "└─ ● Pay ×1200 → till      w       0.10 ms    0.80 ms",
        "",
        "↩ answered with  ↻ sent again after it did not succeed  × so many, back to back",
        "⊘ refused  ▼ dropped  ○ cancelled  ◐ pending",
    ]


def test_where_space_is_short_the_message_yields() -> None:
    lines = _plain(tree.render(UNWELL), width=44)
    assert lines[4] == "● Order ×3 → sh…  w       0.10 ms    8.80 ms"
    assert all(line.endswith(("ms", "cancelled", "pending", "dropped")) for line in lines[4:10])


def test_a_sequence_tells_every_outcome_from_the_others() -> None:
    assert _plain(sequence.render(UNWELL, width=50))[3:] == [
        " 0.00 ms  ├─────▶│      │       Order ×3",
        " 1.00 ms  │      ┠─────⊘│       Pay (refused)",
        " 2.00 ms  │      ┃◀╌╌╌╌╌┨       Failure",
        " 3.00 ms  │      ┠─────○│       Pay ↻2 (cancelled)",
        " 4.00 ms  │      ┠─────▶│       Pay ↻3 (pending)",
        " 5.00 ms  │      ┃▼╌╌╌╌╌┨       Paid (dropped)",
        " 6.00 ms  │      ┠─────▶┃       Pay ×1200",
    ]


def test_sequence() -> None:
    assert _plain(sequence.render(TRACE, width=72)) == [
        "          cli",
        "          │       session",
        "          │       │       event_loop",
        "          │       │       │       portal",
        "          │       │       │       │       gateway-1",
        " 0.00 ms  ├──────▶│       │       │       │        Stop",
        " 0.40 ms  │       ┠──────▶│       │       │        Stop",
        " 0.60 ms  │       ┃       ┠──────✖│       │        Leave (failed)",
        " 0.70 ms  │       ┃       ┠──────────────▶│        Close",
        "11.00 ms  │       │       │◀╌╌╌╌╌╌╌╌╌╌╌╌╌╌┨        Closed",
        "11.50 ms  │       │       │       │       ┠─▼      Release (dropped)",
    ]


def test_sequence_fits_where_the_number_of_actors_allows() -> None:
    assert max(map(len, _plain(sequence.render(TRACE, width=80)))) <= 80
    # Each lifeline takes at least four columns; the lines are then longer, but whole.
    assert _plain(sequence.render(TRACE, width=20), width=20)[-1].endswith("Release (dropped)")


def test_waterfall() -> None:
    lines = _plain(waterfall.render(TRACE, width=72), width=72)
    assert max(map(len, lines)) <= 72
    assert lines[2].split() == ["├", "0", "12.00", "ms", "┤"]
    bars = {line.split("  ")[0]: line[21:60] for line in lines[3:8]}
    assert "Closed → event_loop" not in bars  # it is the end of the bar of what it answers
    assert set(bars["Close → gateway-1"].strip()) == {"·", "█"}
    begun = [len(bar) - len(bar.lstrip()) for bar in bars.values()]
    assert begun == sorted(begun)
    assert lines[5].endswith("    failed")
    assert lines[3].endswith("   1.00 ms")


def test_a_waterfall_shows_round_trips_and_what_still_runs() -> None:
    asked = Trace(
        1,
        [
            _span(1, 0, "", "c/w/a", "Ask", 0, kind="ask"),
            _span(2, 1, "c/w/a", "", "Answer", 8, kind="reply", received_ns=START_NS + 10 * MS,
                  started_ns=None, ended_ns=None),
            _span(3, 1, "c/w/a", "c/w/b", "Work", 5, outcome="pending", ended_ns=None),
        ],
    )  # fmt: skip
    assert _plain(waterfall.render(asked, width=60), width=80)[2:] == [
        "          ├ 0                          10.00 ms ┤",
        "Ask → a   ░███╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌········   10.00 ms",
        "Work → b                      ███████████████████    pending",
        "",
        "· on its way  ░ queued  █ running  ╌ answered later",
    ]


def test_mermaid() -> None:
    assert mermaid.render(TRACE).splitlines() == [
        "sequenceDiagram",
        "    participant a0 as cli",
        "    participant a1 as session",
        "    participant a2 as event_loop",
        "    participant a3 as portal",
        "    participant a4 as gateway-1",
        "    a0->>a1: Stop (+0.00 ms)",
        "    a1->>a2: Stop (+0.40 ms)",
        "    a2-xa3: Leave (+0.60 ms, failed)",
        "    a2->>+a4: Close (+0.70 ms)",
        "    a4-->>-a2: Closed (+11.00 ms)",
        "    a4-xa4: Release (+11.50 ms, dropped)",
    ]


def test_mermaid_escapes_what_it_would_read_as_its_own() -> None:
    odd = Trace(1, [_span(1, 0, "", "c/w/a;b#c", "M", 0, worker="w")])
    assert "as a#59;b#35;c" in mermaid.render(odd)
    assert "as outside" in mermaid.render(odd)


def test_names_are_long_only_where_short_ones_are_ambiguous() -> None:
    twins = Trace(1, [_span(1, 0, "c/w1/link", "c/w2/link", "M", 0), _span(2, 1, "c/w2/link", "c/w2/other", "M", 1)])
    assert hops.names(twins) == {"c/w1/link": "w1/link", "c/w2/link": "w2/link", "c/w2/other": "other"}


def test_a_cycle_of_causes_ends() -> None:
    cycle = Trace(1, [_span(1, 2, "c/w/a", "c/w/b", "M", 0), _span(2, 1, "c/w/b", "c/w/a", "N", 1)])
    own = Trace(1, [_span(1, 1, "c/w/a", "c/w/a", "M", 0)])
    assert len(_plain(tree.render(own))) == 4
    assert {"M", "N"} <= set(" ".join(_plain(tree.render(cycle))).split())


@settings(deadline=None)
@given(damaged_spans(), st.integers(30, 130))
def test_every_view_shows_every_trace(spans: list[Span], width: int) -> None:
    for trace in group(spans):
        shown = _plain(tree.render(trace), width=200)
        messages = [line for line in shown if any(mark in line for mark in "●✖⊘▼○◐") and " → " in line]
        assert len(messages) == len(trace.spans) - len(hops.answers(hops.hops(trace)))
        assert len(_plain(sequence.render(trace, width=width), width=200)) == len(trace.spans) + len(hops.names(trace))
        assert mermaid.render(trace).count("(+") == len(trace.spans)
        assert _plain(waterfall.render(trace, width=width), width=width)[-1]
