"""The commands that ask a running program and show its answer."""

import asyncio
import time
from typing import Any

import pytest

from exeunt.clients.paths import Paths
from exeunt.runtime.control import ControlError

from .conftest import Cli, StartProgram

PS: list[dict[str, Any]] = [
    {"address": "client/control/session", "kind": "Session", "state": "running", "worker": "control", "pid": 4711,
     "mailbox": 0, "mailbox_bound": 100, "handling": None, "incarnation": 1, "answering": True,
     "handled_total": 12, "restarts": 0, "since_s": 124.0, "cpu_percent": 2.1, "rss_bytes": 42_991_616,
     "worker_epoch": 492_945},
    {"address": "client/peers-1/peer:gateway-1", "kind": "PeerConnection", "state": "backoff", "worker": "peers-1",
     "pid": None, "mailbox": 3, "mailbox_bound": 100, "handling": "Deliver", "incarnation": 4, "answering": True,
     "handled_total": 8812, "restarts": 2, "since_s": 0.4, "cpu_percent": None,
     "rss_bytes": None, "worker_epoch": None},
]  # fmt: skip

TREE: dict[str, Any] = {
    "name": "client", "kind": "supervisor", "state": "running", "strategy": "rest_for_one", "pid": 4710,
    "children": [
        {"name": "control", "kind": "worker", "state": "running", "pid": 4711, "children": [
            {"name": "session", "kind": "actor", "state": "running", "children": []}]},
        {"name": "peers-1", "kind": "worker", "state": "backoff", "children": []},
    ],
}  # fmt: skip

STATUS: dict[str, Any] = {
    "session": "connected",
    "resources": [{"name": "wiki", "address": "10.1.0.0/24", "state": "online", "site": "lab"}],
    "peers": [
        {"peer": "gateway-1", "path": "direct", "endpoint": "198.51.100.7:51820", "rtt_ms": 11.8,
         "handshake_age_s": 63.0, "rx_bytes": 1_150_000, "tx_bytes": 300_000, "last_seen_s_ago": 0.4,
         "generation": 1, "handshakes": 2, "path_mtu_bytes": 1400},
        {"peer": "gateway-2", "path": "relay", "endpoint": None, "rtt_ms": None, "handshake_age_s": None,
         "rx_bytes": 0, "tx_bytes": 0, "last_seen_s_ago": None, "generation": 0, "handshakes": 1,
         "path_mtu_bytes": None},
    ],
    "problems": [{"code": "relay", "message": "gateway-2 is reached through a relay.", "hint": "Run exeunt check."}],
}  # fmt: skip


def test_ps_lists_actors_and_their_workers(cli: Cli, start_program: StartProgram) -> None:
    start_program(ps=PS)
    assert cli("ps", "--json").data == PS
    shown = cli("ps").out
    assert "control/session" in shown
    assert "↻ backoff" in shown
    assert "41 MiB" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_tree_shows_who_supervises_whom(cli: Cli, start_program: StartProgram) -> None:
    start_program(tree=TREE)
    document = cli("tree", "--json").document
    assert document["schema"] == "exeunt.tree/1"
    assert document["data"]["children"][0]["children"][0]["name"] == "session"
    assert cli("tree").out.splitlines() == [
        "● client  rest_for_one · pid 4710",
        "├── ● control  pid 4711",
        "│   └── ● session",
        "└── ↻ peers-1  backoff",
    ]


def test_status_shows_session_peers_resources_and_problems(cli: Cli, start_program: StartProgram) -> None:
    start_program(status=STATUS)
    machine = cli("status", "--json")
    assert machine.code == 0
    assert machine.document["problems"] == STATUS["problems"]
    assert set(machine.data) == {"session", "resources", "peers"}
    assert machine.data["peers"] == STATUS["peers"]
    shown = cli("status")
    assert "● connected" in shown.out
    assert "198.51.100.7:51820" in shown.out
    assert "gateway-2 is reached through a relay." in shown.err
    assert max(map(len, shown.out.splitlines())) <= 80


