"""Everything that a tunnel changes on its host, held by one object that puts all of it back.

Three kinds of change, three ways to be rid of them even when this process is killed:

- a TUN device lives as long as its descriptor; its addresses and routes go with it;
- the firewall table lives as long as the netlink socket that owns it (`firewall`);
- sysctls have no owner: they are remembered and restored by `HostNetwork.close`, and after a SIGKILL an enabled
  ``ip_forward`` remains (`sysctl` says why that is bearable).

Blocking, and for one thread that runs no asyncio loop (`links` says why). Needs CAP_NET_ADMIN.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Generator, Sequence
from ipaddress import ip_network
from types import TracebackType
from typing import Self

import msgspec

from ..device import open_tun
from .errors import InvalidNetwork, NetworkError
from .firewall import Firewall, FirewallLegacy
from .links import Links, checked_address, checked_network
from .sysctl import Sysctls, read_sysctl, write_sysctl

_log = logging.getLogger(__name__)
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}


class HostLegacy(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's keeper leaves to a successor. Its descriptors are the devices', then the firewall's."""

    devices: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]
    """Network and device."""
    sysctls: dict[str, tuple[str, str]]
    """What was changed: the value before and after."""
    firewall: FirewallLegacy | None


class HostNetwork:
    """The devices, addresses, routes, forwarding and firewall of one running program.

    ``instance`` names the program (``client``, ``gateway``); its firewall table is ``exeunt_<instance>``.
    """

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self._devices: dict[str, int] = {}
        self._routes: set[tuple[str, str]] = set()
        self._sysctls = Sysctls()
        self._firewall: Firewall | None = None
        self._shared: Links | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def legacy(self) -> tuple[HostLegacy, list[int]]:
        """Return what a successor has to know, and the descriptors that it gets duplicates of."""
        firewall = None if self._firewall is None else self._firewall.legacy()
        left = HostLegacy(
            devices=tuple(self._devices),
            routes=tuple(sorted(self._routes)),
            sysctls=self._sysctls.before,
            firewall=None if firewall is None else firewall[0],
        )
        return left, [*self._devices.values(), *([] if firewall is None else [firewall[1]])]

    def let_go(self) -> None:
        """Leave everything as it is: a successor has duplicates of what it hangs on."""
        self._sysctls.adopt({})
        self._routes.clear()
        firewall, self._firewall = self._firewall, None
        if firewall is not None:
            firewall.close()
        while self._devices:
            os.close(self._devices.popitem()[1])

    def adopt(self, left: HostLegacy, descriptors: Sequence[int]) -> dict[str, int]:
        """Answer for all that a predecessor has changed. Returns the devices' descriptors by name; they stay ours.

        Raises:
            ValueError: this makes no sense; nothing was adopted, and the descriptors are closed.
        """
        count = len(left.devices)
        fits = len(descriptors) == count + (left.firewall is not None)
        try:
            if fits and left.firewall is not None:
                self._firewall = Firewall.adopt(self.instance, left.firewall, descriptors[count])
        except (ValueError, OSError):
            fits = False
        if not fits:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ValueError("what was left of the host's network makes no sense")
        self._devices = dict(zip(left.devices, descriptors, strict=False))
        self._routes = set(left.routes)
        self._sysctls.adopt(left.sysctls)
        return dict(self._devices)

    def open_device(self, name: str, addresses: Sequence[str], mtu: int, *, offloads: bool = False) -> int:
        """Create a TUN device, give it its addresses (``100.96.0.2/32``), switch it on, return its descriptor.

        With ``offloads`` it takes and gives up to 64 kB of a flow at once, if the kernel can do that. The descriptor
        stays ours: hand a duplicate to whoever pumps packets (passing it over a socket makes one).

        Raises:
            DeviceError: by its kinds, see `exeunt.actors.device.open_tun`.
            InvalidNetwork: one of the addresses is none.
            PermissionDenied, NetworkRefused: the kernel did not take an address.
        """
        wanted = [checked_address(address) for address in addresses]
        fd = open_tun(name, mtu=mtu, offloads=offloads)
        try:
            _quieten_ipv6(name)
            with Links() as links:
                links.set_up(name, multicast=False)  # as on WireGuard's own devices: nobody there would listen
                for address in wanted:
                    links.add_address(name, address)
        except BaseException:
            os.close(fd)
            raise
        self._devices[name] = fd
        _log.info("Opened the tunnel device", extra={"device": name, "mtu": mtu})
        return fd

    def set_addresses(self, device: str, addresses: Sequence[str]) -> None:
        """Make these the device's addresses: what is missing is added, then what is not named is removed.

        Raises:
            InvalidNetwork: one of them is no address, or the device was not opened here.
            PermissionDenied, NetworkRefused: the kernel refused; earlier ones of the list stay applied.
        """
        self._require(device)
        wanted = {checked_address(address) for address in addresses}
        with Links() as links:
            present = links.addresses(device)
            for address in sorted(wanted - present):
                links.add_address(device, address)
            for address in sorted(present - wanted):
                links.remove_address(device, address)

    def add_route(self, network: str, device: str) -> None:
        """Lead ``network`` into the device. Idempotent.

        Raises:
            InvalidNetwork: it is no network, or the device was not opened here.
            NetworkRefused: the host has a route to exactly this network (EEXIST): it is not ours to replace.
            PermissionDenied: no CAP_NET_ADMIN.
        """
        self._require(device)
        route = checked_network(network), device
        if route in self._routes:
            return
        with self._links() as links:
            links.add_route(*route)
        self._routes.add(route)

    def remove_route(self, network: str, device: str) -> None:
        """Take back what `add_route` did. Idempotent.

        Raises:
            InvalidNetwork: it is no network.
            PermissionDenied, NetworkRefused: the kernel refused.
        """
        route = checked_network(network), device
        if route not in self._routes:
            return
        with self._links() as links:
            links.remove_route(*route)
        self._routes.discard(route)

    @contextlib.contextmanager
    def at_once(self) -> Generator[None]:
        """Have routes added and removed meanwhile with one socket: opening one costs more than a route."""
        with Links() as links:
            self._shared = links
            try:
                yield
            finally:
                self._shared = None

    def enable_forwarding(self, devices: Sequence[str], *, sources: Sequence[str], masquerade: bool) -> None:
        """Become a router between the devices and the host's other networks, behind a firewall that is closed.

        ``sources`` are the networks that the tunnel's clients have their addresses from; IP versions that they
        do not mention are not switched to forwarding. With ``masquerade`` what they send takes the host's
        address on its way out. Nobody may reach anything until `allow`.

        Raises:
            InvalidNetwork: one of the sources is no network, one of the devices was not opened here, or forwarding is
                enabled already.
            InstanceBusy: another running program of this instance has its firewall table.
            PermissionDenied, FirewallRefused, NetworkRefused: the kernel refused; nothing has changed.
        """
        for device in devices:
            self._require(device)
        if self._firewall is not None:
            raise InvalidNetwork("forwarding is enabled already; one program is one gateway")
        versions = {ip_network(checked_network(source)).version for source in sources}
        # The firewall first: at no moment is the host an open router.
        firewall = Firewall(self.instance, devices, sources=sources, masquerade=masquerade)
        try:
            for version in sorted(versions):
                self._sysctls.set(_FORWARDING[version], "1")
        except BaseException:
            firewall.close()
            self._attempt("restore the kernel's settings", self._sysctls.restore)
            raise
        self._firewall = firewall
        _log.info("Enabled forwarding", extra={"devices": list(devices), "masquerade": masquerade})

    def allow(self, client_address: str, network: str) -> None:
        """Let the client reach the network through us. Idempotent.

        Raises:
            InvalidNetwork: malformed, of different IP versions, or forwarding is not enabled.
            PermissionDenied, FirewallRefused: the kernel refused; nothing has changed.
        """
        self._required_firewall().allow(client_address, network)

    def revoke(self, client_address: str, network: str) -> None:
        """Take the permission back, and end the client's connections to the network. Idempotent.

        Raises:
            InvalidNetwork, PermissionDenied, FirewallRefused: as `allow`.
        """
        self._required_firewall().revoke(client_address, network)

    def close(self) -> None:
        """Put everything back. Never raises; what resists is logged, and the rest is still done. Idempotent."""
        self._sysctls_and_firewall_closed()
        if self._routes or self._devices:
            self._attempt("remove the routes and devices", self._links_removed)
        devices, self._devices = self._devices, {}
        for fd in devices.values():
            os.close(fd)
        self._routes.clear()

    def _sysctls_and_firewall_closed(self) -> None:
        # Stop forwarding before the filter goes, the reverse of how it was enabled.
        self._attempt("restore the kernel's settings", self._sysctls.restore)
        firewall, self._firewall = self._firewall, None
        if firewall is not None:
            firewall.close()

    def _links_removed(self) -> None:
        # Deleted, not only closed: a worker may still hold a duplicate of the descriptor.
        with Links() as links:
            for network, device in sorted(self._routes):
                with contextlib.suppress(NetworkError):
                    links.remove_route(network, device)
            for device in self._devices:
                links.delete(device)

    def _attempt(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  (leaving goes on, whatever resists)
            _log.warning("Could not put the host's network back", extra={"step": what, "error": str(error)})

    def _links(self) -> contextlib.AbstractContextManager[Links]:
        return Links() if self._shared is None else contextlib.nullcontext(self._shared)

    def _require(self, device: str) -> None:
        if device not in self._devices:
            raise InvalidNetwork(f"the device {device} was not opened here")

    def _required_firewall(self) -> Firewall:
        if self._firewall is None:
            raise InvalidNetwork("forwarding is not enabled")
        return self._firewall


def _quieten_ipv6(device: str) -> None:
    """Let the device have IPv6 addresses, but none that we did not give it.

    Some hosts disable IPv6 on new devices. And by itself Linux would make up a link-local address and solicit
    routers through the tunnel (addr_gen_mode 1: none). A kernel without IPv6 has neither setting.
    """
    for name, value in (("disable_ipv6", "0"), ("addr_gen_mode", "1"), ("accept_ra", "0")):
        with contextlib.suppress(NetworkError):
            path = f"ipv6/conf/{device}/{name}"
            if read_sysctl(path) != value:
                write_sysctl(path, value)
