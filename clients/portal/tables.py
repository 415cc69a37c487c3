"""How a person sees what `exeunt admin` answers."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..views.design import table
from .rows import (
    Initialized,
    NewPeer,
    PeerRow,
    PolicyRow,
    RelayRow,
    ResourceRow,
    SiteRow,
    StaticPeerRow,
    TokenRow,
)


def rows(columns: Sequence[str], cells: Sequence[Sequence[str]], *, empty: str) -> RenderableType:
    """A table, or what to say where there is nothing to show."""
    if not cells:
        return Text(empty, style="dim")
    made = table(*columns)
    for line in cells:
        made.add_row(*(Text(cell) for cell in line))
    return made


def initialized(made: Initialized) -> RenderableType:
    """The first site, with its tokens."""
    return Group(
        Text(f"The portal is set up: site {made.site}, in {made.database}", no_wrap=True, overflow="ignore"),
        *(_token(peer, kind) for peer, kind in ((made.gateway, "gateway"), (made.client, "client"))),
        Text("\nThe tokens are not shown again. Next: exeunt admin resource add NAME CIDR", style="dim"),
    )


def new_peer(made: NewPeer, kind: str) -> RenderableType:
    """A client or a gateway, with its token."""
    return Group(_token(made, kind), Text("\nThe token is not shown again.", style="dim"))


def peers(listed: Sequence[PeerRow], kind: str) -> RenderableType:
    """Clients or gateways."""
    where = ["site"] if kind == "gateway" else []
    return rows(
        ["name", *where, "IPv4", "IPv6", "token", "id"],
        [
            [
                peer.name,
                *([peer.site or ""] if where else []),
                peer.address_ipv4,
                peer.address_ipv6,
                "active" if peer.active else "revoked",
                peer.id,
            ]
            for peer in listed
        ],
        empty=f"No {kind}s yet: exeunt admin {kind} add NAME",
    )


def sites(listed: Sequence[SiteRow]) -> RenderableType:
    """Sites."""
    cells = [[site.name, str(site.gateways), str(site.resources), site.id] for site in listed]
    return rows(["name", "gateways", "resources", "id"], cells, empty="No sites yet: exeunt admin site add NAME")


def resources(listed: Sequence[ResourceRow]) -> RenderableType:
    """Resources."""
    return rows(
        ["name", "address", "site", "for", "id"],
        [[r.name, r.address, r.site, _audience(r), r.id] for r in listed],
        empty="No resources yet: exeunt admin resource add NAME CIDR",
    )


def relays(listed: Sequence[RelayRow]) -> RenderableType:
    """Relays."""
    cells = [[relay.host, str(relay.port), relay.transport, relay.id] for relay in listed]
    return rows(["host", "port", "transport", "id"], cells, empty="No relays yet: exeunt admin relay add HOST:PORT")


def policies(listed: Sequence[PolicyRow]) -> RenderableType:
    """Exceptions to whom resources are for."""
    cells = [[p.client, p.resource, "allowed" if p.allowed else "denied"] for p in listed]
    return rows(["client", "resource", "policy"], cells, empty="No exceptions: each resource is for whom it says.")


def tokens(listed: Sequence[TokenRow]) -> RenderableType:
    """Tokens, never their text."""
    cells = [[t.id, t.kind, t.peer, t.created_at, t.revoked_at or ""] for t in listed]
    return rows(["id", "kind", "of", "created", "revoked"], cells, empty="No tokens yet: exeunt admin client add NAME")


def static_peers(listed: Sequence[StaticPeerRow]) -> RenderableType:
    """Peers that speak WireGuard and nothing else."""
    cells = [
        [
            one.name,
            ", ".join(one.gateways),
            one.address_ipv4,
            ", ".join(one.resources) or "nothing",
            one.endpoint or "",
            one.id,
        ]
        for one in listed
    ]
    columns = ["name", "gateway", "IPv4", "may use", "endpoint", "id"]
    return rows(columns, cells, empty="No such peers yet: exeunt admin peer add NAME --wireguard PUBLIC_KEY")


def _audience(resource: ResourceRow) -> str:
    return "everyone" if resource.for_everyone else ", ".join(resource.clients) or "nobody"


def _token(peer: NewPeer, kind: str) -> Text:
    # A token is for copying: it is never cut or broken, whatever the terminal's width.
    text = Text(f"\n{kind} {peer.name}", no_wrap=True, overflow="ignore")
    return text.append(f"  {peer.address_ipv4}  {peer.address_ipv6}\n", style="dim").append(peer.token)
