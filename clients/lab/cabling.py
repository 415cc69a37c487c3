"""Cables between namespaces: from one to another, or from several to a switch."""

from collections.abc import Sequence

from exeunt.actors.network.links import Links

from .devices import switch_on
from .namespace import Namespace


def connect(one: Namespace, device: str, other: Namespace, peer: str, *, mtu: int = 1500) -> None:
    """Lay a cable (veth pair): ``device`` in ``one``, ``peer`` in ``other``, both down and without address."""

    def inside() -> None:
        with Links() as links:
            links.add_veth(device, peer, other.fd, mtu=mtu)

    one.run(inside)


def lay_lan(
    owner: Namespace, bridge: str, addresses: Sequence[str], hosts: Sequence[tuple[Namespace, str]], *, mtu: int
) -> None:
    """A switch in ``owner``, which has these addresses on it, with a cable to each host's device."""

    def inside() -> None:
        with Links() as links:
            links.add_bridge(bridge)
            switch_on(links, bridge, addresses)
            for number, (host, device) in enumerate(hosts, start=1):
                links.add_veth(f"{bridge}-{number}", device, host.fd, mtu=mtu)
                links.plug(f"{bridge}-{number}", bridge)
                links.set_up(f"{bridge}-{number}")

    owner.run(inside)
