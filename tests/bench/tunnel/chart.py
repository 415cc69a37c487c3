"""How cost grows, as a picture: small panels of lines, an SVG that reads on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ..report import Figure
from .growth import PEERS, SEGMENTS
from .targets import NATIVE, PURE, RIVAL

SUBJECTS = (NATIVE, PURE, RIVAL)
"""Who has a line, in the order of its colour."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 380, 250, 56, 40, 20, 44
_LEGEND = 30
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #3d3d3a }
  .title { font-weight: 600; font-size: 13px }
  .grid { stroke: #8886; stroke-width: 1 }
  polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
  .s0 { stroke: #2a6fdb } .s1 { stroke: #c2571a } .s2 { stroke: #7a7a75 }
  .f0 { fill: #2a6fdb } .f1 { fill: #c2571a } .f2 { fill: #7a7a75 }
  @media (prefers-color-scheme: dark) {
    text { fill: #d6d6d2 }
    .s0 { stroke: #6ea8ff } .s1 { stroke: #f0945a } .s2 { stroke: #a5a5a0 }
    .f0 { fill: #6ea8ff } .f1 { fill: #f0945a } .f2 { fill: #a5a5a0 }
  }
"""


@dataclass(frozen=True)
class Panel:
    """One of them: a figure's name with a gap for the number that grows."""

    title: str
    figure: str
    steps: Sequence[int]
    across: str


PANELS = (
    Panel("Mbit/s, one stream", "segment_{}_tcp1_mbit_s", SEGMENTS, "bytes of payload a packet"),
    Panel("CPU s/GB, both sides", "segment_{}_cpu_s_per_gb", SEGMENTS, "bytes of payload a packet"),
    Panel("Mbit/s, one stream", "peers_{}_tcp1_mbit_s", PEERS, "clients at the gateway, one of them busy"),
    Panel(
        "CPU s/GB of the gateway", "peers_{}_cpu_s_per_gb_gateway", PEERS, "clients at the gateway, one of them busy"
    ),
)


def draw(figures: Iterable[Figure]) -> str:
    """Return the picture; empty if nothing of it was measured."""
    found = {(figure.subject, figure.name): figure.value for figure in figures}
    panels = [panel for panel in PANELS if any(_points(found, panel, subject) for subject in SUBJECTS)]
    if not panels:
        return ""
    columns = min(2, len(panels))
    width = columns * _WIDTH
    height = math.ceil(len(panels) / columns) * _HEIGHT + _LEGEND
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">']
    parts += ["<title>How the tunnel's cost grows</title>", f"<style>{_STYLE}</style>", *_legend()]
    for place, panel in enumerate(panels):
        x, y = place % columns * _WIDTH, place // columns * _HEIGHT + _LEGEND
        parts += [f'<g transform="translate({x} {y})">', *_panel(found, panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    for place, subject in enumerate(SUBJECTS):
        x = _LEFT + place * 150
        yield f'<rect class="f{place}" x="{x}" y="12" width="12" height="12" rx="2"/>'
        yield f'<text x="{x + 18}" y="22">{subject}</text>'


def _panel(found: dict[tuple[str, str], float], panel: Panel) -> Iterator[str]:
    lines = {subject: _points(found, panel, subject) for subject in SUBJECTS}
    top = _nice(max(value for points in lines.values() for _, value in points))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield f'<text class="title" x="{_LEFT}" y="24">{escape(panel.title)}</text>'
    for part in range(5):
        y = bottom - part / 4 * (bottom - _TOP)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * part / 4:,g}</text>'

    def across(step: int) -> float:
        return _LEFT + panel.steps.index(step) / (len(panel.steps) - 1) * (right - _LEFT - 16) + 8

    for step in panel.steps:
        yield f'<text x="{across(step):.1f}" y="{bottom + 16}" text-anchor="middle">{step:,}</text>'
    yield f'<text x="{(_LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(panel.across)}</text>'
    for place, points in enumerate(lines.values()):
        at = [(across(step), bottom - value / top * (bottom - _TOP)) for step, value in points]
        if at:
            yield f'<polyline class="s{place}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>'
            yield from (f'<circle class="f{place}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at)


def _points(found: dict[tuple[str, str], float], panel: Panel, subject: str) -> list[tuple[int, float]]:
    named = ((step, found.get((subject, panel.figure.format(step)))) for step in panel.steps)
    return [(step, value) for step, value in named if value is not None]


def _nice(value: float) -> float:
    """The next of 1, 2, 4, 6, 8 times a power of ten."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)