def test_status_of_one_peer(cli: Cli, start_program: StartProgram) -> None:
    start_program(status=STATUS)
    assert [peer["peer"] for peer in cli("status", "gateway-2", "--json").data["peers"]] == ["gateway-2"]
    assert cli("status", "gateway-9").code == 4


@pytest.mark.parametrize("session", ["connecting", "signed_out", "leaving"])
def test_status_says_by_its_exit_code_that_nothing_is_connected(
    session: str, cli: Cli, start_program: StartProgram
) -> None:
    start_program(status={"session": session, "resources": [], "peers": []})
    assert cli("status", "--json").code == 3


def test_quiet_keeps_problems_to_itself(cli: Cli, start_program: StartProgram) -> None:
    start_program(status=STATUS)
    assert cli("status", "--quiet").err == ""


def test_ping_prints_each_pong_with_its_path(cli: Cli, start_program: StartProgram) -> None:
    pongs = [
        {"peer": "gw", "rtt_ms": 41.0, "path": "relay", "endpoint": "203.0.113.2:4", "local_relay": "192.0.2.1:5"},
        {"peer": "gw", "rtt_ms": 12.0, "path": "direct", "endpoint": "203.0.113.2:4"},
    ]
    program = start_program(ping=_in_turn(*pongs, *pongs))
    shown = cli("ping", "gw", "-c", "2", "--interval", "0s")
    assert shown.code == 0
    *shown_pongs, title, counted, times, paths = shown.out.splitlines()
    assert [line.split() for line in shown_pongs] == [
        ["gw", "41", "ms", "◐", "relay", "192.0.2.1:5", "(ours)"],
        ["gw", "12", "ms", "●", "direct", "203.0.113.2:4"],
    ]
    assert title == "--- gw: ping statistics ---"
    assert counted.startswith("2 sent, 2 answered, 0 % lost, in ")
    assert times == "round trip: min 12 ms, avg 26 ms, max 41 ms, mdev 14 ms"
    assert paths == "path: 1 relay, 1 direct"
    machine = cli("ping", "gw", "-c", "2", "--interval", "0s", "--json", "--timeout", "2s")
    assert [line["data"]["path"] for line in machine.lines] == ["relay", "direct"]
    assert [line["data"]["seq"] for line in machine.lines] == [1, 2]
    assert [line["data"]["local_relay"] for line in machine.lines] == ["192.0.2.1:5", None]
    assert program.calls[-1] == ("ping", {"peer": "gw", "timeout_s": 2.0})


def test_ping_goes_on_after_a_lost_one(cli: Cli, start_program: StartProgram) -> None:
    start_program(ping=_in_turn(ControlError("timeout", "No answer."), {"peer": "gw", "rtt_ms": 1.0, "path": "direct"}))
    done = cli("ping", "gw", "-c", "2", "--interval", "0s", "--json")
    assert done.code == 0
    assert [line["data"]["rtt_ms"] for line in done.lines] == [None, 1.0]


def test_ping_without_any_answer_times_out(cli: Cli, start_program: StartProgram) -> None:
    start_program(ping=_in_turn(*[ControlError("timeout", "No answer.")] * 2))
    done = cli("ping", "gw", "-c", "2", "--interval", "0s")
    assert done.code == 5
    assert "2 sent, 0 answered, 100 % lost" in done.out


def test_ping_waits_for_a_direct_path(cli: Cli, start_program: StartProgram) -> None:
    relayed = {"peer": "gw", "rtt_ms": 41.0, "path": "relay", "remote_relay": "192.0.2.1:5"}
    direct = {"peer": "gw", "rtt_ms": 12.0, "path": "direct"}
    lost = ControlError("timeout", "No answer.")
    program = start_program(ping=_in_turn(relayed, lost, *[relayed] * 5, direct, direct))
    done = cli("ping", "gw", "--until-direct", "--interval", "0s")
    assert done.code == 0
    assert len(program.calls) == 8, "more than without --until-direct, and no more than needed"
    assert "192.0.2.1:5 (the peer's)" in done.out
    assert "path: 6 relay, 1 direct" in done.out


