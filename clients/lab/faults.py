"""Faults on a router: datagrams lost by chance, a link that is cut, or too narrow, without anybody being told.

Each fault is a table of its own, before every other rule on the way (forward, priority -300), so it can be put
in and taken out while traffic flows. Both directions suffer. What a router sends itself is not affected.
"""

from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.nft_expressions import Family, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Transaction

from .namespace import Namespace

_LOSS, _CUT, _SWALLOWED = "loss", "cut", "swallowed"
_PRIORITY = -300  # nft's "raw": before filters and conntrack-dependent chains
_BEFORE_REASSEMBLY = -450  # conntrack puts fragments together at -400 (NF_IP_PRI_CONNTRACK_DEFRAG)
_UNREACHABLE = 3  # RFC 792; "fragmentation needed" is one of its codes
_FRAGMENT = b"\x3f\xff"  # RFC 791: more fragments, or an offset


def lose(router: Namespace, percent: float) -> None:
    """Lose about this share of all UDP datagrams that the router forwards; 0 mends it. Replaces what was set.

    Raises:
        ValueError: not within 0…100.
        NetworkError: the kernel refused.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a share lies between 0 and 100 %, not {percent}")
    table = _without(_LOSS)
    if percent:
        table.add_table()
        table.add_chain(Chain("forward", Hook.FORWARD, _PRIORITY))
        lost = (*nft.is_protocol(nft.UDP), *nft.by_chance(percent), nft.counter(), nft.verdict(Verdict.DROP))
        table.add_rule("forward", *lost)
    _commit(router, table)


def cut(router: Namespace) -> None:
    """Drop silently everything that the router would forward. Idempotent."""
    table = _without(_CUT)
    table.add_table()
    table.add_chain(Chain("forward", Hook.FORWARD, _PRIORITY, policy=Verdict.DROP))
    _commit(router, table)


def heal(router: Namespace) -> None:
    """Undo `cut`. Idempotent."""
    _commit(router, _without(_CUT))


def swallow(router: Namespace, *, fragments: bool) -> None:
    """Have the router not say by ICMP that an IPv4 packet was too long for its next link, and, if so wanted, drop
    `fragments` that it receives: what makes a narrow link a black hole (RFC 2923). Replaces what was set.
    """
    table = _without(_SWALLOWED)
    table.add_table()
    table.add_chain(Chain("output", Hook.OUTPUT, _PRIORITY))
    is_error = (*nft.is_protocol(nft.ICMP), nft.transport_header(0, 1), nft.compare(bytes([_UNREACHABLE])))
    table.add_rule("output", *is_error, nft.counter(), nft.verdict(Verdict.DROP))
    if fragments:
        table.add_chain(Chain("prerouting", Hook.PREROUTING, _BEFORE_REASSEMBLY))
        is_fragment = (nft.network_header(6, 2), nft.mask(_FRAGMENT), nft.compare(bytes(2), nft.Compare.NOT_EQUAL))
        dropped = (nft.counter(), nft.verdict(Verdict.DROP))
        table.add_rule("prerouting", *nft.is_family(4), *is_fragment, *dropped)
    _commit(router, table)


def _without(name: str) -> Transaction:
    """Deleting needs a table that exists: making one that may exist and deleting it always works."""
    table = Transaction(Family.INET, name)
    table.add_table(exclusive=False)
    table.delete_table()
    return table


def _commit(router: Namespace, change: Transaction) -> None:
    def inside() -> None:
        with NftSocket() as nf_tables:
            nf_tables.commit(change)

    router.run(inside)
