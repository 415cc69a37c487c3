"""One side of the laboratory: hosts behind a router, and the addresses that follow from the site's number.

::

    number 7        host ──┬── (home) ── nat ── internet
    IPv4            10.7.0.2, .3            198.18.7.2      198.51.100.2 and 203.0.113.2 for the first two
      no NAT        198.19.7.2, .3                          what is not translated must be an address that others reach
      two boxes                  100.64.7.2 or 192.168.7.2 between them
    IPv6            2001:db8:7:1::2, ::3    2001:db8:7::2

All are of the documentation, benchmarking (RFC 5737, 2544, 3849), carrier (RFC 6598) or private ranges.
"""

from dataclasses import dataclass

from .namespace import Namespace
from .nat_kinds import NatKind

_PUBLIC = {1: "198.51.100", 2: "203.0.113"}
SITES_MAX = 250


@dataclass(frozen=True, slots=True)
class Site:
    """One side of the laboratory."""

    number: int
    name: str
    kind: NatKind
    hosts: tuple[Namespace, ...]
    nat: Namespace
    """The router on the internet's side; of two boxes the outer one."""
    home: Namespace | None
    """The inner router where there are two."""
    wire: int | None = None
    """Its wire to the internet, if that can be impaired."""

    @property
    def host(self) -> Namespace:
        """The first host: the one that unsolicited packets reach where the NAT lets them in."""
        return self.hosts[0]

    @property
    def boxes(self) -> tuple[Namespace, ...]:
        """Its routers, from the internet inwards."""
        return (self.nat,) if self.home is None else (self.nat, self.home)

    @property
    def prefix(self) -> str:
        """Of the site's own network: ``10.1.0``, of which .1 is the router and .2, .3 are the hosts."""
        return f"198.19.{self.number}" if self.is_open else f"10.{self.number}.0"

    @property
    def is_open(self) -> bool:
        """Whether others see the hosts' own IPv4 addresses."""
        return self.kind.has_ipv4 and not self.kind.translates

    @property
    def public(self) -> str:
        """Of the router's network: ``198.51.100``, of which .1 is the internet and .2 is the router."""
        return _PUBLIC.get(self.number, f"198.18.{self.number}")

    @property
    def between(self) -> str:
        """Of the network between two boxes: .1 is the outer one, .2 the inner one."""
        return f"192.168.{self.number}" if self.kind is NatKind.DOUBLE else f"100.64.{self.number}"

    @property
    def prefix6(self) -> str:
        """Of the site's own IPv6 network, a /64: ``2001:db8:1:1``, of which ::1 is the router."""
        return f"2001:db8:{self.number:x}:1"

    @property
    def public6(self) -> str:
        """Of the router's IPv6 network, a /64: ``2001:db8:1``, of which ::1 is the internet and ::2 the router."""
        return f"2001:db8:{self.number:x}"

    def addresses(self, number: int) -> list[str]:
        """The addresses, with prefix lengths, of the host (or, 1: the router) with this last byte."""
        return [
            *([f"{self.prefix}.{number}/24"] if self.kind.has_ipv4 else []),
            *([f"{self.prefix6}::{number:x}/64"] if self.kind.has_ipv6 else []),
        ]
