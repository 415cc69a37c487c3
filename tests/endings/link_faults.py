"""A fault that the laboratory does not have: the portal's connection to a client is reset, the client's is not.

What the portal sends to the client is answered with a TCP reset on its way, so to the portal it looks as if the
client's process had died; the client lives on, and its tunnel too.
"""

from __future__ import annotations

import struct
from typing import Final

from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.netlink import attribute, be32
from exeunt.actors.network.nft_expressions import Expression, Family, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Transaction
from exeunt.clients.lab import Namespace

_TABLE: Final = "portal-link"
_TCP: Final = 6
_REJECT_TCP_RST: Final = 1  # NFT_REJECT_TCP_RST
_PRIORITY: Final = -300


def reset_portal_link(router: Namespace, port: int) -> None:
    """From now on answer what comes from TCP port `port` with resets, and let nothing through to it."""
    table = _without()
    table.add_table()
    table.add_chain(Chain("forward", Hook.FORWARD, _PRIORITY))
    source = (nft.transport_header(0, 2), nft.compare(struct.pack("!H", port)))
    table.add_rule("forward", *nft.is_protocol(_TCP), *source, _reject())
    to_new = (nft.transport_header(2, 2), nft.compare(struct.pack("!H", port)))
    syn = (nft.transport_header(13, 1), nft.compare(b"\x02"))
    table.add_rule("forward", *nft.is_protocol(_TCP), *to_new, *syn, nft.verdict(Verdict.DROP))
    _commit(router, table)


def mend_portal_link(router: Namespace) -> None:
    """Undo it."""
    _commit(router, _without())


def _reject() -> Expression:
    return nft.expression("reject", be32(1, _REJECT_TCP_RST), attribute(2, b"\0"))


def _without() -> Transaction:
    table = Transaction(Family.IPV4, _TABLE)
    table.add_table(exclusive=False)
    table.delete_table()
    return table


def _commit(router: Namespace, change: Transaction) -> None:
    def inside() -> None:
        with NftSocket() as nf_tables:
            nf_tables.commit(change)

    router.run(inside)
