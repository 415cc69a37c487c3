"""`exeunt ping PEER`: round trips through the tunnel, and the path each one took."""

import time
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from ..contract import Pong
from ..durations import Duration
from ..instances import Connection, connect, pick
from ..output import ACCENT, DEFAULTS, ExitCode, Failure, Options, emit_line, show
from ..paths import current
from ..views.design import state
from ..views.printable import milliseconds, printable

MARGIN_S = 1.0
"""The program answers at its own deadline; we wait a little longer for that answer."""


def run(
    peer: str,
    /,
    *,
    count: Annotated[int, Parameter(name=["--count", "-c"], validator=Number(gte=1))] = 4,
    interval: Duration = 1.0,
    options: Options = DEFAULTS,
) -> int:
    """Measure round trips through the tunnel, and by which path. Exits with 5 if no answer came.

    Args:
        peer: Whom to ask, as exeunt status lists it.
        count: How many times.
        interval: How long to wait in between: 500ms, 2s.
        options: The options that every command takes.
    """
    pongs: list[Pong] = []
    with connect(pick(current(), options), options) as program:
        for seq in range(1, count + 1):
            if pongs:
                time.sleep(interval)
            pong = _round_trip(program, peer, seq, options.timeout_s)
            pongs.append(pong)
            _show(pong, options)
    times_ms = [pong.rtt_ms for pong in pongs if pong.rtt_ms is not None]
    if not options.json and not options.quiet:
        show(_summary(len(pongs), times_ms), options)
    return ExitCode.OK if times_ms else ExitCode.TIMED_OUT


def _round_trip(program: Connection, peer: str, seq: int, timeout_s: float) -> Pong:
    try:
        pong = program.request(
            Pong, "ping", timeout_s=timeout_s + MARGIN_S, args={"peer": peer, "timeout_s": timeout_s}
        )
    except Failure as failure:
        if failure.error.code != "timeout":
            raise
        return Pong(peer=peer, seq=seq)
    return Pong(peer=pong.peer, rtt_ms=pong.rtt_ms, path=pong.path, seq=seq)


def _show(pong: Pong, options: Options) -> None:
    if options.json:
        emit_line("exeunt.ping/1", pong)
        return
    line = Text(printable(pong.peer), style=ACCENT)
    if pong.rtt_ms is None:
        line.append("  no answer", style="red")
    else:
        line.append(f"  {milliseconds(pong.rtt_ms):>8}  ", style="default").append_text(state(pong.path))
    show(line, options)


def _summary(sent: int, times_ms: list[float]) -> Text:
    summary = Text(f"{len(times_ms)} of {sent} answered", style="dim")
    if times_ms:
        mean = sum(times_ms) / len(times_ms)
        low, middle, high = (milliseconds(value) for value in (min(times_ms), mean, max(times_ms)))
        summary.append(f"; least {low}, mean {middle}, most {high}")
    return summary
