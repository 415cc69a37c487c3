"""Actors and the workers that host them, as tables."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..inspection_contract import ActorRow
from .design import state, table
from .printable import dash, printable, show_duration, size


def render(actors: Sequence[ActorRow]) -> RenderableType:
    """A table of actors, and below it one of their workers."""
    nodes = {actor.address.partition("/")[0] for actor in actors}
    listed = table("ACTOR", "STATE", "QUEUE", "HANDLED", "RESTARTS", "FOR", right=_NUMBERS)
    for actor in actors:
        # node/worker/name: the node is worth its space only where there are several.
        address = actor.address.partition("/")[2] if len(nodes) == 1 else actor.address
        listed.add_row(
            printable(address or actor.address),
            state(actor.state),
            Text(str(actor.mailbox), style="yellow" if _is_filling(actor) else ""),
            str(actor.handled_total),
            Text(str(actor.restarts), style="yellow" if actor.restarts else ""),
            show_duration(actor.since_s),
        )
    return Group(listed, Text(), _workers(actors))


def _is_filling(actor: ActorRow) -> bool:
    """Whether the mailbox is half full."""
    return actor.mailbox * 2 >= actor.mailbox_bound > 0


_ABSENT = frozenset({"backoff", "exited", "fatal"})

_NUMBERS = frozenset({"QUEUE", "HANDLED", "RESTARTS", "FOR", "PID", "CPU", "MEMORY", "ACTORS"})


def _workers(actors: Sequence[ActorRow]) -> RenderableType:
    listed = table("WORKER", "PID", "ACTORS", "CPU", "MEMORY", right=_NUMBERS)
    by_worker = {actor.worker: actor for actor in actors}
    for name, actor in by_worker.items():
        hosted = sum(other.worker == name and other.state not in _ABSENT for other in actors)
        cpu = None if actor.cpu_percent is None else f"{actor.cpu_percent:.1f}"
        listed.add_row(printable(name), dash(actor.pid), str(hosted), dash(cpu, " %"), size(actor.rss_bytes))
    return listed