def test_ping_waits_for_a_direct_path_no_longer_than_it_should(cli: Cli, start_program: StartProgram) -> None:
    start_program(ping={"peer": "gw", "rtt_ms": 41.0, "path": "relay"})
    done = cli("ping", "gw", "--until-direct", "--interval", "20ms", "--timeout", "100ms", "--json")
    assert done.code == 5
    assert 1 <= len(done.lines) <= 6
    counted = cli("ping", "gw", "--until-direct", "--interval", "0s", "-c", "3", "--json")
    assert (counted.code, len(counted.lines)) == (5, 3)


def test_an_interrupted_ping_shows_its_statistics(
    cli: Cli, start_program: StartProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exeunt.clients.commands.ping.time.sleep", interrupt)
    start_program(ping={"peer": "gw", "rtt_ms": 41.0, "path": "relay"})
    done = cli("ping", "gw")
    assert done.code == 130
    assert "1 sent, 1 answered" in done.out


def test_ping_to_nobody(cli: Cli, start_program: StartProgram) -> None:
    start_program(ping=_in_turn(ControlError("no_such_peer", "There is no peer gw.")))
    assert cli("ping", "gw", "--json").code == 4


def test_a_program_that_does_not_answer_in_time(cli: Cli, start_program: StartProgram) -> None:
    def late(_: dict[str, Any]) -> Any:
        return asyncio.sleep(30)

    start_program(ps=late)
    began = time.monotonic()
    done = cli("ps", "--timeout", "50ms", "--json")
    assert done.code == 5
    assert time.monotonic() - began < 5


def test_several_programs_are_listed(cli: Cli, start_program: StartProgram) -> None:
    start_program("client", ps=[])
    start_program("gateway", ps=PS[:1])
    done = cli("ps", "--json")
    assert done.code == 2
    assert "client, gateway" in done.document["error"]["message"]
    assert cli("ps", "--json", "--instance", "gateway").data == PS[:1]
    assert cli("ps", "--json", "--instance", "portal").code == 3
    assert cli("ps", "--json", "--instance", "../client").code == 2


def test_what_a_killed_program_left_is_passed_over(cli: Cli, paths: Paths, start_program: StartProgram) -> None:
    gone = paths.run_dir / "gone"
    gone.mkdir(parents=True)
    (gone / "pid").write_text("4194305")  # above the kernel's highest
    (gone / "control.sock").touch()
    (paths.run_dir / "half").mkdir()
    start_program("client", ps=[])
    assert cli("ps", "--json").data == []


def test_paths_lists_directories_and_open_sockets(cli: Cli, paths: Paths, start_program: StartProgram) -> None:
    start_program("client")
    data = cli("paths", "--json").data
    assert data["sockets"] == [str(paths.control_socket("client"))]
    assert data["config_file"] == str(paths.config_file)
    assert cli("paths", "--json", "--config", "/x/y.toml").data["config_file"] == "/x/y.toml"
    assert str(paths.trace_dir) in cli("paths").out


def test_version_names_the_libraries(cli: Cli) -> None:
    libraries = cli("version", "--json").data["libraries"]
    assert {"aioice", "pykka", "pyzmq", "cryptography"} <= set(libraries)
    assert f"pykka         {libraries['pykka']}" in cli("version").out
    assert cli("--version").out.strip() == cli("version", "--json").data["version"]


def _in_turn(*answers: Any) -> Any:
    remaining = iter(answers)

    def answer(_: dict[str, Any]) -> Any:
        value = next(remaining)
        if isinstance(value, Exception):
            raise value
        return value

    return answer
