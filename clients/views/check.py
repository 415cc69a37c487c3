"""An examination as a page of at most 80 columns: findings with marks, the relays, and what it comes to."""

from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..check_contract import Check, Finding, RelayReach
from ..output import ACCENT
from .design import heading, table
from .printable import dash, milliseconds, printable, show_duration

WIDTH: Final = 80
MARKS: Final = {
    "ok": ("●", "green"),
    "warning": ("▲", "yellow"),
    "problem": ("✖", "red"),
    "unknown": ("○", "dim"),
}
_OF_THE_NETWORK: Final = ("udp", "nat", "nat_ipv6", "address", "ipv6", "mtu", "relays", "portal")
_LABELS: Final = {
    "nat": "NAT",
    "nat_ipv6": "NAT, IPv6",
    "udp": "UDP",
    "ipv6": "IPv6",
    "mtu": "MTU",
    "tun": "TUN",
    "data_path": "data path",
}


def render(check: Check) -> RenderableType:
    """The whole page."""
    network = [finding for finding in check.findings if finding.examination in _OF_THE_NETWORK]
    host = [finding for finding in check.findings if finding.examination not in _OF_THE_NETWORK]
    parts: list[RenderableType] = [heading("The network"), _findings(network)]
    if check.measured.relays:
        parts += [Text(), heading("Relays"), Padding(_relays(check.measured.relays), (0, 0, 0, 2))]
    parts += [Text(), heading("This host"), _findings(host), Text(), _conclusion(check)]
    return Group(*parts)


def _findings(findings: list[Finding]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.width = WIDTH
    grid.add_column(width=3, justify="right")
    grid.add_column(width=9, style=ACCENT, no_wrap=True)
    grid.add_column(ratio=1)
    for finding in findings:
        mark, style = MARKS[finding.verdict]
        sentence = Text(printable(finding.sentence), style="dim" if finding.verdict == "unknown" else "")
        grid.add_row(Text(mark, style=style), _label(finding.examination), sentence)
        if finding.hint is not None:
            grid.add_row("", Text("→", style="dim", justify="right"), Text(printable(finding.hint), style="dim"))
    return grid


def _label(examination: str) -> str:
    return _LABELS.get(examination, examination)


def _relays(relays: list[RelayReach]) -> Table:
    """Every relay, transport and family: how long it takes, or why not."""
    listed = table("RELAY", "BY", "ADDRESS", "CONNECT", "ROUND TRIP", right={"CONNECT", "ROUND TRIP"})
    for each in relays:
        style = "" if each.announced else "dim"
        outcome = Text(milliseconds(each.rtt_ms)) if each.rtt_ms is not None else Text(dash(each.reason), style="red")
        if not each.announced:
            outcome.style = "dim"
        listed.add_row(
            Text(printable(each.relay), style=style),
            Text(each.transport.upper(), style=style),
            Text(dash(each.address), style=style),
            Text("" if each.connect_ms is None else milliseconds(each.connect_ms), style=style),
            outcome,
        )
    return listed


def _conclusion(check: Check) -> Text:
    counts = {verdict: sum(each.verdict == verdict for each in check.findings) for verdict in ("problem", "warning")}
    told = [f"{number} {word}{'s' if number > 1 else ''}" for word, number in counts.items() if number]
    sentence = " and ".join(told) or "All is well"
    if not told and check.verdict == "unknown":
        sentence = "No problem was found, but not everything could be examined"
    style = "red" if counts["problem"] else "yellow" if counts["warning"] else "green"
    return Text(f"{sentence}.", style=style).append(f"  ({show_duration(check.duration_ms / 1000)})", style="dim")
