"""`exeunt status`: the session, its peers and resources, and what is wrong."""

import msgspec

from ..contract import Problem, Status
from ..instances import connect, pick
from ..output import DEFAULTS, ExitCode, Options, emit, fail
from ..paths import current


class _Answer(Status, frozen=True, kw_only=True):
    """What a program answers: the document's data, and the problems that go beside it."""

    problems: tuple[Problem, ...] = ()


def run(peer: str | None = None, /, *, options: Options = DEFAULTS) -> int:
    """Show the session, resources, peers and problems. Exits with 3 while not connected.

    Args:
        peer: Show this peer only.
        options: The options that every command takes.
    """
    from ..views import status as view

    with connect(pick(current(), options), options) as program:
        answer = program.request(_Answer, "status")
    status = Status(session=answer.session, resources=answer.resources, peers=answer.peers)
    if peer is not None:
        peers = [found for found in status.peers if found.peer == peer]
        if not peers:
            fail("no_such_peer", f"There is no connection with {peer}.", f"exeunt why {peer} tells how it ended.")
        status = msgspec.structs.replace(status, peers=peers, resources=[])
    emit("exeunt.status/1", status, options=options, human=lambda: view.render(status), problems=answer.problems)
    return ExitCode.OK if status.session == "connected" else ExitCode.NOT_RUNNING
