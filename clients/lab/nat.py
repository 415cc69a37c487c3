"""NAT boxes and firewalls, as nf_tables rules. What the kinds mean is told in `nat_kinds`.

Linux's masquerade keeps the source port where it is free, which is endpoint-independent mapping for one inside
host; ``fully-random`` gives each connection its own port, which is symmetric. Conntrack's filtering is address
and port-dependent; destination NAT to the inside host loosens it.

The box must *drop* unsolicited packets to itself. Were they accepted, conntrack would confirm a peer's early packet
as a connection of the box, the port would then be taken, masquerade would silently pick another one, and hole
punching between two port-restricted NATs would fail.
"""

from ipaddress import ip_address

from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.netlink import be32, native32
from exeunt.actors.network.nft_expressions import Expression, Family, State, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Set, Transaction

from .namespace import Namespace
from .nat_kinds import NatKind

TABLE, TABLE6 = "nat", "firewall"
TCP, HTTPS_PORT = 6, 443
PortRange = tuple[int, int]
_SEEN = "seen"  # the remote addresses that the inside host has talked to
_SEEN_TIMEOUT_MS = 30_000  # as conntrack's own nf_conntrack_udp_timeout
_DESTINATION_NAT_PRIORITY, _FILTER_PRIORITY, _SOURCE_NAT_PRIORITY = -100, 0, 100
_RTN_LOCAL = 2  # linux/rtnetlink.h
_RANGE_GIVEN = 0x02  # NF_NAT_RANGE_PROTO_SPECIFIED
_SIMPLE_BOXES = frozenset(kind for kind in NatKind if kind.boxes == (kind,))


def install_nat(box: Namespace, wan: str, inside_host: str, kind: NatKind, *, ports: PortRange | None = None) -> None:
    """Make ``box``, which forwards already, an IPv4 NAT of this kind on its device ``wan``. Replaces what it was.

    Args:
        box: the namespace of the router.
        wan: its device towards the internet.
        inside_host: the IPv4 address that unsolicited packets reach, where the kind lets them in. A full-cone
            or address-restricted NAT translates for this one host; behind the others there may be many.
        kind: one that is a single box (see `NatKind.boxes`).
        ports: the outside ports to use, first and last; None: the inside ports, where they are free. Not for the
            two kinds that translate inwards.

    Raises:
        ValueError: the kind is no single box, or does not go with ``ports``.
        NetworkError: the kernel refused.
    """
    if kind not in _SIMPLE_BOXES:
        raise ValueError(f"{kind} is two boxes, or none, not a kind of one")
    if ports is not None and kind in {NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED}:
        raise ValueError(f"a {kind} NAT keeps the inside ports, else it could not tell whose an unsolicited packet is")
    table = _replacing(Family.IPV4, TABLE)
    if kind is NatKind.NONE:
        _commit(box, table)
        return
    table.add_table()
    if kind is NatKind.ADDRESS_RESTRICTED:
        table.add_set(Set(_SEEN, (4,), (7,), _SEEN_TIMEOUT_MS))
    _add_input(table, wan, nft.ICMP)
    _add_forward(table, wan, kind)
    if kind.translates:
        _add_translation(table, wan, inside_host, kind, ports)
    _commit(box, table)


def install_firewall6(box: Namespace, wan: str) -> None:
    """Let only replies and ICMPv6 in through ``wan`` over IPv6. Replaces what it was.

    Raises:
        NetworkError: the kernel refused.
    """
    table, accept = _replacing(Family.IPV6, TABLE6), nft.verdict(Verdict.ACCEPT)
    table.add_table()
    _add_input(table, wan, nft.ICMPV6)
    table.add_chain(Chain("forward", Hook.FORWARD, _FILTER_PRIORITY, policy=Verdict.DROP))
    table.add_rule("forward", *nft.in_state(State.ESTABLISHED | State.RELATED), accept)
    table.add_rule("forward", *nft.came_in_by(wan, negate=True), accept)
    table.add_rule("forward", *nft.is_protocol(nft.ICMPV6), accept)  # RFC 4890: what must not be filtered
    _commit(box, table)


def _add_input(table: Transaction, wan: str, icmp: int) -> None:
    coming = nft.came_in_by(wan)
    table.add_chain(Chain("input", Hook.INPUT, _FILTER_PRIORITY))
    table.add_rule("input", *nft.in_state(State.ESTABLISHED | State.RELATED), nft.verdict(Verdict.ACCEPT))
    table.add_rule("input", *coming, *nft.is_protocol(icmp), nft.verdict(Verdict.ACCEPT))
    table.add_rule("input", *coming, nft.counter(), nft.verdict(Verdict.DROP))


