"""Envelopes to bytes and back: msgpack by msgspec, never pickle.

A frame is what one loop turn produced for one worker: a version byte, then one msgpack array of *runs*. A run is an
envelope whose body is a list: tells of one kind that one actor sends another in a row share everything but their
bodies and their ids, which count up. One array in one call is read and written several times faster than one envelope
each.

Hostile input: a frame that cannot be read raises `MalformedFrame`; a body that cannot be read is given as
`Malformed`, so that whoever asked gets an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, cast

import msgspec

from .envelope import FAILURE, TELL, Envelope, Kind, Message
from .errors import ExeuntError, Failure, LocalError, Unencodable, UnknownMessage

VERSION = 2
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024  # far above any message, far below what would hurt
MAX_RUN = 256  # bodies; more go into the next run
MAX_CHAIN = 256  # asks within asks; who nests deeper has lost their way

_MAX_ADDRESS = 400  # characters; three parts of 100 (`address`), and what is between them

_HEADER = bytes([VERSION])


class MalformedFrame(ExeuntError):
    """The frame is not one of ours; nothing in it can be trusted."""


class Malformed(msgspec.Struct, frozen=True):
    """Stands where a body was that could not be read."""

    reason: str


_Unsigned = Annotated[int, msgspec.Meta(ge=0)]  # msgpack's integers end at 64 bits: what the flight recorder can write
_Kind = Annotated[int, msgspec.Meta(ge=int(min(Kind)), le=int(max(Kind)))]
_Address = Annotated[str, msgspec.Meta(max_length=_MAX_ADDRESS)]
_Chain = Annotated[tuple[tuple[_Address, _Unsigned], ...], msgspec.Meta(max_length=MAX_CHAIN)]
_Bodies = msgspec.Meta(max_length=MAX_RUN)  # a byte of a frame becomes an envelope of 200: not all of them at once


class Run(msgspec.Struct, array_like=True, gc=False):
    """An envelope, or several tells in a row that differ in body only, as they cross.

    The n-th body's id is `id` + n; its trace is `trace`, or its own id where `trace` is 0 (each begins one).
    """

    id: _Unsigned
    trace: _Unsigned
    cause: _Unsigned
    sender: _Address
    to: _Address
    kind: _Kind
    deadline_ns: _Unsigned
    chain: _Chain
    bodies: list[Any]


class DamagedRun(Run, gc=False):
    """A run with a body that could not be read."""


class Codec:
    """Knows every message type that may cross; one per process."""

    def __init__(self, types: Iterable[type[Message]], *, clock_ns: Any = None) -> None:
        """`clock_ns`: where the workers' clocks differ (other machines), the monotonic clock of this one: deadlines
        then cross as the time that is left.
        """
        self._types = frozenset(types)
        _check_tags(self._types)
        union: Any = Union[(*self._types, Failure, None)]
        encoder = msgspec.msgpack.Encoder()
        self._encode = encoder.encode
        self._clock_ns = clock_ns
        self._decode_runs = msgspec.msgpack.Decoder(list[_run_of(union)]).decode  # type: ignore[misc]
        self._decode_raw = msgspec.msgpack.Decoder(list[_run_of(msgspec.Raw)]).decode  # type: ignore[misc]
        self._decode_body = msgspec.msgpack.Decoder(union).decode

    def knows(self, body: object) -> bool:
        """Say whether a body's type may cross."""
        return body is None or type(body) in self._types or type(body) is Failure

    def run(self, envelope: Envelope) -> Run:
        """Begin a run with this envelope. Raises UnknownMessage when its type may not cross, and Unencodable for an ask
        within too many.
        """
        if not self.knows(envelope.body):
            raise UnknownMessage(_unknown(envelope.body))
        if len(envelope.chain) > MAX_CHAIN:
            raise Unencodable(f"{len(envelope.chain)} asks wait for one another; {MAX_CHAIN} may")
        trace = 0 if envelope.trace == envelope.id else envelope.trace
        deadline_ns = envelope.deadline_ns
        if deadline_ns and self._clock_ns is not None:
            deadline_ns = max(1, deadline_ns - self._clock_ns())
        return Run(
            envelope.id,
            trace,
            envelope.cause,
            envelope.sender,
            envelope.to,
            int(envelope.kind),
            deadline_ns,
            envelope.chain,
            [envelope.body],
        )

    def encode(self, runs: list[Run]) -> bytes:
        """Return the frame. Raises Unencodable for a value that msgpack cannot carry, or that is too large."""
        try:
            data = self._encode(runs)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unencodable(f"{_kinds(runs)}: {error}") from None
        if len(data) > MAX_ENVELOPE_BYTES:
            raise Unencodable(f"{_kinds(runs)} takes {len(data)} bytes, the bound is {MAX_ENVELOPE_BYTES}")
        return _HEADER + data

    def decode(self, frame: bytes) -> Iterator[Envelope]:
        """Yield the envelopes of a frame. Raises MalformedFrame where it makes no sense."""
        for run in self.runs(frame):
            yield from self.envelopes(run)

    def runs(self, frame: bytes) -> Iterable[Run]:
        """Return the runs of a frame. Raises MalformedFrame where it makes no sense. One with a body that could not be
        read is a `DamagedRun`.
        """
        if frame[:1] != _HEADER:
            raise MalformedFrame(f"version {frame[:1].hex() or 'missing'}, not {VERSION}")
        if len(frame) > MAX_ENVELOPE_BYTES + 1:
            raise MalformedFrame(f"{len(frame)} bytes, the bound is {MAX_ENVELOPE_BYTES}")
        data = memoryview(frame)[1:]
        try:
            runs = cast("Iterable[Run]", self._decode_runs(data))  # their typed twins, which no type checker knows
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._one_by_one(data)
        return runs

    def envelopes(self, run: Run) -> Iterator[Envelope]:
        """Yield the envelopes of a run. Raises MalformedFrame when it makes no sense."""
        id_, trace, kind, deadline_ns = run.id, run.trace, run.kind, run.deadline_ns
        sender, to, cause, chain, bodies = run.sender, run.to, run.cause, run.chain, run.bodies
        if len(bodies) != 1 and kind != TELL:
            raise MalformedFrame("only tells come in runs")
        if deadline_ns and self._clock_ns is not None:
            deadline_ns += self._clock_ns()
        for body in bodies:
            if type(body) is Failure and kind != FAILURE:
                body = Malformed("a failure answers an ask, and nothing else")  # noqa: PLW2901 - it stands in its place
            yield Envelope(id_, trace or id_, cause, sender, to, kind, deadline_ns, body, chain)
            id_ += 1

    def _one_by_one(self, data: memoryview) -> Iterator[Run]:
        """Read a frame in which something is wrong: what can be read is; a body that can't is `Malformed`."""
        try:
            raw = self._decode_raw(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedFrame(str(error)) from None
        for run in raw:
            bodies = [self._body(body) for body in run.bodies]
            yield DamagedRun(
                run.id, run.trace, run.cause, run.sender, run.to, run.kind, run.deadline_ns, run.chain, bodies
            )

    def _body(self, data: msgspec.Raw) -> Any:
        try:
            return self._decode_body(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Malformed(str(error))


def _run_of(body: Any) -> Any:
    """Return `Run` once more, with the type of its bodies, which only a codec knows."""
    fields = [
        (field.name, Annotated[list[body], _Bodies] if field.name == "bodies" else field.type)
        for field in msgspec.structs.fields(Run)
    ]
    return msgspec.defstruct("Run", fields, array_like=True, gc=False)


def _check_tags(types: Iterable[type[Message]]) -> None:
    """Raise LocalError when two types have one tag: nobody could tell which of them came."""
    seen: dict[object, type[Message]] = {}
    for kind in types:
        tag = kind.__struct_config__.tag
        other = seen.setdefault(tag, kind)
        if other is not kind:
            names = " and ".join(sorted(f"{one.__module__}.{one.__qualname__}" for one in (kind, other)))
            raise LocalError(f"{names} have the same tag, {tag!r}: give one of them another (tag=...)")


def _kinds(runs: list[Run]) -> str:
    return ", ".join(sorted({type(body).__name__ for run in runs for body in run.bodies}))


def _unknown(body: object) -> str:
    kind = type(body)
    if kind.__module__ == "__main__":
        # The workers import the same file by its name: for Python, that makes other classes.
        return f"{kind.__name__} is of __main__, which is no module to the workers: import your program, then run it"
    return f"{kind.__name__} is not among the program's messages"
