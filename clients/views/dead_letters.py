"""What was sent and never handled."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ..inspection_contract import DeadLetterRow, DeadLetters
from ..output import ACCENT
from .design import heading
from .printable import clock, printable

_INDENT = 13
"""Below the time."""


def render(letters: DeadLetters) -> RenderableType:
    """The totals, and two lines for each letter: who wanted what from whom, and why that was not to be."""
    total = sum(letters.totals.values())
    by_worker = ", ".join(f"{printable(worker)} {count}" for worker, count in letters.totals.items() if count)
    words = "No dead letters." if not total else f"{total} dead letter{'' if total == 1 else 's'} ({by_worker})"
    lines: list[RenderableType] = [heading(words)]
    for letter, count in _bursts(letters.letters):
        line = Text(f"{clock(letter.at, digits=3)} ", style="dim", overflow="fold")
        line.append(printable(letter.message), style="not dim bold")
        line.append(f" ×{count}" if count > 1 else "", style="not dim")
        line.append(f"  {printable(letter.from_)} → ", style="not dim")
        line.append(printable(letter.to), style=f"not dim {ACCENT}")
        why = Text(f"trace {letter.trace}  {printable(letter.reason)}", style="dim", overflow="fold")
        lines += [line, Padding(why, (0, 0, 0, _INDENT))]
    if total > len(letters.letters):
        lines.append(Text(f"The other {total - len(letters.letters)} are no longer kept.", style="dim"))
    return Group(*lines)


def _bursts(letters: Iterable[DeadLetterRow]) -> Iterator[tuple[DeadLetterRow, int]]:
    """Letters that are alike and follow each other, as the first one and their number."""
    for _, alike in groupby(letters, key=lambda one: (one.message, one.from_, one.to, one.reason, one.worker)):
        first, *others = alike
        yield first, 1 + len(others)
