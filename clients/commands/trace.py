"""`exeunt trace`: what one message caused, read from the flight recorders of all workers, living and dead."""

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import RenderableType
from rich.text import Text

from exeunt.runtime.trace import Span, Trace, group, load

from ..contract import SpanRow, TraceDocument, TraceRow
from ..output import DEFAULTS, Options, console, emit, fail
from ..paths import current

Form = Literal["tree", "sequence", "mermaid", "waterfall"]


def show_list(
    *,
    slowest: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], validator=Number(gte=1))] = 20,
    options: Options = DEFAULTS,
) -> None:
    """List traces, the newest first. Also when nothing runs any more.

    Args:
        slowest: The slowest first.
        lines: At most so many.
        options: The options that every command takes.
    """
    from ..views import traces as view

    traces = _load(options)
    traces.sort(key=lambda trace: trace.duration_ns if slowest else trace.started_ns, reverse=True)
    rows = [_row(trace) for trace in traces[:lines]]
    emit("exeunt.traces/1", rows, options=options, human=lambda: view.render(rows))


def show(
    id: str,
    /,
    *,
    form: Annotated[Form, Parameter(name="--as")] = "tree",
    options: Options = DEFAULTS,
) -> None:
    """Show what one message caused, across all workers.

    Args:
        id: The trace's number, or enough of its beginning to be the only one.
        form: As a causal tree, a sequence diagram, Mermaid source, or bars along an axis of time.
        options: The options that every command takes.
    """
    trace = _find(id, _load(options))
    emit("exeunt.trace/1", _document(trace), options=options, human=lambda: _render(trace, form, options))


def _load(options: Options) -> list[Trace]:
    return group(load(current().trace_dir, instance=options.instance))


def _find(prefix: str, traces: list[Trace]) -> Trace:
    found = [trace for trace in traces if _hex(trace.id).startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        fail("no_such_trace", f"There is no trace {prefix}.", "exeunt trace list shows those there are.")
    several = ", ".join(_hex(trace.id) for trace in found[:4])
    return fail("usage", f"{prefix} begins {len(found)} traces: {several}{', …' if len(found) > 4 else ''}.")


def _render(trace: Trace, form: Form, options: Options) -> RenderableType:
    from ..views import mermaid, sequence, tree, waterfall

    width = console(options).width
    match form:
        case "tree":
            return tree.render(trace)
        case "sequence":
            return sequence.render(trace, width=min(width, 120))
        case "mermaid":
            return Text(mermaid.render(trace), no_wrap=True, overflow="ignore")
        case "waterfall":
            return waterfall.render(trace, width=min(width, 120))


def _document(trace: Trace) -> TraceDocument:
    return TraceDocument(
        id=_hex(trace.id),
        started_at=_time(trace.started_ns),
        duration_ms=trace.duration_ns / 1e6,
        outcome=trace.outcome,
        spans=[_span(span) for span in trace.spans],
    )


def _span(span: Span) -> SpanRow:
    return SpanRow(
        id=_hex(span.id),
        cause=_hex(span.cause) if span.cause else None,
        from_=span.from_,
        to=span.to,
        message=span.message,
        worker=span.worker,
        sent_ns=span.sent_ns,
        received_ns=span.received_ns,
        started_ns=span.started_ns,
        ended_ns=span.ended_ns,
        outcome=span.outcome,
    )


def _row(trace: Trace) -> TraceRow:
    return TraceRow(
        id=_hex(trace.id),
        message=trace.root.message,
        from_=trace.root.from_,
        to=trace.root.to,
        spans=len(trace.spans),
        workers=len({span.worker for span in trace.spans}),
        started_at=_time(trace.started_ns),
        duration_ms=trace.duration_ns / 1e6,
        outcome=trace.outcome,
    )


def _hex(number: int) -> str:
    return f"{number:016x}"


def _time(at_ns: int) -> str:
    from exeunt.runtime.log import rfc3339

    return rfc3339(at_ns)
