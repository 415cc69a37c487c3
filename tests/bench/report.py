"""What a benchmark found: a table for people, a JSON document for scripts."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Figure:
    """One figure of one subject: the values of its rounds."""

    name: str
    subject: str
    values: list[float]
    unit: str

    @property
    def value(self) -> float:
        return statistics.median(self.values)


@dataclass
class Report:
    """The figures of one benchmark."""

    title: str
    figures: list[Figure] = field(default_factory=list[Figure])

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)

    def show(self) -> None:
        """Print the table: median, range, and the ratio to the first subject of the same figure."""
        print(f"\n{self.title}")
        print(f"{'figure':<25}{'subject':<26}{'median':>12}{'min':>12}{'max':>12}  unit    ratio")
        first: dict[str, float] = {}
        for figure in self.figures:
            reference = first.setdefault(figure.name, figure.value)
            ratio = f"{figure.value / reference:.2f} x" if reference else "-"
            low, high = min(figure.values), max(figure.values)
            print(
                f"{figure.name:<25}{figure.subject:<26}{figure.value:>12,.1f}{low:>12,.1f}{high:>12,.1f}"
                f"  {figure.unit:<8}{ratio}"
            )

    def write(self, directory: Path) -> Path:
        """Write the document `exeunt.bench/1`."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.title}.json"
        figures = [
            {
                "name": figure.name,
                "subject": figure.subject,
                "value": figure.value,
                "unit": figure.unit,
                "runs": len(figure.values),
                "min": min(figure.values),
                "max": max(figure.values),
            }
            for figure in self.figures
        ]
        path.write_text(json.dumps({"schema": "exeunt.bench/1", "figures": figures}, indent=2) + "\n")
        return path
