"""`trace export` and `trace record`: what stands in the files, and what stands on stdout."""

import json
import time
from pathlib import Path

import pytest

from exeunt.clients.paths import Paths
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.recorder import Event, Recorder

from .conftest import Cli


class Work(Message, frozen=True):
    pass


def _handle(ring: Recorder, id_: int) -> None:
    envelope = Envelope(id_, id_, 0, "client/control/session", "client/control/worker", Kind.TELL, 0, Work())
    ring.record(Event.SENT, envelope)
    ring.end(ring.start(envelope, time.time_ns()), Event.ENDED, 1000)


@pytest.fixture
def ring(paths: Paths) -> Recorder:
    """The ring of a worker that runs: this process. It holds two traces."""
    paths.trace_dir.mkdir(parents=True)
    recorder = Recorder(paths.trace_dir / "client.control.1.ring", worker="control", epoch=1, capacity=64)
    for id_ in (0xA1, 0xA2):
        _handle(recorder, id_)
    return recorder


@pytest.mark.parametrize(
    ("to", "where"),
    [("chrome", "traceEvents"), ("firefox", "traceEvents"), ("otlp", "resourceSpans"), ("jsonl", "trace")],
)
def test_stdout_is_the_document_and_nothing_else(to: str, where: str, cli: Cli, ring: Recorder) -> None:
    exported = cli("trace", "export", "last", "--to", to)
    assert exported.code == 0
    assert where in json.loads(exported.out)
    assert "a2" in exported.out
    assert "00a1" not in exported.out


def test_all_of_them_or_the_one_with_this_number(cli: Cli, ring: Recorder) -> None:
    def exported(which: str) -> list[str]:
        return [json.loads(line)["id"] for line in cli("trace", "export", which, "--to", "jsonl").out.splitlines()]

    assert exported("all") == ["00000000000000a1", "00000000000000a2"]
    assert exported("00000000000000A1") == ["00000000000000a1"]
    assert cli("trace", "export", "ff").code == 4
    assert cli("trace", "export", "00000000000000a").code == 2


def test_a_file_is_whole_private_and_described(cli: Cli, ring: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text("old")
    written = cli("trace", "export", "all", "--out", str(file), "--json")
    assert written.document["schema"] == "exeunt.trace-file/1"
    assert written.data == {
        "file": str(file), "format": "chrome", "traces": 2, "spans": 2, "file_bytes": file.stat().st_size,
        "lost_records": 0,
    }  # fmt: skip
    assert "traceEvents" in json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if "trace.json" in path.name] == ["trace.json"]
    assert "ui.perfetto.dev" in cli("trace", "export", "all", "--out", str(file)).out


def test_what_cannot_be_written_is_refused_before_anything_is_read(cli: Cli, tmp_path: Path) -> None:
    assert cli("trace", "export", "all", "--json").code == 2
    assert cli("trace", "export", "all", "--out", str(tmp_path / "no" / "file")).code == 2
    assert cli("trace", "export", "all").code == 4
    assert cli("trace", "export", "last").code == 4


def test_a_recording_has_what_happened_since(
    cli: Cli, ring: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later = iter([0xB1, 0xB2, 0xB3])

    def happen(_: float) -> None:
        id_ = next(later, None)
        if id_ is None:
            raise KeyboardInterrupt  # as Ctrl-C does
        _handle(ring, id_)

    monkeypatch.setattr("exeunt.clients.commands.trace_export.time.sleep", happen)
    file = tmp_path / "recording.jsonl"
    recorded = cli("trace", "record", "--to", "jsonl", "--out", str(file), "--json")
    assert recorded.code == 0, recorded.err
    assert (recorded.data["traces"], recorded.data["lost_records"]) == (3, 0)
    ids = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert ids == ["00000000000000b1", "00000000000000b2", "00000000000000b3"]


def test_a_recording_says_how_much_it_lost(
    cli: Cli, ring: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def burst(_: float) -> None:
        for id_ in range(0x1000, 0x1000 + 100):  # 200 records between two looks, where 64 are kept
            _handle(ring, id_)
        raise KeyboardInterrupt

    monkeypatch.setattr("exeunt.clients.commands.trace_export.time.sleep", burst)
    recorded = cli("trace", "record", "--out", str(tmp_path / "r.json"))
    assert recorded.code == 0
    assert "137 records were overwritten" in recorded.err  # a full ring gives one fewer than it holds
    assert "ui.perfetto.dev" in recorded.out


def test_a_recording_ends_by_itself(cli: Cli, ring: Recorder) -> None:
    recorded = cli("trace", "record", "--seconds", "1ms", "--to", "otlp")
    assert json.loads(recorded.out) == {"resourceSpans": []}


def test_without_a_worker_there_is_nothing_to_record(cli: Cli, paths: Paths) -> None:
    assert cli("trace", "record", "--seconds", "1ms").code == 3
