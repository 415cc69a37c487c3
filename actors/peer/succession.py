"""How a connection goes on in another process: a peers worker is restarted, and its successor takes over.

The predecessor stops reading first: what arrives from then on waits in the kernel, in the shared UDP sockets and in the
device's queue, and the successor reads it there. Then each connection leaves a snapshot of its tunnel and of its path,
and says no goodbye. A path over a relay of ours cannot go along: its socket has a TURN client behind it, with
transactions and timers of its own. Then the successor has the tunnel, and asks the portal for a restart of ICE at once;
what is sent meanwhile is lost.
"""

from __future__ import annotations

import socket
from typing import Final

import msgspec

from exeunt.runtime import Refused
from exeunt.runtime.node import Node

from ..device.actor import LISTEN_PORT
from ..device.pump import Pump
from ..ice import Sockets
from ..wireguard import PrefixedIndices, TunnelSnapshot
from .carried import CarriedConnection
from .lane import PeerLane
from .machine import Connection

_SOCKETS: Final = "sockets"
_LEFT: Final = "sockets_left"


class PeerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a successor needs. It holds secrets: it goes through memory only."""

    tunnel: TunnelSnapshot
    ice: bytes | None
    """None: another path has to be found."""
    indices: tuple[int, int]
    """The prefix of the tunnel's session indices, by which the sockets find it, and where they go on."""
    rtt_ms: float
    generation: int
    """Of the newest ICE session."""
    since_ns: int
    """When the connection began, wall-clock."""

    def __repr__(self) -> str:
        return "PeerSnapshot()"


def shared_sockets(node: Node) -> Sockets:
    """Return the UDP sockets that all connections of a worker share: its predecessor's, if that has left some."""
    if _SOCKETS not in node.resources:
        port: int = node.resources.get(LISTEN_PORT, 0)
        bequest = node.deposits.inherit(_SOCKETS)
        if bequest is None:
            node.resources[_SOCKETS] = Sockets(port=port)
        else:
            names = msgspec.msgpack.decode(bequest.document, type=tuple[str, ...])
            opened = [socket.socket(fileno=descriptor) for descriptor in bequest.descriptors]
            for one in opened:
                one.setblocking(False)
            node.resources[_SOCKETS] = Sockets.adopt(dict(zip(names, opened, strict=True)), port=port)
            node.deposits.taken(_SOCKETS)
    sockets: Sockets = node.resources[_SOCKETS]
    return sockets


def lane_of(node: Node, machine: CarriedConnection) -> PeerLane:
    """Return what keeps a connection's lane, in this worker."""
    pump: Pump = node.resources["pump"]
    sockets = shared_sockets(node)
    if pump.crossing is not None:
        sockets.read_with(pump.crossing.receive, pump.crossing.answers)
    return PeerLane(machine, pump, sockets)


def stop_reading(node: Node) -> None:
    """Leave the shared sockets to the successor, and what arrives in them and in the device from now on. Idempotent."""
    if _LEFT in node.resources:
        return
    node.resources[_LEFT] = True
    pump: Pump = node.resources["pump"]
    pump.pause()
    sockets: Sockets | None = node.resources.get(_SOCKETS)
    if sockets is not None:
        opened = sockets.descriptors()
        document = msgspec.msgpack.encode(tuple(opened))
        node.deposits.bequeath(_SOCKETS, document, [one.fileno() for one in opened.values()])
        sockets.pause()


def leave(
    node: Node, name: str, connection: Connection, indices: PrefixedIndices, *, ice: bytes | None, since_ns: int
) -> None:
    """Leave a connection to the successor; nothing may be sent on it after this. `since_ns`: when it began."""
    snapshot = PeerSnapshot(
        tunnel=connection.tunnel.snapshot(),
        ice=ice,
        indices=(indices.prefix, indices.next),
        rtt_ms=connection.rtt_ms,
        generation=connection.restarts.generation,
        since_ns=since_ns,
    )
    node.deposits.bequeath(name, msgspec.msgpack.encode(snapshot))


def inherit(node: Node, connection: str) -> PeerSnapshot:
    """Return what the predecessor left for a connection. Raises Refused when that is nothing, or makes no sense."""
    bequest = node.deposits.inherit(connection)
    if bequest is None:
        raise Refused("not_handed_over", f"nothing was left for {connection}")
    try:
        return msgspec.msgpack.decode(bequest.document, type=PeerSnapshot)
    except msgspec.DecodeError as error:  # the successor may run other code than its predecessor
        raise Refused("not_handed_over", f"what was left for {connection} makes no sense: {error}") from error
