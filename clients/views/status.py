"""The session at a glance: its state, the peers it goes through, the resources it reaches."""

from rich.console import Group, RenderableType
from rich.text import Text

from ..contract import Peer, Resource, Status
from .design import heading, state, table
from .printable import dash, milliseconds, printable, show_duration, size


def render(status: Status) -> RenderableType:
    """The session's state, then a table of peers and one of resources."""
    parts: list[RenderableType] = [state(status.session)]
    if status.peers:
        parts += [Text(), heading("Peers"), _peers(status.peers)]
    if status.resources:
        parts += [Text(), heading("Resources"), _resources(status.resources)]
    return Group(*parts)


def _peers(peers: list[Peer]) -> RenderableType:
    columns = ("PEER", "PATH", "ENDPOINT", "RTT", "HANDSHAKE", "RECEIVED", "SENT")
    listed = table(*columns, right={"RTT", "HANDSHAKE", "RECEIVED", "SENT"})
    for peer in peers:
        age = None if peer.handshake_age_s is None else show_duration(peer.handshake_age_s)
        listed.add_row(
            printable(peer.peer),
            state(peer.path),
            dash(peer.endpoint),
            milliseconds(peer.rtt_ms),
            dash(age),
            size(peer.rx_bytes),
            size(peer.tx_bytes),
        )
    return listed


def _resources(resources: list[Resource]) -> RenderableType:
    with_site = any(resource.site for resource in resources)
    with_state = any(resource.state for resource in resources)
    listed = table("RESOURCE", "ADDRESS", *(["SITE"] if with_site else []), *(["STATE"] if with_state else []))
    for resource in resources:
        cells: list[Text | str] = [printable(resource.name), printable(resource.address)]
        cells += [dash(resource.site)] if with_site else []
        cells += [state(resource.state)] if with_state else []
        listed.add_row(*cells)
    return listed
