"""Exported traces: whatever the rings held, the documents keep the rules that viewers hold them to."""

import itertools
import json
import re
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from tests.runtime.damaged_spans import T0, damaged_spans

from exeunt.runtime.export import chrome, firefox, jsonl, otlp
from exeunt.runtime.trace import Span, group


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)


def _by_track(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin = _ns(event["ts"])
            found[event["pid"], event["tid"]].append((begin, begin + _ns(event["dur"])))
    return found


@settings(deadline=None)
@given(damaged_spans())
def test_slices_of_one_track_nest_or_lie_apart(spans: list[Span]) -> None:
    for slices in _by_track(chrome(spans)["traceEvents"]).values():
        for (a, b), (c, d) in itertools.combinations(slices, 2):
            assert b <= c or d <= a or (a <= c and d <= b) or (c <= a and b <= d)


@settings(deadline=None)
@given(damaged_spans())
def test_an_arrow_has_two_ends_each_in_a_slice(spans: list[Span]) -> None:
    events = chrome(spans)["traceEvents"]
    slices = _by_track(events)
    tails = {event["id"]: event for event in events if event["ph"] == "s"}
    heads = {event["id"]: event for event in events if event["ph"] == "f"}
    assert tails.keys() == heads.keys()
    assert len(tails) + len(heads) == sum(event["ph"] in {"s", "f"} for event in events)
    for number, tail in tails.items():
        assert tail["ts"] <= heads[number]["ts"]
        assert (tail["name"], tail["cat"]) == (heads[number]["name"], heads[number]["cat"])  # or they are not joined
        for end in (tail, heads[number]):
            assert end["bp"] == "e"
            at = _ns(end["ts"])
            assert any(begin <= at < stop for begin, stop in slices[end["pid"], end["tid"]])


@settings(deadline=None)
@given(damaged_spans())
def test_every_event_is_whole_named_and_in_order(spans: list[Span]) -> None:
    document = json.loads(json.dumps(chrome(spans), allow_nan=False))
    events = document["traceEvents"]
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    processes = {event["pid"] for event in events if event["name"] == "process_name"}
    timed = [event for event in events if event["ph"] != "M"]
    assert [event["ts"] for event in timed] == sorted(event["ts"] for event in timed)
    for event in timed:
        assert (event["pid"], event["tid"]) in named
        assert event["pid"] in processes
        assert event["ts"] >= 0
        if event["ph"] in {"X", "i"}:
            assert set(event["args"]) == {"data"}
    assert all(event["dur"] > 0 for event in events if event["ph"] == "X")


@settings(deadline=None)
@given(damaged_spans())
def test_a_counter_is_never_negative_and_a_full_record_ends_at_zero(spans: list[Span]) -> None:
    depths: dict[tuple[int, str], list[int]] = defaultdict(list)
    for event in chrome(spans)["traceEvents"]:
        if event["ph"] == "C":
            depths[event["pid"], event["name"]].append(event["args"]["waiting"])
    assert all(depth >= 0 for steps in depths.values() for depth in steps)
    waiting = sum(
        span.count
        for span in spans
        if span.kind not in {"reply", "failure"} and span.received_ns and not span.started_ns and not span.ended_ns
    )
    assert sum(steps[-1] for steps in depths.values()) == waiting


@settings(deadline=None)
@given(damaged_spans())
def test_firefox_gets_what_it_takes_and_misses_nothing_of_it(spans: list[Span]) -> None:
    everything, taken = chrome(spans)["traceEvents"], firefox(spans)["traceEvents"]
    assert {event["ph"] for event in taken} <= set("XBEbneiIRM")
    assert taken == [event for event in everything if event["ph"] in "XBEbneiIRM"]


def _span(id_: int, cause: int, from_: str, to: str, at: int, **changes: Any) -> Span:
    fields: dict[str, Any] = {
        "message": "Work", "kind": "tell", "worker": "w1", "trace": 1, "outcome": "ok",
        "sent_ns": T0 + at, "received_ns": T0 + at + 100, "started_ns": T0 + at + 200, "ended_ns": T0 + at + 1000,
    }  # fmt: skip
    return Span(id=id_, cause=cause, from_=from_, to=to, **(fields | changes))


_UNHANDLED = {"started_ns": None, "ended_ns": None}
ASKED = [
    _span(1, 0, "", "n/w1/a", 0, ended_ns=T0 + 9000, message="Crawl", kind="ask"),
    _span(2, 1, "n/w1/a", "n/w2/b", 500, kind="ask"),
    _span(3, 2, "n/w2/b", "n/w1/a", 1600, kind="reply", message="Page", **_UNHANDLED),
    _span(4, 1, "n/w1/a", "n/w2/b", 2000, outcome="dropped", received_ns=None, **_UNHANDLED),
    _span(5, 1, "n/w1/a", "n/w2/b", 3000, count=7),
]


def test_arrows_lead_from_handler_to_handler() -> None:
    events = chrome(ASKED)["traceEvents"]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    arrows: dict[int, list[tuple[str, float]]] = defaultdict(list)
    for event in events:
        if event["ph"] in {"s", "f"}:
            arrows[event["id"]].append((names[event["pid"], event["tid"]], event["ts"]))
    assert arrows == {
        1: [("outside", 0.0), ("a", 0.2)],
        2: [("a", 0.5), ("b", 0.7)],
        3: [("b", 1.6), ("a", 1.7)],
        5: [("a", 3.0), ("b", 3.2)],
    }
    slices = [(event["name"], names[event["pid"], event["tid"]]) for event in events if event["ph"] == "X"]
    assert slices == [
        ("send Crawl", "outside"), ("Crawl", "a"), ("send Work", "a"), ("Work", "b"), ("send Page", "b"), ("Page", "a"),
        ("send Work", "a"), ("send Work ×7", "a"), ("Work ×7", "b"),
    ]  # fmt: skip
    assert [event["name"] for event in events if event["ph"] == "i"] == ["dropped Work"]
    depths = [event["args"]["waiting"] for event in events if event["name"] == "mailbox b"]
    assert depths == [1, 0, 7, 0]


def test_a_start_that_follows_from_an_ending_is_a_restart() -> None:
    first = _span(1, 0, "n/supervisor/root", "n/w1/host", 0, message="StartActor")
    again = _span(3, 2, "n/supervisor/root", "n/w1/host", 5000, message="StartActor")
    ended = _span(2, 0, "n/w1/host", "n/supervisor/root", 4000, message="ActorExited")
    instants = [event for event in chrome([first, ended, again])["traceEvents"] if event["ph"] == "i"]
    assert [(event["name"], event["ts"]) for event in instants] == [("restart", 6.0)]


def test_nanoseconds_survive() -> None:
    document = chrome(ASKED)
    assert document["otherData"]["began_unix_ns"] == str(T0)
    crawl = next(event for event in document["traceEvents"] if event["name"] == "Crawl" and event["ph"] == "X")
    assert (crawl["ts"], crawl["dur"]) == (0.2, 8.8)


def _otlp_spans(document: dict[str, Any]) -> list[dict[str, Any]]:
    scopes = [scope for resource in document["resourceSpans"] for scope in resource["scopeSpans"]]
    return [span for scope in scopes for span in scope["spans"]]


@settings(deadline=None)
@given(damaged_spans())
def test_otlp_has_the_form_that_the_protocol_asks_for(spans: list[Span]) -> None:
    document = json.loads(json.dumps(otlp(spans)))
    found = _otlp_spans(document)
    ids = [span["spanId"] for span in found]
    assert len(ids) == len(set(ids))
    for span in found:
        assert re.fullmatch("[0-9a-f]{32}", span["traceId"])
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"])
        assert re.fullmatch("[0-9a-f]{16}|", span["parentSpanId"])
        assert int(span["traceId"], 16)
        assert int(span["spanId"], 16)
        assert span["parentSpanId"] != span["spanId"]
        assert isinstance(span["startTimeUnixNano"], str)
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        assert span["kind"] in {4, 5}
        assert span["status"]["code"] in {0, 1, 2}
        assert all(link["spanId"] in ids for link in span["links"])
        # A parent is here, or is not known; never an id that leads nowhere.
        assert span["parentSpanId"] in {*ids, ""}
    for resource in document["resourceSpans"]:
        keys = [attribute["key"] for attribute in resource["resource"]["attributes"]]
        assert keys == ["service.name", "service.instance.id"]


def test_otlp_joins_producers_consumers_and_answers() -> None:
    found = {(span["name"], span["kind"]): span for span in _otlp_spans(otlp(ASKED))}
    crawl, ask, work = found["handle Crawl", 5], found["send Work", 4], found["handle Work ×7", 5]
    answer, answered = found["send Page", 4], found["handle Page", 5]
    assert found["send Crawl", 4]["parentSpanId"] == ""
    assert crawl["parentSpanId"] == found["send Crawl", 4]["spanId"]
    assert ask["parentSpanId"] == crawl["spanId"] == "0000000000000001"
    assert found["send Work ×7", 4]["spanId"] == work["parentSpanId"]
    assert answered["parentSpanId"] == answer["spanId"]
    asked = next(span for span in _otlp_spans(otlp(ASKED[:2])) if span["name"] == "send Work")
    assert answer["links"] == [{"traceId": f"{1:032x}", "spanId": asked["spanId"]}]
    assert ask["status"] == {"code": 2}  # the later of that name: it was dropped
    assert {"key": "exeunt.queued_ns", "value": {"intValue": "100"}} in work["attributes"]


@settings(deadline=None)
@given(damaged_spans())
def test_lines_have_every_span_with_its_trace(spans: list[Span]) -> None:
    lines = [json.loads(line) for line in jsonl(spans)]
    assert [(int(line["id"], 16), int(line["trace"], 16)) for line in lines] == [(one.id, one.trace) for one in spans]
    assert [line["sent_ns"] for line in lines] == [span.sent_ns for span in spans]


def test_what_a_burst_causes_is_of_its_trace() -> None:
    burst = _span(10, 0, "n/w1/a", "n/w2/b", 0, count=5, trace=10)
    effect = _span(20, 13, "n/w2/b", "n/w1/a", 500, trace=13)
    alone = _span(30, 0, "n/w2/b", "n/w1/a", 900, trace=30)
    assert [[span.id for span in trace.spans] for trace in group([burst, effect, alone])] == [[10, 20], [30]]
    tail = next(event for event in chrome([burst, effect])["traceEvents"] if event["ph"] == "s" and event["id"] == 2)
    head = next(event for event in chrome([burst, effect])["traceEvents"] if event["ph"] == "f" and event["id"] == 1)
    assert (tail["pid"], tail["tid"]) == (head["pid"], head["tid"])
