"""`exeunt ps`: every actor, and the worker that hosts it; or what nobody handled, or what wakes the workers."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from ..contract import Problem
from ..inspection_contract import ActorRow, DeadLetters, Wakeups
from ..instances import Connection, connect, pick
from ..output import DEFAULTS, Options, emit, fail
from ..paths import current

Order = Literal["worker", "address", "state", "mailbox", "handled", "restarts", "age"]


def run(
    *,
    worker: str | None = None,
    state: str | None = None,
    sort: Order = "worker",
    dead_letters: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    wakeups: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """List the actors of a program: state, worker, mailbox, restarts.

    Args:
        worker: Only those of this worker.
        state: Only those in this state: starting, running, backoff, stopping, exited, fatal.
        sort: By worker and start, or by this, the largest or the most troubled first.
        dead_letters: List the messages that nobody handled instead.
        wakeups: List what woke each worker instead, and how often.
        options: The options that every command takes.
    """
    with connect(pick(current(), options), options) as program:
        if dead_letters:
            _dead_letters(program, worker, options)
            return
        if wakeups:
            _wakeups(program, worker, options)
            return
        actors = program.request(list[ActorRow], "ps")
    from ..views import actors as view

    problems = _problems(actors)
    if worker is not None and not any(actor.worker == worker for actor in actors):
        workers = ", ".join(dict.fromkeys(actor.worker for actor in actors))
        fail("no_such_worker", f"There is no worker {worker}.", f"There are {workers}." if workers else None)
    kept = [actor for actor in actors if worker in (None, actor.worker) and state in (None, actor.state)]
    kept = sorted(kept, key=_ORDERS[sort]) if sort in _ORDERS else kept
    emit("exeunt.ps/1", kept, options=options, human=lambda: view.render(kept), problems=problems)


_TROUBLE: Final = ("fatal", "backoff", "exited", "stopping", "starting", "running")

_ORDERS: Final[dict[str, Callable[[ActorRow], Any]]] = {
    "address": lambda actor: actor.address,
    "state": lambda actor: _TROUBLE.index(actor.state) if actor.state in _TROUBLE else 0,
    "mailbox": lambda actor: -actor.mailbox,
    "handled": lambda actor: -actor.handled_total,
    "restarts": lambda actor: -actor.restarts,
    "age": lambda actor: -actor.since_s,
}


def _problems(actors: Sequence[ActorRow]) -> list[Problem]:
    silent = dict.fromkeys(actor.worker for actor in actors if not actor.answering)
    return [
        Problem(
            code="worker_silent",
            message=f"{worker} does not answer; this is what it said last.",
            hint=f"exeunt stack {worker} shows what it does.",
        )
        for worker in silent
    ]


def _dead_letters(program: Connection, worker: str | None, options: Options) -> None:
    from ..views import dead_letters as view

    letters = program.request(DeadLetters, "dead_letters")
    if worker is not None:
        letters = DeadLetters(
            totals={name: total for name, total in letters.totals.items() if name == worker},
            letters=[letter for letter in letters.letters if letter.worker == worker],
        )
    emit("exeunt.dead-letters/1", letters, options=options, human=lambda: view.render(letters))


def _wakeups(program: Connection, worker: str | None, options: Options) -> None:
    from ..views import wakeups as view

    found = [one for one in program.request(list[Wakeups], "wakeups") if worker in (None, one.worker)]
    emit("exeunt.wakeups/1", found, options=options, human=lambda: view.render(found))
