"""Faults on a router: datagrams lost by chance, a link that is cut without anybody being told.

Each fault is a table of its own, before every other rule on the way (forward, priority -300), so it can be put
in and taken out while traffic flows. Both directions suffer. What a router sends itself is not affected.
"""

from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.nft_expressions import Family, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Transaction

from .namespace import Namespace

_LOSS, _CUT = "loss", "cut"
_PRIORITY = -300  # nft's "raw": before filters and conntrack-dependent chains


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
