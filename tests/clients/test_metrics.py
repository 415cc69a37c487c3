"""`exeunt metrics`: Prometheus can read it, whatever is in it."""

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.clients import metrics as measured
from exeunt.clients.exposition import Family, Histogram, Sample, Tally, render
from exeunt.clients.paths import Paths
from exeunt.clients.record import KeptEnding

from .conftest import ENDING, AppendEnding, Cli, StartProgram
from .exposition_parser import parse

ACTOR = {
    "address": "client/control/session", "kind": "Session", "state": "running", "worker": "control", "pid": 41,
    "mailbox": 2, "handled_total": 100, "restarts": 1, "since_s": 5.0, "cpu_percent": 12.5, "rss_bytes": 1_000_000,
}  # fmt: skip
STATUS = {
    "session": "connected",
    "resources": [{"name": "web", "address": "10.20.0.0/24", "state": "connected"}],
    "peers": [
        {"peer": "gateway-1", "path": "direct", "rtt_ms": 12.5, "handshake_age_s": 3.0, "rx_bytes": 7, "tx_bytes": 8},
        {"peer": "gateway-1", "path": "relay", "rtt_ms": 12.5, "handshake_age_s": 3.0, "rx_bytes": 1, "tx_bytes": 1},
        {"peer": 'odd "name"\\', "path": None},
    ],
    "problems": [],
}


