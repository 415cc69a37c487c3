"""What actors say happened, independent of the runtime: one line for each fact, written before it can be lost.

A line is one `write` to a file that is only appended to: it is there though its process is killed in the next moment.
Each life of a worker has its own file, named by its pid. Numbers are the ids of envelopes, which is what the runtime's
own evidence, the flight recorder, names messages by.

    S id to            a tell is about to be sent
    A id to            an ask is about to be made
    E id outcome ms    it has ended so, after so long
    B id               a handler has begun
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from exeunt.runtime import ExeuntError
from exeunt.runtime.node import Node

NAMED = frozenset(
    {"answered", "RemoteFailure", "Refused", "ActorDead", "MailboxFull", "AskTimeout", "AskCycle", "asker ended"}
)


class Book:
    """Where the actors of one life of a worker write."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def of(cls, node: Node, directory: str) -> Book:
        """Return the book of this life of a worker; open it for whoever comes first."""
        book = node.resources.get("book")
        if book is None:
            book = node.resources["book"] = cls(Path(directory) / f"{node.worker}.{os.getpid()}.{node.life}.book")
        assert isinstance(book, Book)
        return book

    def write(self, *fact: object) -> None:
        """Write a line."""
        os.write(self._descriptor, (" ".join(map(str, fact)) + "\n").encode())

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


class Facts:
    """What one book says."""

    def __init__(self, file: Path) -> None:
        worker, pid, life, _ = file.name.split(".")
        self.worker, self.pid, self.life = worker, int(pid), int(life)
        self.told: dict[int, str] = {}
        """To whom, by id."""
        self.asked: dict[int, str] = {}
        self.ended: dict[int, str] = {}
        """How asks ended, by id."""
        self.begun: Counter[int] = Counter()
        self.slowest_ms = 0.0
        for line in file.read_text().splitlines():
            what, id_, *rest = line.split(" ", 2)
            if what == "S":
                self.told[int(id_)] = rest[0]
            elif what == "A":
                self.asked[int(id_)] = rest[0]
            elif what == "B":
                self.begun[int(id_)] += 1
            else:
                outcome, _, took_ms = rest[0].rpartition(" ")
                self.ended[int(id_)] = outcome
                self.slowest_ms = max(self.slowest_ms, float(took_ms))


def next_id(node: Node) -> int:
    """Return the id of the envelope that this node makes next. On its loop only."""
    return int(repr(node.ids).removeprefix("count(").removesuffix(")"))


def name_of(error: BaseException) -> str:
    """Return what an ask ended with; nothing that has no name of ours is expected."""
    return type(error).__name__ if isinstance(error, ExeuntError) else f"unnamed {type(error).__name__}"
