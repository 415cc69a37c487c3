"""`exeunt restart`: an actor or a worker is started again, and lives when this returns."""

import time

import msgspec

from ..inspection_contract import ActorRow, Restart
from ..instances import Connection, connect, pick
from ..output import DEFAULTS, Options, emit, fail
from ..paths import current

POLL_S = 0.01
"""How often a program is asked whether the successor lives."""


class _Accepted(msgspec.Struct, frozen=True):
    """What lived there when the program was asked."""

    kind: str
    name: str
    pid: int | None = None
    incarnation: int | None = None


def run(target: str, /, *, options: Options = DEFAULTS) -> None:
    """Have the supervisor restart an actor or a worker; return once its successor lives.

    Args:
        target: An actor (address, worker/name or name) or a worker's name; NAME/ is the worker where both fit.
        options: The options that every command takes.
    """
    began = time.monotonic()
    with connect(pick(current(), options), options) as program:
        before = program.request(_Accepted, "restart", args={"target": target})
        after = _successor(program, before, began + options.timeout_s)
    if after is None:
        message = f"{before.name} does not live again after {options.timeout_s:g} s."
        fail("timeout", message, f"exeunt stack {before.name} shows what it still does; a worker is restarted at once.")
    restart = Restart(
        kind="worker" if before.kind == "worker" else "actor",
        name=before.name,
        restarted_after_ms=round((time.monotonic() - began) * 1000, 3),
        pid=after.pid,
        incarnation=None if before.kind == "worker" else after.incarnation,
    )
    emit("exeunt.restart/1", restart, options=options, human=lambda: _sentence(restart))


def _successor(program: Connection, before: _Accepted, deadline: float) -> ActorRow | None:
    """Return the row of the successor (of a worker: of any actor there), or None when there is none in time."""
    while time.monotonic() < deadline:
        for row in program.request(list[ActorRow], "ps"):
            living = row.state == "running" and row.answering
            if before.kind == "worker" and row.worker == before.name and living and row.pid != before.pid:
                return row
            if row.address == before.name and living and row.incarnation != before.incarnation:
                return row
        time.sleep(POLL_S)
    return None


def _sentence(restart: Restart) -> str:
    what = f"as process {restart.pid}" if restart.kind == "worker" else f"in {restart.name.split('/')[1]}"
    return f"{restart.name} lives again {what}, after {restart.restarted_after_ms:.0f} ms."
