"""Links, addresses and routes of the network namespace of the calling thread, through rtnetlink.

pyroute2 does the encoding; this is the typed part of it that exeunt uses, with its errors told by blame. Routes
made here carry a protocol number of their own (``proto 238`` in `ip route`), so that what is ours can be
recognised by anybody, even when the process that made it is gone.

pyroute2 is imported when a `Links` is made, not before: it costs 200-360 ms and 30 MB. Its synchronous socket
runs a private asyncio loop, so a `Links` cannot be used on a thread where a loop runs.
"""

import errno
import os
import socket
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from types import TracebackType
from typing import Any, Self

from .errors import InvalidNetwork, NetworkError, NetworkRefused, PermissionDenied

ROUTE_PROTOCOL = 238  # rtm_protocol; iproute2's list and the routing daemons leave 200-249 unused
STATIC_PROTOCOL = 4  # RTPROT_STATIC: set up by the administrator
IFF_UP = 0x0001
IFF_MULTICAST = 0x1000
IFA_F_NODAD = 0x02  # no duplicate address detection: nobody else can be on a point-to-point link
NUD_PERMANENT = 0x80
RT_SCOPE_LINK = 253  # the network is on the device itself, with no gateway before it
RT_SCOPE_NOWHERE = 255  # in a deletion: whatever the scope
RTNH_F_ONLINK = 4  # the gateway is taken to be on this link although no address says so