def _add_forward(table: Transaction, wan: str, kind: NatKind) -> None:
    accept, drop = nft.verdict(Verdict.ACCEPT), nft.verdict(Verdict.DROP)
    outgoing, udp = nft.leaves_by(wan), nft.is_protocol(nft.UDP)
    table.add_chain(Chain("forward", Hook.FORWARD, _FILTER_PRIORITY, policy=Verdict.DROP))
    if kind in {NatKind.UDP_BLOCKED, NatKind.TCP_443}:
        table.add_rule("forward", *udp, nft.counter(), drop)
    if kind is NatKind.TCP_443:
        not_https = nft.compare(HTTPS_PORT.to_bytes(2, "big"), nft.Compare.NOT_EQUAL)
        to_port = (nft.transport_header(2, 2), not_https)
        table.add_rule("forward", *outgoing, *nft.is_protocol(TCP), *to_port, nft.counter(), drop)
    if kind is NatKind.ADDRESS_RESTRICTED:
        # Here and not in the nat chain, which sees only the first packet of a connection: each one renews.
        noted = (nft.destination_address(4), nft.remember(_SEEN, _SEEN_TIMEOUT_MS))
        table.add_rule("forward", *outgoing, *udp, *noted)
    table.add_rule("forward", *nft.in_state(State.ESTABLISHED | State.RELATED), accept)
    table.add_rule("forward", *nft.came_in_by(wan, negate=True), accept)
    table.add_rule("forward", *nft.was_redirected(), accept)


def _add_translation(table: Transaction, wan: str, inside_host: str, kind: NatKind, ports: PortRange | None) -> None:
    table.add_chain(Chain("postrouting", Hook.POSTROUTING, _SOURCE_NAT_PRIORITY, kind="nat"))
    translate = _masquerade(ports, random=kind is NatKind.SYMMETRIC)
    table.add_rule("postrouting", *nft.leaves_by(wan), *translate)
    admitted: tuple[Expression, ...]
    if kind is NatKind.FULL_CONE:
        admitted = ()
    elif kind is NatKind.ADDRESS_RESTRICTED:
        admitted = (nft.source_address(4), nft.in_set(_SEEN))
    else:
        return
    inwards = nft.translate_destination(ip_address(inside_host))
    table.add_chain(Chain("prerouting", Hook.PREROUTING, _DESTINATION_NAT_PRIORITY, kind="nat"))
    asked = (*nft.came_in_by(wan), *nft.is_protocol(nft.UDP), *_is_to_this_box())
    table.add_rule("prerouting", *asked, *admitted, *inwards)


def _is_to_this_box() -> tuple[Expression, ...]:
    """``fib daddr type local``: the destination is an address that the box has now, not one that it had."""
    # Its attributes: the register, the result NFT_FIB_RESULT_ADDRTYPE, the flag NFTA_FIB_F_DADDR.
    address_type = nft.expression("fib", be32(1, nft.FIRST_REGISTER), be32(2, 3), be32(3, 2))
    return address_type, nft.compare(native32(_RTN_LOCAL))


def _masquerade(ports: PortRange | None, *, random: bool) -> tuple[Expression, ...]:
    """With a range the kernel shifts every inside port by the same amount, so the mapping stays as independent."""
    if ports is None or random:
        return (nft.masquerade(random_ports=random),)
    first, last = (port.to_bytes(2, "big") for port in ports)
    register, other = nft.FIRST_REGISTER, nft.FIRST_REGISTER + 1
    # NFTA_MASQ_FLAGS, NFTA_MASQ_REG_PROTO_MIN, NFTA_MASQ_REG_PROTO_MAX
    shifted = nft.expression("masq", be32(1, _RANGE_GIVEN), be32(2, register), be32(3, other))
    return nft.load(first, register), nft.load(last, other), shifted


def _replacing(family: Family, name: str) -> Transaction:
    """Deleting needs a table that exists: making one that may exist and deleting it always works."""
    table = Transaction(family, name)
    table.add_table(exclusive=False)
    table.delete_table()
    return table


def _commit(box: Namespace, table: Transaction) -> None:
    def inside() -> None:
        with NftSocket() as nf_tables:
            nf_tables.commit(table)

    box.run(inside)
