"""`exeunt why PEER`: the last ending with a peer, explained.

The portal is asked through the program whose ending it is, as only an end of a connection is told. Where that program
does not run, or its portal does not answer, this side's word stands alone; unless the other end keeps its record below
the same home, as in the demonstration.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from exeunt.actors.portal.messages import Evidence
from exeunt.actors.portal.reports import evidence_texts

from ..contract import Ending, Problem, Why
from ..contract_portal import ReportedEnding
from ..instances import connect, running
from ..output import DEFAULTS, Failure, Options, emit, fail
from ..paths import Paths, current
from ..record import EndingsRecord, KeptEnding, LogRecord
from ..testimony import Claim, Testimony, agreement
from ..views.explanation import explain, render
from ..views.timeline import timeline


class _Answer(msgspec.Struct):
    """What a program answers: None while its link to the portal is down."""

    evidence: Evidence | None = None


def run(peer: str, /, *, options: Options = DEFAULTS) -> None:
    """Explain the last ending with a peer: its evidence, and the timeline as both ends and the portal saw it.

    Args:
        peer: As exeunt endings lists it.
        options: The options that every command takes.
    """
    paths = current()
    everything = EndingsRecord(paths).poll_kept()
    with_peer = [one for one in everything if one.ending.peer == peer and options.instance in (None, one.instance)]
    if not with_peer:
        fail("no_such_peer", f"No connection with {peer} has ended.", "exeunt endings lists all that have.")
    kept = with_peer[-1]
    evidence, problem = _ask(paths, kept, options)
    testimony = _testimony(kept.ending, evidence, (one.ending for one in everything))
    why = Why(
        ending=kept.ending,
        explanation=explain(kept.ending, testimony),
        timeline=timeline(kept.ending, testimony, _log_lines(paths, kept.ending)),
        other_side=testimony.other,
        told_by=testimony.told_by,
        agreement=None if testimony.other is None else agreement(_claim(kept.ending), _claim(testimony.other)),
    )
    emit("exeunt.why/1", why, options=options, human=lambda: render(why), problems=problem)


def _ask(paths: Paths, kept: KeptEnding, options: Options) -> tuple[Evidence | None, list[Problem]]:
    instance = next((one for one in running(paths) if one.name == kept.instance), None)
    if instance is None:
        return None, [_untold(f"{kept.instance} does not run, so the portal could not be asked.")]
    try:
        with connect(instance, options) as program:
            answer = program.request(_Answer, "evidence", args={"connection": kept.ending.connection})
    except Failure as failure:
        return None, [_untold(f"The portal could not be asked: {failure.error.message}")]
    if answer.evidence is None:
        return None, [_untold("The portal does not answer at the moment.")]
    return answer.evidence, []


def _untold(why: str) -> Problem:
    return Problem(code="portal_not_asked", message=why)


def _testimony(ending: Ending, evidence: Evidence | None, kept: Iterable[Ending]) -> Testimony:
    observations = () if evidence is None else evidence.observations
    report = None if evidence is None else evidence.reports.get("gateway" if ending.side == "client" else "client")
    other: ReportedEnding | None = None
    told_by: str | None = None
    # Both ends may keep their records below one home.
    neighbours = (one for one in kept if one.connection == ending.connection and one.side != ending.side)
    if report is not None:
        other, told_by = msgspec.convert(report, ReportedEnding, from_attributes=True), "portal"
    elif (neighbour := next(neighbours, None)) is not None:
        other, told_by = _reported(neighbour), "record"
    return Testimony(other=other, told_by=told_by, observations=observations, portal_answered=evidence is not None)


def _reported(ending: Ending) -> ReportedEnding:
    fields = msgspec.to_builtins(ending) | {"evidence": evidence_texts(ending.evidence)}
    return msgspec.convert(fields, ReportedEnding)


def _claim(ending: Ending | ReportedEnding) -> Claim:
    return Claim(ending.cause, ending.initiated_by)


def _log_lines(paths: Paths, ending: Ending) -> list[dict[str, Any]]:
    return [line for line in LogRecord(paths).poll() if line.get("connection") == ending.connection]
