"""`exeunt trace`: what one message caused, read from the flight recorders of all workers, living and dead."""

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import RenderableType
from rich.text import Text

from exeunt.runtime.last_handled import LastHandled, last_handled
from exeunt.runtime.trace import Span, Trace, group, load

from ..contract import LastHandledRow, SpanRow, TraceDocument, TraceRow
from ..output import DEFAULTS, Options, console, emit, fail
from ..paths import current

Form = Literal["tree", "sequence", "mermaid", "waterfall"]


def show_list(
    *,
    slowest: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    failed: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    actor: str | None = None,
    limit: Annotated[int, Parameter(name=["--limit", "--lines", "-n"], validator=Number(gte=1))] = 20,
    options: Options = DEFAULTS,
) -> None:
    """List traces, the newest first. Also when nothing runs any more.

    Args:
        slowest: The slowest first.
        failed: Only those in which something failed, was refused, dropped or cancelled.
        actor: Only those that this actor sent or received something in; its address or last part.
        limit: At most so many.
        options: The options that every command takes.
    """
    from ..views import traces as view
    from ..views.hops import UNWELL

    traces = load_traces(options)
    if actor is not None:
        traces = [trace for trace in traces if any(_is(actor, one.from_) or _is(actor, one.to) for one in trace.spans)]
        if not traces:
            fail(
                "no_such_actor", f"No trace has an actor {actor}.", "exeunt trace last lists those that were recorded."
            )
    if failed:
        traces = [trace for trace in traces if any(span.outcome in UNWELL for span in trace.spans)]
    traces.sort(key=lambda trace: trace.duration_ns if slowest else trace.started_ns, reverse=True)
    rows = [_row(trace) for trace in traces[:limit]]
    empty = "No trace has such a message." if failed else "Nothing has been recorded yet."
    emit("exeunt.traces/1", rows, options=options, human=lambda: view.render(rows, empty=empty))


def show(
    id: str,
    /,
    *,
    form: Annotated[Form, Parameter(name="--as")] = "tree",
    options: Options = DEFAULTS,
) -> None:
    """Show what one message caused, across all workers.

    Args:
        id: The trace's number, or enough of its beginning to be the only one; or "last".
        form: As a causal tree, a sequence diagram, Mermaid source, or bars along an axis of time.
        options: The options that every command takes.
    """
    trace = find(id, load_traces(options))
    emit("exeunt.trace/1", _document(trace), options=options, human=lambda: _render(trace, form, options))


def show_last(
    actor: str | None = None,
    /,
    *,
    dead: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> None:
    """What each actor handled last, and whether it finished; the latest first. Also of workers that were killed.

    Args:
        actor: Only this actor, or the actors of this worker.
        dead: Only of workers that no longer run.
        options: The options that every command takes.
    """
    from ..views import traces as view

    found = last_handled(current().trace_dir, instance=options.instance)
    if actor is not None:
        found = [one for one in found if one.worker == actor or _is(actor, one.span.to)]
        if not found:
            fail("no_such_actor", f"Nothing is recorded of {actor}.", "exeunt trace last lists what is.")
    rows = [_last_row(one) for one in found if not (dead and one.alive)]
    emit("exeunt.trace-last/1", rows, options=options, human=lambda: view.render_last(rows))


def load_traces(options: Options) -> list[Trace]:
    """All that the recorders hold, of one instance or of all; the newest last."""
    return group(load(current().trace_dir, instance=options.instance))


def find(prefix: str, traces: list[Trace]) -> Trace:
    """The trace whose number begins so, or the last one.

    Raises:
        Failure: there is none, or several are.
    """
    if prefix == "last" and traces:
        return traces[-1]
    found = [trace for trace in traces if _hex(trace.id).startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        fail("no_such_trace", f"There is no trace {prefix}.", "exeunt trace list shows those there are.")
    several = ", ".join(_hex(trace.id) for trace in found[:4])
    return fail("usage", f"{prefix} begins {len(found)} traces: {several}{', …' if len(found) > 4 else ''}.")


def _is(wanted: str, address: str) -> bool:
    return wanted in {address, address.rpartition("/")[2]}


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
        count=span.count,
        kind=span.kind,
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


def _last_row(one: LastHandled) -> LastHandledRow:
    span = one.span
    started_ns = span.started_ns or 0
    return LastHandledRow(
        address=span.to,
        worker=one.worker,
        pid=one.pid,
        alive=one.alive,
        trace=_hex(span.trace),
        id=_hex(span.id),
        message=span.message,
        from_=span.from_,
        started_at=_time(started_ns),
        ran_ms=None if span.ended_ns is None else max(0, span.ended_ns - started_ns) / 1e6,
        outcome=span.outcome,
        waiting=one.waiting,
    )


def _hex(number: int) -> str:
    return f"{number:016x}"


def _time(at_ns: int) -> str:
    from exeunt.runtime.log import rfc3339

    return rfc3339(at_ns)
