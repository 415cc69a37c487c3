"""`make endings`: play the matrix, write build/endings.json and docs/endings.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .expected import Variant
from .matrix import Matrix, all_rows, turns, verdict
from .performance import Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="make endings ARGS=…", description=__doc__)
    parser.add_argument("--rows", nargs="*", default=[], help="rows whose names contain one of these words")
    parser.add_argument("--variants", nargs="*", choices=[one.value for one in Variant], default=list(Variant))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--lanes", type=int, default=10, help="stages that stand at once")
    parser.add_argument("--busy", type=int, default=None, help="stages that may use the processor at once")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    rows = [row for row in all_rows() if not options.rows or any(word in row for word in options.rows)]
    work = turns(rows, [Variant(one) for one in options.variants], options.runs)
    total, outcomes, began = sum(turn.runs for turn in work), list[Outcome](), time.monotonic()

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        print(f"{time.monotonic() - began:6.0f} s {len(outcomes):4}/{total}  {verdict(outcome)}", flush=True)
        if options.verbose and outcome.trace:
            print(outcome.trace, flush=True)

    Matrix(work, on_outcome, lanes=min(options.lanes, len(work)), busy=options.busy).play()
    return 0


if __name__ == "__main__":
    sys.exit(main())
