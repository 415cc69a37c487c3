"""An internet, and sites that are connected to it behind NATs.

::

    site ── NAT ──┐                 ┌── relay    192.0.2.1, .2   2001:db8:ffff::1, ::2
    site ── NAT ──┼── internet ─────┤
    site ── NAT ──┘                 └── portal   192.0.2.3       2001:db8:ffff::3

With `Delays` every line in the picture is a wire that takes its time and can be impaired further. Without them the
lines are plain cables, and relay and portal are places in the internet itself.

The internet swallows what it has no route to, as the real one does: its default route leads to a neighbour that does
not exist. Without it a relay that is asked to reach a private address would get ENETUNREACH at once, and coturn
drops the whole allocation then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from exeunt.actors.network.links import STATIC_PROTOCOL, Links

from . import faults
from .cabling import connect, lay_lan
from .conntrack import forget_connections
from .devices import allow_ipv6
from .errors import LabError
from .impairment import Impairment
from .namespace import Namespace, Route
from .nat import install_firewall6, install_nat
from .nat_kinds import NatKind
from .site import SITES_MAX, Site
from .wires import Wires

RELAY_ADDRESSES: Final = ("192.0.2.1", "192.0.2.2")
RELAY_ADDRESSES6: Final = ("2001:db8:ffff::1", "2001:db8:ffff::2")
PORTAL_ADDRESS: Final = "192.0.2.3"
PORTAL_ADDRESS6: Final = "2001:db8:ffff::3"
DEFAULT, DEFAULT6 = "0.0.0.0/0", "::/0"
_DEAD_NEIGHBOUR, _DEAD_NEIGHBOUR6 = "192.0.2.254", "2001:db8:ffff::fe"
_DEAD_HARDWARE = "02:00:00:00:00:01"
_ROUTER, _ROUTER6 = {"ipv4/ip_forward": "1"}, {"ipv6/conf/all/forwarding": "1"}
_SHIFTED_PORTS = (20_000, 29_999), (30_000, 39_999)


@dataclass(frozen=True, slots=True)
class Delays:
    """One-way delays of the wires, in milliseconds: a datagram from site to site takes two edges."""

    edge_ms: float = 0
    """Between a site and the internet."""
    relay_ms: float = 0
    """Between the relay and the internet."""
    portal_ms: float = 0
    """Between the portal and the internet."""


class Internet:
    """Namespaces that route, and what is connected to them. Gone when closed or when its process dies.

    Needs root, or `enter_user_namespace` before. Blocking; not on a thread where an asyncio loop runs.
    """

    def __init__(self, *, ipv6: bool = False, delays: Delays | None = None, mtu: int = 1500) -> None:
        """Build it, without sites; call `start` after the last `add_site`.

        Args:
            ipv6: whether it speaks IPv6 too.
            delays: None for plain cables, which cannot be impaired either.
            mtu: of every cable, in bytes.

        Raises:
            OSError, NetworkError, DeviceError: the system does not let us.
        """
        self._ipv6, self._delays, self._mtu = ipv6, delays, mtu
        self._router = _ROUTER | (_ROUTER6 if ipv6 else {})
        self._namespaces: list[Namespace] = []
        self._wires = Wires()
        self._wire_delays: list[float] = []
        self._rebinds = 0
        self.sites: list[Site] = []
        try:
            self.internet = self._namespace("internet")
            self.internet.configure(sysctls=self._router)
            self.internet.run(self._make_void)
            self.relay = self._place("relay", [*RELAY_ADDRESSES, *(RELAY_ADDRESSES6 if ipv6 else ())])
            self.portal = self._place("portal", [PORTAL_ADDRESS, *([PORTAL_ADDRESS6] if ipv6 else ())])
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

    def add_site(self, name: str, kind: NatKind | str, hosts: Sequence[str] = ("",)) -> Site:
        """Connect a site; its hosts are called ``name-host``, or like the site if that is "".

        Raises:
            ValueError: no such kind of NAT, or too many sites.
            LabError: the kind has IPv6, and this internet has not.
        """
        kind = NatKind(kind)
        number = len(self.sites) + 1
        if number > SITES_MAX:
            raise ValueError(f"there is room for {SITES_MAX} sites")
        if kind.has_ipv6 and not self._ipv6:
            raise LabError(f"a site that is {kind} needs an internet with IPv6")
        router = self._namespace(f"{name}-nat")
        home = self._namespace(f"{name}-home") if len(kind.boxes) == 2 else None
        inside = tuple(self._namespace(f"{name}-{host}" if host else name) for host in hosts)
        wire = self._cable(f"to-{name}"[:15], router, "wan", None if self._delays is None else self._delays.edge_ms)
        site = Site(number, name, kind, inside, router, home, wire)
        self.sites.append(site)
        self._set_up(site)
        return site

    def start(self) -> None:
        """Let the packets travel, if there are wires. To be called once, after the last `add_site`."""
        if self._delays is not None:
            self._wires.start(self.internet)
            for wire, delay_ms in enumerate(self._wire_delays):
                self._wires.impair(wire, Impairment(delay_ms=delay_ms))

    # Faults

    def lose(self, site: Site, percent: float) -> None:
        """Lose this share of the site's datagrams to and from the internet; 0 mends it."""
        faults.lose(site.nat, percent)

    def impair(self, site: Site, impairment: Impairment) -> None:
        """Set what the site's wire does to packets, its delay included.

        Raises:
            LabError: it is a plain cable: the laboratory was built without `Delays`.
        """
        if site.wire is None:
            raise LabError("a plain cable cannot be impaired: build the laboratory with delays")
        self._wires.impair(site.wire, impairment)

    def cut(self, site: Site) -> None:
        """Cut the site off. Nobody is told."""
        faults.cut(site.nat)

    def heal(self, site: Site) -> None:
        """Undo `cut`."""
        faults.heal(site.nat)

    def unplug(self, site: Site, host: int = 0) -> None:
        """Switch the host's interface off. Its addresses and routes go, and its programs can know."""

        def inside() -> None:
            with Links() as links:
                for address in links.addresses("eth0"):
                    links.remove_address("eth0", address)
                links.set_down("eth0")

        site.hosts[host].run(inside)

    def plug_in(self, site: Site, host: int = 0) -> None:
        """Undo `unplug`."""
        self._configure_host(site, host, host + 2)

    def renumber(self, site: Site, last_byte: int, host: int = 0) -> list[str]:
        """Give a host another address in its own network (of each family), and return what it has now.

        Raises:
            ValueError: not within 10…254.
        """
        if not 10 <= last_byte <= 254:
            raise ValueError(f"the address's last byte lies between 10 and 254, not {last_byte}")
        self.unplug(site, host)
        self._configure_host(site, host, last_byte)
        if host == 0:
            self._install(site, f"{site.prefix}.{last_byte}")
        return [address.split("/")[0] for address in site.addresses(last_byte)]

    def roam(self, site: Site, last_byte: int) -> str:
        """Give the site's router another public address, and return it. All its mappings are lost.

        Raises:
            ValueError: not within 2…254.
            LabError: the site has no IPv4.
        """
        if not 2 <= last_byte <= 254:
            raise ValueError(f"the address's last byte lies between 2 and 254, not {last_byte}")
        if not site.kind.has_ipv4:
            raise LabError("a site without IPv4 has no NAT that could get another address")
        address, device = f"{site.public}.{last_byte}", "wan"

        def inside() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                for old in links.addresses(device):
                    if ":" not in old:
                        links.remove_address(device, old)
                links.add_address(device, f"{address}/24")
                links.add_route(DEFAULT, device, via=f"{site.public}.1")

        site.nat.run(inside)
        forget_connections(site.nat)
        if site.is_open:
            self._redirect(site, address)
        return address

    def rebind(self, site: Site) -> None:
        """Have the NAT next to the hosts forget its mappings and use other ports, as one does that was restarted.

        Raises:
            ValueError: the NAT translates inwards (full cone, address-restricted) or not at all; `roam` instead.
        """
        if not site.kind.translates:
            raise ValueError(f"a site that is {site.kind} has no ports that could change")
        self._rebinds += 1
        ports = _SHIFTED_PORTS[self._rebinds % 2]
        box = site.boxes[-1]
        install_nat(box, "wan", f"{site.prefix}.2", site.kind.boxes[-1], ports=ports)
        forget_connections(box)

    def close(self) -> None:
        """End every program started in it and let go of all namespaces. Idempotent."""
        namespaces, self._namespaces = self._namespaces, []
        for namespace in namespaces:
            for child in namespace.children:
                child.terminate()  # all at once, so that their good-byes do not add up
        for namespace in reversed(namespaces):
            namespace.close()
        self._wires.close()

    # Building

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._namespaces.append(namespace)
        return namespace

    def _make_void(self) -> None:
        with Links(route_protocol=STATIC_PROTOCOL) as links:
            links.add_veth("void", "abyss", self.internet.fd, mtu=self._mtu)
            links.set_up("abyss")
            if self._ipv6:
                allow_ipv6("void")
            links.set_up("void")
            links.add_neighbour("void", _DEAD_NEIGHBOUR, _DEAD_HARDWARE)
            links.add_route(DEFAULT, "void", via=_DEAD_NEIGHBOUR, onlink=True)
            if self._ipv6:
                links.add_neighbour("void", _DEAD_NEIGHBOUR6, _DEAD_HARDWARE)
                links.add_route(DEFAULT6, "void", via=_DEAD_NEIGHBOUR6, onlink=True)

    def _place(self, name: str, addresses: Sequence[str]) -> Namespace:
        """A server's place: one of its own at the end of a wire, or the internet itself."""
        own = [f"{address}/{128 if ':' in address else 32}" for address in addresses]
        delays, place = self._delays, self.internet
        if delays is not None:
            place = self._namespace(name)
            self._cable(f"to-{name}", place, "wan", delays.relay_ms if name == "relay" else delays.portal_ms)
            there = [Route(address, f"to-{name}") for address in own]
            self.internet.configure(addresses={f"to-{name}": self._link_addresses}, routes=there)
            defaults = [Route(DEFAULT, "wan"), *([Route(DEFAULT6, "wan")] if self._ipv6 else [])]
            place.configure(addresses={"wan": own}, routes=defaults)
        else:
            place.configure(addresses={"lo": own})
        place.configure(sysctls={"ipv4/ip_unprivileged_port_start": "0"})
        return place

    @property
    def _link_addresses(self) -> list[str]:
        """What the internet's end of a server's wire is called: answers need a source (ICMP)."""
        return ["192.0.2.253/32", *(["2001:db8:ffff::fd/128"] if self._ipv6 else [])]

    def _cable(self, port: str, router: Namespace, device: str, delay_ms: float | None) -> int | None:
        """Connect to the internet's ``port``: by a wire with this delay, or (None) a plain cable."""
        if delay_ms is None:
            connect(self.internet, port, router, device, mtu=self._mtu)
            return None
        self._wire_delays.append(delay_ms)
        return self._wires.lay(self.internet, port, router, device, mtu=self._mtu)

    def _set_up(self, site: Site) -> None:
        port = f"to-{site.name}"[:15]
        upstream, uplink, routes = list[str](), list[str](), list[Route]()
        if site.kind.has_ipv4:
            upstream, uplink = [f"{site.public}.1/24"], [f"{site.public}.2/24"]
            routes.append(Route(DEFAULT, "wan", via=f"{site.public}.1"))
        if site.kind.has_ipv6:
            upstream.append(f"{site.public6}::1/64")
            uplink.append(f"{site.public6}::2/64")
            routes.append(Route(DEFAULT6, "wan", via=f"{site.public6}::1"))
        self.internet.configure(addresses={port: upstream})
        site.nat.configure(addresses={"wan": uplink}, routes=routes, sysctls=self._router)
        if site.kind.has_ipv6:
            network = Route(f"{site.prefix6}::/64", port, via=f"{site.public6}::2")
            self.internet.configure(routes=[network])
            install_firewall6(site.nat, "wan")
        if site.home is not None:
            lay_lan(site.nat, "lan", [f"{site.between}.1/24"], [(site.home, "wan")], mtu=self._mtu)
            default = Route(DEFAULT, "wan", via=f"{site.between}.1")
            site.home.configure(addresses={"wan": [f"{site.between}.2/24"]}, routes=[default], sysctls=self._router)
        self._install(site, f"{site.prefix}.2")
        hosts = [(host, "eth0") for host in site.hosts]
        lay_lan(site.home or site.nat, "lan", site.addresses(1), hosts, mtu=self._mtu)
        for host in range(len(site.hosts)):
            self._configure_host(site, host, host + 2)
        if site.is_open:
            self._redirect(site, f"{site.public}.2")

    def _install(self, site: Site, inside_host: str) -> None:
        """Make the site's boxes NATs of their kinds, the innermost for this host."""
        innermost = len(site.kind.boxes) - 1
        for place, (box, kind) in enumerate(zip(site.boxes, site.kind.boxes, strict=False)):
            install_nat(box, "wan", inside_host if place == innermost else self._behind_nat(site), kind)

    @staticmethod
    def _behind_nat(site: Site) -> str:
        return f"{site.prefix}.2" if site.home is None else f"{site.between}.2"

    def _configure_host(self, site: Site, host: int, last_byte: int) -> None:
        routes = [Route(DEFAULT, "eth0", via=f"{site.prefix}.1")] if site.kind.has_ipv4 else []
        if site.kind.has_ipv6:
            routes.append(Route(DEFAULT6, "eth0", via=f"{site.prefix6}::1"))
        site.hosts[host].configure(addresses={"eth0": site.addresses(last_byte)}, routes=routes)

    def _redirect(self, site: Site, address: str) -> None:
        """Let the internet reach the site's own network by its router's present address."""
        network, device = f"{site.prefix}.0/24", f"to-{site.name}"[:15]

        def inside() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                links.remove_route(network, device)
                links.add_route(network, device, via=address)

        self.internet.run(inside)
