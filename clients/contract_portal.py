"""The documents of `exeunt admin sessions`: who is here, and how both ends say that their connections ended.

The rules are those of `contract`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .contract_terms import Cause, Time

Agreement = Annotated[str, Meta(examples=["agree", "differ", "one_side_only"])]


class PresentPeer(Struct, frozen=True, kw_only=True):
    """A client or a gateway that is joined to the portal."""

    peer: str
    kind: Literal["client", "gateway"]
    since: Time
    version: str


class ReportedEnding(Struct, frozen=True, kw_only=True):
    """How one end says that a connection ended. An older version says no more than the cause."""

    cause: Cause
    initiated_by: str | None = None
    """`us` is that end, `peer` the other."""
    acknowledged: bool | None = None
    detection_ms: float | None = None
    started_at: Time | None = None
    ended_at: Time | None = None
    last_seen_at: Time | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None
    path: Annotated[str, Meta(examples=["direct", "relay"])] | None = None
    evidence: dict[str, str] = {}


class EndedConnection(Struct, frozen=True, kw_only=True):
    """A connection of which at least one end reported that it ended."""

    connection: str
    client: str
    gateway: str
    made_at: Time
    ended_at: Time
    """When the portal heard of it first."""
    agreement: Agreement
    """Whether both ends name the same cause, and not each the other as who ended it."""
    client_says: ReportedEnding | None
    gateway_says: ReportedEnding | None


class SessionEventRow(Struct, frozen=True, kw_only=True):
    """Something that the portal saw happen to a peer, or to a connection of its."""

    at: Time
    kind: str
    peer: str
    detail: str
    connection: str | None


class Sessions(Struct, frozen=True, kw_only=True):
    """What the portal knows of its peers; connections and events newest first."""

    running: bool
    """Whether a portal runs on this database; while none does, nobody is present."""
    present: list[PresentPeer]
    connections: list[EndedConnection]
    events: list[SessionEventRow]
