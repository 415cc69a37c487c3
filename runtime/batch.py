"""What one loop turn has produced for one worker: runs of envelopes, to leave as one frame.

A tell that follows the one before it, from the same actor to the same actor for the same cause, lengthens its run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .codec import MAX_RUN, Codec, Run
from .envelope import TELL, Envelope
from .errors import Unencodable

_ENOUGH = 32  # runs; the other side may as well begin with them while this turn goes on

Unsendable = Callable[[Envelope, Unencodable], None]


class Batch:
    """The runs that wait for the end of the turn."""

    __slots__ = ("_codec", "_kind", "_next_id", "_run", "runs")

    def __init__(self, codec: Codec) -> None:
        self.runs: list[Run] = []
        self._codec = codec
        self._run: Run | None = None  # the last one
        self._next_id = -1  # that would lengthen it
        self._kind: type = type(None)  # of its first body, which may cross

    def __bool__(self) -> bool:
        return bool(self.runs)

    def add(self, envelope: Envelope) -> bool:
        """Append an envelope; say whether that is enough for a frame. Raises UnknownMessage when its type may not
        cross.
        """
        run = self._run
        if (
            run is not None
            and envelope.id == self._next_id
            and envelope.to == run.to
            and envelope.cause == run.cause
            and envelope.sender == run.sender
            and envelope.trace == (run.trace or envelope.id)
            and envelope.kind == TELL
            and (type(envelope.body) is self._kind or self._codec.knows(envelope.body))
        ):
            run.bodies.append(envelope.body)
            self._next_id += 1
            return len(run.bodies) >= MAX_RUN
        self._run = run = self._codec.run(envelope)
        self._next_id = envelope.id + 1 if run.kind == TELL else -1
        body: object = envelope.body
        self._kind = type(body)
        self.runs.append(run)
        return len(self.runs) >= _ENOUGH

    def frames(self, unsendable: Unsendable) -> Iterator[bytes]:
        """Yield the frames, one if nothing is wrong; name what msgpack can't carry, and send the rest."""
        try:
            yield self._codec.encode(self.runs)
        except Unencodable:
            for run in self.runs:
                yield from self._alone(run, unsendable)

    def _alone(self, run: Run, unsendable: Unsendable) -> Iterator[bytes]:
        for number, body in enumerate(run.bodies):
            id_ = run.id + number
            one = Run(id_, run.trace, run.cause, run.sender, run.to, run.kind, run.deadline_ns, run.chain, [body])
            try:
                yield self._codec.encode([one])
            except Unencodable as error:
                trace = run.trace or id_
                unsendable(Envelope(id_, trace, run.cause, run.sender, run.to, run.kind, run.deadline_ns, body), error)
