"""What every cell of the matrix must say: data, and the reason where it is not obvious.

A row is an event; it is played on a plain path, on one that loses 20 % of the datagrams each way, on one that may only
use the relay, and on one that may only use a relay over TLS. In each, the client and the gateway record one cause each,
or none: `NONE` is expected where the connection must survive, and of those who were killed.

Times are from the event to the moment at which the side's record says that the connection has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from exeunt.actors.timing import LOST_AFTER_S, PROBE_S, STALL_GRACE_S

NONE: Final = "none"
"""No ending is recorded."""


class Variant(StrEnum):
    """The network on which a row is played."""

    PLAIN = "plain"
    LOSS = "loss"
    RELAY = "relay"
    TLS = "tls"

    @property
    def is_relayed(self) -> bool:
        """Whether the client may only use the relay."""
        return self in (Variant.RELAY, Variant.TLS)


class Side(StrEnum):
    """Whose record it is."""

    CLIENT = "client"
    GATEWAY = "gateway"


@dataclass(frozen=True)
class Limit:
    """How long knowing may take, in milliseconds."""

    name: str
    at_most_ms: float
    at_least_ms: float = 0.0
    round_trips: int = 0
    """So many round trips come on top."""
    with_loss: bool = True
    """Whether it holds where datagrams are lost."""


TOLD: Final = Limit("told", 50, round_trips=1, with_loss=False)
WILL: Final = Limit("last will", 250)
DIED: Final = Limit("process died", 2_000)
LOST: Final = Limit("network lost", LOST_AFTER_S * 1000 + 1_500, at_least_ms=LOST_AFTER_S * 1000 - 2_000)
"""From the cut. What counts is the last sign of life, and where every fifth is lost that may be two seconds older."""
ASLEEP_S: Final = 60.0
WOKEN: Final = Limit("on waking up", (ASLEEP_S + STALL_GRACE_S + PROBE_S) * 1000, at_least_ms=ASLEEP_S * 1000)
"""Who wakes up asks first, and concludes nothing before the probes could have been answered."""
ANY: Final = Limit("no limit", 60_000)


@dataclass(frozen=True)
class Cell:
    """What one side must have recorded."""

    cause: str
    initiated_by: str | None = None
    acknowledged: bool | None = None
    limit: Limit = ANY
    why: str = ""


@dataclass(frozen=True)
class Row:
    """One event, and what both sides must say of it."""

    name: str
    event: str
    """What happens, in a sentence for people."""
    client: Cell
    gateway: Cell
    relay: tuple[Cell, Cell] | None = None
    """Client and gateway on a relayed path, where that is another matter."""

    def cell(self, variant: Variant, side: Side) -> Cell:
        """Return what is expected there."""
        if variant.is_relayed and self.relay is not None:
            return self.relay[0 if side is Side.CLIENT else 1]
        return self.client if side is Side.CLIENT else self.gateway

    @property
    def is_timed(self) -> bool:
        """Whether some side must know within two seconds or less."""
        cells = (self.client, self.gateway, *(self.relay or ()))
        return any(cell.cause != NONE and cell.limit.at_most_ms <= DIED.at_most_ms for cell in cells)

    def survives_in(self, variant: Variant) -> bool:
        """Whether the connection must go on there."""
        return self.cell(variant, Side.GATEWAY).cause == NONE


def _told(cause: str, limit: Limit = TOLD, why: str = "") -> Cell:
    return Cell(cause, "peer", True, limit, why)


def _said(cause: str, limit: Limit = TOLD, why: str = "") -> Cell:
    return Cell(cause, "us", True, limit, why)


_DEAD = Cell(NONE, why="Whoever could have written it down is dead.")
_ALIVE = Cell(NONE, why="The connection goes on, and a download in it arrives whole.")
_LOST = Cell("network_lost", "network", None, LOST)

_ROWS = (
    Row("sign-out", "The person signs out.", _said("signed_out"), _told("signed_out")),
    Row("SIGINT", "Ctrl-C, once.", _said("shutting_down"), _told("shutting_down")),
    Row("SIGTERM", "The service manager stops the client.", _said("shutting_down"), _told("shutting_down")),
    Row("idle", "Nothing has passed for so long as the client was told to wait.", _said("idle"), _told("idle")),
    Row(
        "second signal",
        "SIGINT while the connection's worker hangs, so that nothing happens; then SIGTERM, which forces.",
        Cell(NONE, why="A forced client kills its workers at once; they write nothing down."),
        Cell(
            "worker_crashed",
            "supervisor",
            None,
            WILL,
            "No goodbye was said before the second signal: what is left to say is the last will.",
        ),
    ),
    Row(
        "exception in a PeerConnection",
        "A handler of the connection's actor raises.",
        Cell("worker_crashed", "supervisor", True, TOLD),
        Cell("worker_crashed", "supervisor", True, TOLD),
    ),
    Row(
        "exception in the EventLoop",
        "A handler of the event loop raises; the connection's actor sees it die.",
        Cell("worker_crashed", "supervisor", True, TOLD),
        Cell("worker_crashed", "supervisor", True, TOLD),
    ),
    Row(
        "worker SIGKILL",
        "kill -9 of the worker that has the connection.",
        Cell("worker_crashed", "supervisor", None, WILL),
        Cell("worker_crashed", "supervisor", None, WILL),
    ),
    Row(
        "OOM kill",
        "The kernel kills that worker for want of memory.",
        Cell("worker_crashed", "supervisor", None, WILL),
        Cell("worker_crashed", "supervisor", None, WILL),
    ),
    Row(
        "supervisor SIGKILL",
        "kill -9 of the client's supervisor; its workers notice.",
        Cell("supervisor_died", "supervisor", True, WILL),
        Cell("supervisor_died", "supervisor", True, WILL),
    ),
    Row(
        "whole tree SIGKILL",
        "kill -9 of all processes of the client at once.",
        _DEAD,
        Cell("process_died", "network", None, DIED, "The portal sees the link reset; probes stay unanswered."),
    ),
    Row(
        "SIGSTOP for 60 s",
        "All processes of the client stand still for a minute, as those of a laptop asleep.",
        Cell("network_lost", "network", None, WOKEN),
        Cell(
            "network_lost",
            "network",
            None,
            LOST,
            "From outside, who sleeps cannot be told from who was cut off; that it died would be false.",
        ),
    ),
    Row(
        "gateway upgrade",
        "The gateway gets SIGTERM; another one of the site takes over.",
        _told("shutting_down"),
        _said("shutting_down"),
    ),
    Row(
        "live restart of the client's worker",
        "`exeunt restart peers-1` in the client: a successor takes the connection.",
        _ALIVE,
        _ALIVE,
    ),
    Row(
        "live restart of the gateway's worker",
        "`exeunt restart peers-1` in the gateway.",
        _ALIVE,
        _ALIVE,
    ),
    Row(
        "gateway upgrade in place",
        "`exeunt restart --all` in the gateway, as after an upgrade of its code.",
        _ALIVE,
        _ALIVE,
    ),
    Row(
        "gateway worker SIGKILL",
        "kill -9 of the gateway's worker that has the connection.",
        Cell("worker_crashed", "supervisor", None, WILL),
        Cell("worker_crashed", "supervisor", None, WILL),
    ),
    Row(
        "access revoked",
        "An administrator takes away the client's access to the resource.",
        Cell("access_revoked", "portal", True, TOLD),
        Cell("access_revoked", "portal", True, TOLD),
    ),
    Row(
        "access expired",
        "The authorisation's time is over.",
        Cell("access_expired", "portal", True, TOLD),
        Cell("access_expired", "portal", True, TOLD),
    ),
    Row(
        "token revoked",
        "An administrator revokes the client's token.",
        Cell("access_revoked", "portal", True, TOLD),
        Cell("access_revoked", "portal", True, TOLD),
    ),
    Row(
        "portal down during sign-out",
        "The portal was killed; the person signs out all the same.",
        _said("signed_out"),
        _told("signed_out"),
    ),
    Row(
        "portal link cut",
        "The portal's connection to the living client is reset, and stays away for 15 s.",
        _ALIVE,
        _ALIVE,
    ),
    Row(
        "relay killed",
        "kill -9 of the only relay, once the connection has a direct path if there is one.",
        _ALIVE,
        _ALIVE,
        relay=(
            Cell("relay_lost", "network", None, ANY),
            Cell("relay_lost", "network", None, ANY),
        ),
    ),
    Row("link cut", "The client's line is cut. Nobody is told.", _LOST, _LOST),
    Row("link cut for 5 s", "The client's line is cut, and mended after 5 s.", _ALIVE, _ALIVE),
    Row("address changed", "The client's NAT gets another public address; all its mappings are lost.", _ALIVE, _ALIVE),
)

ROWS: Final = MappingProxyType({row.name: row for row in _ROWS})
"""The matrix, in the order in which it is shown."""
