"""What is said to actors that are between two processes, because their worker hands over to its successor. Pure.

    others                supervisor              worker               successor
      │ ◀──── changing ────── │                      │
      │  what is for it waits │                      │
      │ ─────── noted ──────▶ │ ──── hand over ────▶ │  handles what waits, and ends
      │                       │ ◀──── late mail ──── │
      │                       │ ──────────────────── late mail ───────────▶ │
      │ ◀───── down, up ───── │                                             │  what comes waits for
      │ ──────────────────────── what has waited ─────────────────────────▶ │  the actors to be started

How the others keep what they have to say is `flow`'s; here are the two ends. What an actor that has ended is told by
others of its worker is *late*: it goes along as a document. What reaches the successor before its actors do is *early*.
An ask that was delivered and not answered fails, as when an actor ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .codec import Codec, MalformedFrame, Run
from .envelope import TELL, Envelope
from .errors import Unencodable, UnknownMessage

MAIL: Final = "$mail"
"""The key under which late mail is left; no actor has such a name."""

EARLY_BOUND: Final = 10_000
"""Messages for one actor that has still to be started: a mailbox's bound."""


class Mail:
    """Late and early mail of one node."""

    def __init__(self) -> None:
        self._late: list[Envelope] | None = None
        self._early: dict[str, list[Envelope]] = {}

    # --- in who hands over ---

    def begin(self) -> None:
        """The actors of this worker hand over, one after another: from now on keep what comes too late for them."""
        self._late = []

    def is_late(self, envelope: Envelope) -> bool:
        """Take in what was told to an actor that has ended; False when it is no tell, or nobody hands over."""
        if self._late is None or envelope.kind != TELL:
            return False
        self._late.append(envelope)
        return True

    def pack(self, codec: Codec) -> tuple[bytes, list[Envelope]]:
        """Return late mail as a document, and what cannot go along. Later mail is not kept."""
        late, self._late = self._late or [], None
        runs, left = list[Run](), list[Envelope]()
        for envelope in late:
            try:
                run = codec.run(envelope)
                codec.encode([run])
            except (Unencodable, UnknownMessage):
                left.append(envelope)
            else:
                runs.append(run)
        try:
            return codec.encode(runs), left
        except Unencodable:  # too much altogether
            return codec.encode([]), late

    # --- in who succeeds ---

    def expect(self, addresses: Iterable[str]) -> None:
        """Actors will be started at these addresses: keep what comes for them before."""
        self._early.update({address: [] for address in addresses})

    def is_early(self, envelope: Envelope) -> bool:
        """Take in what is for an actor that is still to be started; False when none is expected there."""
        waiting = self._early.get(envelope.to)
        if waiting is None or len(waiting) >= EARLY_BOUND:
            return False
        waiting.append(envelope)
        return True

    def started(self, address: str) -> list[Envelope]:
        """An actor has been started: return what waits for it."""
        return self._early.pop(address, [])

    def give_up(self) -> list[Envelope]:
        """Nobody is expected any more: return what still waits."""
        early, self._early = self._early, {}
        return [envelope for waiting in early.values() for envelope in waiting]


def unpack(document: bytes, codec: Codec) -> list[Envelope]:
    """Return late mail, in the order in which it came; nothing when the document makes no sense."""
    try:
        return list(codec.decode(document))
    except MalformedFrame:  # the successor may run other code than its predecessor
        return []
