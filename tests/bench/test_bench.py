"""What the benchmark writes and decides; it is not run here."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from tests.bench import page
from tests.bench.peer import Peer, PeerFailed
from tests.bench.report import Figure, Report
from tests.bench.runtime import BUSY_ONES, IDLE_ONES, UNITS
from tests.bench.targets import TARGETS, Target


def figures(*found: Figure) -> dict[tuple[str, str], Figure]:
    return {(figure.subject, figure.name): figure for figure in found}


def test_the_document_has_median_and_range(tmp_path: Path) -> None:
    path = Report("runtime", [Figure("asks_per_s", "exeunt", [3.0, 1.0, 2.0], "1/s")]).write(tmp_path)
    assert path == tmp_path / "runtime.json"
    assert json.loads(path.read_text()) == {
        "schema": "exeunt.bench/1",
        "figures": [
            {"name": "asks_per_s", "subject": "exeunt", "value": 2.0, "unit": "1/s", "runs": 3, "min": 1.0, "max": 3.0}
        ],
    }


def test_a_ratio_is_that_of_the_rounds() -> None:
    """The machine was ten times slower in the second round, for both."""
    found = figures(
        Figure("ask_p50_us", "exeunt", [110.0, 1100.0, 120.0], "us"),
        Figure("ask_p50_us", "raw", [100.0, 1000, 80], "us"),
    )
    assert Target("ask_p50_us", "<=", 1.15, over="raw ask_p50_us").value(found) == pytest.approx(1.1)


def test_a_ratio_to_somebody_with_fewer_rounds_is_that_of_medians() -> None:
    found = figures(
        Figure("asks_per_s", "exeunt", [90.0, 100.0, 110.0], "1/s"), Figure("asks_per_s", "ray", [2.0], "1/s")
    )
    assert Target("asks_per_s", ">=", 50, over="ray asks_per_s").value(found) == 50


def test_what_was_not_measured_is_no_verdict() -> None:
    ours = figures(Figure("asks_per_s", "exeunt", [1.0], "1/s"))
    assert Target("asks_per_s", ">=", 50, over="ray asks_per_s").value(ours) is None
    assert Target("ask_p50_us", "<=", 50).value(ours) is None


def test_the_page_has_figures_peers_and_verdicts() -> None:
    found = [
        Figure("tells_per_s", "exeunt", [410_000.0, 400_000.0, 300_000.0], "1/s"),
        Figure("tells_per_s", "pyzmq-pushpull", [1_000_000.0], "1/s"),
        Figure("tells_per_s", "erlang", [400_000.0] * 3, "1/s"),
    ]
    lines = page.tables(found).splitlines()
    assert "| tells/s, 64 bytes | 400,000 | 300,000 … 410,000 | 1,000,000 | 400,000 |  |  |  |" in lines
    assert "| tells per s | ≥ 400,000 | 400,000 | reached |" in lines
    assert "| tells per s / erlang tells per s | ≥ 2 | 1.00 | **missed** |" in lines
    assert not any(line.startswith("| asks") for line in lines), "what was not measured has no row"


def test_bounds_include_their_limit() -> None:
    assert Target("x", "<=", 10).reached(10)
    assert not Target("x", "<=", 10).reached(10.1)
    assert Target("x", ">=", 10).reached(10)
    assert not Target("x", ">=", 10).reached(9.9)


def test_targets_have_units_and_their_peers_are_measured() -> None:
    subjects = {subject.name for subject in (*IDLE_ONES, *BUSY_ONES)}
    for target in TARGETS:
        assert target.name.rsplit("_", 1)[-1] in UNITS
        assert not target.over or target.over.partition(" ")[0] in subjects


@pytest.mark.slow
def test_a_peer_answers_and_is_gone_at_the_end(tmp_path: Path) -> None:
    peer = Peer("peers.pyzmq", "blocking", log_file=tmp_path / "log")
    try:
        family = psutil.Process(peer.pid).children(recursive=True)
        found = peer.measure("ask")
    finally:
        peer.end()
    assert set(found) == {"ask_p50_us", "ask_p99_us"}
    assert 0 < found["ask_p50_us"] <= found["ask_p99_us"]
    assert family, "the other side is a process"
    assert not psutil.wait_procs(family, timeout=5)[1]


@pytest.mark.slow
def test_a_peer_that_is_not_there_says_why(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="No module named"):
        Peer("peers.nobody", log_file=tmp_path / "log")
