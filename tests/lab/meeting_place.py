"""Sites of many kinds in one laboratory, its relays, and a process of agents at each site, for connects among them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exeunt.actors.ice import IceServer
from exeunt.clients.lab import Delays, Internet, NatKind, Site
from exeunt.clients.lab.internet import RELAY_ADDRESSES, RELAY_ADDRESSES6

from .agents import AgentProcess, Connect
from .relays import Authority, server, start_coturn, start_embedded

DELAYS = Delays(edge_ms=10, relay_ms=30, portal_ms=50)
Pair = tuple[NatKind, NatKind]


@dataclass
class MeetingPlace:
    """Clients' and gateways' sites of these kinds, in one internet with relays."""

    internet: Internet
    clients: dict[NatKind, Site]
    gateways: dict[NatKind, Site]
    environ: dict[str, str]

    @asynccontextmanager
    async def agents(self) -> AsyncGenerator[Agents]:
        """Start a process of agents at each site."""
        async with AsyncExitStack() as stack:
            clients, gateways = (
                {kind: AgentProcess(site.host, self.environ) for kind, site in sites.items()}
                for sites in (self.clients, self.gateways)
            )
            for process in (*clients.values(), *gateways.values()):
                await stack.enter_async_context(process)
            yield Agents(clients, gateways)


@dataclass
class Agents:
    """The processes, by the kind of NAT that they are behind."""

    clients: dict[NatKind, AgentProcess]
    gateways: dict[NatKind, AgentProcess]

    def between(self, pair: Pair) -> Connect:
        """A connect from a client to a gateway behind these."""
        return Connect(self.clients[pair[0]], self.gateways[pair[1]])


@contextmanager
def meeting_place(pairs: Iterable[Pair], home: Path, delays: Delays = DELAYS) -> Generator[MeetingPlace]:
    """Build what these pairs need. Blocking, and not on a thread where a loop runs."""
    pairs = list(pairs)
    kinds = [dict.fromkeys(pair[side] for pair in pairs) for side in (0, 1)]
    ipv6 = any(kind.has_ipv6 for side in kinds for kind in side)
    with Internet(ipv6=ipv6, delays=delays) as internet:
        clients, gateways = (
            {kind: internet.add_site(f"{name}-{number}", kind) for number, kind in enumerate(side)}
            for name, side in zip(("client", "gateway"), kinds, strict=True)
        )
        internet.start()
        authority = Authority(home)
        start_embedded(internet, home, ipv6=ipv6)
        start_coturn(internet, home, authority, ipv6=ipv6)
        yield MeetingPlace(internet, clients, gateways, {"SSL_CERT_FILE": str(authority.certificate)})


def relays_for(kind: NatKind) -> tuple[IceServer, ...]:
    """What a portal would tell a peer behind this of the relays: all of them, in the families that it has."""
    found: list[IceServer] = []
    for has_family, (ours, coturn) in ((kind.has_ipv4, RELAY_ADDRESSES), (kind.has_ipv6, RELAY_ADDRESSES6)):
        if has_family:
            found += [server(ours, "udp"), server(coturn, "tcp"), server(coturn, "tls")]
    return tuple(found)
