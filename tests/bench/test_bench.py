"""What the benchmarks write and decide. They are not run here, but for one round of the tunnel's with small sizes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest
from tests.bench import page
from tests.bench.peer import Peer, PeerFailed
from tests.bench.report import Figure, Report
from tests.bench.runtime import BUSY_ONES, IDLE_ONES, UNITS
from tests.bench.targets import TARGETS, Target
from tests.bench.tunnel import chart, table
from tests.bench.tunnel import targets as tunnel_targets
from tests.bench.tunnel.flow import ANSWER_BYTES, ANSWERED, End
from tests.bench.tunnel.growth import SEGMENTS
from tests.bench.tunnel.profile import top
from tests.bench.tunnel.run import PRODUCED, Wishes, run, unit
from tests.bench.tunnel.traffic import highest


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


# The tunnel's

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and TUN devices")


def test_a_difference_is_that_of_the_rounds() -> None:
    found = figures(
        Figure("ping_p50_ms", "exeunt-pure", [0.5, 0.9, 0.4], "ms"), Figure("ping_p50_ms", "go", [0.4, 0.7, 0.4], "ms")
    )
    target = Target("ping_p50_ms", "<=", 0.1, over="go ping_p50_ms", subject="exeunt-pure", above=True)
    assert target.value(found) == pytest.approx(0.1)


def test_the_tunnels_targets_are_measured_and_have_units() -> None:
    produced = {name for names in PRODUCED.values() for name in names}
    for target in tunnel_targets.TARGETS:
        assert target.name in produced
        assert not target.over or target.over.partition(" ")[2] in produced
    assert all(unit(name) for name in produced if "ratio" not in name)


def test_the_tunnels_table_has_a_column_for_each_subject_and_ratios_to_the_rival() -> None:
    found = [
        Figure("tcp1_mbit_s", "exeunt-native", [2400.0], "Mbit/s"),
        Figure("tcp1_mbit_s", "wireguard-go", [1600.0], "Mbit/s"),
        Figure("relay_ceiling_mbit_s", "coturn", [680.0], "Mbit/s"),
    ]
    rows = list(table.rows(found))
    assert rows[1] == ["tcp1_mbit_s", "Mbit/s", "2,400", "", "1,600", "", "", "1.50", "", ""]
    assert rows[2][-1] == "coturn 680"
    assert table.markdown(found).count("\n") == 3


def test_the_costliest_functions_are_those_on_top_of_the_stack() -> None:
    folded = "main;pump 1\nmain;pump;seal 6\nmain;pump;write 3\nThread._bootstrap (threading.py:1002);accept 10"
    assert top(folded).splitlines() == ["  60.0%  seal", "  30.0%  write", "  10.0%  pump"]


def test_a_rate_without_loss_is_found_by_doubling_and_bisection() -> None:
    asked: list[float] = []

    def arriving(rate: float) -> float | None:
        asked.append(rate)
        return rate if rate <= 23_000 else None

    assert highest(arriving) == pytest.approx(23_000, rel=0.05)
    assert len(asked) < 10
    assert highest(lambda rate: min(rate, 9_000.0)) == 9_000, "the sender gives no more"
    assert highest(lambda _: None) == 0


def test_an_end_of_a_flow_counts_datagrams_and_answers() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
        for each in (near, far):
            each.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        far.settimeout(5)
        end = End(near, channel=0x4000, size=100, train=4)
        assert end.send(4_000, 0.01)["sent"] % 4 == 0
        assert far.recv(2048) == b"\x40\0\0\x64" + bytes(100)
        for _ in range(ANSWERED):
            far.send(bytes(104))
        while len(far.recv(2048)) != ANSWER_BYTES + 4:
            end.receive(answers=True)
        assert end.count() == ANSWERED
        assert end.count() == 0


@needs_root
@pytest.mark.slow
@pytest.mark.root
def test_a_round_of_the_tunnels_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    wishes = Wishes(rounds=1, seconds=0.2, only=["exeunt-pure", "veth"], figures=["tcp1", "tcp1_alone", "ping"])
    report, left_out = run(wishes, patience_s=0)
    assert not left_out
    found = figures(*report.figures)
    for name in ("tcp1_mbit_s", "tcp1_alone_mbit_s", "ping_p50_ms"):
        assert found["exeunt-pure", name].value > 0
        assert found["veth", name].value > 0
    assert found["veth", "tcp1_mbit_s"].value > found["exeunt-pure", "tcp1_mbit_s"].value
    assert found["exeunt-pure", "cpu_s_per_gb_client"].value > 0
    assert ("veth", "cpu_s_per_gb") not in found, "the line has no processes"


def test_the_picture_has_a_line_for_each_subject_that_was_measured() -> None:
    found = [
        Figure(f"segment_{size}_tcp1_mbit_s", subject, [float(size)], "Mbit/s")
        for size in SEGMENTS
        for subject in ("exeunt-native", "wireguard-go")
    ]
    drawing = ET.fromstring(chart.draw(found))
    lines = drawing.findall(".//{*}polyline")
    assert [line.get("class") for line in lines] == ["s0", "s2"]
    heights = [float(point.split(",")[1]) for point in str(lines[0].get("points")).split()]
    assert heights == sorted(heights, reverse=True), "what is more is further up"
    assert chart.draw([]) == ""
