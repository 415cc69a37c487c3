"""`exeunt events`: what happened to actors, workers and connections, and what happens now."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ..inspection_contract import EventRow
from ..instances import connect, pick
from ..output import DEFAULTS, Options, console, emit_line, talk
from ..paths import current

_KEPT = 500
"""More than a program keeps."""


def run(
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="", show_default=False)] = False,
    actor: str | None = None,
    type: str | None = None,
    lines: Annotated[int | None, Parameter(name=["--lines", "-n"], validator=Number(gte=0))] = None,
    options: Options = DEFAULTS,
) -> None:
    """List what a program's actors, workers and connections went through. With --json one line each.

    Args:
        follow: Wait for more, until interrupted or the program leaves.
        actor: Only what happened to this actor (by address or any end of it) or worker.
        type: Only events of this type, such as ChildRestarted.
        lines: Only the last so many of those that have happened.
        options: The options that every command takes.
    """

    def wanted(event: Mapping[str, Any]) -> bool:
        return _is_of(str(event.get("of", "")), actor) and (type is None or event.get("type") == type)

    with connect(pick(current(), options), options) as program:
        found = [event for event in program.request(list[dict[str, Any]], "events") if wanted(event)]
        passed_over = 0 if lines is None else max(0, len(found) - lines)
        if not follow:
            for event in found[passed_over:]:
                _show(event, options)
            if not found:
                talk(options, f"{program.instance.name} has told of no {'such ' if actor or type else ''}event.")
            return
        # What happened before is sent again, on the connection that carries what follows: nothing is missed between.
        for number, event in enumerate(filter(wanted, program.follow(recent=_KEPT))):
            if number >= passed_over:
                _show(event, options)


def _is_of(of: str, actor: str | None) -> bool:
    return actor is None or of == actor or of.endswith(f"/{actor}") or of.split("/")[1:2] == [actor]


def _row(event: Mapping[str, Any]) -> EventRow:
    fields = {key: value for key, value in event.items() if key not in {"type", "at", "of"}}
    of = event.get("of")
    at = str(event.get("at") or datetime.now(UTC).isoformat())
    return EventRow(type=str(event.get("type", "")), at=at, of=str(of) if of is not None else None, fields=fields)


def _show(event: Mapping[str, Any], options: Options) -> None:
    row = _row(event)
    if options.json:
        emit_line("exeunt.events/1", row, at=row.at)
        return
    from ..views.events import render

    terminal = console(options)
    terminal.print(render(row), soft_wrap=not terminal.is_terminal)
