"""`trace`, from the rings that recorders wrote to the four views."""

import itertools
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType

from exeunt.clients.paths import Paths
from exeunt.clients.views import hops, mermaid, sequence, tree, waterfall
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.recorder import Event, Recorder
from exeunt.runtime.trace import Span, Trace

from .conftest import Cli

MS = 1_000_000
START_NS = 1_800_000_000_000_000_000


class Stop(Message, frozen=True):
    pass


class Close(Message, frozen=True):
    pass


def _span(  # noqa: PLR0917 - a line of a table
    id_: int, cause: int, from_: str, to: str, message: str, at_ms: float, **changes: object
) -> Span:
    at = START_NS + int(at_ms * MS)
    fields: dict[str, object] = {
        "kind": "tell", "worker": to.split("/")[1], "sent_ns": at, "received_ns": at + MS // 10,
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
        _span(4, 2, "c/control/event_loop", "c/peers-1/gateway-1", "Close", 0.7, ended_ns=START_NS + 12 * MS),
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
        "MESSAGE                         WORKER    QUEUED       RAN",
        "● Stop → session                control  0.10 ms   0.80 ms",
        "└─ ● Stop → event_loop          control  0.10 ms   0.80 ms",
        "   ├─ ✖ Leave → portal          control  0.10 ms   0.80 ms",
        "   └─ ● Close → gateway-1       peers-1  0.10 ms  11.10 ms",
        "      ├─ ● Closed → event_loop  control        –         –",
        "      └─ ✖ Release → gateway-1  peers-1        –   dropped",
    ]


def test_sequence() -> None:
    assert _plain(sequence.render(TRACE, width=72)) == [
        "          cli",
        "          │       session",
        "          │       │       event_loop",
        "          │       │       │       portal",
        "          │       │       │       │       gateway-1",
        " 0.00 ms  ├──────▶│       │       │       │        Stop",
        " 0.40 ms  │       ├──────▶│       │       │        Stop",
        " 0.60 ms  │       │       ├──────✖│       │        Leave (failed)",
        " 0.70 ms  │       │       ├──────────────▶│        Close",
        "11.00 ms  │       │       │◀╌╌╌╌╌╌╌╌╌╌╌╌╌╌┤        Closed",
        "11.50 ms  │       │       │       │       ├─✖      Release (dropped)",
    ]


def test_sequence_fits_where_the_number_of_actors_allows() -> None:
    assert max(map(len, _plain(sequence.render(TRACE, width=80)))) <= 80
    # Each lifeline takes at least four columns; the lines are then longer, but whole.
    assert _plain(sequence.render(TRACE, width=20), width=20)[-1].endswith("Release (dropped)")


def test_waterfall() -> None:
    lines = _plain(waterfall.render(TRACE, width=72), width=72)
    assert max(map(len, lines)) <= 72
    bars = {line.split("  ")[0]: line[21:60] for line in lines[2:8]}
    assert set(bars["Close → gateway-1"].strip()) == {"·", "█"}
    begun = [len(bar) - len(bar.lstrip()) for bar in bars.values()]
    assert begun == sorted(begun)
    assert lines[4].endswith("    failed")
    assert lines[2].endswith("   1.00 ms")


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
        "    a2->>a4: Close (+0.70 ms)",
        "    a4-->>a2: Closed (+11.00 ms)",
        "    a4-xa4: Release (+11.50 ms, dropped)",
    ]


def test_mermaid_escapes_what_it_would_read_as_its_own() -> None:
    odd = Trace(1, [_span(1, 0, "", "c/w/a;b#c", "M", 0, worker="w")])
    assert "as a#59;b#35;c" in mermaid.render(odd)
    assert "as outside" in mermaid.render(odd)


def test_names_are_long_only_where_short_ones_are_ambiguous() -> None:
    twins = Trace(1, [_span(1, 0, "c/w1/link", "c/w2/link", "M", 0), _span(2, 1, "c/w2/link", "c/w2/other", "M", 1)])
    assert hops.names(twins) == {"c/w1/link": "c/w1/link", "c/w2/link": "c/w2/link", "c/w2/other": "other"}


