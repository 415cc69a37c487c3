"""How the actors of a session go on in another process: what one leaves, its successor finds, or it does not begin.

Whoever cannot do without what its predecessor knew (the event loop with its connections, the event stream with its
subscriber, the network with the host's firewall) refuses to start without it, and all that follows is as if it had
crashed. For the others a fresh start is good enough.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from exeunt.runtime import Actor, Refused
from exeunt.runtime.inheritance import HAND_OVER

logger = logging.getLogger(__name__)

Document = TypeVar("Document", bound=msgspec.Struct)


def hands_over(actor: Actor) -> bool:
    """Say whether an actor that stops is to leave what it has to a successor. For its `on_stop`."""
    return actor.exit_reason == HAND_OVER and actor.node.deposits.is_kept


def leave(actor: Actor, document: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
    """Leave a document, with duplicates of descriptors. Raises ValueError when it is too long."""
    actor.node.deposits.bequeath(actor.ref.address.name, msgspec.msgpack.encode(document), descriptors)


def inherit(actor: Actor, kind: type[Document]) -> tuple[Document, list[int]] | None:
    """Return what the actor's predecessor has left, with the descriptors, which are the actor's to close; None where it
    succeeds nobody. Raises Refused when it should have left something, and what it left makes no sense.
    """
    deposits, name = actor.node.deposits, actor.ref.address.name
    if not deposits.is_heir:
        return None
    bequest = deposits.inherit(name)
    if bequest is None:
        raise Refused("not_handed_over", f"nothing was left for {name}")
    deposits.taken(name)
    try:
        return msgspec.msgpack.decode(bequest.document, type=kind), bequest.descriptors
    except msgspec.DecodeError as error:  # the successor may run other code than its predecessor
        raise Refused("not_handed_over", f"what was left for {name} makes no sense: {error}") from error


def inherit_if_any(actor: Actor, kind: type[Document]) -> Document | None:
    """The same for an actor that can begin anew: None also when there is nothing of use."""
    try:
        found = inherit(actor, kind)
    except Refused as refused:
        logger.warning("An actor begins anew", extra={"event": "not_handed_over", "reason": refused.message})
        return None
    return None if found is None else found[0]
