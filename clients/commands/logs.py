"""`exeunt logs`: the logs of all processes, merged by time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter
from cyclopts.validators import Number

from ..durations import Duration
from ..output import DEFAULTS, Options, console, emit_line, fail, talk
from ..paths import current
from ..record import LogRecord
from ..views.log import SEVERITIES, render

POLL_S = 0.2
"""Between two looks at the files; a person does not notice it."""


class _Filter(NamedTuple):
    actor: str | None
    severity: str
    event: str | None
    instance: str | None
    since: str

    def admits(self, record: Mapping[str, Any]) -> bool:
        return (
            self.of_actor(record)
            and _rank(record.get("severity")) >= _rank(self.severity)
            and (self.event is None or record.get("event") == self.event)
            and (self.instance is None or record.get("instance") == self.instance)
            and str(record.get("time", "")) >= self.since
        )

    def of_actor(self, record: Mapping[str, Any]) -> bool:
        """Whether it is of the actor (by address or last part) or of the worker asked for."""
        actor = str(record.get("actor", ""))
        return self.actor is None or self.actor in {actor, actor.rpartition("/")[2], record.get("worker")}


def run(
    actor: str | None = None,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", show_default=False)] = False,
    level: Literal["debug", "info", "warning", "error"] = "debug",
    event: str | None = None,
    since: Duration | None = None,
    lines: Annotated[int | None, Parameter(name=["--lines", "-n"], validator=Number(gte=0))] = None,
    options: Options = DEFAULTS,
) -> None:
    """Read the logs of all processes, merged by time. With --json one line each.

    Args:
        actor: Only this actor's lines, or this worker's.
        follow: Wait for more, until interrupted.
        level: The least severity shown.
        event: Only lines with this event.
        since: Only the last 30s, 5m, 2h.
        lines: Only the last so many.
        options: The options that every command takes.
    """
    wanted = _Filter(actor, level.upper(), event, options.instance, _moment_ago(since))
    record = LogRecord(current())
    found = record.poll()
    if actor is not None and not follow and not any(map(wanted.of_actor, found)):
        fail("no_such_actor", f"No log line is of {actor}.", "exeunt ps lists the actors that run.")
    admitted = [line for line in found if wanted.admits(line)]
    _show(admitted if lines is None else admitted[len(admitted) - min(lines, len(admitted)) :], options)
    if record.skipped:
        talk(options, f"{record.skipped} damaged lines were passed over.", style="yellow")
    while follow:
        time.sleep(POLL_S)
        _show([line for line in record.poll() if wanted.admits(line)], options)


def _show(lines: list[dict[str, Any]], options: Options) -> None:
    if options.json:
        for line in lines:
            emit_line("exeunt.log/1", line, at=str(line.get("time", "")))
        return
    terminal = console(options)
    for line in lines:
        # A terminal gets its lines broken between words; a pipe gets them whole, for grep.
        terminal.print(render(line, verbose=options.verbose), soft_wrap=not terminal.is_terminal)


def _moment_ago(since_s: float | None) -> str:
    return "" if since_s is None else (datetime.now(UTC) - timedelta(seconds=since_s)).isoformat()


def _rank(severity: Any) -> int:
    # What has no known severity is shown rather than hidden.
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)
