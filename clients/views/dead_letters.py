"""What was sent and never handled."""

from rich.console import Group, RenderableType
from rich.text import Text

from ..inspection_contract import DeadLetters
from ..output import ACCENT
from .design import heading
from .printable import clock, printable


def render(letters: DeadLetters) -> RenderableType:
    """The totals, and two lines for each letter: who wanted what from whom, and why that was not to be."""
    total = sum(letters.totals.values())
    by_worker = ", ".join(f"{printable(worker)} {count}" for worker, count in letters.totals.items() if count)
    words = "No dead letters." if not total else f"{total} dead letter{'' if total == 1 else 's'} ({by_worker})"
    lines: list[RenderableType] = [heading(words)]
    for letter in letters.letters:
        line = Text(f"{clock(letter.at, digits=3)} ", style="dim", overflow="fold")
        line.append(printable(letter.message), style="not dim bold")
        line.append(f"  {printable(letter.from_)} → ", style="not dim")
        line.append(printable(letter.to), style=f"not dim {ACCENT}")
        lines += [line, Text(f"{'':13}{printable(letter.reason)}  trace {letter.trace}", style="dim", overflow="fold")]
    if total > len(letters.letters):
        lines.append(Text(f"The other {total - len(letters.letters)} are no longer kept.", style="dim"))
    return Group(*lines)
