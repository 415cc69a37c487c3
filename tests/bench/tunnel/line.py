"""The line that all are measured on: three namespaces, two cables, and what a gateway does for those behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from exeunt.clients.demo.stage import PORTAL_ADDRESS
from exeunt.clients.lab import Namespace, NatKind, Route, connect, install_nat
from exeunt.clients.lab.topology import RESOURCE_ADDRESS, RESOURCE_NETWORK

CLIENT_ADDRESS, GATEWAY_ADDRESS = "10.1.0.2", "10.1.0.1"
CABLE = "eth0"
"""The line's ends, on both sides."""
LINE_MTU = 1500


class Line:
    """Client, gateway and resource. Gone when closed or when its process dies."""

    def __init__(self) -> None:
        self.client, self.gateway, self.resource = (Namespace(name) for name in ("client", "gateway", "resource"))
        try:
            connect(self.client, CABLE, self.gateway, CABLE, mtu=LINE_MTU)
            connect(self.gateway, "lan", self.resource, "lan", mtu=LINE_MTU)
            self.gateway.configure(
                addresses={
                    CABLE: [f"{GATEWAY_ADDRESS}/24"],
                    "lan": ["10.20.0.2/24"],
                    "lo": [f"{PORTAL_ADDRESS}/32"],
                },
                sysctls={"ipv4/ip_forward": "1"},
            )
            default = Route("0.0.0.0/0", CABLE, via=GATEWAY_ADDRESS)
            self.client.configure(addresses={CABLE: [f"{CLIENT_ADDRESS}/24"]}, routes=[default])
            self.resource.configure(addresses={"lan": [f"{RESOURCE_ADDRESS}/24"]})
        except BaseException:
            self.close()
            raise

    # What a stage wants of its laboratory: the portal has its place beside the gateway.

    @property
    def internet(self) -> Namespace:
        return self.gateway

    @property
    def relay(self) -> Namespace:
        return self.gateway

    @property
    def gateways(self) -> tuple[Namespace, ...]:
        return (self.gateway,)

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        return self.client, self.gateway, self.resource

    def masquerade(self) -> None:
        """Let the client's packets to the resource have the gateway's address, as our gateway does it by itself."""
        install_nat(self.gateway, "lan", CLIENT_ADDRESS, NatKind.PORT_RESTRICTED)

    def route_through(self, device: str) -> None:
        """Have the client reach the resource through this device."""
        self.client.configure(routes=[Route(RESOURCE_NETWORK, device)])

    @contextlib.contextmanager
    def datagrams_alone(self) -> Generator[None]:
        """The line cuts trains of datagrams, and nobody joins them again, as on many real links."""
        self._set_segmentation(on=False)
        try:
            yield
        finally:
            self._set_segmentation(on=True)

    def close(self) -> None:
        """End every program in it and let go of it. Idempotent."""
        for namespace in (self.resource, self.gateway, self.client):
            namespace.close()

    def _set_segmentation(self, *, on: bool) -> None:
        for namespace in (self.client, self.gateway):
            namespace.run(lambda: _set_feature(CABLE, "tx-udp-segmentation", on=on))


def _set_feature(device: str, feature: str, *, on: bool) -> None:
    """What `ethtool -K DEVICE FEATURE on|off` does."""
    from pyroute2.ethtool.ioctl import IoctlEthtool

    control: Any = IoctlEthtool(device)
    try:
        features = control.get_features()
        features[feature] = on
        control.set_features(features)
    finally:
        control.close()
