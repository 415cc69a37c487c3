"""Asking a program to leave, and waiting until it has: what `stop` and `sign-out` have in common."""

import time
from typing import Literal

import msgspec
import psutil

from .contract import Departure
from .instances import Instance, connect
from .output import ExitCode, Failure, Options
from .paths import Paths
from .record import EndingsRecord

Reason = Literal["shutting_down", "signed_out"]

POLL_S = 0.005
"""How often a process that is not our child is looked at: its end cannot be waited for."""


class StopAccepted(msgspec.Struct, frozen=True):
    """A program's answer to `stop`: it is leaving, and this is the trace of it."""

    trace: str | None = None


def leave(paths: Paths, instance: Instance, options: Options, *, reason: Reason, now: bool = False) -> Departure:
    """Have a program leave, and return once its process is gone.

    Raises:
        Failure: it did not leave within ``--timeout`` (exit 5), or could not be asked.
    """
    record = EndingsRecord(paths, instance.name)
    record.poll()  # what ended before is not this departure's doing
    process = _process(instance)
    began = time.monotonic()
    with connect(instance, options) as connection:
        accepted = connection.request(StopAccepted, "stop", args={"reason": reason, "now": now})
    if process is not None:
        _wait(process, instance, options)
    left_after_ms = (time.monotonic() - began) * 1000
    endings = record.poll()
    return Departure(
        instance=instance.name,
        pid=instance.pid,
        reason=reason,
        trace=accepted.trace,
        left_after_ms=round(left_after_ms, 3),
        endings=len(endings),
        unacknowledged=sum(ending.acknowledged is False for ending in endings),
    )


def exit_code(departure: Departure, *, strict: bool) -> ExitCode:
    """0, or with ``--strict`` 8 if some goodbyes were not acknowledged."""
    return ExitCode.UNACKNOWLEDGED if strict and departure.unacknowledged else ExitCode.OK


def sentence(departure: Departure, *, has_connections: bool = True) -> str:
    """What happened, for people. `has_connections`: whether it is a program that would have had any."""
    if not has_connections:
        return f"{departure.instance} left after {departure.left_after_ms:.0f} ms."
    goodbyes = "no connection was open"
    if departure.endings:
        count = departure.unacknowledged
        goodbyes = f"{departure.endings} connection{'' if departure.endings == 1 else 's'} ended, "
        goodbyes += "every goodbye acknowledged" if count == 0 else f"{count} without an acknowledged goodbye"
    return f"{departure.instance} left after {departure.left_after_ms:.0f} ms: {goodbyes}."


def _process(instance: Instance) -> psutil.Process | None:
    # psutil remembers when the process was created: a later process of the same number is another one.
    try:
        return psutil.Process(instance.pid)
    except psutil.NoSuchProcess:
        return None


def _wait(process: psutil.Process, instance: Instance, options: Options) -> None:
    """Return once the process has ended. One whose parent has not asked for its exit code yet has ended too."""
    deadline = time.monotonic() + options.timeout_s
    while _runs(process):
        if time.monotonic() > deadline:
            message = f"{instance.name} (pid {instance.pid}) has not left after {options.timeout_s:g} s."
            raise Failure("timeout", message, f"exeunt stop --now --instance {instance.name} does not wait.")
        time.sleep(POLL_S)


def _runs(process: psutil.Process) -> bool:
    try:
        # is_running compares creation times: a later process of the same number is another one.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
