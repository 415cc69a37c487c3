"""One actor on a screen: what it is, how it fares, what it handled, how often it died, what it says of itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from ..inspection_contract import ActorDetail, HandledMessage
from ..output import ACCENT
from .design import heading, state, table
from .events import text_of
from .hops import interval
from .printable import clock, dash, printable, show_duration, size
from .wakeups import in_short

_LABEL_WIDTH = 10


def render(detail: ActorDetail) -> RenderableType:
    """All of it, the most asked for first."""
    parts: list[RenderableType] = [_title(detail), *_facts(detail)]
    parts += [Text(), heading("Last messages"), _messages(detail)]
    if detail.lives:
        parts += [Text(), heading("Lives"), *(text_of(event, with_of=False) for event in detail.lives)]
    parts += [Text(), heading("Snapshot"), _snapshot(detail)]
    return Group(*parts)


def _title(detail: ActorDetail) -> Text:
    title = Text(printable(detail.address), style=f"bold {ACCENT}")
    title.append("  ")
    title.append_text(state(detail.state))
    title.append(f"  {printable(detail.kind)}", style="not bold default")
    return title


def _facts(detail: ActorDetail) -> list[Text]:
    queue, spec = detail.queue, detail.spec
    pid = f" (pid {detail.pid})" if detail.pid is not None else ""
    cpu = "" if detail.cpu_percent is None else f" · {detail.cpu_percent:g} % CPU · {size(detail.rss_bytes)}"
    lived = "dead for" if detail.state in {"backoff", "exited", "fatal"} else "for"
    life = f"incarnation {detail.incarnation or '–'}, {lived} {show_duration(detail.since_s)}"
    facts = [
        _fact("worker", f"{detail.worker}{pid}{cpu}"),
        _fact("life", f"{life} · {detail.restarts} restart{'' if detail.restarts == 1 else 's'}"),
        _fact("mailbox", _mailbox(detail) if queue.bound else "–"),
        _fact("handled", f"{detail.handled_total} · {detail.handled_per_s:g}/s of late"),
    ]
    if detail.wakeups is not None:
        facts.append(_fact("wake-ups", f"of {detail.worker}: {in_short(detail.wakeups)}"))
    if detail.handling:
        facts.append(_fact("handling", detail.handling))
    if spec is None:
        facts.append(_fact("spec", "none: another actor started it"))
    else:
        significant = " · significant" if spec.significant else ""
        patience = "no limit" if spec.shutdown_ms == "infinity" else f"{spec.shutdown_ms} ms"
        facts.append(_fact("spec", f"{spec.start} · {spec.restart} · shutdown {patience}{significant}"))
        if spec.args:
            facts.append(_fact("args", ", ".join(f"{name}={value!r}" for name, value in spec.args.items())))
    if not detail.answering:
        facts.append(Text(f"! {detail.worker} does not answer; this is what it said last.", style="yellow"))
    return facts


def _mailbox(detail: ActorDetail) -> str:
    queue = detail.queue
    text = f"{queue.waiting} of {queue.bound} waiting · {queue.policy} when full"
    if queue.rejected_total:
        text += f" · {queue.rejected_total} rejected"
    return text + (f" · {queue.dropped_total} dropped" if queue.dropped_total else "")


def _fact(label: str, value: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL_WIDTH}}", "dim"), printable(value), overflow="fold")


def _messages(detail: ActorDetail) -> RenderableType:
    if not detail.messages:
        return Text("none in the flight recorder", style="dim")
    columns = table("TIME", "MESSAGE", "FROM", "WAITED", "RAN", "", "TRACE", right={"WAITED", "RAN"})
    for message in detail.messages:
        columns.add_row(
            clock(message.at),
            _counted(message),
            _short(message.from_, detail.address),
            interval(message.queued_ms),
            interval(message.ran_ms),
            state(message.outcome, with_word=message.outcome != "ok"),
            Text(message.trace, style="dim"),
        )
    return columns


def _counted(message: HandledMessage) -> str:
    return printable(message.message) + (f" ×{message.count}" if message.count > 1 else "")


def _short(address: str, own: str) -> str:
    """Leave out the node that everybody is of; say who is no actor."""
    if address.endswith("$outside"):
        return f"({address.split('/')[1]})"
    node, _, rest = printable(address).partition("/")
    return rest if node == own.partition("/")[0] else printable(address)


def _snapshot(detail: ActorDetail) -> RenderableType:
    if detail.snapshot_error is not None:
        return Text(f"✖ {printable(detail.snapshot_error)}", style="red", overflow="fold")
    if detail.snapshot is None:
        return Text(f"none: {printable(detail.kind)} has no snapshot()", style="dim")
    return Text("\n").join(_lines(detail.snapshot))


def _lines(value: Any) -> Sequence[Text]:
    """A mapping one line an entry; anything else as JSON."""
    if not isinstance(value, Mapping):
        return [Text(_json(value), overflow="fold")]
    entries: Mapping[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
    width = min(24, max((len(printable(key)) for key in entries), default=0))
    return [
        Text.assemble((f"{printable(key):<{width}}  ", ACCENT), _json(one), overflow="fold")
        for key, one in entries.items()
    ]


def _json(value: Any) -> str:
    return dash(printable(msgspec.json.encode(value).decode()))
