"""Switching devices on, with IPv6 or without. On the thread that made the `Links`, whose namespace it is about."""

from collections.abc import Iterable

from exeunt.actors.network.links import Links
from exeunt.actors.network.sysctl import write_sysctl


def switch_on(links: Links, device: str, addresses: Iterable[str] = ()) -> None:
    """Switch the device on and give it these addresses (``10.0.0.2/24``); IPv6 only if one of them is."""
    addresses = list(addresses)
    if any(":" in address for address in addresses):
        allow_ipv6(device)
    links.set_up(device)
    for address in addresses:
        links.add_address(device, address)


def allow_ipv6(device: str) -> None:
    """Have IPv6 on the device, with no questions to others: no router solicitations, no test for duplicates."""
    for name, value in (("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")):
        write_sysctl(f"ipv6/conf/{device}/{name}", value)
