"""What a pair of NATs lets come about: a direct path or a relayed one. Worked out, not measured.

Two sides can meet directly when they have an address family in common and, in it, at least one of them admits the
other's first packet, or both send to where the other really is. The second is what hole punching needs: it fails
when one side is symmetric, since nobody can tell from which port it will come, unless the other side does not care.
"""

from __future__ import annotations

from enum import StrEnum

from exeunt.clients.lab import NatKind

ADMITS_ANY_PORT = {NatKind.NONE, NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED}
SYMMETRIC = {NatKind.SYMMETRIC, NatKind.CARRIER_SYMMETRIC}
NO_UDP = {NatKind.UDP_BLOCKED, NatKind.TCP_443}


class Expected(StrEnum):
    """How a client and a gateway come together."""

    DIRECT = "direct"
    RELAYED = "relayed"


def expected(client: NatKind, gateway: NatKind) -> Expected:
    """What the agents must find behind these two."""
    if client.has_ipv6 and gateway.has_ipv6:
        return Expected.DIRECT
    if not (client.has_ipv4 and gateway.has_ipv4) or {client, gateway} & NO_UDP:
        return Expected.RELAYED
    for one, other in ((client, gateway), (gateway, client)):
        if one in SYMMETRIC and other not in ADMITS_ANY_PORT:
            return Expected.RELAYED
    return Expected.DIRECT
