"""The record: what the programs below this home wrote down, readable also when none of them runs any more."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from .contract import Ending
from .jsonl import Tail
from .paths import Paths


class KeptEnding(NamedTuple):
    """An ending, and the instance in whose record it stands."""

    instance: str
    ending: Ending


class EndingsRecord:
    """The endings of one instance, or of all; each `poll` returns those that were added since the last."""

    def __init__(self, paths: Paths, instance: str | None = None) -> None:
        self._tail = Tail(lambda: sorted(paths.state_dir.glob(f"{instance or '*'}/endings.jsonl")))
        self._unknown = 0

    @property
    def skipped(self) -> int:
        """Lines that hold no ending: torn by a crash, or damaged."""
        return self._tail.skipped + self._unknown

    def poll(self) -> list[Ending]:
        """The endings added since the last call, in the order in which they happened."""
        return [kept.ending for kept in self.poll_kept()]

    def poll_kept(self) -> list[KeptEnding]:
        """The same, with the instances whose endings they are."""
        kept: list[KeptEnding] = []
        for line in self._tail.poll():
            ending = ending_of(line.record)
            if ending is None:
                self._unknown += 1
            else:
                kept.append(KeptEnding(line.path.parent.name, ending))
        return sorted(kept, key=lambda one: one.ending.ended_at)


class LogRecord:
    """The log lines of all programs below this home; each `poll` returns those that were added since the last."""

    def __init__(self, paths: Paths) -> None:
        self._tail = Tail(lambda: _log_files(paths))

    @property
    def skipped(self) -> int:
        """Lines that are no JSON object."""
        return self._tail.skipped

    def poll(self) -> list[dict[str, Any]]:
        """The lines added since the last call, merged by time."""
        # All carry RFC 3339 in UTC with nine digits, so text order is time order.
        records = [line.record for line in self._tail.poll()]
        return sorted(records, key=lambda record: str(record.get("time", "")))


def ending_of(record: dict[str, Any]) -> Ending | None:
    """The ending that an object describes, or None if it describes none."""
    try:
        return msgspec.convert(record, Ending)
    except msgspec.ValidationError:
        return None


def _log_files(paths: Paths) -> Iterable[Path]:
    # A rotated log's name has a number behind it.
    return sorted(paths.log_dir.glob("*.log*"))