def test_a_cycle_of_causes_ends() -> None:
    cycle = Trace(1, [_span(1, 2, "c/w/a", "c/w/b", "M", 0), _span(2, 1, "c/w/b", "c/w/a", "N", 1)])
    own = Trace(1, [_span(1, 1, "c/w/a", "c/w/a", "M", 0)])
    assert len(_plain(tree.render(own))) == 4
    assert {"M", "N"} <= set(" ".join(_plain(tree.render(cycle))).split())


@pytest.fixture
def recorded(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Two traces in the rings of two workers, the first of 30 ms, the second of 3 ms."""
    paths.trace_dir.mkdir(parents=True)
    rings = {name: _ring(paths.trace_dir, name) for name in ("control", "peers-1")}
    clock = itertools.count(START_NS, MS)
    monkeypatch.setattr("exeunt.runtime.recorder.time.time_ns", lambda: next(clock))
    _record(rings, 0xAB01, Stop(), pauses=24, clock=clock)
    _record(rings, 0xAB02, Close(), pauses=0, clock=clock)
    for ring in rings.values():
        ring.close()
    return paths


def _ring(directory: Path, worker: str) -> Recorder:
    return Recorder(directory / f"client.{worker}.1.ring", worker=worker, epoch=1, capacity=64)


def _record(rings: dict[str, Recorder], id_: int, body: Message, *, pauses: int, clock: "itertools.count[int]") -> None:
    first = Envelope(id_, id_, 0, "client/control/session", "client/peers-1/gw", Kind.TELL, 0, body)
    rings["control"].record(Event.SENT, first)
    rings["peers-1"].record(Event.RECEIVED, first)
    rings["peers-1"].record(Event.STARTED, first)
    for _ in range(pauses):
        next(clock)
    rings["peers-1"].record(Event.ENDED, first)


def test_trace_list(cli: Cli, recorded: Paths) -> None:
    newest = cli("trace", "list", "--json")
    assert newest.document["schema"] == "exeunt.traces/1"
    assert [row["message"] for row in newest.data] == ["Close", "Stop"]
    assert newest.data[1] == {
        "id": "000000000000ab01", "message": "Stop", "from": "client/control/session", "to": "client/peers-1/gw",
        "spans": 1, "workers": 1, "started_at": "2027-01-15T08:00:00.000000000Z", "duration_ms": 27.0, "outcome": "ok",
    }  # fmt: skip
    assert [row["message"] for row in cli("trace", "list", "--slowest", "--json").data] == ["Stop", "Close"]
    assert len(cli("trace", "list", "-n", "1", "--json").data) == 1
    assert cli("trace", "list", "--json", "--instance", "gateway").data == []
    assert "000000000000ab01  08:00:00.000" in cli("trace", "list").out


def test_trace_show_prints_the_contracts_spans(cli: Cli, recorded: Paths) -> None:
    data = cli("trace", "show", "000000000000AB01", "--json").data
    assert data["id"] == "000000000000ab01"
    assert data["spans"] == [
        {
            "id": "000000000000ab01", "cause": None, "from": "client/control/session", "to": "client/peers-1/gw",
            "message": "Stop", "worker": "peers-1", "sent_ns": START_NS, "received_ns": START_NS + MS,
            "started_ns": START_NS + 2 * MS, "ended_ns": START_NS + 27 * MS, "outcome": "ok",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "words"),
    [("tree", "● Stop → gw"), ("sequence", "├─"), ("mermaid", "a0->>a1: Stop"), ("waterfall", "░")],
)
def test_trace_show_in_every_form(form: str, words: str, cli: Cli, recorded: Paths) -> None:
    shown = cli("trace", "show", "000000000000ab01", "--as", form)
    assert shown.code == 0
    assert words in shown.out


def test_a_prefix_names_a_trace_if_it_is_the_only_one(cli: Cli, recorded: Paths) -> None:
    ambiguous = cli("trace", "show", "000000000000ab", "--json")
    assert ambiguous.code == 2
    assert "000000000000ab02" in ambiguous.document["error"]["message"]
    assert cli("trace", "show", "ff", "--json").code == 4
    assert cli("trace", "show", "000000000000ab02", "--as", "pie").code == 2


def test_damaged_rings_are_passed_over(cli: Cli, recorded: Paths) -> None:
    (recorded.trace_dir / "client.control.2.ring").write_bytes(b"EXEUNTR1" + b"\xff" * 200)
    (recorded.trace_dir / "client.peers-2.1.ring").write_bytes(b"")
    assert len(cli("trace", "list", "--json").data) == 2
