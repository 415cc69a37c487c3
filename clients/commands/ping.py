"""`exeunt ping PEER`: round trips through the tunnel, and the path each one took."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.text import Text

from ..contract import Pong
from ..durations import Duration
from ..instances import Connection, connect, pick
from ..output import ACCENT, DEFAULTS, ExitCode, Failure, Options, emit_line, show
from ..paths import current
from ..views.design import state
from ..views.printable import milliseconds, printable, show_duration

DEFAULT_COUNT = 4
MARGIN_S = 1.0
"""The program answers at its own deadline; we wait a little longer for that answer."""
PATIENCE_S = 2.0
"""For one answer, while waiting for a direct path: longer than a round trip on any path that is of use."""


class _Rhythm(NamedTuple):
    """How often to ask, and how long to wait."""

    limit: int | None
    interval_s: float
    timeout_s: float
    """For one answer."""
    ends_at: float | None
    """When it is over, however often that was; monotonic."""


def run(
    peer: str,
    /,
    *,
    count: Annotated[int | None, Parameter(name=["--count", "-c"], validator=Number(gte=1))] = None,
    interval: Annotated[Duration, Parameter(name=["--interval", "-i"])] = 1.0,
    until_direct: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Measure round trips through the tunnel, and by which path. Exits with 5 if no answer came.

    Args:
        peer: Whom to ask, as exeunt status lists it.
        count: How many times. By default 4; with --until-direct, until --timeout.
        interval: How long to wait in between: 500ms, 2s.
        until_direct: End at the first answer by a direct path. Exits with 5 if none came within --timeout.
        options: The options that every command takes.
    """
    began_at, pongs = time.monotonic(), list[Pong]()
    rhythm = _Rhythm(
        limit=count if until_direct else count or DEFAULT_COUNT,
        interval_s=interval,
        timeout_s=options.timeout_s,
        ends_at=began_at + options.timeout_s if until_direct else None,
    )
    interrupted = False
    with connect(pick(current(), options), options) as program:
        try:
            for pong in _pongs(program, peer, rhythm):
                pongs.append(pong)
                _show(pong, options)
                if until_direct and pong.path == "direct":
                    break
        except KeyboardInterrupt:  # what was measured so far is worth showing, as ping(8) does
            interrupted = True
    if not options.json and not options.quiet:
        show(_summary(peer, pongs, time.monotonic() - began_at), options)
    if interrupted:
        return ExitCode.INTERRUPTED
    reached = pongs[-1:] if until_direct else pongs
    good = any(pong.rtt_ms is not None and (pong.path == "direct" or not until_direct) for pong in reached)
    return ExitCode.OK if good else ExitCode.TIMED_OUT


def _pongs(program: Connection, peer: str, rhythm: _Rhythm) -> Iterator[Pong]:
    """Ask again and again, at least once, until it was often enough or the time is over."""
    seq, ends_at = 0, rhythm.ends_at
    while rhythm.limit is None or seq < rhythm.limit:
        if seq:
            if ends_at is not None and time.monotonic() + rhythm.interval_s >= ends_at:
                return
            time.sleep(rhythm.interval_s)
        seq += 1
        left_s = rhythm.timeout_s if ends_at is None else min(PATIENCE_S, max(0.1, ends_at - time.monotonic()))
        yield _round_trip(program, peer, seq, left_s)


def _round_trip(program: Connection, peer: str, seq: int, timeout_s: float) -> Pong:
    try:
        pong = program.request(
            Pong, "ping", timeout_s=timeout_s + MARGIN_S, args={"peer": peer, "timeout_s": timeout_s}
        )
    except Failure as failure:
        if failure.error.code != "timeout":
            raise
        return Pong(peer=peer, seq=seq)
    return msgspec.structs.replace(pong, seq=seq)


def _show(pong: Pong, options: Options) -> None:
    if options.json:
        emit_line("exeunt.ping/1", pong)
        return
    line = Text(printable(pong.peer), style=ACCENT)
    if pong.rtt_ms is None:
        line.append("  no answer", style="red")
    else:
        line.append(f"  {milliseconds(pong.rtt_ms):>8}  ", style="default").append_text(state(pong.path))
        line.append(_way(pong), style="dim")
    show(line, options)


def _way(pong: Pong) -> str:
    """Say which direct path, or which relays. Our relay stands first, as the datagrams meet it first."""
    relays = [(pong.local_relay, "ours"), (pong.remote_relay, "the peer's")]
    told = [f"{printable(relay)} ({whose})" for relay, whose in relays if relay]
    if not told and pong.endpoint and pong.path == "direct":
        told = [printable(pong.endpoint)]
    return f"  {', '.join(told)}" if told else ""


def _summary(peer: str, pongs: list[Pong], took_s: float) -> Text:
    """The lines that ping(8) ends with, and by which paths the answers came."""
    times_ms = [pong.rtt_ms for pong in pongs if pong.rtt_ms is not None]
    lost = f"{100 * (1 - len(times_ms) / len(pongs)):.3g} % lost, " if pongs else ""
    lines = [
        f"--- {printable(peer)}: ping statistics ---",
        f"{len(pongs)} sent, {len(times_ms)} answered, {lost}in {show_duration(took_s)}",
    ]
    if times_ms:
        mean = math.fsum(times_ms) / len(times_ms)
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in times_ms) / len(times_ms))
        shown = ", ".join(
            f"{name} {milliseconds(value)}"
            for name, value in [("min", min(times_ms)), ("avg", mean), ("max", max(times_ms)), ("mdev", deviation)]
        )
        paths = Counter(pong.path for pong in pongs if pong.path is not None)
        lines += [f"round trip: {shown}", "path: " + ", ".join(f"{number} {path}" for path, number in paths.items())]
    return Text("\n".join(lines), style="dim")
