"""What may stand between a site and the internet.

RFC 4787 tells NATs by two behaviours: *mapping* (does one inside port keep one outside port, whoever it talks
to?) and *filtering* (who may answer to that outside port?). The older names, which everybody uses:

=================== ============================ =====================================
kind                mapping                      filtering
=================== ============================ =====================================
full_cone           endpoint-independent         endpoint-independent
address_restricted  endpoint-independent         address-dependent
port_restricted     endpoint-independent         address and port-dependent
symmetric           address and port-dependent   address and port-dependent
=================== ============================ =====================================

Of two boxes in a row the stricter behaviour counts, in mapping and in filtering: a carrier that follows RFC 6888
(endpoint-independent in both) leaves a home's NAT what it is, one that is symmetric makes all behind it symmetric.
"""

from enum import StrEnum


class NatKind(StrEnum):
    """What stands between a site and the internet. IPv4 only, where nothing else is said."""

    NONE = "none"
    """A plain router: the site's addresses are reachable."""
    FIREWALL = "fw"
    """No translation, but only replies come in."""
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"
    DOUBLE = "double"
    """Port-restricted behind port-restricted: two home routers in a row."""
    CARRIER = "carrier"
    """A home's port-restricted NAT behind a carrier's in 100.64.0.0/10 that is as RFC 6888 wants it."""
    CARRIER_SYMMETRIC = "carrier_symmetric"
    """The same behind a carrier's symmetric NAT, as mobile networks have them."""
    UDP_BLOCKED = "udp_blocked"
    """Port-restricted, and no UDP passes in either direction."""
    TCP_443 = "tcp_443"
    """Port-restricted, and nothing passes but TCP to port 443: a strict office."""
    IPV6_ONLY = "ipv6_only"
    """No IPv4 at all; IPv6 behind a firewall that lets only replies in."""
    DUAL_STACK = "dual_stack"
    """IPv4 behind a port-restricted NAT, IPv6 behind a firewall that lets only replies in."""

    @property
    def translates(self) -> bool:
        """Whether the site's own IPv4 addresses are hidden from the internet."""
        return self.has_ipv4 and self not in {NatKind.NONE, NatKind.FIREWALL}

    @property
    def has_ipv4(self) -> bool:
        """Whether the site has IPv4."""
        return self is not NatKind.IPV6_ONLY

    @property
    def has_ipv6(self) -> bool:
        """Whether the site has IPv6."""
        return self in {NatKind.IPV6_ONLY, NatKind.DUAL_STACK}

    @property
    def boxes(self) -> tuple["NatKind", ...]:
        """The IPv4 NATs that it is made of, from the internet inwards: two, one or (without IPv4) none."""
        if self is NatKind.IPV6_ONLY:
            return ()
        outermost = {
            NatKind.DOUBLE: NatKind.PORT_RESTRICTED,
            NatKind.CARRIER: NatKind.FULL_CONE,
            NatKind.CARRIER_SYMMETRIC: NatKind.SYMMETRIC,
        }.get(self)
        if outermost is not None:
            return outermost, NatKind.PORT_RESTRICTED
        return (NatKind.PORT_RESTRICTED if self is NatKind.DUAL_STACK else self,)
