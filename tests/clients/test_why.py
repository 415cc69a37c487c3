"""`exeunt why PEER`: one side's record, the other end's report, and what the portal saw, as one story."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from exeunt.actors.portal.messages import Evidence
from exeunt.actors.portal.reports import EndingReport, Observation
from exeunt.clients.contract import Ending, Why
from exeunt.clients.contract_portal import ReportedEnding
from exeunt.clients.testimony import Testimony
from exeunt.clients.views import evidence, explanation, timeline

from .conftest import ENDING, AppendEnding, Cli, StartProgram

REPORT = EndingReport(
    cause="signed_out",
    initiated_by="peer",
    acknowledged=True,
    detection_ms=11.8,
    started_at="2026-11-23T14:02:00.010Z",
    ended_at="2026-11-23T14:05:20.511Z",
    last_seen_at="2026-11-23T14:05:20.505Z",
    evidence={"told": "goodbye: signed_out", "endpoint": "(address)"},
)
OBSERVATIONS = (
    Observation(at="2026-11-23T14:02:00.000000000Z", kind="authorized", side="client"),
    Observation(at="2026-11-23T14:03:00.000000000Z", kind="ice_restarted", side="gateway", detail="roamed"),
    Observation(at="2026-11-23T14:05:20.450000000Z", kind="link_closed", side="client", detail="left: signed_out"),
    Observation(at="2026-11-23T14:05:20.520000000Z", kind="ended", side="gateway", detail="signed_out"),
)


def answer(**changes: Any) -> dict[str, Any]:
    found = Evidence(ref=1, connection=ENDING.connection, reports={"gateway": REPORT}, observations=OBSERVATIONS)
    return {"evidence": msgspec.to_builtins(msgspec.structs.replace(found, **changes))}


def test_both_sides_and_the_portal_are_one_story(
    cli: Cli, append_ending: AppendEnding, start_program: StartProgram
) -> None:
    append_ending()
    program = start_program(evidence=answer())
    done = cli("why", "gateway-1", "--json")
    assert ("evidence", {"connection": ENDING.connection}) in program.calls
    why = done.data
    assert why["explanation"][-3:] == [
        "The portal was told by this client at 14:05:20.450 that it left.",
        "The two ends had sought new paths once, through the portal.",
        "gateway-1 tells it the same way: signed_out, by this client, known after 12 ms.",
    ]
    assert (why["told_by"], why["agreement"], why["other_side"]["cause"]) == ("portal", "agree", "signed_out")
    assert [(moment["source"], moment["text"]) for moment in why["timeline"]] == [
        ("record", "The connection began."),
        ("portal", "This client was authorized."),
        ("portal", "gateway-1 asked for new paths."),
        ("record", "gateway-1 was heard for the last time."),
        ("portal", "This client said goodbye to the portal."),
        ("record", "It ended: signed_out, by us."),
        ("peer", "gateway-1 heard this client for the last time."),
        ("peer", "It ended for gateway-1: signed_out, by this client."),
        ("portal", "gateway-1 reported the end."),
    ]
    assert done.document["problems"] == []
    msgspec.convert(why, Why)


def test_it_fits_eighty_columns(cli: Cli, append_ending: AppendEnding, start_program: StartProgram) -> None:
    append_ending(evidence={"reason": "a sentence that is longer than a line " * 4, "silence_ms": 15_012.0})
    start_program(evidence=answer())
    shown = cli("why", "gateway-1").out.splitlines()
    assert max(len(line.rstrip()) for line in shown) <= 80
    lines = [line.rstrip() for line in shown]
    assert "  silence  15 s" in lines
    assert "Evidence of gateway-1" in lines
    assert "Timeline, UTC  each by its own clock" in lines
    assert "  14:05:20.500  here       It ended: signed_out, by us." in lines
    assert "  14:05:20.450  portal     This client said goodbye to the portal." in " ".join(lines)


def test_without_the_program_it_is_one_sides_word_and_says_so(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending()
    done = cli("why", "gateway-1", "--json")
    (problem,) = done.document["problems"]
    assert problem["code"] == "portal_not_asked"
    assert problem["message"] == "client does not run, so the portal could not be asked."
    assert (done.data["told_by"], done.data["agreement"], done.data["other_side"]) == (None, None, None)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"evidence": {"evidence": None}}, "The portal does not answer at the moment."),
        ({}, "The portal could not be asked: client does not offer evidence."),
    ],
)
def test_without_the_portal_it_says_why(
    cli: Cli, append_ending: AppendEnding, start_program: StartProgram, answers: dict[str, Any], message: str
) -> None:
    append_ending()
    start_program(**answers)
    done = cli("why", "gateway-1", "--json")
    assert done.code == 0
    assert done.document["problems"][0]["message"] == message


def test_the_program_whose_ending_it_is_is_asked(
    cli: Cli, append_ending: AppendEnding, start_program: StartProgram
) -> None:
    append_ending("client")
    append_ending("office", ended_at="2026-11-23T15:00:00.000Z", connection="c-office")
    client = start_program("client", evidence=answer())
    office = start_program("office", program="client", evidence=answer(connection="c-office"))
    cli("why", "gateway-1", "--json")
    assert [name for name, _ in office.calls] == ["evidence"]
    assert client.calls == []
    cli("why", "gateway-1", "--json", "--instance", "client")
    assert [name for name, _ in client.calls] == ["evidence"]


def test_the_other_ends_own_record_serves_where_it_is_here(cli: Cli, append_ending: AppendEnding) -> None:
    append_ending()
    append_ending("gateway", side="gateway", peer="client-1", initiated_by="peer", evidence={"told": True, "n": 1})
    why = cli("why", "gateway-1", "--json").data
    assert (why["told_by"], why["agreement"]) == ("record", "agree")
    assert why["other_side"]["evidence"] == {"told": "yes", "n": "1"}


def test_a_portal_that_knows_nothing_says_so(
    cli: Cli, append_ending: AppendEnding, start_program: StartProgram
) -> None:
    append_ending()
    start_program(evidence=answer(reports={}, observations=()))
    assert (
        "The portal knows nothing of this connection, or not any more."
        in cli("why", "gateway-1", "--json").data["explanation"]
    )


# --- sentences ---


def ending(**changes: Any) -> Ending:
    return msgspec.structs.replace(ENDING, **changes)


def seen(how: str, side: str = "gateway", at: str = "2026-11-23T14:05:20.000Z") -> Testimony:
    observation = msgspec.convert({"at": at, "kind": "link_closed", "side": side, "detail": how}, Observation)
    return Testimony(observations=(observation,), portal_answered=True)


def test_a_death_is_told_with_its_probes_and_what_the_portal_saw() -> None:
    died = ending(
        cause="process_died",
        initiated_by="peer",
        acknowledged=None,
        detection_ms=1612.0,
        evidence={"probes_sent": 15, "probed_ms": 1500.2},
    )
    assert explanation.explain(died, seen("reset")) == [
        "Every process died at once, at the other end, without a chance to say goodbye.",
        "No goodbye could be exchanged; it was concluded after 1.61 s from the evidence.",
        "gateway-1 answered none of 15 probes within 1.5 s.",
        "Its last packet came at 14:05:20.400, 100 ms before the end.",
        "It had run for 3m 20s, directly: 12 MiB received, 294 KiB sent.",
        "The portal saw the link of gateway-1 break at 14:05:20.000, as it does when a process dies.",
        "gateway-1 has reported no ending, so this is one side's word.",
    ]


@pytest.mark.parametrize(
    ("evidence", "end"),
    [({"actor": "worker_died"}, "this"), ({"told": "goodbye: worker_crashed"}, "the other")],
    ids=["ours", "theirs"],
)
def test_a_crash_is_at_the_end_at_which_it_was(evidence: dict[str, Any], end: str) -> None:
    """On both sides the record names the supervisor; only who was told knows that it was not his own."""
    crashed = ending(cause="worker_crashed", initiated_by="supervisor", evidence=evidence)
    assert explanation.explain(crashed, Testimony())[0] == (
        f"The worker process that carried the connection crashed, at {end} end."
    )


def test_a_last_will_is_told_as_one() -> None:
    spoken_for = ending(
        cause="worker_crashed",
        initiated_by="supervisor",
        acknowledged=None,
        detection_ms=None,
        evidence={"told": "last will: worker_crashed"},
    )
    assert explanation.explain(spoken_for, Testimony())[:2] == [
        "The worker process that carried the connection crashed, at the other end.",
        "It could not say goodbye; the supervisor of gateway-1 said it: the last will.",
    ]


def test_an_unacknowledged_goodbye_is_counted() -> None:
    unheard = ending(acknowledged=False, evidence={"goodbyes_sent": 19})
    assert (
        "The goodbye was not acknowledged, though it was said 19 times: gateway-1 may have learned of it later."
        in explanation.explain(unheard, Testimony())
    )
    second = ending(evidence={"goodbyes_sent": 2, "acknowledged_ms": 61.0})
    assert "The goodbye was acknowledged by gateway-1 after 61 ms, the second time it was said." in explanation.explain(
        second, Testimony()
    )


def test_two_sides_that_differ_are_both_quoted() -> None:
    other = ReportedEnding(cause="network_lost", initiated_by="network", detection_ms=15_012.0)
    told = explanation.explain(ending(), Testimony(other=other, told_by="portal", portal_answered=True))
    assert "gateway-1 tells it differently: network_lost, by the network, known after 15 s." in told


def test_what_the_portal_saw_long_before_is_left_to_the_timeline() -> None:
    told = explanation.explain(ending(), seen("reset", at="2026-11-23T14:03:00.000Z"))
    assert not [sentence for sentence in told if sentence.startswith("The portal")]


# --- evidence ---


@pytest.mark.parametrize(
    ("key", "value", "label", "text"),
    [
        ("silence_ms", 15_012.0, "silence", "15 s"),
        ("silence_ms", "15012", "silence", "15 s"),
        ("last_seen_s_ago", 1.733, "last seen", "1.73 s before"),
        ("rx_bytes", 301_000, "rx", "294 KiB"),
        ("last_sent_at", "2026-11-23T14:05:20.4Z", "last sent", "14:05:20.400 UTC"),
        ("probes_sent", 15, "probes sent", "15"),
        ("heard_while_leaving", True, "heard while leaving", "yes"),
        ("icmp", None, "icmp", "–"),
        ("paths", ["relay", "direct"], "paths", "relay, direct"),
        ("paths", [], "paths", "–"),
        ("silence_ms", "soon", "silence ms", "soon"),
        ("fancy", {"a": 1}, "fancy", "{'a': 1}"),
        ("\x1b[2J", "\x1b[2J", "\\x1b[2J", "\\x1b[2J"),
        ("_ms", 3, "ms", "3"),
    ],
)
def test_evidence_of_any_kind_can_be_read(key: str, value: Any, label: str, text: str) -> None:
    assert evidence.shown(key, value) == (label, text)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(), st.integers(), max_size=2),
)  # fmt: skip
KEYS = st.text() | st.sampled_from(["goodbyes_sent", "probes_sent", "probed_ms", "acknowledged_ms", "last_sent_at"])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.text(), st.text(max_size=30), st.booleans() | st.none())
def test_whatever_the_evidence_it_is_explained(
    found: dict[str, Any], word: str, at: str, acknowledged: bool | None
) -> None:
    told = ending(cause=word, evidence=found, ended_at=at, acknowledged=acknowledged)
    other = ReportedEnding(cause=word, initiated_by=word, ended_at=at, evidence={"k": word})
    observations = (*OBSERVATIONS, msgspec.structs.replace(OBSERVATIONS[0], at=at, kind=word, detail=word))
    testimony = Testimony(other=other, observations=observations, portal_answered=True)
    moments = timeline.timeline(told, testimony, [{"message": word, "time": at}])
    why = Why(ending=told, explanation=explanation.explain(told, testimony), timeline=moments, other_side=other)
    console = Console(width=80, record=True, file=None, quiet=True)
    console.print(explanation.render(why))
