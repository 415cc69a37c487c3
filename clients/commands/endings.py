"""`exeunt endings`: every ended connection, with its cause and how long it took to know."""

import time
from typing import Annotated

from cyclopts import Parameter

from ..output import DEFAULTS, Options, emit, emit_line, show, talk
from ..paths import current
from ..record import EndingsRecord

POLL_S = 0.2
"""Between two looks at the files; a person does not notice it."""


def run(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """List ended connections: cause, who ended it, how long it took to know. Also when nothing runs.

    Args:
        follow: Wait for more, until interrupted.
        options: The options that every command takes.
    """
    from ..views import endings as view

    record = EndingsRecord(current(), options.instance)
    endings = record.poll()
    if options.json and follow:
        emit_line("exeunt.endings/1", endings)
    else:
        emit("exeunt.endings/1", endings, options=options, human=lambda: view.render(endings))
    if record.skipped:
        talk(options, f"{record.skipped} damaged lines were passed over.", style="yellow")
    while follow:
        time.sleep(POLL_S)
        if added := record.poll():
            if options.json:
                emit_line("exeunt.endings/1", added)
            else:
                show(view.render(added), options)
