"""`exeunt stack`: what the Python of a living program is doing, without stopping any of it."""

import socket

import msgspec

from ..contract import Problem
from ..inspection_contract import ProcessStacks
from ..instances import Instance, connect, pick
from ..output import DEFAULTS, Failure, Options, emit
from ..paths import Paths, current

_ANSWER_BYTES = 65_536


def run(target: str | None = None, /, *, options: Options = DEFAULTS) -> None:
    """Show Python stacks: of all workers, of one, or of one actor. Also where a handler blocks its worker.

    Args:
        target: An actor (address, worker/name or name) or a worker's name; all of them by default.
        options: The options that every command takes.
    """
    from ..views import stacks as view

    paths = current()
    instance = pick(paths, options)
    problems: list[Problem] = []
    try:
        with connect(instance, options) as program:
            args = {"target": target} if target is not None else {}
            stacks = program.request(list[ProcessStacks], "stack", args=args)
    except Failure as failure:
        if failure.error.code != "timeout":
            raise
        stacks = [_through_the_side_door(paths, instance, options, failure)]
        message = f"{instance.name} itself does not answer: these are its own process's stacks, not its workers'."
        problems.append(Problem(code="program_silent", message=message))
    problems += [
        Problem(
            code="no_python",
            message=f"No Python could run in {one.worker}: something keeps the interpreter's lock. It has frames only.",
        )
        for one in stacks
        if one.via == "signal"
    ]
    emit("exeunt.stack/1", stacks, options=options, human=lambda: view.render(stacks), problems=problems)


def _through_the_side_door(paths: Paths, instance: Instance, options: Options, failure: Failure) -> ProcessStacks:
    """Ask the program's own process, whose loop is blocked; raise `failure` where that does not answer either."""
    from exeunt.runtime.facts import Look
    from exeunt.runtime.portrait import stacks_document
    from exeunt.runtime.stacks import Stacks

    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(options.timeout_s)
        try:
            door.connect(str(paths.side_door(instance.name)))
            door.sendall(msgspec.json.encode(Look("stacks")) + b"\n")
            while more := door.recv(_ANSWER_BYTES):
                answer += more
            stacks = msgspec.msgpack.decode(answer, type=Stacks)
        except (OSError, msgspec.MsgspecError):
            raise failure from None
    return msgspec.convert(stacks_document("supervisor", stacks, ()), ProcessStacks)
