"""`exeunt restart`: an actor, a worker or a supervisor is started again, and lives when this returns.

With `--all`, every worker that can hand over to a successor, one after another: what they carry goes on, and so a
program runs other code without anybody noticing. Only the supervisor itself keeps its code until the program ends.
"""

import time
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from ..inspection_contract import ActorRow, Restart
from ..instances import Connection, connect, pick
from ..output import DEFAULTS, Options, emit, fail
from ..paths import current

POLL_S = 0.01
"""How often a program is asked whether the successor lives."""


_ON_THEIR_WAY = frozenset({"starting", "backoff"})
"""States of actors that will live again."""


class _Accepted(msgspec.Struct, frozen=True):
    """What lived there when the program was asked."""

    kind: Literal["actor", "worker", "supervisor"]
    name: str
    pid: int | None = None
    """A worker's."""
    epoch: int | None = None
    """A worker's."""
    members: dict[str, int] = {}
    """The incarnation of each actor that is to be replaced, by address; 0 where none ever lived."""


def run(
    target: str = "",
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """Have an actor, a worker or a supervisor with all its actors started again; return once they live.

    An actor may first finish its message; it is killed when its shutdown_ms are over. The workers of a client and of a
    gateway hand over to successors: connections and session go on. Any other worker is killed at once.

    Args:
        target: An actor (address, worker/name or name), a worker's or a supervisor's name; NAME/ is the worker, and
            PROGRAM/NAME the supervisor, where others have the same name.
        all_: Restart each worker that can hand over, one after another.
        options: The options that every command takes.
    """
    if bool(target) is all_:
        fail("usage", "Name what to restart, or say --all.", "exeunt ps lists actors and workers.")
    with connect(pick(current(), options), options) as program:
        targets = [f"{worker}/" for worker in program.request(list[str], "hand_over")] if all_ else [target]
        if not targets:
            fail("not_supported", "No worker of this program can hand over.", "exeunt restart NAME restarts one.")
        for one in targets:
            _restart(program, one, options)


def _restart(program: Connection, target: str, options: Options) -> None:
    began = time.monotonic()
    before = program.request(_Accepted, "restart", args={"target": target})
    after = _successors(program, before, began + options.timeout_s)
    if after is None:
        message = f"{before.name} does not live again after {options.timeout_s:g} s."
        fail("timeout", message, "exeunt ps and exeunt stack show what becomes of it.")
    one = after[0] if after and before.kind != "supervisor" else None
    restart = Restart(
        kind=before.kind,
        name=before.name,
        restarted_after_ms=round((time.monotonic() - began) * 1000, 3),
        pid=one.pid if one is not None else None,
        incarnation=one.incarnation if one is not None and before.kind == "actor" else None,
        actors=len(after) if before.kind == "supervisor" else None,
    )
    emit("exeunt.restart/1", restart, options=options, human=lambda: _sentence(restart))


def _successors(program: Connection, before: _Accepted, deadline: float) -> list[ActorRow] | None:
    """Return the rows of the successors (of a worker: of who lives there), or None when not all live in time."""
    while time.monotonic() < deadline:
        rows = program.request(list[ActorRow], "ps")
        living = [row for row in rows if row.state == "running" and row.answering]
        if before.kind == "worker":
            found = [row for row in living if row.worker == before.name and row.worker_epoch != before.epoch]
            if found and not any(row.worker == before.name and row.state in _ON_THEIR_WAY for row in rows):
                return found
        else:
            found = [row for row in living if row.incarnation != before.members.get(row.address, row.incarnation)]
            if len(found) == len(before.members):
                return found
        time.sleep(POLL_S)
    return None


def _sentence(restart: Restart) -> str:
    match restart.kind:
        case "worker":
            what = f"as process {restart.pid}"
        case "supervisor":
            what = f"with {restart.actors} actor{'' if restart.actors == 1 else 's'}"
        case "actor":
            what = f"in {restart.name.split('/')[1]}"
    return f"{restart.name} lives again {what}, after {restart.restarted_after_ms:.0f} ms."
