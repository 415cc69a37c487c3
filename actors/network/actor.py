"""The network actor: the one that may change the host, on a thread of its own because netlink calls block.

Nothing it did survives it: `on_stop` and `on_crash` put everything back, and what a SIGKILL prevents the kernel
undoes (a device goes with its last descriptor, the firewall table with its netlink socket). For the same reason all of
it survives a restart: the successor has the descriptors, and answers for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from exeunt.runtime import BlockingActor, Refused, receive

from ..device import DeviceError
from ..device.actor import hand_over
from ..succession import hands_over, inherit, leave
from .errors import NetworkError
from .host import HostLegacy, HostNetwork
from .messages import (
    NOBODY_THERE,
    AllowAccess,
    DeviceOpened,
    EnableForwarding,
    NetworkDone,
    OpenDevice,
    RevokeAccessTo,
    RoutesSet,
    SetRoutes,
    Steer,
)

OFFLOADS_VARIABLE: Final = "EXEUNT_OFFLOADS"
"""0: the device gives and takes one packet at a time, as on a kernel that can do no more."""

T = TypeVar("T")


class NetworkLegacy(msgspec.Struct, frozen=True):
    """What the network actor leaves to its successor, beside descriptors."""

    host: HostLegacy
    routes: dict[str, tuple[str, ...]]
    """By device."""


class Network(BlockingActor):
    """Devices, addresses, routes, forwarding and firewall of one program."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._host = HostNetwork(instance)
        self._open: dict[str, int] = {}
        self._routes: dict[str, set[str]] = {}

    def on_start(self) -> None:
        """Answer for what the predecessor has done to the host, if there is one."""
        found = self._on_loop(lambda: inherit(self, NetworkLegacy))
        if found is not None:
            left, descriptors = found
            self._open = self._host.adopt(left.host, descriptors)
            self._routes = {device: set(networks) for device, networks in left.routes.items()}

    def on_stop(self) -> None:
        """Put everything back, unless a successor answers for it from now on."""
        if hands_over(self):
            host, descriptors = self._host.legacy()
            routes = {device: tuple(networks) for device, networks in self._routes.items()}
            self._on_loop(lambda: leave(self, NetworkLegacy(host, routes), descriptors))
            self._host.let_go()
        else:
            self._host.close()

    def on_crash(self, failure: object) -> None:
        """Put everything back."""
        self._host.close()

    @receive(OpenDevice)
    def on_open_device(self, message: OpenDevice) -> DeviceOpened:
        """Open the device, or re-address it, and hand it over."""
        with _refusing():
            if message.name in self._open:
                self._host.set_addresses(message.name, message.addresses)
            else:
                self._open[message.name] = self._host.open_device(
                    message.name, message.addresses, message.mtu, offloads=os.environ.get(OFFLOADS_VARIABLE) != "0"
                )
        try:
            hand_over(Path(message.hand_over), self._open[message.name])
        except OSError as error:
            raise Refused(NOBODY_THERE, f"nobody takes the device {message.name}: {error}") from error
        return DeviceOpened(message.name)

    @receive(SetRoutes)
    def on_set_routes(self, message: SetRoutes) -> RoutesSet:
        """Make these the device's routes; one that the kernel refuses does not cost the others."""
        wanted = set(message.networks)
        present = self._routes.get(message.device, set[str]())
        refused: dict[str, str] = {}
        for network in sorted(present - wanted):
            with _noting(refused, network):
                self._host.remove_route(network, message.device)
        for network in sorted(wanted - present):
            with _noting(refused, network):
                self._host.add_route(network, message.device)
        self._routes[message.device] = wanted - refused.keys()
        return RoutesSet(refused)

    @receive(Steer)
    def on_steer(self, message: Steer) -> RoutesSet:
        """Move these networks from wherever they lead to that device; one that is refused does not cost the others."""
        refused: dict[str, str] = {}
        with self._host.at_once():
            for network in message.networks:
                with _noting(refused, network):
                    self._lead(network, message.device)
        return RoutesSet(refused)

    @receive(EnableForwarding)
    def on_enable_forwarding(self, message: EnableForwarding) -> NetworkDone:
        """Become a router, closed until `AllowAccess`."""
        with _refusing():
            self._host.enable_forwarding(message.devices, sources=message.sources, masquerade=message.masquerade)
        return NetworkDone()

    @receive(AllowAccess)
    def on_allow(self, message: AllowAccess) -> NetworkDone:
        """Let a client reach a network."""
        with _refusing():
            self._host.allow(message.client_address, message.network)
        return NetworkDone()

    @receive(RevokeAccessTo)
    def on_revoke(self, message: RevokeAccessTo) -> NetworkDone:
        """Take that back."""
        with _refusing():
            self._host.revoke(message.client_address, message.network)
        return NetworkDone()

    def _lead(self, network: str, to: str) -> None:
        for device in [one for one, networks in self._routes.items() if network in networks and one != to]:
            self._host.remove_route(network, device)
            self._routes[device].discard(network)
        if to:
            self._host.add_route(network, to)
            self._routes.setdefault(to, set()).add(network)

    def _on_loop(self, work: Callable[[], T]) -> T:
        """Have the loop do something that only it may, and wait for it."""
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                done.set_exception(error)

        if not self.node.hop(do):
            raise RuntimeError("the loop has been closed")
        return done.result()


@contextmanager
def _refusing() -> Generator[None]:
    """Turn what the host says no to into a refusal: it is an answer, not a crash."""
    try:
        yield
    except (NetworkError, DeviceError) as error:
        hint = getattr(error, "hint", "")
        raise Refused(type(error).__name__, f"{error} {hint}".strip()) from error
    except OSError as error:
        raise Refused("os_error", str(error)) from error


@contextmanager
def _noting(refused: dict[str, str], network: str) -> Generator[None]:
    try:
        yield
    except NetworkError as error:
        refused[network] = str(error)
