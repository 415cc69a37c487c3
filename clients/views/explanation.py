"""An ending in sentences: what happened, how this side came to know, what the connection had been."""

from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from ..contract import Ending, Why
from ..output import ACCENT
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
    "process_died": "Every process died at once, at {whose} end, without a chance to say goodbye.",
    "device_lost": "The tunnel's network device was lost, at {whose} end.",
    "portal_denied": "The portal refused the connection.",
    "protocol_error": "The two ends could not agree on the protocol.",
    "never_connected": "The connection never came about: no path was found between the two ends.",
    "relay_lost": "The relay that carried the connection was lost, and no other path was found.",
    "network_lost": "The network between the two ends was cut: nothing arrived any more, and nobody had left.",
}


def explain(ending: Ending) -> list[str]:
    """The ending in sentences."""
    return [_what(ending), *_how_known(ending), _connection(ending)]


def render(why: Why) -> RenderableType:
    """The sentences, then the evidence and the timeline."""
    title = Text(printable(why.ending.peer), style=f"bold {ACCENT}")
    title.append(f"  {printable(why.ending.cause)}", style="bold default")
    title.append(f"  {clock(why.ending.ended_at)} UTC", style="not bold dim")
    parts: list[RenderableType] = [title, Text(), *(Text(sentence) for sentence in why.explanation)]
    if why.ending.evidence:
        parts += [Text(), heading("Evidence")]
        width = max(len(printable(key)) for key in why.ending.evidence)
        for key, value in why.ending.evidence.items():
            parts.append(Text(f"  {printable(key):<{width}}  ", style="dim").append(printable(value), "not dim"))
    parts += [Text(), heading("Timeline, UTC")]
    for moment in why.timeline:
        line = Text(f"  {clock(moment.at, digits=3)}  ", style="dim")
        line.append(printable(moment.text), style="not dim bold" if moment.source == "record" else "not dim")
        for key, value in moment.fields.items():
            line.append(f"  {printable(key)}={printable(value)}", style="dim not bold")
        parts.append(line)
    return Group(*parts)


def _what(ending: Ending) -> str:
    here = ending.initiated_by in {"us", "supervisor"}
    who = f"This {ending.side}" if here else printable(ending.peer)
    whose = "this" if here else "the other"
    template = _WHAT.get(ending.cause, f"The connection ended: {printable(ending.cause)}.")
    return template.format(who=who, whose=whose)


def _how_known(ending: Ending) -> list[str]:
    known = "" if ending.detection_ms is None else f" after {milliseconds(ending.detection_ms)}"
    told = "told" in ending.evidence or ending.initiated_by == "peer"
    answered = ending.evidence.get("acknowledged_ms")
    round_trip = f" after {milliseconds(answered)}" if isinstance(answered, int | float) else ""
    if ending.acknowledged is True:
        if told:
            return [f"It said goodbye; this {ending.side} knew{known or ' at once'}, and confirmed it."]
        return [f"The goodbye was acknowledged by {printable(ending.peer)}{round_trip}."]
    if ending.acknowledged is False:
        return [f"The goodbye was not acknowledged: {printable(ending.peer)} may have learned of it later."]
    return [f"No goodbye could be exchanged; it was concluded{known} from the evidence."]


def _connection(ending: Ending) -> str:
    path = {"direct": "directly", "relay": "through a relay"}.get(ending.path or "")
    if path is None:
        return "No traffic had passed."
    lasted = ""
    try:
        began, ended = (datetime.fromisoformat(time) for time in (ending.started_at, ending.ended_at))
        lasted = f"for {show_duration(max(0.0, (ended - began).total_seconds()))}, "
    except (ValueError, TypeError):
        pass  # a time that does not parse is shown in the timeline as it is
    return f"It had run {lasted}{path}: {size(ending.rx_bytes)} received, {size(ending.tx_bytes)} sent."
