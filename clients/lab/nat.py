"""NAT boxes of the kinds that one meets, as nf_tables rules.

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

Linux's masquerade keeps the source port where it is free, which is endpoint-independent mapping for one inside
host; ``fully-random`` gives each connection its own port, which is symmetric. Conntrack's filtering is address
and port-dependent; destination NAT to the inside host loosens it.

The box must *drop* unsolicited packets to itself. Were they accepted, conntrack would confirm a peer's early packet
as a connection of the box, the port would then be taken, masquerade would silently pick another one, and hole
punching between two port-restricted NATs would fail.
"""

from enum import StrEnum
from ipaddress import ip_address

from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.nft_expressions import Expression, Family, State, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Set, Transaction

from .namespace import Namespace

TABLE = "nat"
_SEEN = "seen"  # the remote addresses that the inside host has talked to
_SEEN_TIMEOUT_MS = 30_000  # as conntrack's own nf_conntrack_udp_timeout
_DESTINATION_NAT_PRIORITY, _FILTER_PRIORITY, _SOURCE_NAT_PRIORITY = -100, 0, 100


class NatKind(StrEnum):
    """What stands between a site and the internet."""

    NONE = "none"
    """A plain router: the site's addresses are reachable."""
    FIREWALL = "fw"
    """No translation, but only replies come in."""
    FULL_CONE = "full_cone"
    ADDRESS_RESTRICTED = "address_restricted"
    PORT_RESTRICTED = "port_restricted"
    SYMMETRIC = "symmetric"
    UDP_BLOCKED = "udp_blocked"
    """Port-restricted, and no UDP passes in either direction."""
    DOUBLE = "double"
    """Port-restricted behind port-restricted (a carrier's NAT); a topology, see `Lab`."""

    @property
    def translates(self) -> bool:
        """Whether the site's own addresses are hidden from the internet."""
        return self not in {NatKind.NONE, NatKind.FIREWALL}


def install_nat(box: Namespace, wan: str, inside_host: str, kind: NatKind) -> None:
    """Make ``box``, which forwards already, a NAT of this kind on its device ``wan``. Once per box.

    Args:
        box: the namespace of the router.
        wan: its device towards the internet.
        inside_host: the IPv4 address that unsolicited packets reach, where the kind lets them in. A full-cone
            or address-restricted NAT translates for this one host; behind the others there may be many.
        kind: not DOUBLE, which is two boxes.

    Raises:
        ValueError: the kind is DOUBLE.
        NetworkError: the kernel refused.
    """
    if kind is NatKind.DOUBLE:
        raise ValueError("a double NAT is two boxes, not a kind of one")
    if kind is NatKind.NONE:
        return
    table = Transaction(Family.IPV4, TABLE)
    table.add_table()
    if kind is NatKind.ADDRESS_RESTRICTED:
        table.add_set(Set(_SEEN, (4,), (7,), _SEEN_TIMEOUT_MS))
    _add_input(table, wan)
    _add_forward(table, wan, kind)
    if kind.translates:
        _add_translation(table, wan, inside_host, kind)

    def inside() -> None:
        with NftSocket() as nf_tables:
            nf_tables.commit(table)

    box.run(inside)


def _add_input(table: Transaction, wan: str) -> None:
    coming = nft.came_in_by(wan)
    table.add_chain(Chain("input", Hook.INPUT, _FILTER_PRIORITY))
    table.add_rule("input", *nft.in_state(State.ESTABLISHED | State.RELATED), nft.verdict(Verdict.ACCEPT))
    table.add_rule("input", *coming, *nft.is_protocol(nft.ICMP), nft.verdict(Verdict.ACCEPT))
    table.add_rule("input", *coming, nft.counter(), nft.verdict(Verdict.DROP))


def _add_forward(table: Transaction, wan: str, kind: NatKind) -> None:
    accept, udp = nft.verdict(Verdict.ACCEPT), nft.is_protocol(nft.UDP)
    table.add_chain(Chain("forward", Hook.FORWARD, _FILTER_PRIORITY, policy=Verdict.DROP))
    if kind is NatKind.UDP_BLOCKED:
        table.add_rule("forward", *udp, nft.counter(), nft.verdict(Verdict.DROP))
    if kind is NatKind.ADDRESS_RESTRICTED:
        # Here and not in the nat chain, which sees only the first packet of a connection: each one renews.
        noted = (nft.destination_address(4), nft.remember(_SEEN, _SEEN_TIMEOUT_MS))
        table.add_rule("forward", *nft.leaves_by(wan), *udp, *noted)
    table.add_rule("forward", *nft.in_state(State.ESTABLISHED | State.RELATED), accept)
    table.add_rule("forward", *nft.came_in_by(wan, negate=True), accept)
    table.add_rule("forward", *nft.was_redirected(), accept)


def _add_translation(table: Transaction, wan: str, inside_host: str, kind: NatKind) -> None:
    table.add_chain(Chain("postrouting", Hook.POSTROUTING, _SOURCE_NAT_PRIORITY, kind="nat"))
    translate = nft.masquerade(random_ports=kind is NatKind.SYMMETRIC)
    table.add_rule("postrouting", *nft.leaves_by(wan), translate)
    admitted: tuple[Expression, ...]
    if kind is NatKind.FULL_CONE:
        admitted = ()
    elif kind is NatKind.ADDRESS_RESTRICTED:
        admitted = (nft.source_address(4), nft.in_set(_SEEN))
    else:
        return
    inwards = nft.translate_destination(ip_address(inside_host))
    table.add_chain(Chain("prerouting", Hook.PREROUTING, _DESTINATION_NAT_PRIORITY, kind="nat"))
    table.add_rule("prerouting", *nft.came_in_by(wan), *nft.is_protocol(nft.UDP), *admitted, *inwards)