def test_endings_are_counted_by_cause(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending()
    append_ending()
    append_ending(cause="network_lost", initiated_by="network", acknowledged=None, detection_ms=15_012.0)
    append_ending("gateway", side="gateway", initiated_by="peer", evidence={"goodbyes_sent": 3}, detection_ms=None)
    families = parse(cli("metrics").out)
    endings = families["exeunt_endings_total"]
    labels = {"instance": "client", "side": "client"}
    assert endings.value(cause="signed_out", initiated_by="us", acknowledged="yes", **labels) == 2
    assert endings.value(cause="network_lost", initiated_by="network", acknowledged="not_due", **labels) == 1
    assert families["exeunt_goodbyes_sent_total"].value(instance="gateway") == 3
    detection = families["exeunt_ending_detection_seconds"]
    assert detection.value("_count", cause="signed_out") == 2
    assert detection.value("_bucket", cause="signed_out", le="0.01") == 0
    assert detection.value("_bucket", cause="signed_out", le="0.025") == 2
    assert detection.value("_bucket", cause="network_lost", le="15") == 0
    assert detection.value("_bucket", cause="network_lost", le="16.5") == 1
    assert detection.value("_sum", cause="network_lost") == 15.012
    assert families["exeunt_endings_damaged_lines"].value() == 0
    assert cli("metrics", "print").out == cli("metrics").out


def test_running_programs_tell_the_rest(cli: Cli, start_program: StartProgram) -> None:
    start_program(
        "client",
        status=STATUS,
        ps=[ACTOR, ACTOR | {"address": "client/peers-1/p", "worker": "peers-1", "pid": 42, "state": "backoff"}],
        dead_letters={"totals": {"control": 4}, "letters": []},
        wakeups=[{"worker": "peers-1", "pid": 42, "over_s": 60.0, "counts": {"timer:consent check": 48, "udp": 24}}],
    )
    start_program("portal", ps=[ACTOR | {"worker": "main", "pid": 43}], counters={"malformed_frames": 9})
    families = parse(cli("metrics").out)
    assert families["exeunt_up"].value(instance="portal", program="portal", version="0.1.0") == 1
    assert families["exeunt_session_state"].value(instance="client", state="connected") == 1
    peers = families["exeunt_peers"]
    assert [peers.value(path=path) for path in ("direct", "relay", "none")] == [1, 1, 1]
    assert families["exeunt_peer_received_bytes"].value(peer="gateway-1") == 8
    assert families["exeunt_peer_received_bytes"].value(peer='odd "name"\\') == 0
    assert families["exeunt_peer_rtt_seconds"].value(peer="gateway-1") == 0.0125
    assert families["exeunt_worker_processes"].value(instance="client") == 2
    assert families["exeunt_worker_cpu_ratio"].value(instance="client", worker="control") == 0.125
    assert families["exeunt_actors"].value(worker="peers-1", state="backoff") == 1
    assert families["exeunt_dead_letters_total"].value(worker="control") == 4
    woken = families["exeunt_wakeups_total"]
    assert woken.value(instance="client", worker="peers-1", cause="timer:consent check") == 48
    assert woken.value(instance="client", worker="peers-1", cause="udp") == 24
    assert families["exeunt_counted_total"].value(instance="portal", what="malformed_frames") == 9


def test_one_instance_alone(cli: Cli, append_ending: AppendEnding, start_program: StartProgram) -> None:
    append_ending("client")
    append_ending("gateway", side="gateway")
    start_program("client", ps=[])
    families = parse(cli("metrics", "--instance", "gateway").out)
    assert "exeunt_up" not in families
    assert list(families["exeunt_endings_total"].samples.values()) == [1]


def test_a_program_that_answers_strangely_is_passed_over(
    cli: Cli, append_ending: AppendEnding, start_program: StartProgram
) -> None:
    append_ending()
    start_program("client", status={"session": 7}, ps="none", counters={"x": "y"})
    families = parse(cli("metrics").out)
    assert families["exeunt_up"].value(instance="client") == 1
    assert "exeunt_session_state" not in families


def test_documents(cli: Cli, append_ending: AppendEnding, tmp_path: Path) -> None:
    append_ending()
    done = cli("metrics", "--json")
    assert done.document["schema"] == "exeunt.metrics/1"
    names = [family.name for family in msgspec.convert(done.data, list[Family])]
    assert "exeunt_endings_total" in names
    written = cli("metrics", "write", str(tmp_path / "e.prom"), "--json").data
    assert written["file_bytes"] == (tmp_path / "e.prom").stat().st_size


def test_a_file_is_replaced_in_one_step(
    cli: Cli, append_ending: AppendEnding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_ending()
    path = tmp_path / "exeunt.prom"
    assert cli("metrics", "write", str(path)).code == 0
    assert parse(path.read_text())["exeunt_endings_total"].value() == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    before = path.read_text()

    def full(*_: Any) -> None:
        assert path.read_text() == before, "nothing is seen half written"
        raise OSError(28, "No space left on device")

    append_ending()
    monkeypatch.setattr("os.replace", full)
    done = cli("metrics", "write", str(path), "--json")
    assert (done.code, done.document["error"]["code"]) == (1, "not_written")
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path], "and nothing is left behind"


def test_a_directory_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    done = cli("metrics", "write", str(tmp_path / "nowhere" / "e.prom"))
    assert done.code == 1
    assert "No such file" in done.err


def test_an_empty_home_has_metrics_too(cli: Cli, paths: Paths) -> None:
    assert set(parse(cli("metrics").out)) == {"exeunt_endings_damaged_lines"}


# --- the format ---


@given(
    st.dictionaries(st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}\Z"), st.text(st.characters()), max_size=4),
    st.floats(allow_nan=False) | st.integers(),
    st.text(max_size=40),
)
def test_any_label_and_value_can_be_read(labels: dict[str, str], value: float, text: str) -> None:
    shown = render([Family("exeunt_things", "gauge", f"{text}.", [Sample(labels, value)])])
    readable = {name: label.encode(errors="replace").decode() for name, label in labels.items()}
    assert parse(shown)["exeunt_things"].value(**readable) == float(value)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(min_value=0, max_value=100)), max_size=30))
def test_histograms_are_cumulative(observed: list[tuple[str, float]]) -> None:
    histogram = Histogram("exeunt_wait_seconds", "How long.", (0.1, 1.0, 10.0))
    for kind, value in observed:
        histogram.observe(value, kind=kind)
    families = parse(render([histogram.family()]))
    for kind in {kind for kind, _ in observed}:
        family = families["exeunt_wait_seconds"]
        assert family.value("_count", kind=kind) == sum(one == kind for one, _ in observed)
        assert family.value("_bucket", kind=kind, le="1") == sum(k == kind and v <= 1.0 for k, v in observed)


def test_equal_labels_are_one_sample() -> None:
    tally = Tally("exeunt_things", "gauge", "Things.")
    for value in (1, 2, None):
        tally.add(value, kind="a")
    assert tally.family().samples == [Sample({"kind": "a"}, 3)]


@given(cause=st.text(max_size=20), peer=st.text(max_size=20))
def test_no_ending_breaks_the_exposition(cause: str, peer: str) -> None:
    strange = msgspec.structs.replace(ENDING, cause=cause, peer=peer, evidence={"goodbyes_sent": "many"})
    families = parse(render(measured.families([KeptEnding("client", strange)], 0, [])))
    assert families["exeunt_endings_total"].value() == 1
