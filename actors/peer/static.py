"""The actor of a static peer: ties its machine to the shared sockets, the device and the owner.

It stands beside the connections of clients in a `peers-*` worker, is told the same messages, and ends the same ways. It
differs in what it lacks: no path is sought, nothing is signalled, and nobody hears a goodbye. When its worker is
restarted on request, a successor goes on with its session, like theirs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from array import array
from pathlib import Path as FilePath
from typing import Any

import msgspec

from exeunt.runtime import Actor, Message, Refused, Terminated, receive
from exeunt.runtime.errors import Failure
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.log import rfc3339

from ..device.pump import Pump
from ..device.reach import BASE_MTU, Reach
from ..endings import Cause, Ending, EndingBook, Initiator
from ..ice import Address, Sockets
from ..ice.hosts import resolve
from ..wireguard import PrefixedIndices, Tunnel
from .alarm import Alarm
from .doorkeeper import Door
from .events import Connected, Ended
from .messages import (
    AddCandidates,
    Close,
    DescribePeer,
    Hint,
    Moved,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    Ping,
    RestartPath,
    SetNetworks,
    SetServers,
)
from .static_machine import StaticConnection
from .static_messages import StaticPeerConfig, StaticSnapshot
from .succession import shared_sockets, stop_reading
from .way import Outlet, Way

logger = logging.getLogger(__name__)

PATH = "wireguard"
"""What the path to a static peer is called, whatever it is."""
RESOLVE_AGAIN_S = 30.0
"""After a name could not be looked up."""
_DOOR = "door"


class StaticPeer(Actor):
    """One static peer."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = msgspec.convert(config, StaticPeerConfig, builtin_types=(bytes,))
        self._indices = PrefixedIndices(secrets.randbits(24))
        tunnel = Tunnel(
            private_key=self.config.private_key,
            peer_public_key=self.config.peer_public_key,
            preshared_key=self.config.preshared_key or bytes(32),
            initiator=bool(self.config.endpoint),
            allocate_index=self._indices,
            rng=random.Random(),  # noqa: S311 - timer jitter, not a key
            persistent_keepalive_s=self.config.persistent_keepalive_s,
        )
        self._machine = StaticConnection(tunnel)
        self.reach = Reach(limit=BASE_MTU)  # it answers no probes
        self._book = EndingBook(FilePath(self.config.endings_file))
        self._started_ns = time.time_ns()
        self._ending: Ending | None = None
        self._outlet: Outlet | None = None
        self._calling: asyncio.Task[None] | None = None
        self._alarm = Alarm(is_coarse=True)

    # --- life ---

    def on_start(self) -> None:
        """Wait for the peer, or call it. Raises Refused when the port is not to be had."""
        self.node.ref(self.config.owner).watch()
        sockets = shared_sockets(self.node)
        left = self._inherit() if self.config.inherits else None
        sockets.acquire(self)
        self._outlet = Outlet(sockets)
        try:
            self._begin(sockets, left)
        except BaseException:
            self._release()
            raise
        if self.config.endpoint and self._machine.way is None:
            self._calling = self.node.loop.create_task(self._call())
        logger.info("A static peer is expected", extra={"event": "static_peer_expected", **self._who})

    def on_stop(self) -> None:
        """End, if that has not been done; or leave it to a successor."""
        if self.exit_reason == HAND_OVER and self._hand_over():
            self._release()
            return
        cause = Cause.SUPERVISOR_DIED if self.exit_reason == "supervisor_died" else Cause.SHUTTING_DOWN
        self._end(cause, Initiator.SUPERVISOR, {"stopped": self.exit_reason})

    def on_crash(self, failure: Failure) -> None:
        """End for a handler that failed."""
        if self._outlet is not None:  # else `on_start` failed, and who asked for the start says why
            evidence = {"error": f"{failure.type}: {failure.message}"}
            self._end(Cause.WORKER_CRASHED, Initiator.SUPERVISOR, evidence)

    # --- messages ---

    @receive(Close)
    def on_close(self, message: Close) -> PeerEnded:
        """End at once."""
        ending = self._end(Cause(message.cause), Initiator(message.initiated_by), dict(message.evidence))
        self.stop()
        return PeerEnded(self.config.connection, ending)

    @receive(Terminated)
    def on_terminated(self, message: Terminated) -> None:
        """The owner has ended: nobody is left who could revoke anything; unless it has a successor."""
        if message.reason == HAND_OVER:
            self.node.ref(self.config.owner).watch()  # waits for the successor
            return
        cause = Cause.WORKER_CRASHED if message.abnormal else Cause.SHUTTING_DOWN
        self._end(cause, Initiator.SUPERVISOR, {"owner": message.reason})
        self.stop()

    @receive(SetNetworks)
    def on_set_networks(self, message: SetNetworks) -> None:
        """Route these inner networks here from now on."""
        if self._ending is None:
            self._pump.attach(self, message.networks)

    @receive(Moved)
    def on_moved(self, _message: Moved) -> None:
        """Tell the peer our new address."""
        self._machine.handle_moved(self._now())
        self._drain()

    @receive(AddCandidates, Hint, RestartPath, SetServers)
    def on_signalled(self, _message: Message) -> None:
        """What is said of ICE is not for us."""

    @receive(Ping)
    def on_ping(self, _message: Ping) -> None:
        """Refuse: a plain WireGuard peer has nothing that would answer."""
        raise Refused("not_supported", f"{self.config.peer} speaks plain WireGuard; ping its address instead")

    @receive(DescribePeer)
    def on_describe(self, _message: DescribePeer) -> PeerDescription:
        """Say how things are."""
        machine, now = self._machine, self._now()
        tunnel, way = machine.tunnel, machine.way
        return PeerDescription(
            connection=self.config.connection,
            peer=self.config.peer,
            state=machine.state,
            path=PATH,
            endpoint=None if way is None else _shown(way.address),
            rtt_ms=None,
            handshake_age_s=tunnel.handshake_age_s(now),
            rx_bytes=tunnel.rx_bytes,
            tx_bytes=tunnel.tx_bytes,
            last_seen_s_ago=None if tunnel.last_received_at is None else round(now - tunnel.last_received_at, 3),
            handshakes=tunnel.handshakes_total,
        )

    # --- the pump's side ---

    def send_frames(self, buffer: memoryview, spans: array[int]) -> int:
        """Send what the device has read: at `flush`, or before. The pump calls this, as what follows."""
        machine, now = self._machine, self._now()
        return self._pump.trains.take(
            buffer, spans, lambda mine, at, train: machine.handle_frames(mine, at, train, now), self._send_train
        )

    def send_packet(self, packet: bytes) -> None:
        """Send one inner packet."""
        datagram = self._machine.handle_packet(packet, self._now())
        if datagram is not None:
            self._send(datagram)
        self.flush()

    def flush(self) -> None:
        """Send what waits for more of its kind."""
        self._pump.trains.flush(self._send_train)
        self._transmit()
        self._set_timer(self._now())

    # --- the sockets' side ---

    def take_batch(self, host: str, buffer: memoryview, spans: array[int], source: Address, ecn: int) -> None:
        """Take what was sent to our indices. The shared sockets call this."""
        pump, way = self._pump, Way(host, source)
        out = pump.out(buffer, len(spans) // 2)
        frames = self._machine.handle_datagrams(buffer, spans, out, way, self._now(), coalesce=pump.merges)
        pump.deliver(self, out, frames, ecn)
        self._drain()

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Nothing follows: the peer comes when it comes. The shared sockets call this."""

    def take_initiation(self, datagram: bytes, way: Way) -> None:
        """Take a handshake that claims to be the peer's. The doorkeeper calls this."""
        self.take_batch(way.host, memoryview(bytearray(datagram)), array("I", (0, len(datagram))), way.address, 0)

    # --- inside ---

    def _begin(self, sockets: Sockets, left: StaticSnapshot | None) -> None:
        if not sockets.has_its_port:
            raise Refused("port_taken", "the UDP port to listen on is not to be had")
        self._indices.prefix = self._claim(self._indices.prefix if left is None else left.indices[0])
        self._door.open(self.config.peer_public_key, self)
        self._pump.attach(self, self.config.networks)
        if left is not None:
            self._go_on(left)

    @property
    def _who(self) -> dict[str, str]:
        return {"connection": self.config.connection, "peer": self.config.peer}

    @property
    def _pump(self) -> Pump:
        pump: Pump = self.node.resources["pump"]
        return pump

    @property
    def _door(self) -> Door:
        """The door of this worker."""
        if _DOOR not in self.node.resources:
            sockets = shared_sockets(self.node)
            self.node.resources[_DOOR] = Door(sockets, self.config.private_key)
        door: Door = self.node.resources[_DOOR]
        return door

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def _claim(self, prefix: int) -> int:
        """Have what WireGuard sends to indices under a prefix come here; return it, or another one if it is taken."""
        table = shared_sockets(self.node).table
        while True:
            try:
                table.claim(prefix, self)
            except ValueError:
                prefix = secrets.randbits(24)
            else:
                return prefix

    async def _call(self) -> None:
        """Find out where the peer is, and begin the handshake."""
        host, _, port = self.config.endpoint.rpartition(":")
        assert self._outlet is not None
        while True:
            try:
                found = await resolve(host.strip("[]"), int(port))
            except (OSError, ValueError) as error:
                found = []
                extra = {"event": "endpoint_unknown", **self._who, "error": str(error)}
                logger.warning("Where a static peer is could not be looked up", extra=extra)
            address = next((one for one in found if self._outlet.reaches(one)), None)
            if address is not None:
                self._machine.handle_endpoint(address, self._now())
                self._drain()
                return
            await asyncio.sleep(RESOLVE_AGAIN_S)

    def _send(self, datagram: bytes) -> None:
        if self._machine.way is not None and self._outlet is not None:
            self._outlet.send(datagram, self._machine.way)

    def _send_train(self, train: memoryview, stride: int, _total: int, ecn: int) -> int:
        if self._machine.way is None or self._outlet is None:
            return 0
        return self._outlet.send_train(train, stride, self._machine.way, ecn)

    def _transmit(self) -> None:
        while (datagram := self._machine.poll_transmit()) is not None:
            self._send(datagram)

    def _drain(self) -> None:
        self._transmit()
        while (event := self._machine.poll_event()) is not None:
            match event:
                case Connected(handshake_rtt_ms=rtt_ms):
                    logger.info("A static peer has come", extra={"event": "connected", **self._who, "path": PATH})
                    connected = PeerConnected(self.config.connection, PATH, rtt_ms)
                    self.node.ref(self.config.owner).tell(connected)
                case Ended():
                    self._ended(event)
        self._set_timer(self._now())

    def _hand_over(self) -> bool:
        stop_reading(self.node)
        if self._ending is not None or not self.node.deposits.is_kept:
            return False
        machine = self._machine
        snapshot = StaticSnapshot(
            tunnel=machine.tunnel.snapshot(),
            way=machine.way,
            indices=(self._indices.prefix, self._indices.next),
            since_ns=self._started_ns,
        )
        self.node.deposits.bequeath(self.config.connection, msgspec.msgpack.encode(snapshot))
        logger.info("A connection is handed over", extra={"event": "handed_over", **self._who})
        return True

    def _inherit(self) -> StaticSnapshot:
        bequest = self.node.deposits.inherit(self.config.connection)
        try:
            return msgspec.msgpack.decode(b"" if bequest is None else bequest.document, type=StaticSnapshot)
        except msgspec.DecodeError as error:
            raise Refused("not_handed_over", f"nothing of use was left for {self.config.connection}") from error

    def _go_on(self, left: StaticSnapshot) -> None:
        self._indices.next, self._started_ns = left.indices[1], left.since_ns
        self._machine.resume(left.tunnel, left.way, self._now())
        self.node.deposits.taken(self.config.connection)
        self._drain()
        logger.info("A connection goes on", extra={"event": "taken_over", **self._who})

    def _end(self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any]) -> Ending:
        """End, or say how it has ended already."""
        self._machine.handle_close(cause, initiated_by, evidence)
        self._drain()
        assert self._ending is not None
        return self._ending

    def _ended(self, ended: Ended) -> None:
        """Let go of everything; record the ending, and tell the owner."""
        self._release()
        tunnel, now_ns = self._machine.tunnel, time.time_ns()
        seen_at = tunnel.last_received_at
        self._ending = Ending(
            connection=self.config.connection,
            peer=self.config.peer,
            side="gateway",
            cause=ended.cause,
            initiated_by=ended.initiated_by,
            evidence=ended.evidence,
            detection_ms=None,
            acknowledged=None,
            started_at=rfc3339(self._started_ns),
            ended_at=rfc3339(now_ns),
            last_seen_at=None if seen_at is None else rfc3339(now_ns - int((self._now() - seen_at) * 1e9)),
            rx_bytes=tunnel.rx_bytes,
            tx_bytes=tunnel.tx_bytes,
            path=PATH,
        )
        self._book.write(self._ending)
        self.node.ref(self.config.owner).tell(PeerEnded(self.config.connection, self._ending))

    def _release(self) -> None:
        """Give back what was taken, the device's packets first. Idempotent."""
        self._pump.detach(self)
        if self._outlet is not None:
            self._outlet = None
            self._door.close(self.config.peer_public_key, self)
            shared_sockets(self.node).release(self)
        if self._calling is not None:
            self._calling.cancel()
            self._calling = None
        self._alarm.cancel()

    def _set_timer(self, now: float) -> None:
        timeout = self._machine.poll_timeout()
        if timeout is not None:
            self._alarm.set(self.node.loop, timeout, now, self._on_timer)

    def _on_timer(self) -> None:
        self._machine.handle_timeout(self._now())
        self._drain()


def _shown(address: Address) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