class Links:
    """An rtnetlink socket. Blocking, for the thread that made it.

    ``route_protocol`` marks the routes made with it, and `remove_route` removes only such.
    """

    def __init__(self, *, route_protocol: int = ROUTE_PROTOCOL) -> None:
        from pyroute2 import IPRoute

        self._protocol = route_protocol
        self._route: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def names(self) -> list[str]:
        """The names of all links."""
        return [str(link.get_attr("IFLA_IFNAME")) for link in self._ask("list the devices", self._route.get_links)]

    def index(self, device: str) -> int:
        """The interface index.

        Raises:
            NetworkRefused: there is no such device (ENODEV).
        """
        try:
            return socket.if_nametoindex(device)
        except OSError as error:
            raise NetworkRefused(f"there is no device {device}", errno.ENODEV) from error

    def add_veth(self, device: str, peer: str, peer_namespace_fd: int, *, mtu: int) -> None:
        """Make a virtual cable: ``device`` here, ``peer`` in the network namespace of the descriptor."""
        other = {"ifname": peer, "net_ns_fd": peer_namespace_fd, "mtu": mtu}
        what = f"make the cable from {device} to {peer}"
        self._ask(what, self._route.link, "add", ifname=device, kind="veth", mtu=mtu, peer=other)

    def add_bridge(self, device: str) -> None:
        """Make a switch."""
        self._ask(f"make the bridge {device}", self._route.link, "add", ifname=device, kind="bridge")

    def plug(self, device: str, bridge: str) -> None:
        """Make ``device`` a port of ``bridge``."""
        ports = {"index": self.index(device), "master": self.index(bridge)}
        self._ask(f"plug {device} into {bridge}", self._route.link, "set", **ports)

    def set_up(self, device: str, *, multicast: bool = True) -> None:
        """Switch the link on. Without ``multicast`` the kernel joins no groups there and sends no reports."""
        flags = {"flags": IFF_UP, "change": IFF_UP if multicast else IFF_UP | IFF_MULTICAST}
        self._ask(f"switch {device} on", self._route.link, "set", index=self.index(device), **flags)

    def set_down(self, device: str) -> None:
        """Switch the link off; routes through it go, IPv6 addresses too."""
        self._ask(f"switch {device} off", self._route.link, "set", index=self.index(device), flags=0, change=IFF_UP)

    def delete(self, device: str) -> bool:
        """Delete the link, and with it its addresses and routes; False if there was none."""
        try:
            self._ask(f"delete {device}", self._route.link, "del", index=self.index(device))
        except NetworkRefused as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def addresses(self, device: str) -> set[str]:
        """The device's addresses with their prefix lengths, link-local ones left out."""
        found = self._ask(f"list the addresses of {device}", self._route.get_addr, index=self.index(device))
        texts = [f"{_local(each)}/{each['prefixlen']}" for each in found]
        return {text for text in texts if not ip_interface(text).is_link_local}

    def add_address(self, device: str, address: str) -> None:
        """Give the device an address (``10.0.0.2/24``)."""
        interface = ip_interface(address)
        flags = IFA_F_NODAD if interface.version == 6 else 0
        request = self._address(device, address) | {"flags": flags}
        self._ask(f"give {device} the address {address}", self._route.addr, "add", **request)

    def remove_address(self, device: str, address: str) -> None:
        """Take an address from the device."""
        what = f"take the address {address} from {device}"
        self._ask(what, self._route.addr, "del", **self._address(device, address))

    def add_neighbour(self, device: str, address: str, hardware: str) -> None:
        """Tell the kernel for good which hardware address a neighbour has, so that it never asks."""
        neighbour = {"dst": address, "lladdr": hardware, "ifindex": self.index(device), "state": NUD_PERMANENT}
        self._ask(f"name the neighbour {address}", self._route.neigh, "add", **neighbour)

    def add_route(self, network: str, device: str, *, via: str = "", onlink: bool = False) -> None:
        """Route ``network`` through ``device``, by the gateway ``via`` if there is one.

        Raises:
            NetworkRefused: a route to exactly this network exists (EEXIST), and others.
        """
        request = self._to(network, device, via) | {"flags": RTNH_F_ONLINK if onlink else 0}
        self._ask(f"add the route to {network} through {device}", self._route.route, "add", **request)

    def remove_route(self, network: str, device: str) -> bool:
        """Remove the route that `add_route` made; False if it was not there."""
        try:
            what = f"remove the route to {network} through {device}"
            request = self._to(network, device, "") | {"scope": RT_SCOPE_NOWHERE}
            self._ask(what, self._route.route, "del", **request)
        except NetworkRefused as error:
            if error.errno in {errno.ESRCH, errno.ENODEV}:
                return False
            raise
        return True

    def own_routes(self) -> list[str]:
        """The networks that routes of this protocol lead to, in any table."""
        found: list[str] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in self._ask("list the routes", self._route.get_routes, family=family):
                if route["proto"] == self._protocol:
                    everywhere = "0.0.0.0" if family == socket.AF_INET else "::"
                    found.append(f"{route.get_attr('RTA_DST') or everywhere}/{route['dst_len']}")
        return found

    def _address(self, device: str, address: str) -> dict[str, Any]:
        interface = ip_interface(address)
        return {
            "index": self.index(device),
            "address": str(interface.ip),
            "prefixlen": interface.network.prefixlen,
            "family": socket.AF_INET if interface.version == 4 else socket.AF_INET6,
        }

    def _to(self, network: str, device: str, via: str) -> dict[str, Any]:
        parsed = ip_network(network)
        request: dict[str, Any] = {
            "dst": str(parsed),
            "oif": self.index(device),
            "family": socket.AF_INET if parsed.version == 4 else socket.AF_INET6,
            "proto": self._protocol,
        }
        return request | ({"gateway": via} if via else {"scope": RT_SCOPE_LINK if parsed.version == 4 else 0})

    def _ask(self, what: str, request: Callable[..., Any], *words: str, **values: Any) -> Any:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            answer = request(*words, **values)
            return list(answer) if answer is not None else []
        except NetlinkError as error:
            number: int = error.code  # pyright: ignore[reportUnknownVariableType]  (pyroute2 ships no types)
            raise refused(f"cannot {what}", number) from error


def refused(what: str, number: int) -> NetworkError:
    """The error for the kernel's ``errno``, by blame. ``what`` is the beginning of the sentence."""
    if number in {errno.EPERM, errno.EACCES}:
        return PermissionDenied(f"{what}: not permitted", hint="Run as root or with CAP_NET_ADMIN.")
    return NetworkRefused(f"{what}: {os.strerror(number)}", number)


def checked_network(text: str) -> str:
    """``text`` as the kernel would write the network.

    Raises:
        InvalidNetwork: it is none, or has bits beyond its prefix.
    """
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise InvalidNetwork(f"{text!r} is no network: {error}") from error


def checked_address(text: str) -> str:
    """``text`` as an address with its prefix length.

    Raises:
        InvalidNetwork: it is none.
    """
    try:
        return str(ip_interface(text))
    except ValueError as error:
        raise InvalidNetwork(f"{text!r} is no address: {error}") from error


def _local(address: Any) -> str:
    # On a point-to-point link IFA_ADDRESS is the other end; IPv6 has only IFA_ADDRESS.
    return str(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))
