"""Whose doing an ending is, where it was told rather than done: by a goodbye, or by the portal.

A cause says a good part of it. A worker that crashed was spoken for by its supervisor; access is the portal's to give
and to take; and what was concluded from silence (`network_lost`, `relay_lost`, `process_died`, `never_connected`) is
`network`: nobody said anything, so nobody can be named. Everything else the peer did itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..endings import Cause, Initiator

_INITIATED_BY: Final[Mapping[Cause, Initiator]] = MappingProxyType(
    {
        Cause.ACCESS_REVOKED: Initiator.PORTAL,
        Cause.ACCESS_EXPIRED: Initiator.PORTAL,
        Cause.PORTAL_DENIED: Initiator.PORTAL,
        Cause.WORKER_CRASHED: Initiator.SUPERVISOR,
        Cause.SUPERVISOR_DIED: Initiator.SUPERVISOR,
        Cause.PROCESS_DIED: Initiator.NETWORK,
        Cause.NETWORK_LOST: Initiator.NETWORK,
        Cause.RELAY_LOST: Initiator.NETWORK,
        Cause.NEVER_CONNECTED: Initiator.NETWORK,
    }
)

_OTHER_WORDS: Final[Mapping[str, Cause]] = MappingProxyType(
    {
        "crashed": Cause.WORKER_CRASHED,  # an event loop's last word to the portal
        "process_died": Cause.NETWORK_LOST,  # the peer took us for dead, and we are here to hear it
    }
)


def initiator_of(cause: Cause) -> Initiator:
    """Return who ended a connection, if the other side gave this cause for it."""
    return _INITIATED_BY.get(cause, Initiator.PEER)


def told_cause(word: str) -> Cause:
    """Return the cause that the other side's word for its ending means here. A word of a later version, or none, means
    what a goodbye without a reason does.
    """
    if word in _OTHER_WORDS:
        return _OTHER_WORDS[word]
    return Cause(word) if word in set(Cause) else Cause.SHUTTING_DOWN
