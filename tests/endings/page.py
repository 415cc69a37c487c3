"""The page docs/endings.md, made from a run of the matrix."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import datetime

import psutil

from exeunt.actors.timing import GOODBYE_DEADLINE_S, LOST_AFTER_S

from .clock import unix
from .document import MatrixCell, MatrixDocument
from .expected import DIED, NONE, ROWS, TOLD, WILL, Side, Variant

TITLES = {
    Variant.PLAIN: "On a good line",
    Variant.LOSS: "On a line that loses 20 % of all datagrams, each way",
    Variant.RELAY: "Over a relay",
    Variant.TLS: "Over a relay that is reached by TLS",
}

_INTRODUCTION = f"""# Endings, as they were played

Every way in which a connection can end is played by real programs: a portal, a relay, gateways and a client, each in a
network namespace of its own, with NATs between them. Afterwards both sides' records are read. This page is what they
said; it is made by `make endings` and not written by hand.

A line is an event. It shows what the client and the gateway have written down: the cause, who ended it, and whether
the goodbye was acknowledged. Behind each stands how long it took, **from the event itself to the record**: the median,
and the worst. *Right* counts the runs in which both sides wrote down what they should have, nothing more, and in which
nothing was left behind: no process, device, route, firewall rule, socket, relay allocation or file.

Three kinds of lines are worth telling apart:

- **Told.** Somebody who knows says so, in a goodbye that is acknowledged: within a round trip and
  {TOLD.at_most_ms:g} ms. Where datagrams are lost it is repeated for {GOODBYE_DEADLINE_S:g} s.
- **Spoken for.** Who should have said it is dead. For a worker its supervisor speaks, within
  {WILL.at_most_ms:g} ms: the last will. Where the whole tree is gone, the portal has seen its link break, and the
  peers look for themselves: within {DIED.at_most_ms / 1000:g} s.
- **Silence.** Nobody was told anything, because the network is gone. Only this is left to the timeout of
  {LOST_AFTER_S:g} s.

What is told or spoken for is timed while nothing else is played: it is the programs that are measured, and not their
queue for the processor.

And some lines must say nothing at all: the connection goes on, and a download that is under way in it arrives whole,
over the same TCP connection.
"""


def page(found: MatrixDocument) -> str:
    """Return the page as Markdown."""
    parts = ["\n".join(_INTRODUCTION.splitlines()), "\n".join(_run(found))]
    for variant, title in TITLES.items():
        cells = {(one.row, one.side): one for one in found.cells if one.variant == variant}
        if cells:
            parts.append("\n".join(_table(title, cells)))
    parts += ["\n".join(_wrong(found)), "\n".join(_events(found))]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine() -> str:
    """Say what this machine is."""
    memory_gb = psutil.virtual_memory().total / 2**30
    kernel, python = platform.release().split("-")[0], platform.python_version()
    return f"{os.cpu_count()} processors, {memory_gb:.0f} GB, Linux {kernel}, Python {python}"


def _run(found: MatrixDocument) -> Iterator[str]:
    day = datetime.fromtimestamp(unix(found.at)).astimezone()
    runs = sum(cell.runs for cell in found.cells) // 2
    right = sum(cell.right for cell in found.cells)
    yield "## The run"
    yield ""
    took = f"{runs:,} runs in {found.took_s / 60:.0f} minutes, on up to {found.lanes} stages side by side"
    yield f"{day:%-d %B %Y}; {found.machine}."
    yield f"{took}. Of {2 * runs:,} records {right:,} are right."


def _table(title: str, cells: dict[tuple[str, str], MatrixCell]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| event | the client records | after, ms | the gateway records | after, ms | right |"
    yield "|---|---|---:|---|---:|---:|"
    for row in ROWS:
        client, gateway = cells.get((row, Side.CLIENT)), cells.get((row, Side.GATEWAY))
        if client is None or gateway is None:
            continue
        if client.skipped:
            yield f"| {row} | *{client.skipped}* | | | | |"
            continue
        right = min(client.right, gateway.right)
        count = f"{right} of {client.runs}"
        mark = count if right == client.runs else f"**{count}**"
        yield f"| {row} | {_said(client)} | {_times(client)} | {_said(gateway)} | {_times(gateway)} | {mark} |"


def _said(cell: MatrixCell) -> str:
    """What was recorded: the usual thing in short, every exception by count."""
    if set(cell.recorded) == {NONE}:
        return "—"
    if len(cell.recorded) > 1:
        return ", ".join(f"{_cause(cause)} {count}×" for cause, count in cell.recorded.items())
    (cause,) = cell.recorded
    by = " or ".join(cell.initiated_by)
    acknowledged = cell.acknowledged.get("yes", 0)
    heard = "" if set(cell.acknowledged) == {"none"} else ", acknowledged"
    if heard and acknowledged < cell.runs:
        heard += f" {acknowledged}×"
    return f"{_cause(cause)} by {by}{heard}"


def _cause(cause: str) -> str:
    return "nothing" if cause == NONE else f"`{cause}`"


def _times(cell: MatrixCell) -> str:
    if cell.median_ms is None or cell.worst_ms is None:
        return ""
    text = f"{_ms(cell.median_ms)}, worst {_ms(cell.worst_ms)}"
    return f"**{text}**" if cell.late else text


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _wrong(found: MatrixDocument) -> Iterator[str]:
    """Every cell that is not as it should be, with what was seen."""
    wrong = [cell for cell in found.cells if cell.right < cell.runs or cell.late or cell.leftovers]
    if not wrong:
        return
    yield "## What was not as it should be"
    yield ""
    for cell in wrong:
        seen = ", ".join(f"{_cause(cause)} {count}×" for cause, count in cell.recorded.items())
        where = f"**{cell.row}**, {cell.variant}, {cell.side}"
        parts = [f"- {where}: {_cause(cell.expected)} is expected, {seen} was recorded."]
        if cell.late:
            parts.append(f"{cell.late} of {cell.runs} were outside the limit of {_ms(cell.limit_ms)} ms.")
        parts += [f"{one[:1].upper()}{one[1:]}." for one in cell.complaints]
        parts += [f"Left behind: {one}." for one in cell.leftovers]
        yield " ".join(" ".join(parts).split())


def _events(found: MatrixDocument) -> Iterator[str]:
    yield "## The events"
    yield ""
    shown = {cell.row for cell in found.cells}
    for name, row in ROWS.items():
        if name in shown:
            reasons = dict.fromkeys(row.cell(variant, side).why for variant in Variant for side in Side)
            yield " ".join([f"- **{name}.** {row.event}", *(reason for reason in reasons if reason)])
