"""A parser of Prometheus' text format 0.0.4 that forgives nothing: what a test reads, a scraper can read.

Written after prometheus.io/docs/instrumenting/exposition_formats; beyond the grammar it holds a producer to the
conventions that promtool checks: HELP and TYPE before the samples, one block a family, names with units, histograms
that are complete and cumulative, no sample twice.
"""

import math
import re
from typing import NamedTuple

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)\}})? (\S+)\Z")
VALUE = re.compile(r"[+-]?(?:Inf|\d+(?:\.\d+)?(?:e[+-]?\d+)?)\Z|NaN\Z")


class Parsed(NamedTuple):
    """One family."""

    type: str
    help: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]

    def value(self, suffix: str = "", **labels: str) -> float:
        """The one sample that has these labels, among others."""
        wanted = set(labels.items())
        (found,) = [value for (end, has), value in self.samples.items() if end == suffix and wanted <= set(has)]
        return found


def parse(text: str) -> dict[str, Parsed]:
    """Every family of an exposition. Raises AssertionError where it is not one."""
    assert text == "" or text.endswith("\n"), "the last line must end with a line feed"
    families: dict[str, Parsed] = {}
    current = ""
    pending_help: tuple[str, str] | None = None
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            name, _, help_ = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(NAME, name), line
            assert help_.endswith("."), line
            assert re.fullmatch(r"(?:[^\\]|\\\\|\\n)*", help_), line
            pending_help = (name, help_)
        elif line.startswith("# TYPE "):
            name, _, type_ = line.removeprefix("# TYPE ").partition(" ")
            assert pending_help is not None, line
            assert pending_help[0] == name, line
            assert type_ in {"counter", "gauge", "histogram"}, line
            assert name not in families, f"{name} comes twice"
            families[name], current, pending_help = Parsed(type_, pending_help[1], {}), name, None
        else:
            _sample(line, current, families)
    for name, family in families.items():
        _check(name, family)
    return families


def _sample(line: str, current: str, families: dict[str, Parsed]) -> None:
    match = SAMPLE.match(line)
    assert match is not None, f"no sample: {line!r}"
    name, labels, value = match[1], match[2] or "", match[match.lastindex or 0]
    assert name.startswith(current), line
    suffix = name.removeprefix(current)
    family = families[current]
    assert suffix in ({"_bucket", "_sum", "_count"} if family.type == "histogram" else {""}), line
    assert VALUE.match(value), line
    pairs = tuple((key, _unescaped(text)) for key, text in re.findall(LABEL, labels))
    assert len({key for key, _ in pairs}) == len(pairs), line
    key = (suffix, pairs)
    assert key not in family.samples, f"twice: {line}"
    family.samples[key] = math.inf if value == "+Inf" else float(value)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)


def _check(name: str, family: Parsed) -> None:
    assert family.samples, f"{name} has no samples"
    assert (family.type == "counter") == name.endswith("_total"), name
    assert not re.search(r"_(ms|milliseconds|minutes|kib|percent)(_|\Z)", name), f"{name}: no base unit"
    if family.type == "histogram":
        _check_histogram(name, family)


def _check_histogram(name: str, family: Parsed) -> None:
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for (suffix, labels), value in family.samples.items():
        if suffix == "_bucket":
            bound = dict(labels)["le"]
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((math.inf if bound == "+Inf" else float(bound), value))
    for rest, buckets in series.items():
        assert buckets == sorted(buckets), f"{name}: not rising"
        assert buckets[-1][0] == math.inf, f"{name}: no last bucket"
        assert family.samples[("_count", rest)] == buckets[-1][1], f"{name}: the count is another one"
        assert ("_sum", rest) in family.samples
