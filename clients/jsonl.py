"""Reading JSON Lines that other processes are still writing.

A line counts once its newline is there. One that does not parse (torn by a crash, damaged by a full
disk) is skipped and counted, never an error: the other lines are still evidence.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Line(NamedTuple):
    """One object, and the file it stood in."""

    path: Path
    record: dict[str, Any]


class Tail:
    """Reads a changing set of growing files, each from where it left off.

    Args:
        files: lists the files as they are now; asked at each `poll`, so that new ones are found.
    """

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self.skipped = 0
        """Lines that did not parse."""
        self._files = files
        # By device and inode, not by name: a log that is rotated keeps its place under its new name.
        self._positions: dict[tuple[int, int], int] = {}

    def poll(self) -> list[Line]:
        """The lines that were completed since the last call, file by file."""
        return [line for path in self._files() for line in self._read(path)]

    def _read(self, path: Path) -> list[Line]:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                identity = (found.st_dev, found.st_ino)
                offset = self._positions.get(identity, 0)
                file.seek(offset if offset <= found.st_size else 0)
                content = file.read()
        except FileNotFoundError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        begun_anew = offset > found.st_size
        self._positions[identity] = (0 if begun_anew else offset) + len(complete)
        records, skipped = parse(complete)
        self.skipped += skipped
        return [Line(path, record) for record in records]


def parse(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The objects in complete lines, and the number of lines that hold none."""
    records: list[dict[str, Any]] = []
    skipped = 0
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            records.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            skipped += 1
    return records, skipped
