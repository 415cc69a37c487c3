"""Metrics in Prometheus' text format, version 0.0.4.

A family is a name, a type, a sentence, and samples; the names follow Prometheus' conventions: base units (seconds,
bytes), `_total` behind what only grows. Source: prometheus.io/docs/instrumenting/exposition_formats, and .../naming.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Type = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]


class Sample(msgspec.Struct, frozen=True):
    """One number, under the family's name or that with a suffix."""

    labels: dict[str, str]
    value: float
    suffix: str = ""
    """`_bucket`, `_sum` or `_count` of a histogram."""


class Family(msgspec.Struct, frozen=True):
    """All samples of one name."""

    name: str
    type: Type
    help: str
    samples: list[Sample]


class Tally:
    """Samples being added up: those with equal labels become one."""

    def __init__(self, name: str, type_: Type, help_: str) -> None:
        self._name, self._help = name, help_
        self._type: Type = type_
        self._values: dict[Labels, float] = {}

    def add(self, value: float | None, **labels: str) -> None:
        """Add to what has these labels; None is no value and adds nothing."""
        if value is not None:
            key = tuple(labels.items())
            self._values[key] = self._values.get(key, 0.0) + value

    def family(self) -> Family:
        """What there is by now."""
        return Family(self._name, self._type, self._help, [Sample(dict(k), v) for k, v in self._values.items()])


class Histogram:
    """Observations counted by how large they are, for each set of labels."""

    def __init__(self, name: str, help_: str, bounds: tuple[float, ...]) -> None:
        """`bounds` are the upper bounds of the buckets, rising; that of the last, infinite one is left out."""
        self._name, self._help = name, help_
        self._bounds = (*bounds, math.inf)
        self._seen: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        """Count one."""
        key = tuple(labels.items())
        counts = self._seen.setdefault(key, [0] * len(self._bounds))
        counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + value

    def family(self) -> Family:
        """Cumulative buckets, the sum and the count."""
        samples: list[Sample] = []
        for key, counts in self._seen.items():
            labels = dict(key)
            for bound, below in zip(self._bounds, itertools.accumulate(counts), strict=True):
                samples.append(Sample({**labels, "le": number(bound)}, below, "_bucket"))
            samples += [Sample(labels, self._sums[key], "_sum"), Sample(labels, sum(counts), "_count")]
        return Family(self._name, "histogram", self._help, samples)


def render(families: Iterable[Family]) -> str:
    """The text of all families that have samples; it ends with a line feed, as the format demands."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {_escaped(family.help)}")
            lines.append(f"# TYPE {family.name} {family.type}")
            lines += [
                f"{family.name}{sample.suffix}{_label_set(sample.labels)} {number(sample.value)}"
                for sample in family.samples
            ]
    return "".join(f"{line}\n" for line in lines)


def number(value: float) -> str:
    """A number as Go's strconv.ParseFloat reads it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _label_set(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.encode(errors="replace").decode().replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
