"""Answerers: the checks of idle peers are answered in the call that reads them, and Python looks at the books later.

A gateway with a thousand idle peers is asked 400 times a second whether it is there. Each of these checks differs from
the one before by its transaction id and what is computed from it, and nothing follows from it but an answer, and that
the peer was heard. So where there is a native kernel a session at rest gets an *answerer* (`_answer.h`): it knows the
one request that it answers, from where, and under which key. Whatever differs is left to Python as it was found, and so
is what comes behind it with the same USERNAME in that reading.

An answerer's owner closes it before anything that it says is no longer so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Answerer(Protocol):
    """One session's."""

    def books(self) -> tuple[int, float, float]:
        """Return how many checks were answered, and when the peer was heard the last time but one, and the last time,
        in seconds of the monotonic clock; since it was opened. Before the first answer that is `heard_at`, as told.
        """
        ...

    def nominations(self) -> bytes:
        """Return the transaction ids that have nominated, the oldest first, one behind the other, 64 at most."""
        ...


class Answers(Protocol):
    """A worker's. All calls come from one thread."""

    def answer(
        self,
        *,
        owner: object,
        key: bytes,
        asked: bytes,
        nominates: bool,
        nominations: bytes,
        descriptor: int,
        remote: bytes,
        local: bytes,
        heard_at: float,
        quiet_s: float,
    ) -> Answerer | None:
        """Begin to answer for a session, or return None where libcrypto does not do what it takes.

        Answered are requests with these attributes, USERNAME first, before their integrity and fingerprint, under this
        key of at most 64 bytes; that a socket's descriptor has brought from a remote address (port, scope and address,
        as in `contract.Received`) to a local one (4 or 16 bytes). If they nominate, their ids are kept behind those
        that are told. The peer was heard at a time, and is missed when it has not been for so long.

        Raises:
            ValueError: the USERNAME has an answerer already, or what is told makes no sense.
        """
        ...

    def answer_no_more(self, answerer: Answerer, /) -> None:
        """Answer nothing any more; what is in the books stays there. Idempotent."""
        ...

    def silent_by(self, then: float, /) -> tuple[Sequence[Any], float]:
        """Return the owners of those whose peers will be missed by then, if they are not heard, and when the next of
        the others will be; infinity: there is none.
        """
        ...
