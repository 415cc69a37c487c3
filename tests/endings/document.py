"""What a run of the matrix found: the document `exeunt.endings_matrix/1`, a cell for each row, variant and side."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from exeunt.runtime.log import rfc3339

from .expected import ROWS, Side, Variant
from .performance import Outcome, Record

SCHEMA: Final = "exeunt.endings_matrix/1"
_EXAMPLES: Final = 3


class MatrixCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: what is expected there, and what was recorded in all its runs."""

    row: str
    variant: str
    side: str
    expected: str
    """The cause; `none` where no ending may be recorded."""
    expected_initiated_by: str | None
    expected_acknowledged: bool | None
    why: str
    """The reason for what is expected, where it is not obvious."""
    recorded: dict[str, int]
    """Cause to count; `none` where nothing was recorded."""
    initiated_by: dict[str, int]
    acknowledged: dict[str, int]
    """`yes`, `no`, or `none` where no goodbye was due."""
    runs: int
    right: int
    """Runs with the cause, the initiator and the acknowledgement as expected, and nothing else wrong."""
    late: int
    """Runs in which it was known later, or earlier, than the limit allows."""
    limit: str
    limit_ms: float
    at_least_ms: float
    median_ms: float | None
    """From the event to the ending in the record; null where there is none."""
    worst_ms: float | None
    leftovers: list[str]
    """What was left behind in any run; must be empty."""
    complaints: list[str]
    """What else was wrong."""
    skipped: str
    """Why it was not played; empty if it was."""


class MatrixDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    schema: str
    at: str
    """When the run began."""
    took_s: float
    machine: str
    lanes: int
    """Stages that stood at once."""
    cells: list[MatrixCell]


def cells_of(outcomes: Iterable[Outcome]) -> list[MatrixCell]:
    """Sum up runs, in the order of the table."""
    by_cell: dict[tuple[str, Variant], list[Outcome]] = {}
    for outcome in outcomes:
        by_cell.setdefault((outcome.row, outcome.variant), []).append(outcome)
    found = [(row, variant) for row in ROWS for variant in Variant if (row, variant) in by_cell]
    return [_cell(row, variant, side, by_cell[row, variant]) for row, variant in found for side in Side]


def document(outcomes: Iterable[Outcome], *, began_unix: float, machine: str, lanes: int) -> MatrixDocument:
    """Make the document of a run that is over."""
    return MatrixDocument(
        schema=SCHEMA,
        at=rfc3339(int(began_unix * 1e9)),
        took_s=round(time.time() - began_unix, 1),
        machine=machine,
        lanes=lanes,
        cells=cells_of(outcomes),
    )


def write(path: Path, found: MatrixDocument) -> None:
    """Write the file, indented for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def _cell(row: str, variant: Variant, side: Side, outcomes: Sequence[Outcome]) -> MatrixCell:
    expected = ROWS[row].cell(variant, side)
    played = [outcome for outcome in outcomes if not outcome.skipped]
    records = [outcome.records.get(side, Record()) for outcome in played]
    times = [record.detection_ms for record in records if record.detection_ms is not None]
    return MatrixCell(
        row=row,
        variant=variant,
        side=side,
        expected=expected.cause,
        expected_initiated_by=expected.initiated_by,
        expected_acknowledged=expected.acknowledged,
        why=expected.why,
        recorded=dict(Counter(record.cause for record in records)),
        initiated_by=dict(Counter(record.initiated_by or "none" for record in records)),
        acknowledged=dict(Counter(_acknowledged(record.acknowledged) for record in records)),
        runs=len(played),
        right=sum(outcome.is_right(side) for outcome in played),
        late=sum(not outcome.is_timely(side) for outcome in played),
        limit=expected.limit.name,
        limit_ms=expected.limit.at_most_ms,
        at_least_ms=expected.limit.at_least_ms,
        median_ms=round(statistics.median(times), 1) if times else None,
        worst_ms=round(max(times), 1) if times else None,
        leftovers=_first(one for outcome in played for one in outcome.leftovers),
        complaints=_first(one for outcome in played for one in outcome.complaints),
        skipped=next((outcome.skipped for outcome in outcomes if outcome.skipped), "") if not played else "",
    )


def _acknowledged(value: bool | None) -> str:
    return "none" if value is None else "yes" if value else "no"


def _first(lines: Iterable[str]) -> list[str]:
    """Some examples, each once."""
    return list(dict.fromkeys(lines))[:_EXAMPLES]
