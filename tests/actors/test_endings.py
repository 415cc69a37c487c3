"""The record of an ending: one line, one write, whoever else writes, and whatever the disk says."""

import json
import logging
import os
import threading
from pathlib import Path

import msgspec
import pytest

from exeunt.actors.endings import Cause, Ending, EndingBook, Initiator


def ending(connection: str = "c-1", cause: Cause = Cause.SIGNED_OUT) -> Ending:
    return Ending(
        connection=connection,
        peer="gw-1",
        side="client",
        cause=cause,
        initiated_by=Initiator.US,
        evidence={"goodbyes_sent": 1},
        detection_ms=0.0,
        acknowledged=True,
        started_at="2026-01-01T00:00:00Z",
        ended_at="2026-01-01T00:01:00Z",
        last_seen_at=None,
        rx_bytes=1,
        tx_bytes=2,
        path="direct",
    )


def test_an_ending_is_one_line(tmp_path: Path) -> None:
    book = EndingBook(tmp_path / "state" / "endings.jsonl")
    book.write(ending("c-1"))
    book.write(ending("c-2", Cause.NETWORK_LOST))
    lines = book.path.read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Ending) for line in lines] == [
        ending("c-1"),
        ending("c-2", Cause.NETWORK_LOST),
    ]
    assert book.path.stat().st_mode & 0o777 == 0o600
    assert book.path.parent.stat().st_mode & 0o777 == 0o700


def test_an_ending_is_written_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []
    really_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        pieces.append(data)
        return really_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    EndingBook(tmp_path / "endings.jsonl").write(ending())
    (piece,) = pieces
    assert piece.endswith(b"}\n")


def test_an_ending_is_logged_once_with_its_facts_beside_the_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        EndingBook(tmp_path / "endings.jsonl").write(ending())
    (record,) = caplog.records
    assert record.getMessage() == "A connection ended"
    facts = vars(record)
    assert (facts["event"], facts["cause"], facts["peer"]) == ("connection_ended", "signed_out", "gw-1")


def test_a_disk_that_refuses_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    caplog.set_level(logging.INFO)
    for path in (tmp_path / "file" / "endings.jsonl", tmp_path, Path("/proc/endings.jsonl")):
        caplog.clear()
        EndingBook(path).write(ending())
        assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_several_writers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "endings.jsonl"

    def write(number: int) -> None:
        book = EndingBook(path)
        for count in range(50):
            book.write(ending(f"{number}-{count}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = [json.loads(line)["connection"] for line in path.read_text().splitlines()]
    assert sorted(written) == sorted(f"{number}-{count}" for number in range(8) for count in range(50))
