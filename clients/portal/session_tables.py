"""How a person sees `exeunt admin sessions`: who is here, then each ended connection as both its ends tell it."""

from rich.console import Group, RenderableType
from rich.text import Text

from ..contract_portal import EndedConnection, PresentPeer, ReportedEnding, SessionEventRow, Sessions
from ..views.design import heading, table
from ..views.endings import UNEXPECTED
from ..views.printable import clock, printable

_AGREEMENT = {
    "agree": ("●", "agree", "green"),
    "differ": ("✖", "differ", "red"),
    "one_side_only": ("◐", "one side", "yellow"),
}


def render(seen: Sessions, *, with_events: bool) -> RenderableType:
    """Three tables, the last only if it is wanted."""
    parts: list[RenderableType] = [_heading("Here now", len(seen.present)), _present(seen), Text()]
    parts += [_heading("Ended connections, newest first", len(seen.connections)), _connections(seen.connections)]
    if with_events:
        parts += [Text(), _heading("Events, newest first", len(seen.events)), _events(seen.events)]
    return Group(*parts)


def _heading(text: str, count: int) -> Text:
    return heading(text).append(f" ({count})" if count else "", style="not bold dim")


def _present(seen: Sessions) -> RenderableType:
    if not seen.running:
        return Text("No portal runs on this database.", style="dim")
    if not seen.present:
        return Text("Nobody.", style="dim")
    listed = table("PEER", "KIND", "SINCE UTC", "VERSION", yields="PEER")
    for peer in seen.present:
        listed.add_row(*_row_of(peer))
    return listed


def _row_of(peer: PresentPeer) -> list[Text | str]:
    return [_text(peer.peer), peer.kind, f"{printable(peer.since[:10])} {clock(peer.since)}", printable(peer.version)]


def _connections(ended: list[EndedConnection]) -> RenderableType:
    if not ended:
        return Text("No end has reported one yet.", style="dim")
    days = len({one.ended_at[:10] for one in ended}) > 1
    listed = table("ENDED UTC", "CLIENT", "SAYS", "GATEWAY", "SAYS", "")
    for one in ended:
        day = f"{printable(one.ended_at[5:10])} " if days else ""
        listed.add_row(
            f"{day}{clock(one.ended_at)}",
            printable(one.client),
            _says(one.client_says),
            printable(one.gateway),
            _says(one.gateway_says),
            _agreement(one.agreement),
        )
    return listed


def _says(ending: ReportedEnding | None) -> Text:
    if ending is None:
        return Text("–", style="dim")
    return Text(printable(ending.cause), style="red" if ending.cause in UNEXPECTED else "")


def _agreement(word: str) -> Text:
    mark, text, style = _AGREEMENT.get(word, ("○", printable(word), "dim"))
    return Text(f"{mark} ", style=style).append(text, style="default")


def _events(events: list[SessionEventRow]) -> RenderableType:
    if not events:
        return Text("Nobody has signed in yet.", style="dim")
    listed = table("AT UTC", "PEER", "WHAT", "DETAIL", yields="DETAIL")
    for event in events:
        at = f"{printable(event.at[5:10])} {clock(event.at)}"
        detail = " ".join(filter(None, (event.connection, event.detail)))
        listed.add_row(at, printable(event.peer), printable(event.kind).replace("_", " "), _text(detail))
    return listed


def _text(text: str) -> Text:
    return Text(printable(text), no_wrap=True, overflow="ellipsis")
