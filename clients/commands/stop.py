"""`exeunt stop`: a program says its goodbyes, and is gone when this returns."""

from typing import Annotated

from cyclopts import Parameter

from ..departure import exit_code, leave, sentence
from ..instances import pick
from ..output import DEFAULTS, Options, emit
from ..paths import current


def run(
    *,
    now: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    strict: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Let everyone finish, then leave; return once the program is gone.

    Args:
        now: Do not wait for acknowledgements.
        strict: Exit with 8 if some goodbyes were not acknowledged.
        options: The options that every command takes.
    """
    paths = current()
    instance = pick(paths, options)
    departure = leave(paths, instance, options, reason="shutting_down", now=now)
    # A program that is built on the runtime alone has no state directory, for it has no connections.
    has_connections = departure.endings > 0 or paths.endings_file(instance.name).parent.is_dir()
    emit(
        "exeunt.stop/1",
        departure,
        options=options,
        human=lambda: sentence(departure, has_connections=has_connections),
    )
    return exit_code(departure, strict=strict)
