"""An ending's timeline, merged from whoever saw a part of it: this side's record and log, the portal, the other end.

The other end's times are by its own clock, and the portal's by the portal's; nothing here corrects them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from exeunt.actors.portal.reports import Observation

from ..contract import Ending, Moment
from ..contract_portal import ReportedEnding
from ..testimony import Testimony
from .design import sheet
from .printable import clock, printable

_LOG_FIELDS = ("worker", "event", "path", "reason")

_LINK_CLOSED = {
    "reset": "The link of {who} broke: nobody closed it.",
    "closed": "The link of {who} was closed in good order, without a goodbye.",
    "silent": "The link of {who} had been silent for too long.",
    "not_reading": "{Who} had stopped reading, and its link was closed.",
    "replaced": "{Who} came back on a new link.",
    "token_revoked": "The token of {who} was revoked.",
    "left": "{Who} said goodbye to the portal.",
}

_OBSERVED = {
    "link_opened": "The link of {who} was opened.",
    "authorized": "{Who} was authorized.",
    "ice_restarted": "{Who} asked for new paths.",
    "access_revoked": "{Who} lost its access.",
    "ended": "{Who} reported the end.",
    "last_will": "The last will of {who} was passed on.",
}


def timeline(ending: Ending, testimony: Testimony, log_lines: Iterable[dict[str, Any]]) -> list[Moment]:
    """Everything that is known, in order."""
    by = initiator(ending.initiated_by, us="us", peer=ending.peer)
    moments = [
        Moment(at=ending.started_at, text="The connection began.", source="record"),
        Moment(at=ending.ended_at, text=f"It ended: {ending.cause}, by {by}.", source="record"),
    ]
    if ending.last_seen_at is not None:
        text = f"{ending.peer} was heard for the last time."
        moments.append(Moment(at=ending.last_seen_at, text=text, source="record"))
    for line in log_lines:
        if line.get("event") == "connection_ended":
            continue  # the record says it, and when
        fields: dict[str, Any] = {key: line[key] for key in _LOG_FIELDS if key in line}
        moments.append(
            Moment(at=str(line.get("time", "")), text=str(line.get("message", "")), source="log", fields=fields)
        )
    moments += [_observed(one, ending) for one in testimony.observations]
    if testimony.other is not None:
        moments += _of_other(testimony.other, ending)
    # Without the Z, a time with fewer digits sorts before one with more, as it should.
    return sorted(moments, key=lambda moment: moment.at.rstrip("Z"))


def render(moments: Sequence[Moment], peer: str) -> RenderableType:
    """Three columns: when, who says so, what."""
    listed = sheet(texts=2)
    several = len({_source(moment, peer) for moment in moments}) > 1
    for moment in moments:
        text = Text(printable(moment.text), style="" if moment.source == "log" else "bold")
        for key, value in moment.fields.items():
            text.append(f"  {printable(key)}={printable(value)}", style="dim not bold")
        source = Text(_source(moment, peer) if several else "", style="dim", no_wrap=True, overflow="ellipsis")
        listed.add_row(Text(f"  {clock(moment.at, digits=3)}", style="dim"), source, text)
    return listed


def initiator(word: str | None, *, us: str, peer: str) -> str:
    """Who `initiated_by` means, by name."""
    return {"us": us, "peer": peer, "network": "the network", None: "somebody"}.get(word, f"the {word}")


def _source(moment: Moment, peer: str) -> str:
    return {"portal": "portal", "peer": printable(peer)}.get(moment.source, "here")


def _of_other(other: ReportedEnding, ending: Ending) -> Iterable[Moment]:
    this = f"this {ending.side}"
    if other.last_seen_at is not None:
        yield Moment(at=other.last_seen_at, text=f"{ending.peer} heard {this} for the last time.", source="peer")
    if other.ended_at is not None:
        by = initiator(other.initiated_by, us=ending.peer, peer=this)
        yield Moment(at=other.ended_at, text=f"It ended for {ending.peer}: {other.cause}, by {by}.", source="peer")


def _observed(one: Observation, ending: Ending) -> Moment:
    who = f"this {ending.side}" if one.side == ending.side else ending.peer
    how, _, rest = one.detail.partition(": ")
    if one.kind == "link_closed":
        template, detail = _LINK_CLOSED.get(how, "The link of {who} was closed."), rest
    else:
        template = _OBSERVED.get(one.kind, "{who}: {kind}")
        detail = "" if one.kind == "link_opened" else one.detail
    capital = f"This {ending.side}" if one.side == ending.side else who
    text = template.format(who=who, Who=capital, kind=one.kind.replace("_", " "))
    return Moment(at=one.at, text=text, source="portal", fields={"reason": detail} if detail else {})
