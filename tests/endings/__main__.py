"""`make endings`: play the matrix, write build/endings.json and docs/endings.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path

from .document import MatrixDocument, document, write
from .expected import Side, Variant
from .matrix import Matrix, all_rows, turns, verdict
from .page import machine, page
from .performance import Outcome

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make endings ARGS=…", description=__doc__)
    parser.add_argument("--rows", nargs="*", default=[], help="rows whose names contain one of these words")
    parser.add_argument("--variants", nargs="*", choices=[one.value for one in Variant], default=list(Variant))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--lanes", type=int, default=12, help="stages that stand at once")
    parser.add_argument("--busy", type=int, default=None, help="stages that may use the processor at once")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "endings.json")
    parser.add_argument("--page", type=Path, default=None, help="docs/endings.md, when everything is played")
    parser.add_argument("--keep", type=Path, default=None, help="copy the files of runs that went wrong there")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks of runs that were not played")
    options = parser.parse_args()
    rows = [row for row in all_rows() if not options.rows or any(word in row for word in options.rows)]
    work = turns([(row, Variant(one)) for row in rows for one in options.variants], options.runs)
    total, outcomes, began = sum(turn.runs for turn in work), list[Outcome](), time.time()

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(f"{time.time() - began:6.0f} s {len(outcomes):4}/{total}  {verdict(outcome)}", flush=True)
        if options.verbose and outcome.trace:
            print(outcome.trace, flush=True)

    lanes = min(options.lanes, len(work))
    matrix = Matrix(work, on_outcome, lanes=lanes, busy=options.busy, keep=options.keep)
    try:
        with ended_by_signals():
            matrix.play()
    except Interrupted as interrupted:
        print(f"{interrupted.number.name}: what runs is ended", flush=True)
        matrix.abandon()
        os._exit(128 + interrupted.number)  # a lane may be anywhere
    found = document(outcomes, began_unix=began, machine=machine(), lanes=lanes)
    write(options.output, found)
    everything = rows == all_rows() and len(options.variants) == len(Variant)
    where = options.page or (ROOT / "docs" / "endings.md" if everything else None)
    if where is not None:
        where.write_text(page(found))
    return summary(found)


class Interrupted(Exception):
    """Somebody wants it to end."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)


@contextlib.contextmanager
def ended_by_signals() -> Generator[None]:
    """Have SIGINT and SIGTERM raise Interrupted here, once; a second one ends us as it would anybody."""

    def interrupt(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(found: MatrixDocument) -> int:
    """Print a line for each cell, and what is wrong; return the exit code."""
    wrong = 0
    for cell in found.cells:
        bad = cell.right < cell.runs or cell.late > 0 or bool(cell.leftovers)
        wrong += bad
        took = "" if cell.median_ms is None else f"{cell.median_ms:10,.1f} ms, worst {cell.worst_ms:10,.1f} ms"
        name = f"{cell.row} · {cell.variant} · {cell.side}"
        said = ", ".join(f"{cause} {count}x" for cause, count in cell.recorded.items()) or cell.skipped
        print(f"{'✗' if bad else '✓'} {name:<56} {cell.right:3} of {cell.runs:<3} {said:<42} {took}")
    runs = sum(cell.runs for cell in found.cells if cell.side == Side.CLIENT)
    print(f"{runs} runs, {len(found.cells)} cells, {wrong} of them not as they should be; {found.took_s:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
