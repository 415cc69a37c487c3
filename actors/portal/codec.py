"""Frames to messages and back.

What arrives is hostile: it may be no JSON, no object, nested a thousand levels deep, or of a type this side
never heard of. `decode` sorts that into a message, `UnknownMessage` (tolerated: the other end may be newer)
and `MalformedFrame` (answered with `Error`). Both are counted by who calls it; neither says anything about
the sender's good faith.
"""

from types import UnionType
from typing import Any, Generic, TypeVar, get_args

import msgspec

from .messages import Error, FromPeer, FromPortal, Message

M = TypeVar("M")


class MalformedFrame(ValueError):  # named for what happened
    """The frame is not one of our messages; the text says where it went wrong."""


class UnknownMessage(ValueError):  # likewise
    """A well-formed object of a `type` that this side does not know."""


class Decoded(msgspec.Struct, Generic[M], frozen=True):
    """A message, and how many of its fields this side does not know."""

    message: M
    unknown_fields: int


class Decoder(Generic[M]):
    """Decodes the messages of one direction. Frames longer than `max_bytes` are malformed."""

    def __init__(self, union: UnionType, *, max_bytes: int) -> None:
        self._types: dict[str, type[Message]] = {tag_of(kind): kind for kind in get_args(union)}
        self._max_bytes = max_bytes

    def decode(self, frame: str | bytes) -> Decoded[M]:
        """The message in a text frame.

        Raises:
            MalformedFrame: it is none.
            UnknownMessage: its `type` is unknown here.
        """
        if not isinstance(frame, str):
            raise MalformedFrame("a binary frame")
        if len(frame) > self._max_bytes:
            raise MalformedFrame("too long")
        try:
            fields: Any = msgspec.json.decode(frame)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise MalformedFrame(str(error)) from None
        if not isinstance(fields, dict):
            raise MalformedFrame("not an object")
        return self._convert(fields)  # pyright: ignore[reportUnknownArgumentType]  # JSON objects have string keys

    def _convert(self, fields: dict[str, Any]) -> Decoded[M]:
        tag = fields.get("type")
        if not isinstance(tag, str):
            raise MalformedFrame("no type")
        kind = self._types.get(tag)
        if kind is None:
            raise UnknownMessage(tag[:64])
        try:
            message: Any = msgspec.convert(fields, kind)
        except (msgspec.ValidationError, RecursionError, ValueError) as error:
            raise MalformedFrame(f"{tag}: {error}") from None
        unknown = len(fields.keys() - set(kind.__struct_encode_fields__) - {"type"})
        return Decoded(message, unknown)


def tag_of(kind: type[Message]) -> str:
    """The `type` under which a message travels."""
    return str(kind.__struct_config__.tag)


def encode(message: Message) -> str:
    """The text frame of a message."""
    return msgspec.json.encode(message).decode()


def error_about(problem: MalformedFrame | UnknownMessage) -> Error:
    """What to answer to a frame that `decode` refused. Never echoes more than a line of it."""
    code = "unknown_message" if isinstance(problem, UnknownMessage) else "malformed_frame"
    printable = "".join(c if c.isprintable() else "?" for c in str(problem))
    return Error(code=code, message=printable[:256])


def peer_decoder(max_bytes: int) -> Decoder[FromPeer]:
    """For the portal: what peers send."""
    return Decoder(FromPeer, max_bytes=max_bytes)


def portal_decoder(max_bytes: int) -> Decoder[FromPortal]:
    """For a peer: what its portal sends."""
    return Decoder(FromPortal, max_bytes=max_bytes)
