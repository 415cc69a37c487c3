"""`exeunt show`: one actor, from its spec to what it handled last."""

from ..inspection_contract import ActorDetail
from ..instances import connect, pick
from ..output import DEFAULTS, Options, emit
from ..paths import current


def run(actor: str, /, *, options: Options = DEFAULTS) -> None:
    """Show one actor: spec, state, mailbox, last messages, restarts, and its own account of its state.

    Args:
        actor: Its address, or worker/name, or its name where no other has it.
        options: The options that every command takes.
    """
    from ..views import detail as view

    with connect(pick(current(), options), options) as program:
        detail = program.request(ActorDetail, "show", args={"actor": actor})
    emit("exeunt.show/1", detail, options=options, human=lambda: view.render(detail))
