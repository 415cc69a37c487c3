"""Two sites, an internet, and a network that only the gateways reach.

::

    client 10.1.0.2 ── NAT 198.51.100.2 ── internet ── 203.0.113.2 NAT ──┬── gateway-1 10.2.0.2 ──┬── resource
                                       192.0.2.1, .2                     └── gateway-2 10.2.0.3 ──┘  10.20.0.10
                                       (portal, relay)                                10.20.0.2, .3

All addresses are of the documentation ranges (RFC 5737) or private. The resource has no default route, so it
answers only who appears to be in its own network: a gateway that forgets to masquerade is found out.

The internet swallows what it has no route to, as the real one does: its default route leads to a neighbour that does
not exist. Without it a relay that is asked to reach a private address would get ENETUNREACH at once, and coturn
drops the whole allocation then.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from exeunt.actors.network.links import STATIC_PROTOCOL, Links

from . import faults
from .namespace import Namespace, Route, connect
from .nat import NatKind, install_nat

INTERNET_ADDRESSES = ("192.0.2.1", "192.0.2.2")
CLIENT_ADDRESS = "10.1.0.2"
RESOURCE_ADDRESS = "10.20.0.10"
RESOURCE_NETWORK = "10.20.0.0/24"
GATEWAYS_MAX = 2
_DEFAULT = "0.0.0.0/0"
_DEAD_NEIGHBOUR = "192.0.2.254"
_ROUTER = {"ipv4/ip_forward": "1"}


@dataclass(frozen=True, slots=True)
class Site:
    """One side of the laboratory."""

    name: str
    hosts: tuple[Namespace, ...]
    nat: Namespace
    """The router on the internet's side; for a double NAT the carrier's."""
    home: Namespace | None
    """The inner router of a double NAT."""
    kind: NatKind
    prefix: str
    """Of the site's own network: ``10.1.0``, of which .1 is the router and .2, .3 are the hosts."""
    public: str
    """Of the router's network: ``198.51.100``, of which .1 is the internet and .2 is the router."""


