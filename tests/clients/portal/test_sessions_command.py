"""`exeunt admin sessions`: both ends' endings side by side."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exeunt.actors.portal.messages import ConnectionEnded
from exeunt.actors.portal.reports import EndingReport
from exeunt.clients import app
from exeunt.clients.contract_portal import Sessions
from exeunt.clients.portal.running import RunningMark, is_running
from exeunt.clients.portal.store import Present

from .conftest import UNIX, Rig
from .test_endings import REPORT, Pair


def report(cause: str, initiated_by: str) -> EndingReport:
    return msgspec.structs.replace(REPORT, cause=cause, initiated_by=initiated_by)


@pytest.fixture
def pair(rig: Rig) -> Pair:
    """One connection on which both ends agree, one on which they differ, and one of which only one end told."""
    made = Pair(rig)
    ends = (
        (report("signed_out", "us"), report("signed_out", "peer")),
        (report("idle", "us"), report("network_lost", "network")),
        (report("process_died", "peer"), None),
    )
    for of_client, of_gateway in ends:
        made.client.say(ConnectionEnded(connection=made.id, cause=of_client.cause, report=of_client))
        if of_gateway is not None:
            made.gateway.say(ConnectionEnded(connection=made.id, cause=of_gateway.cause, report=of_gateway))
        rig.now += 1
        made.id = rig.connect(made.client, made.gateway).connection
    return made


def document(rig: Rig, capsys: pytest.CaptureFixture[str]) -> Any:
    assert app.run(["admin", "sessions", "--database", str(rig.path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "exeunt.admin.sessions/2"
    return answer["data"]


def test_both_ends_are_told_side_by_side(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    data = document(pair.rig, capsys)
    told = msgspec.convert(data, Sessions).connections
    assert [
        (one.agreement, *(None if end is None else end.cause for end in (one.client_says, one.gateway_says)))
        for one in told
    ] == [
        ("one_side_only", "process_died", None),
        ("differ", "idle", "network_lost"),
        ("agree", "signed_out", "signed_out"),
    ]
    newest = data["connections"][0]
    assert (newest["client"], newest["gateway"]) == ("client-1", "gateway-1")
    assert newest["client_says"]["evidence"]["endpoint"] == "192.0.2.1:51820", "the administrator may know"
    assert data["events"][0]["connection"] is not None


def test_an_older_end_tells_its_cause(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(rig)
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    (one,) = document(rig, capsys)["connections"]
    assert (one["client_says"]["cause"], one["client_says"]["initiated_by"]) == ("idle", None)


def test_an_end_that_names_unheard_of_things_does_not_break_the_command(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Pair(rig)
    strange = msgspec.structs.replace(report("fell_asleep", "the moon"), path="by pigeon")
    pair.client.say(ConnectionEnded(connection=pair.id, cause="fell_asleep", report=strange))
    (one,) = document(rig, capsys)["connections"]
    assert one["client_says"]["path"] == "by pigeon"
    assert app.run(["admin", "sessions", "--database", str(rig.path)]) == 0
    assert "fell_asleep" in capsys.readouterr().out


def test_who_is_present_is_known_only_while_a_portal_runs(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.store.set_present(Present(rig.client_made.id, UNIX, "0.1.0"))
    assert document(rig, capsys)["present"] == []
    with RunningMark(rig.path) as mark:
        assert mark.held
        data = document(rig, capsys)
    assert data["running"]
    assert data["present"] == [
        {"peer": "client-1", "kind": "client", "since": "2027-01-15T08:00:00.000Z", "version": "0.1.0"}
    ]
    rig.store.set_absent(rig.client_made.id)
    assert rig.store.present() == []


def test_the_mark_is_held_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    database = tmp_path / "portal.db"
    assert not is_running(database)
    with RunningMark(database) as first, RunningMark(database) as second:
        assert (first.held, second.held) == (True, False)
        assert is_running(database)
    assert not is_running(database)
    assert list(tmp_path.iterdir()) == []


def test_a_person_sees_it_in_eighty_columns(
    pair: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pair.rig.store.set_present(Present(pair.client.id, UNIX, "0.1.0"))
    with RunningMark(pair.rig.path):
        assert app.run(["admin", "sessions", "--database", str(pair.rig.path), "--events"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(len(line) for line in lines) <= 80
    assert "Here now (1)" in lines
    assert any(line.split() == ["client-1", "client", "2027-01-15", "08:00:00", "0.1.0"] for line in lines)
    told = [line.split()[1:] for line in lines if line.startswith("08:")]
    assert told == [
        ["client-1", "process_died", "gateway-1", "–", "◐", "one", "side"],
        ["client-1", "idle", "gateway-1", "network_lost", "✖", "differ"],
        ["client-1", "signed_out", "gateway-1", "signed_out", "●", "agree"],
    ]


def test_an_empty_portal_says_so(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["admin", "sessions", "--database", str(rig.path)]) == 0
    assert "No portal runs on this database." in capsys.readouterr().out
