"""`exeunt trace export` and `trace record`: traces as files for other tools, of what was and of what happens now."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from exeunt.runtime import export as formats
from exeunt.runtime.trace import Span, Trace, group
from exeunt.runtime.trace_follow import TraceFollower

from ..contract import TraceFile
from ..durations import Duration
from ..output import DEFAULTS, Options, emit, fail, talk
from ..paths import current
from .trace import find, load_traces

Format = Literal["chrome", "firefox", "otlp", "jsonl"]

STDOUT: Final = "-"
POLL_S = 0.05
"""Between two looks at quiet rings; a busy one is read again at once."""
BUSY_RECORDS = 5_000
"""More than these since the last look, and the ring is busy: it holds some tens of thousands."""
RECORDS_MAX = 2_000_000
"""A recording ends here by itself; they take some 300 bytes of memory each."""

_VIEWERS: Final = {
    "chrome": "Open it at https://ui.perfetto.dev.",
    "firefox": "Open it at https://profiler.firefox.com.",
    "otlp": "POST it to a collector's /v1/traces, as application/json.",
    "jsonl": "A span a line, for jq.",
}


def export(
    id: str,
    /,
    *,
    to: Format = "chrome",
    out: str = STDOUT,
    options: Options = DEFAULTS,
) -> None:
    """Write a trace in another tool's format. Also when nothing runs any more.

    Args:
        id: The trace's number, or enough of its beginning; or "last", or "all".
        to: chrome is for Perfetto, and opens in Firefox Profiler too; firefox leaves out what that one skips.
        out: The file; "-" is standard output.
        options: The options that every command takes.
    """
    _check(out, options)
    traces = load_traces(options)
    if id != "all":
        traces = [find(id, traces)]
    elif not traces:
        fail("no_such_trace", "Nothing has been recorded yet.", "exeunt paths shows where recorders are looked for.")
    _write(_in_order(traces), to, out, options, traces=len(traces))


def record(
    *,
    seconds: Duration | None = None,
    to: Format = "chrome",
    out: str = STDOUT,
    options: Options = DEFAULTS,
) -> None:
    """Record what happens from now on in what runs here, until Ctrl-C; then write it as export does.

    Args:
        seconds: For so long: 10, 500ms, 2m.
        to: As for export.
        out: The file; "-" is standard output.
        options: The options that every command takes.
    """
    _check(out, options)
    follower = TraceFollower(current().trace_dir, instance=options.instance)
    if follower.living == 0:
        what = f"No worker of {options.instance} runs" if options.instance else "No worker runs"
        fail("not_running", f"{what} here.", "exeunt trace export all writes what the dead ones left.")
    until = "Ctrl-C" if seconds is None else f"{seconds:g} s are over"
    talk(options, f"Recording {_count(follower.living, 'worker')} until {until} …")
    try:
        _follow(follower, seconds, options)
    except KeyboardInterrupt:
        talk(options, "")  # the terminal has written ^C there
    follower.finish()
    spans = follower.spans()
    lost = follower.lost_total
    _write(spans, to, out, options, traces=len(group(spans)), lost=lost)
    if lost:
        talk(options, f"! {lost:,} records were overwritten before they could be read.", style="yellow")


def _follow(follower: TraceFollower, seconds: float | None, options: Options) -> None:
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        if follower.poll() < BUSY_RECORDS:
            time.sleep(POLL_S if end is None else max(0.0, min(POLL_S, end - time.monotonic())))
        if follower.records_total > RECORDS_MAX:
            talk(options, f"! Stopped after {follower.records_total:,} records.", style="yellow")
            return


def _check(out: str, options: Options) -> None:
    if options.json and out == STDOUT:
        fail("usage", "--json describes the file that was written, so there has to be one.", "Add --out FILE.")
    if out != STDOUT and not Path(out).absolute().parent.is_dir():
        fail("usage", f"There is no directory {Path(out).absolute().parent}.", "--out FILE makes a file, nothing else.")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _in_order(traces: Iterable[Trace]) -> list[Span]:
    return sorted((span for trace in traces for span in trace.spans), key=lambda span: span.first_ns)


def _write(spans: list[Span], to: Format, out: str, options: Options, *, traces: int, lost: int = 0) -> None:
    text = (piece.encode() for piece in _pieces(spans, to))
    if out == STDOUT:
        for piece in text:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    path = Path(out).absolute()
    with _replacing(path) as file:
        size = sum(os.write(file, piece) for piece in text)
    document = TraceFile(file=str(path), format=to, traces=traces, spans=len(spans), file_bytes=size, lost_records=lost)
    messages = sum(span.count for span in spans)
    what = f"{_count(messages, 'message')} of {_count(traces, 'trace')}"
    said = f"Wrote {what} to {path}. {_VIEWERS[to]}" if messages else f"Nothing was sent: {path} has no message."
    emit("exeunt.trace-file/1", document, options=options, human=lambda: said)


def _pieces(spans: list[Span], to: Format) -> Iterator[str]:
    if to == "jsonl":
        yield from (f"{line}\n" for line in formats.jsonl(spans))
        return
    document = {"chrome": formats.chrome, "firefox": formats.firefox, "otlp": formats.otlp}[to](spans)
    yield msgspec.json.encode(document).decode() + "\n"


@contextlib.contextmanager
def _replacing(path: Path) -> Generator[int]:
    """A file that takes the place of `path` once it is whole; readable by its owner only, as recorders are."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        yield descriptor
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise
    finally:
        os.close(descriptor)
