"""The commands that read what was written down: endings, why, logs. Nothing needs to run."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.clients.jsonl import parse
from exeunt.clients.paths import Paths
from exeunt.clients.record import ending_of

from .conftest import ENDING, AppendEnding, AppendLog, Cli

GOOD_LINE = msgspec.json.encode(ENDING)


def _damaged(at: int, byte: int) -> bytes:
    return GOOD_LINE[:at] + bytes([byte]) + GOOD_LINE[at + 1 :]


# Whole, cut short, with a byte changed, as other JSON, and as no JSON at all.
LINES = st.one_of(
    st.just(GOOD_LINE),
    st.integers(0, len(GOOD_LINE)).map(lambda end: GOOD_LINE[:end]),
    st.builds(_damaged, st.integers(0, len(GOOD_LINE) - 1), st.integers(0, 255)),
    st.sampled_from([b"null", b"[]", b"{}", b"[" * 3000, b'{"peer":' * 2000, b'"\\ud800"', b"1e999"]),
    st.binary(max_size=60),
)


def test_endings_of_all_instances_in_order(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending("gateway", side="gateway", peer="client-1", initiated_by="peer", ended_at="2026-11-23T14:05:21.000Z")
    append_ending("client")
    document = cli("endings", "--json").document
    assert document["schema"] == "exeunt.endings/1"
    assert [ending["side"] for ending in document["data"]] == ["client", "gateway"]
    assert set(document["data"][0]) == {
        "connection", "peer", "side", "cause", "initiated_by", "evidence", "detection_ms", "acknowledged",
        "started_at", "ended_at", "last_seen_at", "rx_bytes", "tx_bytes", "path",
    }  # fmt: skip
    only = cli("endings", "--json", "--instance", "gateway").data
    assert [ending["side"] for ending in only] == ["gateway"]


def test_endings_fit_a_terminal(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending()
    append_ending(
        "gateway",
        side="gateway",
        initiated_by="supervisor",
        cause="access_expired",
        acknowledged=False,
        ended_at="2026-11-23T14:05:21.000Z",
    )
    append_ending(
        cause="network_lost",
        initiated_by="network",
        acknowledged=None,
        detection_ms=15_012.0,
        path="relay",
        ended_at="2026-11-23T14:05:22.000Z",
    )
    shown = cli("endings").out.splitlines()
    assert max(map(len, shown)) <= 80
    assert "✓ 12 ms" in shown[1]
    assert "access_expired" in shown[2]
    assert "supervisor" in shown[2]
    assert "– 15 s" in shown[3]


def test_a_torn_line_is_passed_over_and_counted(cli: Cli, paths: Paths, append_ending: AppendEnding) -> None:
    append_ending()
    with paths.endings_file("client").open("ab") as file:
        file.write(b'{"connection":"c-1","pee\n[1]\n\xff\xfe\n{"connection":"c-2"}\n')
    append_ending()
    done = cli("endings", "--json")
    assert len(done.data) == 2
    assert "4 damaged lines" in done.err
    with paths.endings_file("client").open("ab") as file:
        file.write(b'{"connection":"half')
    assert "4 damaged lines" in cli("endings").err  # not complete yet, so not damaged


def test_an_ending_with_later_fields_is_read(cli: Cli, paths: Paths, append_ending: AppendEnding) -> None:
    append_ending()
    path = paths.endings_file("client")
    path.write_bytes(path.read_bytes().replace(b'"path":"direct"', b'"path":"direct","weather":"rain"'))
    assert len(cli("endings", "--json").data) == 1


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(LINES)
def test_no_content_of_a_file_is_an_error(line: bytes) -> None:
    lines = [line, GOOD_LINE]
    records, skipped = parse(b"\n".join(lines))
    endings = [ending for record in records if (ending := ending_of(record)) is not None]
    assert endings.count(ENDING) >= lines.count(GOOD_LINE)
    assert len(records) + skipped <= sum(line.count(b"\n") + 1 for line in lines)


def test_endings_follow(cli: Cli, append_ending: AppendEnding, monkeypatch: pytest.MonkeyPatch) -> None:
    append_ending(connection="first")
    _write_while_following(monkeypatch, lambda: append_ending(connection="second"))
    done = cli("endings", "-f", "--json")
    assert done.code == 130
    ids = [[ending["connection"] for ending in line["data"]] for line in done.lines[:-1]]
    assert ids == [["first"], ["second"]]
    assert done.lines[-1]["error"]["code"] == "interrupted"


def test_why_explains_the_last_ending(cli: Cli, append_ending: AppendEnding, append_log: AppendLog) -> None:
    append_ending(cause="idle", ended_at="2026-11-22T10:00:00.000Z")
    ending = append_ending()
    append_log("Path changed", time="2026-11-23T14:02:01.000000000Z", connection=ending.connection, path="direct")
    append_log("Something else", connection="c-0000")
    why = cli("why", "gateway-1", "--json").data
    assert why["ending"]["cause"] == "signed_out"
    assert why["explanation"] == [
        "This client signed out.",
        "The goodbye was acknowledged by gateway-1 after 12 ms.",
        "Its last packet came at 14:05:20.400, 100 ms before the end.",
        "It had run for 3m 20s, directly: 12 MiB received, 294 KiB sent.",
    ]
    assert [(moment["text"], moment["source"]) for moment in why["timeline"]] == [
        ("The connection began.", "record"),
        ("Path changed", "log"),
        ("gateway-1 was heard for the last time.", "record"),
        ("It ended: signed_out, by us.", "record"),
    ]
    shown = cli("why", "gateway-1").out
    assert "acknowledged by  goodbye_ack" in shown
    assert "14:02:01.000    Path changed" in shown


def test_why_nobody(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending()
    done = cli("why", "gateway-9", "--json")
    assert done.code == 4
    assert "exeunt endings" in done.document["error"]["hint"]


def test_logs_are_merged_by_time(cli: Cli, append_log: AppendLog) -> None:
    append_log("second", time="2026-11-23T14:02:12.000000000Z", worker="peers-1", file="client.peers-1.log")
    append_log("first", time="2026-11-23T14:02:11.000000000Z", actor="client/control/session", peer="gateway-1")
    append_log("older", time="2026-11-23T14:02:10.000000000Z", file="client.control.log.1")
    lines = cli("logs").out.splitlines()
    assert lines == [
        "14:02:10.000 info    older",
        "14:02:11.000 info    client/control/session  first  peer=gateway-1",
        "14:02:12.000 info    peers-1  second",
    ]
    streamed = cli("logs", "--json").lines
    assert [line["data"]["message"] for line in streamed] == ["older", "first", "second"]
    assert streamed[0]["schema"] == "exeunt.log/1"
    assert streamed[0]["at"] == "2026-11-23T14:02:10.000000000Z"


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (["session"], ["by an actor"]),
        (["client/control/session"], ["by an actor"]),
        (["peers-1"], ["by a worker"]),
        (["--level", "warning"], ["by a worker", "from elsewhere"]),
        (["--event", "path_changed"], ["by an actor"]),
        (["--instance", "gateway"], ["from elsewhere"]),
        (["-n", "1"], ["from elsewhere"]),
        (["-n", "0"], []),
        (["--since", "1s"], []),
        (["--since", "365000d"], ["by an actor", "by a worker", "from elsewhere"]),
    ],
)
def test_logs_are_filtered(argv: list[str], messages: list[str], cli: Cli, append_log: AppendLog) -> None:
    append_log("by an actor", actor="client/control/session", event="path_changed")
    append_log("by a worker", worker="peers-1", severity="ERROR")
    append_log("from elsewhere", instance="gateway", severity="WARNING")
    done = cli("logs", *argv, "--json")
    assert done.code == 0
    assert [line["data"]["message"] for line in done.lines] == messages


def test_logs_of_an_actor_that_said_nothing(cli: Cli, append_log: AppendLog) -> None:
    append_log("hello")
    assert cli("logs", "nobody").code == 4


def test_logs_follow_through_a_rotation(
    cli: Cli, paths: Paths, append_log: AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_log("before")

    def rotate() -> None:
        append_log("late")
        (paths.log_dir / "client.control.log").rename(paths.log_dir / "client.control.log.1")
        append_log("after", time="2026-11-23T14:02:12.000000000Z")

    _write_while_following(monkeypatch, rotate)
    lines = cli("logs", "-f", "--json").lines
    assert [line["data"]["message"] for line in lines[:-1]] == ["before", "late", "after"]


def test_what_others_wrote_cannot_command_the_terminal(cli: Cli, append_log: AppendLog) -> None:
    append_log("\x1b]0;owned\x07 \x1b[31m", actor="a\u202eb", note="\r\nfake line")
    (line,) = cli("logs").out.splitlines()
    assert line.isprintable()
    assert "\\x1b]0;owned\\x07" in line


def test_an_exceptions_traceback_follows_its_line(cli: Cli, append_log: AppendLog) -> None:
    append_log("It broke", severity="ERROR", exception="Traceback\n  File x\nValueError: y")
    assert cli("logs").out.splitlines()[1:] == ["    Traceback", "      File x", "    ValueError: y"]


def _write_while_following(monkeypatch: pytest.MonkeyPatch, write: Any) -> None:
    """Let the first pause of a following command write, and the second be a Ctrl-C."""
    pauses = iter([write])

    def pause(_: float) -> None:
        try:
            next(pauses)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(time, "sleep", pause)