class Lab:
    """The laboratory. Built by entering it (about a quarter of a second), gone when it is closed or its process dies.

    Needs root, or `enter_user_namespace` before. Blocking; not on a thread where an asyncio loop runs.
    """

    def __init__(
        self,
        *,
        client_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateway_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateways: int = 1,
        mtu: int = 1500,
    ) -> None:
        """Build it.

        Args:
            client_nat: what the client is behind.
            gateway_nat: what the gateways are behind.
            gateways: one or two, all behind the same NAT.
            mtu: of every cable, in bytes.

        Raises:
            ValueError: another number of gateways, or no such kind of NAT.
            OSError, NetworkError: the system does not let us.
        """
        if not 1 <= gateways <= GATEWAYS_MAX:
            raise ValueError(f"there are 1 to {GATEWAYS_MAX} gateways, not {gateways}")
        client_nat, gateway_nat = NatKind(client_nat), NatKind(gateway_nat)
        self._mtu = mtu
        self._namespaces: list[Namespace] = []
        try:
            self.internet = self._internet()
            self.client_site = self._site("client", ["client"], client_nat, "10.1.0", "198.51.100")
            names = [f"gateway-{number + 1}" for number in range(gateways)]
            self.gateway_site = self._site("gateway", names, gateway_nat, "10.2.0", "203.0.113")
            self.client = self.client_site.hosts[0]
            self.gateways = self.gateway_site.hosts
            self.resource = self._resource(self.gateways)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All of them, in the order in which they were made."""
        return tuple(self._namespaces)

    def lose(self, site: Site, percent: float) -> None:
        """Lose this share of the site's datagrams to and from the internet; 0 mends it."""
        faults.lose(site.nat, percent)

    def cut(self, site: Site) -> None:
        """Cut the site off. Nobody is told."""
        faults.cut(site.nat)

    def heal(self, site: Site) -> None:
        """Undo `cut`."""
        faults.heal(site.nat)

    def roam(self, site: Site, last_byte: int) -> str:
        """Give the site's router another public address, and return it. All its NAT mappings are lost.

        Raises:
            ValueError: not within 2…254.
        """
        if not 2 <= last_byte <= 254:
            raise ValueError(f"the address's last byte lies between 2 and 254, not {last_byte}")
        address, device = f"{site.public}.{last_byte}", "wan"

        def inside() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                for old in links.addresses(device):
                    links.remove_address(device, old)  # conntrack forgets what was masqueraded to it
                links.add_address(device, f"{address}/24")
                links.add_route(_DEFAULT, device, via=f"{site.public}.1")

        site.nat.run(inside)
        if not site.kind.translates:
            self._redirect(site, address)
        return address

    def close(self) -> None:
        """End every program started in it and let go of all namespaces. Idempotent."""
        namespaces, self._namespaces = self._namespaces, []
        for namespace in namespaces:
            for child in namespace.children:
                child.terminate()  # all at once, so that their good-byes do not add up
        for namespace in reversed(namespaces):
            namespace.close()

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._namespaces.append(namespace)
        return namespace

    def _internet(self) -> Namespace:
        internet = self._namespace("internet")

        def inside() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                links.add_veth("void", "abyss", internet.fd, mtu=self._mtu)
                links.set_up("void")
                links.set_up("abyss")
                links.add_neighbour("void", _DEAD_NEIGHBOUR, "02:00:00:00:00:01")
                for address in INTERNET_ADDRESSES:
                    links.add_address("lo", f"{address}/32")
                links.add_route(_DEFAULT, "void", via=_DEAD_NEIGHBOUR, onlink=True)

        internet.configure(sysctls=_ROUTER | {"ipv4/ip_unprivileged_port_start": "0"})
        internet.run(inside)
        return internet

    def _site(self, name: str, hosts: list[str], kind: NatKind, prefix: str, public: str) -> Site:
        router = self._namespace(f"{name}-nat")
        self._router(router, self.internet, f"to-{name}", public)
        self.internet.configure(addresses={f"to-{name}": [f"{public}.1/24"]})
        home: Namespace | None = None
        if kind is NatKind.DOUBLE:
            home, carrier = self._namespace(f"{name}-home"), f"100.64.{prefix.split('.')[1]}"  # RFC 6598
            self._router(home, router, "lan", carrier)
            router.configure(addresses={"lan": [f"{carrier}.1/24"]})
            install_nat(router, "wan", f"{carrier}.2", NatKind.PORT_RESTRICTED)
            install_nat(home, "wan", f"{prefix}.2", NatKind.PORT_RESTRICTED)
        else:
            install_nat(router, "wan", f"{prefix}.2", kind)
        namespaces = tuple(self._namespace(host) for host in hosts)
        self._lan(home or router, "lan", f"{prefix}.1/24", [(each, "eth0") for each in namespaces])
        for number, host in enumerate(namespaces, start=2):
            routes = [Route(_DEFAULT, "eth0", via=f"{prefix}.1")]
            host.configure(addresses={"eth0": [f"{prefix}.{number}/24"]}, routes=routes)
        site = Site(name, namespaces, router, home, kind, prefix, public)
        if not kind.translates:
            self._redirect(site, f"{public}.2")
        return site

    def _router(self, router: Namespace, upstream: Namespace, port: str, public: str) -> None:
        """Cable the router's ``wan`` to a port of its upstream and give it the address ``public``.2."""
        connect(upstream, port, router, "wan", mtu=self._mtu)
        routes = [Route(_DEFAULT, "wan", via=f"{public}.1")]
        router.configure(addresses={"wan": [f"{public}.2/24"]}, routes=routes, sysctls=_ROUTER)

    def _lan(self, owner: Namespace, bridge: str, address: str, hosts: list[tuple[Namespace, str]]) -> None:
        """A switch in ``owner`` with a cable to each host's device."""

        def inside() -> None:
            with Links() as links:
                links.add_bridge(bridge)
                links.set_up(bridge)
                links.add_address(bridge, address)
                for number, (host, device) in enumerate(hosts, start=1):
                    links.add_veth(f"{bridge}-{number}", device, host.fd, mtu=self._mtu)
                    links.plug(f"{bridge}-{number}", bridge)
                    links.set_up(f"{bridge}-{number}")

        owner.run(inside)

    def _resource(self, gateways: tuple[Namespace, ...]) -> Namespace:
        resource = self._namespace("resource")
        self._lan(resource, "lan", f"{RESOURCE_ADDRESS}/24", [(each, "lan") for each in gateways])
        for number, gateway in enumerate(gateways, start=2):
            gateway.configure(addresses={"lan": [f"10.20.0.{number}/24"]})
        return resource

    def _redirect(self, site: Site, address: str) -> None:
        """Let the internet reach the site's own network by its router's present address."""
        network, device = f"{site.prefix}.0/24", f"to-{site.name}"

        def inside() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                links.remove_route(network, device)
                links.add_route(network, device, via=address)

        self.internet.run(inside)
