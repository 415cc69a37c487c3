"""What a benchmark is to reach, and whether a run reached it. Ratios are to peers of the same run."""

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
    """What it is divided by, or what is subtracted: `subject name`; empty for the figure itself."""
    subject: str = "exeunt"
    """Whose figure it is."""
    above: bool = False
    """Whether it is the difference that counts, and not the ratio."""

    @property
    def text(self) -> str:
        """What is compared."""
        ours = self.name if self.subject == "exeunt" else f"{self.subject} {self.name}"
        return f"{ours} {'-' if self.above else '/'} {self.over}" if self.over else ours

    def value(self, figures: dict[tuple[str, str], Figure]) -> float | None:
        """Return what was measured; None where something is missing.

        Where both were measured in the same rounds, it is the median of the rounds' ratios or differences: a machine
        that is busy for a while is busy for both.
        """
        ours = figures.get((self.subject, self.name))
        if ours is None or not self.over:
            return ours.value if ours is not None else None
        subject, _, name = self.over.partition(" ")
        other = figures.get((subject, name))
        if other is None:
            return None
        if len(ours.values) != len(other.values):
            return self._compared(ours.value, other.value)
        return statistics.median(self._compared(a, b) for a, b in zip(ours.values, other.values, strict=True))

    def reached(self, value: float) -> bool:
        """Say whether that is good enough."""
        return value <= self.limit if self.bound == "<=" else value >= self.limit

    def _compared(self, ours: float, other: float) -> float:
        return ours - other if self.above else ours / other


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


def show(figures: Iterable[Figure], targets: Iterable[Target] = TARGETS) -> None:
    """Print each target with what was measured."""
    found = {(figure.subject, figure.name): figure for figure in figures}
    targets = list(targets)
    width = max(48, *(len(target.text) + 2 for target in targets))
    print(f"\n{'target':<{width}}{'at':>4}{'least/most':>12}{'measured':>12}")
    for target in targets:
        value = target.value(found)
        verdict = "not measured" if value is None else "reached" if target.reached(value) else "MISSED"
        measured = "-" if value is None else f"{value:,.2f}"
        print(f"{target.text:<{width}}{target.bound:>4}{target.limit:>12,.2f}{measured:>12}  {verdict}")
