"""The figures as the Markdown tables of `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .report import Figure
from .targets import TARGETS

ACROSS = {
    "ask_p50_us": "ask, median, µs",
    "ask_p99_us": "ask, 99th percentile, µs",
    "asks_per_s": "asks/s, 100 outstanding",
    "tells_per_s": "tells/s, 64 bytes",
    "program_start_ms": "from nothing to the first answer, ms",
}
WITHIN = {
    "local_ask_p50_us": "ask, median, µs",
    "local_async_ask_p50_us": "ask, async handler, median, µs",
    "local_asks_per_s": "asks/s, 100 outstanding",
    "local_tells_per_s": "tells/s",
    "local_async_tells_per_s": "tells/s, async handler",
    "actor_bytes": "bytes an actor",
    "actors_started_per_s": "actors started/s",
}
ALONE = {
    "async_ask_p50_us": "ask, async handler, median, µs",
    "async_asks_per_s": "asks/s, async handler",
    "async_tells_per_s": "tells/s, async handler",
    "trace_overhead_percent": "tells/s that tracing costs, %",
    "record_us": "a record of the flight recorder, µs",
    "worker_start_ms": "a further worker, start to first answer, ms",
    "kill_noticed_ms": "SIGKILL to the failure of an ask that waits, ms",
    "kill_replaced_ms": "SIGKILL to the next answer, ms",
    "idle_cpu_percent": "CPU of an idle program with 4 workers, %",
    "crowd_idle_cpu_percent": "CPU of a worker with 100,000 idle actors, %",
    "worker_private_mb": "memory that a worker has to itself, MB",
}


def tables(figures: Iterable[Figure]) -> str:
    """Return the tables: across processes, within one, this runtime alone, and the targets."""
    found = {(figure.subject, figure.name): figure for figure in figures}
    # One way, raw pyzmq is PUSH and PULL.
    found.update({("pyzmq", name): figure for (subject, name), figure in found.items() if subject == "pyzmq-pushpull"})
    parts = [
        _table(found, "across processes", ACROSS, ("pyzmq", "erlang", "xoscar", "ray", "thespian")),
        _table(found, "in one process", WITHIN, ("pykka", "erlang")),
        _table(found, "exeunt alone", ALONE, ()),
        _targets(found),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def _table(
    found: dict[tuple[str, str], Figure], title: str, rows: dict[str, str], others: Sequence[str]
) -> Iterator[str]:
    yield _row(title, "exeunt", "from … to", *others)
    yield _row(*["---"] * (3 + len(others)))
    for name, text in rows.items():
        ours = found.get(("exeunt", name))
        if ours is not None:
            span = f"{_number(min(ours.values))} … {_number(max(ours.values))}"
            yield _row(text, _number(ours.value), span, *(_cell(found.get((other, name))) for other in others))


def _targets(found: dict[tuple[str, str], Figure]) -> Iterator[str]:
    yield _row("target", "", "measured", "")
    yield _row(*["---"] * 4)
    for target in TARGETS:
        value = target.value(found)
        if value is not None:
            bound = "≤" if target.bound == "<=" else "≥"
            verdict = "reached" if target.reached(value) else "**missed**"
            yield _row(target.text.replace("_", " "), f"{bound} {round(target.limit, 2):,g}", _number(value), verdict)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(figure: Figure | None) -> str:
    return _number(figure.value) if figure is not None else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
