"""`exeunt ps`: every actor, and the worker that hosts it."""

from ..contract import ActorRow
from ..instances import connect, pick
from ..output import DEFAULTS, Options, emit
from ..paths import current


def run(*, options: Options = DEFAULTS) -> None:
    """List the actors of a program: state, worker, mailbox, restarts.

    Args:
        options: The options that every command takes.
    """
    from ..views import actors as view

    with connect(pick(current(), options), options) as program:
        actors = program.request(list[ActorRow], "ps")
    emit("exeunt.ps/1", actors, options=options, human=lambda: view.render(actors))
