"""The flight recorder: what a ring keeps, and what a damaged one gives."""

import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime.troupe import Number, Say

from exeunt.runtime import recorder as recorder_module
from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.recorder import Event, Recorder, Ring, RingUnreadable, read_ring
from exeunt.runtime.trace import group, load, spans_of

hostile = settings(
    max_examples=10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

HEADER = 128


def envelope(id_: int, sender: str = "n/a/x", to: str = "n/b/y", kind: int = Kind.TELL) -> Envelope:
    return Envelope(id_, 1, 0, sender, to, kind, 0, Number(id_))


@pytest.fixture
def ring(tmp_path: Path) -> Callable[..., Recorder]:
    def make(name: str = "n.w.1.ring", capacity: int = 8) -> Recorder:
        return Recorder(tmp_path / name, worker="w", epoch=7, capacity=capacity)

    return make


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a ring be a few hundred bytes, so that ten thousand of them can be read."""
    monkeypatch.setattr(recorder_module, "STRINGS_BYTES", 64)
    monkeypatch.setattr(recorder_module, "_RING", HEADER + 64)


def test_a_record_is_read_back(ring: Callable[..., Recorder]) -> None:
    recorder = ring()
    recorder.record(Event.SENT, envelope(5))
    recorder.record(Event.DROPPED, Envelope(6, 5, 5, "n/a/x", "n/b/z", Kind.REPLY, 0, None))
    found = read_ring(recorder.path)
    assert (found.worker, found.epoch, found.written_total) == ("w", 7, 2)
    first, second = found.records
    assert (first.id, first.trace, first.cause, first.sender, first.to) == (5, 1, 0, "n/a/x", "n/b/y")
    assert (first.message, first.kind, first.event) == ("Number", Kind.TELL, Event.SENT)
    assert (second.message, second.to, second.event) == ("None", "n/b/z", Event.DROPPED)
    assert 0 < first.at_ns <= second.at_ns
    recorder.close()


def test_the_oldest_records_are_overwritten(ring: Callable[..., Recorder]) -> None:
    recorder = ring(capacity=8)
    for n in range(1, 21):
        recorder.record(Event.SENT, envelope(n))
        ids = [record.id for record in read_ring(recorder.path).records]
        # In a full ring the slot that comes next may be half written: it is left out.
        assert ids == list(range(max(1, n - 6) if n >= 8 else 1, n + 1))
    recorder.close()
    assert read_ring(recorder.path).written_total == 20


def test_what_is_overwritten_while_it_is_read_is_left_out(
    ring: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ring(capacity=8)
    for n in range(1, 9):
        recorder.record(Event.SENT, envelope(n))
    open_ = Path.open

    class Slow:
        """Three more records are written between the reading of the ring and of the header."""

        def __init__(self, path: Path) -> None:
            self._file = open_(path, "rb")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def read(self, size: int = -1) -> bytes:
            data: bytes = self._file.read(size)
            return data

        def seek(self, position: int) -> None:
            for n in range(9, 12):
                recorder.record(Event.SENT, envelope(n))
            self._file.close()
            self._file = open_(recorder.path, "rb")
            self._file.seek(position)

    def open_slowly(path: Path, _mode: str) -> Slow:
        return Slow(path)

    monkeypatch.setattr(Path, "open", open_slowly)
    assert [record.id for record in read_ring(recorder.path).records] == [5, 6, 7, 8]
    recorder.close()


def test_names_beyond_the_table_are_question_marks(ring: Callable[..., Recorder], small_tables: None) -> None:
    recorder = ring(capacity=100)
    for n in range(1, 21):
        recorder.record(Event.SENT, envelope(n, sender=f"n/a/{n:02}"))
    found = read_ring(recorder.path).records
    assert [record.sender for record in found[:3]] == ["n/a/01", "n/a/02", "n/a/03"]
    assert {record.sender for record in found[8:]} == {"?"}
    assert {record.message for record in found} == {"Number"}
    recorder.close()


def test_a_long_name_is_cut(ring: Callable[..., Recorder]) -> None:
    recorder = ring()
    recorder.record(Event.SENT, envelope(1, sender="é" * 150))
    assert read_ring(recorder.path).records[0].sender.startswith("é" * 99)
    recorder.close()


@pytest.mark.parametrize("size", [0, 7, 8, 127, 128, 10_000, 128 + 512 * 1024, 128 + 512 * 1024 + 64])
def test_a_file_that_was_cut_is_unreadable(ring: Callable[..., Recorder], size: int) -> None:
    recorder = ring()
    recorder.record(Event.SENT, envelope(1))
    recorder.close()
    recorder.path.write_bytes(recorder.path.read_bytes()[:size])
    with pytest.raises(RingUnreadable):
        read_ring(recorder.path)


def test_another_kind_of_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.ring").write_bytes(b"\x7fELF" + bytes(600_000))
    with pytest.raises(RingUnreadable, match="not a flight recorder's"):
        read_ring(tmp_path / "x.ring")


def read(path: Path, data: bytes) -> Ring | None:
    path.write_bytes(data)
    try:
        return read_ring(path)
    except RingUnreadable:
        return None


@pytest.mark.slow
def test_a_damaged_ring_or_random_bytes_give_records_or_are_unreadable(
    ring: Callable[..., Recorder], tmp_path: Path, small_tables: None
) -> None:
    intact: list[bytes] = []
    for count in range(9):
        recorder = ring(capacity=4)
        for n in range(count):
            recorder.record(list(Event)[n % 8], envelope(n + 1))
        recorder.close()
        intact.append(recorder.path.read_bytes())
    read_total = 0

    @hostile
    @given(st.integers(0, 2**64))
    def damage(seed: int) -> None:
        nonlocal read_total
        rng = random.Random(seed)
        data = bytearray(rng.choice(intact))
        if rng.random() < 0.2:
            data = bytearray(recorder_module.MAGIC + rng.randbytes(rng.randrange(24, 500)))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(16, len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            struct.pack_into("<QQQ", data, 8, *(rng.choice((0, 1, 4, 5, 64, 2**64 - 1)) for _ in range(3)))
        found = read(tmp_path / "x.w.1.ring", bytes(data))
        if found is not None:
            read_total += 1
            assert len(found.records) <= 4
            traces = group(spans_of([(found.worker, found.records)]))
            # What was sent as one run and handled in part is a span more.
            assert sum(len(trace.spans) for trace in traces) <= 8
            assert all(trace.duration_ns >= 0 and trace.outcome for trace in traces)

    damage()
    assert read_total > 1_000


def test_two_rings_join_into_one_span(ring: Callable[..., Recorder], tmp_path: Path) -> None:
    here, there = ring("n.a.1.ring"), ring("n.b.1.ring")
    ask = Envelope(1, 1, 0, "n/a/x", "n/b/y", Kind.ASK, 0, Say("?"))
    answer = Envelope(2, 1, 1, "n/b/y", "n/a/x", Kind.REPLY, 0, Say("!"))
    here.record(Event.SENT, ask)
    ask.received_ns = time.time_ns()
    number = there.start(ask, time.time_ns() + 1_000)
    there.end(number, Event.ENDED, 5)
    here.record(Event.RECEIVED, answer)
    (trace,) = group(load(tmp_path))
    question, reply = trace.spans
    assert trace.root == question
    assert (question.outcome, reply.outcome, trace.outcome) == ("ok", "ok", "ok")
    times = (question.sent_ns, question.received_ns, question.started_ns, question.ended_ns, reply.sent_ns)
    assert list(times[:4]) == sorted(times[:4], key=lambda at: at or 0)
    assert (question.from_, question.to, question.kind) == ("n/a/x", "n/b/y", "ask")
    assert trace.started_ns == question.sent_ns
    assert reply.last_ns == trace.started_ns + trace.duration_ns
    here.close()
    there.close()


def test_loading_takes_one_instance_and_passes_over_what_it_cannot_read(
    ring: Callable[..., Recorder], tmp_path: Path
) -> None:
    for name in ("n.a.1.ring", "other.a.1.ring"):
        recorder = ring(name)
        recorder.record(Event.SENT, envelope(1 if name[0] == "n" else 2))
        recorder.close()
    (tmp_path / "n.torn.1.ring").write_bytes(b"torn")
    (tmp_path / "n.directory.1.ring").mkdir()
    assert [span.id for span in load(tmp_path, instance="n")] == [1]
    assert {span.id for span in load(tmp_path)} == {1, 2}


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([Event.SENT], "pending"),
        ([Event.SENT, Event.RECEIVED, Event.STARTED], "pending"),
        ([Event.SENT, Event.STARTED, Event.FAILED], "failed"),
        ([Event.SENT, Event.STARTED, Event.REFUSED], "refused"),
        ([Event.SENT, Event.DROPPED], "dropped"),
        ([Event.SENT, Event.CANCELLED], "cancelled"),
        ([Event.STARTED, Event.ENDED], "ok"),
    ],
)
def test_a_span_says_how_it_went(
    ring: Callable[..., Recorder], tmp_path: Path, events: list[Event], outcome: str
) -> None:
    recorder = ring()
    for event in events:
        recorder.record(event, envelope(1))
    recorder.close()
    (span,) = load(tmp_path)
    assert span.outcome == outcome
    assert (span.sent_ns is None) == (Event.SENT not in events)
