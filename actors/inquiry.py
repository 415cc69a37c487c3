"""Asking several connections how they are, at once; one that has just ended is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from exeunt.runtime import ExeuntError, Ref

from .peer.messages import DescribePeer, PeerDescription

PATIENCE_S = 1.0
"""What `exeunt status` may wait for a worker that is busy."""


async def describe_peers(peers: Iterable[Ref]) -> tuple[PeerDescription, ...]:
    """Return the descriptions of those who answer."""
    answers = await asyncio.gather(*(_describe(peer) for peer in peers))
    return tuple(answer for answer in answers if answer is not None)


async def _describe(peer: Ref) -> PeerDescription | None:
    try:
        answer: PeerDescription = await peer.ask(DescribePeer(), timeout_s=PATIENCE_S)
    except ExeuntError:
        return None
    return answer
