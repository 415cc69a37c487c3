"""The usual laboratory: two sites, an internet, and a network that only the gateways reach.

::

    client 10.1.0.2 ── NAT 198.51.100.2 ── internet ── 203.0.113.2 NAT ──┬── gateway-1 10.2.0.2 ──┬── resource
                                       192.0.2.1, .2, .3                 └── gateway-2 10.2.0.3 ──┘  10.20.0.10
                                       (relay, portal)                                10.20.0.2, .3

The resource has no default route, so it answers only who appears to be in its own network: a gateway that forgets
to masquerade is found out.
"""

from .cabling import lay_lan
from .internet import PORTAL_ADDRESS, RELAY_ADDRESSES, Delays, Internet
from .namespace import Namespace
from .nat_kinds import NatKind

INTERNET_ADDRESSES = (*RELAY_ADDRESSES, PORTAL_ADDRESS)
RESOURCE_ADDRESS = "10.20.0.10"
RESOURCE_NETWORK = "10.20.0.0/24"
GATEWAYS_MAX = 2


class Lab(Internet):
    """A client's site and a gateways' site. Built by entering it (about a quarter of a second)."""

    def __init__(
        self,
        *,
        client_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateway_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateways: int = 1,
        delays: Delays | None = None,
        mtu: int = 1500,
    ) -> None:
        """Build it.

        Args:
            client_nat: what the client is behind.
            gateway_nat: what the gateways are behind.
            gateways: one or two, all behind the same NAT.
            delays: of the wires, which can be impaired then; None for plain cables.
            mtu: of every cable, in bytes.

        Raises:
            ValueError: another number of gateways, or no such kind of NAT.
            OSError, NetworkError, DeviceError: the system does not let us.
        """
        if not 1 <= gateways <= GATEWAYS_MAX:
            raise ValueError(f"there are 1 to {GATEWAYS_MAX} gateways, not {gateways}")
        client_nat, gateway_nat = NatKind(client_nat), NatKind(gateway_nat)
        super().__init__(ipv6=client_nat.has_ipv6 or gateway_nat.has_ipv6, delays=delays, mtu=mtu)
        try:
            self.client_site = self.add_site("client", client_nat)
            names = [str(number + 1) for number in range(gateways)]
            self.gateway_site = self.add_site("gateway", gateway_nat, names)
            self.client = self.client_site.host
            self.gateways = self.gateway_site.hosts
            self.resource = self._resource(mtu)
            self.start()
        except BaseException:
            self.close()
            raise

    def _resource(self, mtu: int) -> Namespace:
        resource = self._namespace("resource")
        lay_lan(resource, "lan", [f"{RESOURCE_ADDRESS}/24"], [(each, "lan") for each in self.gateways], mtu=mtu)
        for number, gateway in enumerate(self.gateways, start=2):
            gateway.configure(addresses={"lan": [f"10.20.0.{number}/24"]})
        return resource
