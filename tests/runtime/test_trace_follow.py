"""Reading rings while they are written, and those of the dead."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runtime.troupe import Number

from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.last_handled import last_handled, of_rings
from exeunt.runtime.liveness import is_alive
from exeunt.runtime.recorder import Event, Recorder, read_ring
from exeunt.runtime.trace import Span, as_of, group, load
from exeunt.runtime.trace_follow import TraceFollower


def _begin(ring: Recorder, id_: int, to: str = "n/w/a") -> int:
    return ring.start(_envelope(id_, to), time.time_ns())


def _handle(ring: Recorder, id_: int, to: str = "n/w/a", event: Event = Event.ENDED) -> None:
    ring.end(_begin(ring, id_, to), event, 5)


def _envelope(id_: int, to: str = "n/w/a") -> Envelope:
    return Envelope(id_, id_, 0, "n/v/b", to, Kind.TELL, 0, Number(id_))


def _ring(directory: Path, worker: str = "w", capacity: int = 16) -> Recorder:
    return Recorder(directory / f"n.{worker}.1.ring", worker=worker, epoch=1, capacity=capacity)


def test_only_what_is_new_is_collected(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    _handle(ring, 1)
    follower = TraceFollower(tmp_path)
    assert follower.poll() == 0
    _handle(ring, 2)
    assert follower.poll() == 1
    assert follower.poll() == 0
    assert [(span.id, span.outcome) for span in follower.spans()] == [(2, "ok")]
    assert (follower.living, follower.records_total, follower.lost_total) == (1, 1, 0)


def test_more_is_collected_than_a_ring_holds(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    follower = TraceFollower(tmp_path)
    for id_ in range(1, 101):
        _handle(ring, id_)
        follower.poll()
    follower.finish()
    assert [span.id for span in follower.spans()] == list(range(1, 101))
    assert {span.outcome for span in follower.spans()} == {"ok"}
    assert follower.lost_total == 0


def test_what_is_lost_is_counted_to_the_record(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    follower = TraceFollower(tmp_path)
    for id_ in range(1, 31):
        _handle(ring, id_)
    follower.finish()
    assert follower.records_total + follower.lost_total == 30
    assert follower.lost_total == 15  # of 16 slots, the one that is written next is not read


def test_a_worker_that_starts_meanwhile_is_followed_from_its_first_record(tmp_path: Path) -> None:
    _ring(tmp_path)
    follower = TraceFollower(tmp_path)
    (tmp_path / "n.damaged.1.ring").write_bytes(b"not yet")
    _handle(_ring(tmp_path, "x"), 7)
    follower.poll()
    assert [span.worker for span in follower.spans()] == ["x"]


def test_other_instances_are_left_alone(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    assert TraceFollower(tmp_path, instance="m").living == 0
    follower = TraceFollower(tmp_path, instance="n")
    _handle(ring, 1)
    assert follower.poll() == 1


def test_a_message_that_spans_two_looks_is_one_span(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    follower = TraceFollower(tmp_path)
    number = _begin(ring, 1)
    follower.poll()
    assert [span.outcome for span in follower.spans()] == ["pending"]
    for id_ in range(2, 9):  # so that it is no longer what the next look reads again
        _handle(ring, id_)
        follower.poll()
    ring.end(number, Event.FAILED, 5)
    follower.finish()
    assert [span.outcome for span in follower.spans()] == ["failed", *["ok"] * 7]


def test_the_last_that_an_actor_began_is_told_with_what_waits(tmp_path: Path) -> None:
    ring, sender = _ring(tmp_path), _ring(tmp_path, "v")
    sender.record(Event.SENT, _envelope(2, "n/w/b"), count=4)
    _handle(ring, 1, "n/w/a")
    _begin(ring, 2, "n/w/b")
    dead = read_ring(ring.path)
    sender.record(Event.SENT, _envelope(10, "n/w/b"))  # no other life had begun by then
    again = Recorder(tmp_path / "n.w.2.ring", worker="w", epoch=2, capacity=16)
    _handle(again, 9, "n/w/b")
    sender.record(Event.SENT, _envelope(11, "n/w/b"))
    found = of_rings([(dead, False), (read_ring(sender.path), True), (read_ring(again.path), True)])
    assert [(one.span.to, one.span.id, one.interrupted, one.waiting) for one in found] == [
        ("n/w/b", 9, False, 1),
        ("n/w/b", 2, True, 4),
        ("n/w/a", 1, False, 0),
    ]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.recorder import Event, Recorder

class Work(Message, frozen=True):
    pass

ring = Recorder(Path(sys.argv[1]) / "n.w.1.ring", worker="w", epoch=1)
ring.start(Envelope(5, 5, 0, "n/v/b", "n/w/a", Kind.TELL, 0, Work()), time.time_ns())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_worker_that_was_killed_says_what_it_was_doing(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    (one,) = last_handled(tmp_path)
    assert (one.span.message, one.span.to, one.worker) == ("Work", "n/w/a", "w")
    assert one.interrupted
    assert TraceFollower(tmp_path).living == 0


def test_a_pid_that_is_anothers_by_now_is_not_the_writer() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(os.getpid(), wrote_ns=1)  # in 1970 this was somebody else
    assert not is_alive(2**40)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid)  # a zombie does nothing more


def test_what_was_recorded_while_rings_were_read_is_left_out() -> None:
    def span(id_: int, *times: int | None) -> Span:
        sent, received, started, ended = times
        return Span(
            id=id_, cause=0, trace=id_, from_="n/v/b", to="n/w/a", message="M", kind="tell", worker="w",
            sent_ns=sent, received_ns=received, started_ns=started, ended_ns=ended, outcome="ok",
        )  # fmt: skip

    before, under_way, new, future = (
        span(1, 1, 2, 3, 4), span(2, 9, 10, 11, 15), span(3, 12, 13, None, None), span(4, 90, 91, 92, 93),
    )  # fmt: skip
    found = as_of(10, 20, [before, under_way, new, future])
    assert [one.id for one in found] == [1, 2, 4]
    assert found[0] == before
    assert (found[1].received_ns, found[1].started_ns, found[1].ended_ns, found[1].outcome) == (
        10,
        None,
        None,
        "pending",
    )
    assert found[2] == future  # recorded before the clock was set back


def test_a_dead_letter_was_when_it_was_dropped(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    ring.record(Event.DROPPED, _envelope(1), at_ns=50)
    (trace,) = group(load(tmp_path))
    assert (trace.started_ns, trace.duration_ns, trace.outcome) == (50, 0, "dropped")
