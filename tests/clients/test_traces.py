"""`trace list`, `trace show` and `trace last`, from rings that recorders wrote."""

import itertools
from pathlib import Path

import pytest

from exeunt.clients.paths import Paths
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.recorder import Event, Recorder

from .conftest import Cli

MS = 1_000_000
START_NS = 1_800_000_000_000_000_000


class Stop(Message, frozen=True):
    pass


class Close(Message, frozen=True):
    pass


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
    first.received_ns, started_ns = next(clock), next(clock)
    number = rings["peers-1"].start(first, started_ns)
    for _ in range(pauses):
        next(clock)
    rings["peers-1"].end(number, Event.ENDED, next(clock) - started_ns)


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
    assert cli("trace", "list").out.splitlines()[-1].rstrip() == (
        "000000000000ab01  08:00:00   Stop → gw  from session       1  27.00 ms  ● ok"
    )


def test_trace_list_of_an_actor_or_of_failures(cli: Cli, recorded: Paths) -> None:
    for name in ("gw", "client/peers-1/gw", "session"):
        assert len(cli("trace", "list", "--actor", name, "--json").data) == 2
    assert cli("trace", "list", "--actor", "nobody", "--json").code == 4
    assert cli("trace", "list", "--failed", "--json").data == []
    assert "No trace" in cli("trace", "list", "--failed").out
    ring = _ring(recorded.trace_dir, "network")
    envelope = Envelope(0xAB03, 0xAB03, 0, "", "client/network/device", Kind.TELL, 0, Stop())
    ring.end(ring.start(envelope, START_NS), Event.REFUSED, MS)
    ring.close()
    failed = cli("trace", "list", "--failed", "--limit", "5", "--json").data
    assert [(row["id"], row["outcome"]) for row in failed] == [("000000000000ab03", "refused")]


def test_the_last_trace_needs_no_number(cli: Cli, recorded: Paths) -> None:
    assert cli("trace", "show", "last", "--json").data["id"] == "000000000000ab02"


def test_trace_last_says_what_was_handled_and_what_waits(cli: Cli, recorded: Paths) -> None:
    ring, sender = _ring(recorded.trace_dir, "network"), _ring(recorded.trace_dir, "supervisor")
    asked = Envelope(7, 7, 0, "client/supervisor/root", "client/network/n", Kind.TELL, 0, Stop())
    sender.record(Event.SENT, asked, count=3)
    ring.start(asked, START_NS + 100 * MS)
    ring.close()
    rows = cli("trace", "last", "--json").data
    assert [row["address"] for row in rows] == ["client/network/n", "client/peers-1/gw"]
    assert rows[0] | {"started_at": "", "pid": 0} == {
        "address": "client/network/n", "worker": "network", "pid": 0, "alive": True, "trace": f"{7:016x}",
        "id": f"{7:016x}", "message": "Stop", "from": "client/supervisor/root", "started_at": "", "ran_ms": None,
        "outcome": "pending", "waiting": 2,
    }  # fmt: skip
    assert (rows[1]["message"], rows[1]["outcome"], rows[1]["ran_ms"]) == ("Close", "ok", 1.0)
    assert len(cli("trace", "last", "peers-1", "--json").data) == len(cli("trace", "last", "gw", "--json").data) == 1
    assert cli("trace", "last", "--dead", "--json").data == []
    assert cli("trace", "last", "nobody", "--json").code == 4
    shown = cli("trace", "last").out
    assert "◐ running" in shown
    assert shown.splitlines()[1].rstrip().endswith("◐ running        2")


def test_trace_show_prints_the_contracts_spans(cli: Cli, recorded: Paths) -> None:
    data = cli("trace", "show", "000000000000AB01", "--json").data
    assert data["id"] == "000000000000ab01"
    assert data["spans"] == [
        {
            "id": "000000000000ab01", "cause": None, "from": "client/control/session", "to": "client/peers-1/gw",
            "message": "Stop", "worker": "peers-1", "sent_ns": START_NS, "received_ns": START_NS + MS,
            "started_ns": START_NS + 2 * MS, "ended_ns": START_NS + 27 * MS, "outcome": "ok",
            "count": 1, "kind": "tell",
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
    (recorded.trace_dir / "client.control.2.ring").write_bytes(b"EXEUNTR2" + b"\xff" * 200)
    (recorded.trace_dir / "client.peers-2.1.ring").write_bytes(b"")
    assert len(cli("trace", "list", "--json").data) == 2
