"""When is a program at rest? When no message is under way or waits, and no handler runs.

Waiting for that takes the place of sleeping: it is over as soon as it can be, and not before. An actor that merely
waits for an answer to be given later (`Later`), or for a timer, is at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from ..memory import MemoryTransport
from ..node import Node

_QUIET_TURNS = 5  # of the loop: what one turn does may only show in the next ones (a task that was just started)
_TURNS_AT_ONCE = 200  # without letting time pass
_PAUSE_S = 0.001


async def wait_until_idle(nodes: Iterable[Node], within_s: float = 5.0) -> None:
    """Return when nobody on these nodes has anything to do. Messages between them are seen if they cross by memory.

    Raises TimeoutError after `within_s` of the loop's time, with the names of those who are still busy.
    """
    nodes = list(nodes)
    until = asyncio.get_running_loop().time() + within_s
    turns = quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(_PAUSE_S if turns > _TURNS_AT_ONCE else 0)
        turns += 1
        busy = next(_busy(nodes), "")
        quiet = 0 if busy else quiet + 1
        if busy and asyncio.get_running_loop().time() > until:
            raise TimeoutError(f"still busy after {within_s:g} s: {', '.join(_busy(nodes))}")


def _busy(nodes: list[Node]) -> Iterator[str]:
    for node in nodes:
        if node.transport is not None and isinstance(node.transport, MemoryTransport) and node.transport.under_way:
            yield f"{node.transport.under_way} messages from {node.name}/{node.worker} are under way"
        for actor in list(node.actors.values()):
            if not actor.lifecycle.is_idle:
                yield str(actor.ref)
