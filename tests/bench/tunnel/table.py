"""The figures beside one another: a row for each, a column for each subject, ratios to the rival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..report import Figure
from .targets import NATIVE, PURE, RIVAL

COLUMNS = (NATIVE, PURE, RIVAL, "wireguard-go-2022", "veth")
RATIOS = {f"{NATIVE[7:]} ×": NATIVE, f"{PURE[7:]} ×": PURE}
"""Headings, and whose figure is divided by the rival's."""


def rows(figures: Iterable[Figure]) -> Iterator[list[str]]:
    """Yield the heading and a row for each figure; in the last column is what subjects outside the table have."""
    found = {(figure.subject, figure.name): figure for figure in figures if figure.subject != "machine"}
    yield ["figure", "unit", *COLUMNS, *RATIOS, "others"]
    for name in dict.fromkeys(name for _, name in found):
        ours = [found.get((subject, name)) for subject in COLUMNS]
        others = [one for (subject, its), one in found.items() if its == name and subject not in COLUMNS]
        rival = found.get((RIVAL, name))
        yield [
            name,
            next(one.unit for one in (*ours, *others) if one is not None),
            *(number(one.value) if one is not None else "" for one in ours),
            *(_ratio(found.get((subject, name)), rival) for subject in RATIOS.values()),
            ", ".join(f"{one.subject} {number(one.value)}" for one in others),
        ]


def text(figures: Iterable[Figure]) -> str:
    """The table for a terminal."""
    table = list(rows(figures))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def markdown(figures: Iterable[Figure]) -> str:
    """The table for `docs/performance.md`."""
    heading, *rest = rows(figures)
    rule = ["---", "---", *["---:"] * (len(heading) - 3), "---"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rest))


def number(value: float) -> str:
    """A figure with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _ratio(ours: Figure | None, rival: Figure | None) -> str:
    return f"{ours.value / rival.value:.2f}" if ours is not None and rival is not None and rival.value else ""
