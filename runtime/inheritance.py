"""What a worker that is restarted hands over to its successor: documents and descriptors, by key. Pure.

    worker                    supervisor                     successor
      │  part 1 of "c1" ⟨d⟩       │                               │
      │  part 2 of "c1"           │                               │
      │  … leaves                 │           starts …            │
      │                           │  part 1 of "c1" ⟨d⟩           │
      │                           │  part 2 of "c1"               │
      │                           │  that is all                  │   … its actors begin
      │                           │              taken "c1"       │

The supervisor reads none of it. It is kept in memory only, and forgotten when it has been taken, or nobody has come for
it in time; what it stood for is dead then, and the supervisor says so with the words that were deposited for it
(`last_words`), which stay in its keeping until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

HAND_OVER: Final = "hand_over"
"""The reason with which the actors of a worker are stopped that is to be succeeded."""

PART_BYTES: Final = 32 * 1024
"""Of a document in one message."""

MAX_BYTES: Final = 64 << 20
"""All documents of one worker."""

MAX_KEYS: Final = 8192
MAX_PARTS: Final = 512

DEADLINE_S: Final = 5.0
"""From the end of a worker to its successor's having taken everything. A cold start on a slow disk takes a second; the
other ends take twice as long, at the least, to conclude anything from the silence."""


class Part(msgspec.Struct, frozen=True, kw_only=True, tag="part"):
    """A piece of a document. The descriptors come with the first one."""

    key: str
    number: int
    """From 0."""
    count: int
    document: bytes


class Taken(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """The successor has gone on with it."""

    key: str


class Complete(msgspec.Struct, frozen=True, kw_only=True, tag="complete"):
    """To a successor: that is all."""


class Bequest(msgspec.Struct, kw_only=True):
    """One document, and the descriptors that belong to it, in the order in which they were given."""

    document: bytes
    descriptors: list[int]


def parts(key: str, document: bytes) -> Iterator[Part]:
    """Cut a document. Raises ValueError when it is too long."""
    count = max(1, -(-len(document) // PART_BYTES))
    if count > MAX_PARTS:
        raise ValueError(f"a document has at most {MAX_PARTS * PART_BYTES} bytes, not {len(document)}")
    for number in range(count):
        piece = document[number * PART_BYTES : (number + 1) * PART_BYTES]
        yield Part(key=key, number=number, count=count, document=piece)


class Assembly:
    """Puts parts together again, in the order in which they were sent, within bounds."""

    def __init__(self) -> None:
        self.bequests: dict[str, Bequest] = {}
        """The complete ones, by key."""
        self._begun: dict[str, tuple[Part, list[bytes], list[int]]] = {}
        self._bytes = 0

    def add(self, part: Part, descriptors: list[int]) -> bool:
        """Take in a part with its descriptors; False when it makes no sense, and then they are still the caller's.

        A key that comes again is refused: its owner has handed it over already.
        """
        began, pieces, kept = self._begun.get(part.key, (part, [], descriptors))
        fits = (
            0 < part.count <= MAX_PARTS
            and part.number == len(pieces)
            and part.count == began.count
            and len(part.document) <= PART_BYTES
            and part.key not in self.bequests
            and len(self.bequests) + len(self._begun) < MAX_KEYS
            and self._bytes + len(part.document) <= MAX_BYTES
            and (part.number == 0 or not descriptors)
        )
        if not fits:
            return False
        self._bytes += len(part.document)
        pieces.append(part.document)
        if len(pieces) == part.count:
            self._begun.pop(part.key, None)
            self.bequests[part.key] = Bequest(document=b"".join(pieces), descriptors=kept)
        else:
            self._begun[part.key] = began, pieces, kept
        return True

    def take(self, key: str) -> Bequest | None:
        """Take a complete one out."""
        bequest = self.bequests.pop(key, None)
        if bequest is not None:
            self._bytes -= len(bequest.document)
        return bequest

    def take_descriptors(self) -> list[int]:
        """Forget everything; return the descriptors that are left."""
        left = [kept for _, _, kept in self._begun.values()] + [one.descriptors for one in self.bequests.values()]
        self._begun.clear()
        self.bequests.clear()
        self._bytes = 0
        return [descriptor for descriptors in left for descriptor in descriptors]
