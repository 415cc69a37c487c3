"""Durations as people write and read them: ``500ms``, ``10s``, ``5m``, ``2h``; a bare number is seconds."""

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

UNITS_S = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Each unit's length in seconds."""


def parse(text: str) -> float:
    """Seconds from ``10s``, ``1.5m``, ``250ms``, ``3``.

    Raises:
        ValueError: it is nothing of the kind.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 10s, 5m or 2h")
    return float(match[1]) * UNITS_S[match[2]]


def show(duration_s: float) -> str:
    """A duration in the unit that suits it: ``0.42 ms``, ``12 ms``, ``1.25 s``, ``3m 20s``, ``5d 3h``."""
    if duration_s < 0.01:
        return f"{duration_s * 1000:.2f} ms"
    if duration_s < 0.9995:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 60:
        return f"{duration_s:.3g} s"
    whole_s = int(duration_s)
    if whole_s < 3600:
        return f"{whole_s // 60}m {whole_s % 60}s"
    if whole_s < 86400:
        return f"{whole_s // 3600}h {whole_s % 3600 // 60}m"
    return f"{whole_s // 86400}d {whole_s % 86400 // 3600}h"


def _convert(_type: type, tokens: Sequence[Token]) -> float:
    return parse(tokens[0].value)


Duration = Annotated[float, Parameter(converter=_convert, n_tokens=1)]
"""A command-line parameter in seconds that is written as a duration."""
