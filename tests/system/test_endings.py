"""Every way in which a connection can end, once each: both sides record what the table in `tests/endings` expects.

All cells are played side by side, because some only wait; each test is one of them, and waits for its turn to come.
`make endings` plays every cell twenty times, and measures; here a loaded machine is forgiven some time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.endings.expected import ROWS, Side, Variant
from tests.endings.matrix import Matrix, turns
from tests.endings.performance import Outcome, Record, within

LANES = 8
EVERY_ROW = [(row, Variant.PLAIN) for row in ROWS]
ON_A_BAD_LINE = [(row, Variant.LOSS) for row in ("sign-out", "worker SIGKILL", "whole tree SIGKILL")]
OVER_A_RELAY = [
    (row, Variant.RELAY)
    for row in ("sign-out", "supervisor SIGKILL", "worker SIGKILL", "access revoked", "relay killed", "address changed")
]
OVER_TLS = [(row, Variant.TLS) for row in ("second signal", "worker SIGKILL", "gateway worker SIGKILL", "SIGTERM")]
CELLS = [*EVERY_ROW, *ON_A_BAD_LINE, *OVER_A_RELAY, *OVER_TLS]
FORGIVEN_MS = 400.0


class Programme:
    """All cells, being played; `outcome` waits for one."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, Variant], Outcome] = {}
        self._news = threading.Condition()
        self._matrix = Matrix(turns(CELLS, 1), self._played, lanes=LANES)
        self._thread = threading.Thread(target=self._matrix.play, name="endings")

    def begin(self) -> None:
        self._thread.start()

    def outcome(self, row: str, variant: Variant) -> Outcome:
        with self._news:
            assert self._news.wait_for(lambda: (row, variant) in self._outcomes, 400), "it was not played"
            return self._outcomes[row, variant]

    def end(self) -> None:
        self._matrix.stop()
        self._thread.join()

    def _played(self, outcome: Outcome) -> None:
        with self._news:
            self._outcomes[outcome.row, outcome.variant] = outcome
            self._news.notify_all()


@pytest.fixture(scope="module")
def programme() -> Iterator[Programme]:
    programme = Programme()
    programme.begin()
    yield programme
    programme.end()


@pytest.mark.timeout(420)
@pytest.mark.parametrize(("row", "variant"), CELLS)
def test_both_sides_know_why(programme: Programme, row: str, variant: Variant) -> None:
    outcome = programme.outcome(row, variant)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.complaints == [], outcome.trace
    for side in Side:
        expected, found = ROWS[row].cell(variant, side), outcome.records[side]
        said = (found.cause, found.initiated_by, found.acknowledged)
        assert said == (expected.cause, expected.initiated_by, expected.acknowledged), f"{side}: {found}"
        assert _in_time(outcome, found, side), f"{side}: {found}"
    assert outcome.leftovers == []


def _in_time(outcome: Outcome, found: Record, side: Side) -> bool:
    limit = ROWS[outcome.row].cell(outcome.variant, side).limit
    generous = replace(limit, at_most_ms=limit.at_most_ms + FORGIVEN_MS)
    took_ms = found.detection_ms
    return took_ms is None or within(generous, took_ms, outcome.rtt_ms, outcome.variant)
