"""What the runtime is to reach, and whether a run reached it. Ratios are to peers of the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .report import Figure

Bound = Literal["<=", ">="]


@dataclass(frozen=True)
class Target:
    """A figure of ours, or its ratio to another figure, and the bound that it should keep."""

    name: str
    bound: Bound
    limit: float
    over: str = ""
    """What it is divided by: `subject name`; empty for the figure itself."""

    @property
    def text(self) -> str:
        """What is compared."""
        return f"{self.name} / {self.over}" if self.over else self.name

    def value(self, figures: dict[tuple[str, str], Figure]) -> float | None:
        """Return what was measured; None where something is missing.

        Where both were measured in the same rounds, the ratio is the median of the rounds' ratios: a machine that is
        busy for a while is busy for both.
        """
        ours = figures.get(("exeunt", self.name))
        if ours is None or not self.over:
            return ours.value if ours is not None else None
        subject, _, name = self.over.partition(" ")
        other = figures.get((subject, name))
        if other is None:
            return None
        if len(ours.values) != len(other.values):
            return ours.value / other.value
        return statistics.median(a / b for a, b in zip(ours.values, other.values, strict=True))

    def reached(self, value: float) -> bool:
        """Say whether that is good enough."""
        return value <= self.limit if self.bound == "<=" else value >= self.limit


TARGETS = (
    Target("ask_p50_us", "<=", 1.15, over="pyzmq ask_p50_us"),
    Target("ask_p99_us", "<=", 4, over="exeunt ask_p50_us"),
    Target("asks_per_s", ">=", 80_000),
    Target("asks_per_s", ">=", 50, over="ray asks_per_s"),
    Target("asks_per_s", ">=", 15, over="xoscar asks_per_s"),
    Target("asks_per_s", ">=", 2.5, over="erlang asks_per_s"),
    Target("tells_per_s", ">=", 400_000),
    Target("tells_per_s", ">=", 2, over="erlang tells_per_s"),
    Target("local_ask_p50_us", "<=", 12),
    Target("local_async_ask_p50_us", "<=", 20),
    Target("local_tells_per_s", ">=", 400_000),
    # An async handler costs at most 1.5 times a sync one, so it does at least two thirds as much.
    Target("async_asks_per_s", ">=", 1 / 1.5, over="exeunt asks_per_s"),
    Target("async_tells_per_s", ">=", 1 / 1.5, over="exeunt tells_per_s"),
    Target("local_async_tells_per_s", ">=", 1 / 1.5, over="exeunt local_tells_per_s"),
    Target("actor_bytes", "<=", 3_000),
    Target("actors_started_per_s", ">=", 20_000),
    Target("crowd_idle_cpu_percent", "<=", 0.1),
    Target("trace_overhead_percent", "<=", 10),
    Target("record_us", "<=", 1.5),
    Target("worker_start_ms", "<=", 150),
    Target("kill_noticed_ms", "<=", 10),
    Target("kill_replaced_ms", "<=", 200),
    Target("idle_cpu_percent", "<=", 0.5),
    Target("worker_private_mb", "<=", 35),
)


def show(figures: Iterable[Figure]) -> None:
    """Print each target with what was measured."""
    found = {(figure.subject, figure.name): figure for figure in figures}
    print(f"\n{'target':<48}{'at':>4}{'least/most':>12}{'measured':>12}")
    for target in TARGETS:
        value = target.value(found)
        verdict = "not measured" if value is None else "reached" if target.reached(value) else "MISSED"
        measured = "-" if value is None else f"{value:,.2f}"
        print(f"{target.text:<48}{target.bound:>4}{target.limit:>12,.2f}{measured:>12}  {verdict}")
