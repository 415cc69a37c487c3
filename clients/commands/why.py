"""`exeunt why PEER`: the last ending with a peer, explained."""

from typing import Any

from ..contract import Ending, Moment, Why
from ..output import DEFAULTS, Options, emit, fail
from ..paths import Paths, current
from ..record import EndingsRecord, LogRecord
from ..views.explanation import explain, render


def run(peer: str, /, *, options: Options = DEFAULTS) -> None:
    """Explain the last ending with a peer, with its evidence and timeline.

    Args:
        peer: As exeunt endings lists it.
        options: The options that every command takes.
    """
    paths = current()
    endings = [ending for ending in EndingsRecord(paths, options.instance).poll() if ending.peer == peer]
    if not endings:
        fail("no_such_peer", f"No connection with {peer} has ended.", "exeunt endings lists all that have.")
    why = Why(
        ending=endings[-1], explanation=explain(endings[-1]), timeline=_timeline(endings[-1], _logs(paths, endings[-1]))
    )
    emit("exeunt.why/1", why, options=options, human=lambda: render(why))


def _logs(paths: Paths, ending: Ending) -> list[dict[str, Any]]:
    return [line for line in LogRecord(paths).poll() if line.get("connection") == ending.connection]


def _timeline(ending: Ending, lines: list[dict[str, Any]]) -> list[Moment]:
    moments = [
        Moment(at=ending.started_at, text="The connection began.", source="record"),
        Moment(at=ending.ended_at, text=f"It ended: {ending.cause}, by {ending.initiated_by}.", source="record"),
    ]
    if ending.last_seen_at is not None:
        text = f"{ending.peer} was heard for the last time."
        moments.append(Moment(at=ending.last_seen_at, text=text, source="record"))
    for line in lines:
        fields: dict[str, Any] = {key: line[key] for key in ("worker", "event", "path", "reason") if key in line}
        moments.append(
            Moment(at=str(line.get("time", "")), text=str(line.get("message", "")), source="log", fields=fields)
        )
    # Without the Z, a time with fewer digits sorts before one with more, as it should.
    return sorted(moments, key=lambda moment: moment.at.rstrip("Z"))
