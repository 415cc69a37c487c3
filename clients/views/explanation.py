"""An ending in sentences: what happened, how this side came to know, what the portal and the other end say of it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from exeunt.actors.portal.reports import Observation

from ..contract import Ending, Why
from ..output import ACCENT
from ..testimony import Claim, Testimony, agreement
from . import evidence, timeline
from .design import heading
from .printable import clock, milliseconds, printable, show_duration, size

_WHAT: Final = {
    "signed_out": "{who} signed out.",
    "shutting_down": "{who} was told to stop: by a signal, an upgrade or exeunt stop.",
    "idle": "{who} closed the connection, because nothing had used it for a while.",
    "replaced": "{who} opened a new connection in its place, after moving to another network.",
    "access_revoked": "The permission that the connection rested on was withdrawn.",
    "access_expired": "The permission that the connection rested on ran out.",
    "worker_crashed": "The worker process that carried the connection crashed, at {whose} end.",
    "supervisor_died": "The supervisor died, at {whose} end; its workers said goodbye in its place.",
    "process_died": "Every process died at once, at the other end, without a chance to say goodbye.",
    "device_lost": "The tunnel's network device was lost, at {whose} end.",
    "portal_denied": "The portal refused the connection.",
    "protocol_error": "The two ends could not agree on the protocol.",
    "never_connected": "The connection never came about: no path was found between the two ends.",
    "relay_lost": "The relay that carried the connection was lost, and no other path was found.",
    "network_lost": "The network between the two ends was cut: nothing arrived any more, and nobody had left.",
}

_PORTAL_SAW: Final = {
    "reset": "saw the link of {who} break at {at}, as it does when a process dies",
    "closed": "saw {who} close its link in good order at {at}",
    "silent": "had heard nothing from {who} any more at {at}",
    "left": "was told by {who} at {at} that it left",
    "replaced": "saw {who} come back on a new link at {at}",
    "token_revoked": "revoked the token of {who} at {at}",
}

_NEAR: Final = timedelta(seconds=60)
"""What the portal saw of a link within this of the end belongs into the explanation; all of it is in the timeline."""


def explain(ending: Ending, testimony: Testimony) -> list[str]:
    """The ending in sentences, as much as is known."""
    return [
        _what(ending),
        *_how_known(ending),
        *_last_packets(ending),
        _connection(ending),
        *_portal(ending, testimony),
        *_other_end(ending, testimony),
    ]


def render(why: Why) -> RenderableType:
    """The sentences, then the evidence of both sides and the timeline."""
    top = Text(printable(why.ending.peer), style=f"bold {ACCENT}")
    top.append(f"  {printable(why.ending.cause)}", style="bold default")
    top.append(f"  {printable(why.ending.ended_at[:10])} {clock(why.ending.ended_at)} UTC", style="not bold dim")
    parts: list[RenderableType] = [top, Text(), *(Text(sentence) for sentence in why.explanation)]
    if why.ending.evidence:
        parts += [Text(), heading("Evidence"), evidence.render(why.ending.evidence)]
    if why.other_side is not None and why.other_side.evidence:
        of_other = heading(f"Evidence of {printable(why.ending.peer)}")
        parts += [Text(), of_other, evidence.render(why.other_side.evidence)]
    title = heading("Timeline, UTC")
    if any(moment.source in {"portal", "peer"} for moment in why.timeline):
        title.append("  each by its own clock", style="not bold dim")
    parts += [Text(), title, timeline.render(why.timeline, why.ending.peer)]
    return Group(*parts)


def _what(ending: Ending) -> str:
    here = ending.initiated_by in {"us", "supervisor"} and "told" not in ending.evidence  # else theirs
    who = f"This {ending.side}" if here else printable(ending.peer)
    whose = "this" if here else "the other"
    template = _WHAT.get(ending.cause, "The connection ended: {cause}.")
    return template.format(who=who, whose=whose, cause=printable(ending.cause))


def _how_known(ending: Ending) -> Iterator[str]:
    after = "" if ending.detection_ms is None else f" after {milliseconds(ending.detection_ms)}"
    told_it = "told" in ending.evidence or ending.initiated_by == "peer"
    goodbyes = ending.evidence.get("goodbyes_sent")
    if ending.acknowledged is True and told_it:
        yield f"It said goodbye; this {ending.side} knew{after or ' at once'}, and confirmed it."
    elif ending.acknowledged is True:
        answered = _number(ending.evidence.get("acknowledged_ms"))
        round_trip = "" if answered is None else f" after {milliseconds(answered)}"
        again = f", the {_ordinal(goodbyes)} time it was said" if isinstance(goodbyes, int) and goodbyes > 1 else ""
        yield f"The goodbye was acknowledged by {printable(ending.peer)}{round_trip}{again}."
    elif ending.acknowledged is False:
        times = f", though it was said {_times(goodbyes)}" if isinstance(goodbyes, int) else ""
        yield f"The goodbye was not acknowledged{times}: {printable(ending.peer)} may have learned of it later."
    elif str(ending.evidence.get("told")).startswith("last will"):
        yield f"It could not say goodbye; the supervisor of {printable(ending.peer)} said it: the last will."
    else:
        yield f"No goodbye could be exchanged; it was concluded{after} from the evidence."
    probes = _number(ending.evidence.get("probes_sent"))
    if probes:
        probed_ms = _number(ending.evidence.get("probed_ms"))
        within = "" if probed_ms is None else f" within {milliseconds(probed_ms)}"
        yield f"{printable(ending.peer)} answered none of {probes:g} probes{within}."


def _last_packets(ending: Ending) -> Iterator[str]:
    sent = ending.evidence.get("last_sent_at")
    if ending.last_seen_at is not None and ending.path is not None:
        before = _between(ending.last_seen_at, ending.ended_at)
        ago = (
            ""
            if before is None or before < timedelta(0)
            else f", {show_duration(before.total_seconds())} before the end"
        )
        told = f"Its last packet came at {clock(ending.last_seen_at, digits=3)}{ago}"
        yield f"{told}; ours went at {clock(sent, digits=3)}." if isinstance(sent, str) else f"{told}."


def _portal(ending: Ending, testimony: Testimony) -> Iterator[str]:
    seen = [one for one in testimony.observations if one.kind == "link_closed" and _is_near(one, ending)]
    for one in seen[-2:]:
        how = one.detail.partition(": ")[0]
        if how in _PORTAL_SAW:
            who = f"this {ending.side}" if one.side == ending.side else printable(ending.peer)
            yield f"The portal {_PORTAL_SAW[how].format(who=who, at=clock(one.at, digits=3))}."
    restarts = sum(one.kind == "ice_restarted" for one in testimony.observations)
    if restarts:
        yield f"The two ends had sought new paths {_times(restarts)}, through the portal."
    if testimony.portal_answered and not testimony.observations:
        yield "The portal knows nothing of this connection, or not any more."


def _other_end(ending: Ending, testimony: Testimony) -> Iterator[str]:
    other, peer = testimony.other, printable(ending.peer)
    if other is None:
        if testimony.observations:
            yield f"{peer} has reported no ending, so this is one side's word."
        return
    verdict = agreement(Claim(ending.cause, ending.initiated_by), Claim(other.cause, other.initiated_by))
    by = timeline.initiator(other.initiated_by, us="itself", peer=f"this {ending.side}")
    known = "" if not other.detection_ms else f", known after {milliseconds(other.detection_ms)}"
    if verdict == "agree":
        yield f"{peer} tells it the same way: {printable(other.cause)}, by {by}{known}."
    else:
        yield f"{peer} tells it differently: {printable(other.cause)}, by {by}{known}."


def _connection(ending: Ending) -> str:
    path = {"direct": "directly", "relay": "through a relay"}.get(ending.path or "")
    if path is None:
        return "No traffic had passed."
    length = _between(ending.started_at, ending.ended_at)
    lasted = "" if length is None else f"for {show_duration(max(0.0, length.total_seconds()))}, "
    return f"It had run {lasted}{path}: {size(ending.rx_bytes)} received, {size(ending.tx_bytes)} sent."


def _is_near(one: Observation, ending: Ending) -> bool:
    apart = _between(one.at, ending.ended_at)
    return apart is not None and abs(apart) < _NEAR


def _between(earlier: str, later: str) -> timedelta | None:
    try:
        return datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    except (ValueError, TypeError):
        return None  # a time that does not parse is shown in the timeline as it is


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _ordinal(count: int) -> str:
    return {2: "second", 3: "third"}.get(count, f"{count}th")
