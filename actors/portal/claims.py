"""Fitting the connections that outlived a link into frames."""

from collections.abc import Iterator

import msgspec

from .messages import MAX_CLAIMS, MAX_PEER_FRAME_BYTES, LiveConnection

CLAIM_BYTES = MAX_PEER_FRAME_BYTES // 2
"""What claims may take up of a frame; the join's other fields need less than 2 kB."""


def in_frames(connections: tuple[LiveConnection, ...]) -> Iterator[tuple[LiveConnection, ...]]:
    """The connections in portions that fit, in order; always at least one portion, if an empty one."""
    portion: list[LiveConnection] = []
    taken_bytes = 0
    for connection in connections:
        size_bytes = len(msgspec.json.encode(connection)) + 1
        if portion and (len(portion) == MAX_CLAIMS or taken_bytes + size_bytes > CLAIM_BYTES):
            yield tuple(portion)
            portion, taken_bytes = [], 0
        portion.append(connection)
        taken_bytes += size_bytes
    yield tuple(portion)
