"""The event loop: the one actor that decides for a session. What a client's and a gateway's have in common is here.

It hears the portal, the device and the peers; it starts peer connections, records who serves what, publishes
events, and owns the order of leaving: the portal first, so that nobody is sent back to us; then every peer, side by
side; then itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from exeunt.runtime import Actor, AskTimeout, ExeuntError, Later, Ref, Refused, Terminated, receive
from exeunt.runtime.errors import Failure
from exeunt.runtime.messages import ActorStarted, StartChild

from . import posthumous
from .device.messages import DeviceLost, DeviceReady, SetOwner
from .endings import Cause, Ending, EndingBook, Initiator
from .inner_networks import readable_resources, tunnel_addresses
from .inquiry import describe_peers
from .loop_config import LoopConfig, PeerRecord
from .messages import (
    ConnectionEnded,
    ConnectionEstablished,
    DescribeSession,
    Disconnected,
    Event,
    EverybodyAsked,
    KnownRelay,
    PingPeer,
    Publish,
    Reset,
    SessionDescription,
    StopSession,
)
from .network.messages import OpenDevice
from .peer.messages import (
    AddCandidates,
    Close,
    Hint,
    PeerConnected,
    PeerEnded,
    PeerPathChanged,
    Ping,
    Pong,
    RelayServer,
    SetNetworks,
)
from .peer_spec import peer_spec, relay_servers
from .portal import messages as portal
from .portal.actor_messages import (
    PortalClaim,
    PortalDenied,
    PortalJoined,
    PortalLost,
    PortalReset,
    PortalSaid,
    PortalSay,
)
from .portal_leave import leave_portal
from .timing import PEER_CLOSE_S

logger = logging.getLogger(__name__)

_ENDED_KEPT = 256  # connection ids that must not come back to life


class EventLoop(Actor):
    """The decisions of a session. Lives in the `control` worker; one for a program."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = msgspec.convert(config, LoopConfig)
        self.session = "connecting"
        self.joined: portal.Joined | None = None
        self.resources: dict[str, portal.Resource] = {}
        self.relays: tuple[RelayServer, ...] = ()
        self.peers: dict[str, PeerRecord] = {}
        self.problems: dict[str, str] = {}
        """What a person should know, by a key under which it is replaced or withdrawn."""
        self._ended: deque[str] = deque(maxlen=_ENDED_KEPT)
        self._next_worker = 0
        self._book = EndingBook(Path(self.config.endings_file))

    # --- what a client's and a gateway's loop do differently ---

    async def joined_first(self, joined: portal.Joined) -> None:
        """The portal has confirmed the first join: set up the host."""
        raise NotImplementedError

    async def resources_changed(self) -> None:
        """`self.resources` is another list now."""
        raise NotImplementedError

    async def portal_said(self, message: portal.FromPortal) -> None:
        """The portal said something that only this side hears."""
        raise NotImplementedError

    async def peer_ended(self, record: PeerRecord, ending: Ending) -> None:
        """A connection has ended and is forgotten."""
        raise NotImplementedError

    async def joined_again(self) -> None:
        """The portal has confirmed a further join, after the link was lost: what was asked before is not answered."""

    # --- the portal ---

    @receive(PortalJoined)
    async def on_portal_joined(self, message: PortalJoined) -> None:
        """Take over the portal's state; the first time, set up the host."""
        if self.session == "leaving":
            return
        first, self.joined = self.joined is None, message.joined
        self.problems.pop("portal", None)
        self.relays = relay_servers(message.joined.relays)
        self._set_resources(message.joined.resources)
        if first:
            try:
                await self.joined_first(message.joined)
            except ExeuntError as error:
                logger.error("The host could not be set up", extra={"event": "setup_failed", "error": str(error)})
                self.publish(Disconnected(f"the host could not be set up: {error}"))
                await self._leave(Cause.DEVICE_LOST)
                return
        self.session = "connected"
        logger.info("The session is connected", extra={"event": "session_connected"})
        await self.resources_changed()
        if not first:
            await self.joined_again()

    @receive(PortalSaid)
    async def on_portal_said(self, message: PortalSaid) -> None:
        """Act on what the portal says; not any more when leaving."""
        if self.session == "leaving":
            return
        match message.message:
            case portal.IceCandidates(connection=connection, candidates=candidates, end=end):
                record = self.peers.get(connection)
                if record is not None:
                    self.node.ref(record.address).tell(AddCandidates(candidates, end))
            case portal.ResourcesChanged(resources=resources):
                self._set_resources(resources)
                await self.resources_changed()
            case portal.RelaysChanged(relays=relays):
                self.relays = relay_servers(relays)
            case portal.PeerGone(connection=connection):
                record = self.peers.get(connection)
                if record is not None:
                    self.node.ref(record.address).tell(Hint("the portal lost sight of the peer"))
            case portal.Error(code=code, message=text):
                logger.warning(
                    "The portal did not understand us", extra={"event": "portal_error", "code": code, "text": text}
                )
            case other:
                await self.portal_said(other)

    @receive(PortalLost)
    def on_portal_lost(self, message: PortalLost) -> None:
        """The link is down and being tried again: connections go on without it."""
        self.problems["portal"] = f"The portal cannot be reached: {message.reason}."
        if self.joined is None:
            self.session = "connecting"

    @receive(PortalDenied)
    async def on_portal_denied(self, message: PortalDenied) -> None:
        """The portal will not have us: tell the user, and leave."""
        self.publish(Disconnected(message.reason, message.requires_sign_in))
        revoked = message.requires_sign_in and self.joined is not None
        await self._leave(Cause.ACCESS_REVOKED if revoked else Cause.PORTAL_DENIED, Initiator.PORTAL)

    # --- the peers ---

    @receive(PeerConnected)
    def on_peer_connected(self, message: PeerConnected) -> None:
        """Packets flow."""
        record = self.peers.get(message.connection)
        if record is None:
            # Its start was given up on, and succeeded all the same: it must not live on unknown to anybody.
            for worker in self.config.peer_workers:
                self.node.ref(self._address_of(message.connection, worker)).tell(Close(Cause.REPLACED))
            return
        record.path = message.path
        if record.state == "connecting":
            record.state = "connected"
            self.publish(ConnectionEstablished(record.connection, record.peer, message.path))

    @receive(PeerPathChanged)
    def on_peer_path_changed(self, message: PeerPathChanged) -> None:
        """The path is another one."""
        record = self.peers.get(message.connection)
        if record is not None:
            record.path = message.path

    @receive(PeerEnded)
    async def on_peer_ended(self, message: PeerEnded) -> None:
        """Forget the connection, tell the portal and the user."""
        record = self.peers.pop(message.connection, None)
        if record is not None:
            await self._forget(record, message.ending)

    @receive(Terminated)
    async def on_terminated(self, message: Terminated) -> None:
        """A peer connection's actor is gone. If it could not say how its connection ended, we do."""
        record = next((one for one in self.peers.values() if one.address == message.address), None)
        if record is None:
            return
        await self._bury(record, posthumous.crashed(record, self.config.side, message))

    async def _bury(self, record: PeerRecord, ending: Ending) -> None:
        """Record an ending that nobody else will."""
        self.peers.pop(record.connection, None)
        self._book.write(ending)
        await self._forget(record, ending)

    async def _forget(self, record: PeerRecord, ending: Ending) -> None:
        record.state = "ended"
        self._ended.append(record.connection)
        self.publish(ConnectionEnded(ending))
        self.say(portal.ConnectionEnded(connection=record.connection, cause=ending.cause))
        self._claim()
        await self.peer_ended(record, ending)

    async def start_peer(self, record: PeerRecord, **secrets: Any) -> bool:
        """Start the actor of a connection and watch it; False when it could not be started, which is recorded."""
        assert self.joined is not None
        spec = peer_spec(
            record,
            self.config,
            self.joined,
            servers=self.relays,
            owner=str(self.ref),
            portal_link=str(self.portal_link),
            secrets=secrets,
        )
        root = self.node.ref(f"{self.ref.address.node}/supervisor/root")
        record.started_ns = time.time_ns()
        try:
            started: ActorStarted = await root.ask(StartChild(msgspec.Raw(msgspec.msgpack.encode(spec))))
        except ExeuntError as error:
            logger.warning("A connection could not be started", extra={"event": "start_failed", "error": str(error)})
            await self._bury(record, posthumous.not_started(record, self.config.side, error))
            return False
        self.peers[record.connection] = record
        self.node.ref(started.address).watch()
        self._claim()
        return True

    def new_record(self, connection: str, *, peer: str, peer_id: str) -> PeerRecord:
        """Make the record of a connection, its worker chosen in turn."""
        worker = self.config.peer_workers[self._next_worker % len(self.config.peer_workers)]
        self._next_worker += 1
        address = self._address_of(connection, worker)
        return PeerRecord(connection=connection, peer=peer, peer_id=peer_id, worker=worker, address=address)

    def _address_of(self, connection: str, worker: str) -> str:
        return f"{self.ref.address.node}/{worker}/peer-{connection}"

    def was_ended(self, connection: str) -> bool:
        """Say whether a connection of that id has ended here, or is about to; it must not come back to life."""
        record = self.peers.get(connection)
        return connection in self._ended or (record is not None and record.state == "closing")

    def living(self) -> list[PeerRecord]:
        """Return the connections that have not been told to close."""
        return [record for record in self.peers.values() if record.state != "closing"]

    def end_peer(
        self, record: PeerRecord, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any] | None = None
    ) -> None:
        """Have a connection say goodbye; its `PeerEnded`, or its `Terminated`, follows. A peer who does not hear it
        must not hold up the others.
        """
        record.state = "closing"
        self.node.ref(record.address).tell(Close(cause, initiated_by, evidence or {}))

    async def close_peer(self, record: PeerRecord, cause: Cause, initiated_by: Initiator) -> None:
        """Have a connection say goodbye, and wait until it has."""
        record.state = "closing"
        try:
            answer: PeerEnded = await self.node.ref(record.address).ask(
                Close(cause, initiated_by), timeout_s=PEER_CLOSE_S
            )
        except ExeuntError as error:
            logger.warning(
                "A connection did not close",
                extra={"event": "close_failed", "connection": record.connection, "error": str(error)},
            )
            if isinstance(error, AskTimeout) and record.connection in self.peers:
                await self._bury(record, posthumous.unanswered(record, self.config.side, cause, initiated_by))
            return  # if it is dead, what it said last, or its Terminated, waits in our mailbox
        if self.peers.pop(record.connection, None) is not None:
            await self._forget(record, answer.ending)

    # --- commands ---

    @receive(StopSession)
    async def on_stop_session(self, message: StopSession) -> None:
        """Leave, in order."""
        await self._leave(Cause(message.cause))

    @receive(DeviceReady)
    async def on_device_ready(self, message: DeviceReady) -> None:
        """A device actor was restarted, with its worker or alone: give it what its predecessor had."""
        if self.session != "connected" or self.joined is None:
            return
        try:
            await self.set_up_device(self.joined)
        except ExeuntError as error:
            await self.on_device_lost(DeviceLost(str(error)))
            return
        await self.resources_changed()
        for record in self.living():
            if record.worker == message.worker:
                self.node.ref(record.address).tell(SetNetworks(record.networks))

    @receive(DeviceLost)
    async def on_device_lost(self, message: DeviceLost) -> None:
        """Without a device there is nothing to carry."""
        if self.session != "leaving":
            self.publish(Disconnected(f"the tunnel device is gone: {message.reason}"))
        await self._leave(Cause.DEVICE_LOST)

    @receive(Reset)
    def on_reset(self, message: Reset) -> None:
        """The network changed."""
        logger.info("The session is reset", extra={"event": "session_reset", "reason": message.reason})
        self.portal_link.tell(PortalReset())
        for record in self.peers.values():
            self.node.ref(record.address).tell(Hint(message.reason))

    @receive(DescribeSession)
    def on_describe(self, _message: DescribeSession) -> Later:
        """Say how things are; the peers are asked while we go on."""
        return Later(self._describe())

    @receive(PingPeer)
    def on_ping_peer(self, message: PingPeer) -> Later:
        """Measure a round trip; the answer comes while we go on."""
        known = [one for one in self.peers.values() if message.peer in (one.peer, one.peer_id, one.connection)]
        if not known:
            raise Refused("no_such_peer", f"There is no connection to {message.peer!r}.")
        return Later(self._ping(known[0], message.timeout_s))

    async def _ping(self, record: PeerRecord, timeout_s: float) -> Pong:
        pong: Pong = await self.node.ref(record.address).ask(Ping(timeout_s), timeout_s=timeout_s + 1)
        return pong

    async def _describe(self) -> SessionDescription:
        peers = await describe_peers([self.node.ref(record.address) for record in self.peers.values()])
        return SessionDescription(
            session=self.session,
            resources=tuple(self.resources.values()),
            resource_states={resource_id: self.resource_state(resource_id) for resource_id in self.resources},
            peers=peers,
            problems=tuple(self.problems.values()),
            relays=tuple(KnownRelay(each.host, each.port, each.transport) for each in self.relays),
        )

    def resource_state(self, resource_id: str) -> str:
        """`idle`, `connecting` or `connected`."""
        states = {record.state for record in self.peers.values() if resource_id in record.resource_ids}
        return next((state for state in ("connected", "connecting") if state in states), "idle")

    # --- leaving ---

    async def _leave(self, cause: Cause, initiated_by: Initiator = Initiator.US) -> None:
        """Portal, peers, self. Each step has its deadline; the next one comes in any case."""
        if self.session != "leaving":
            self.session = "leaving"
            await self._say_goodbyes(cause, initiated_by)
            self.ref.tell(EverybodyAsked(cause, initiated_by))

    @receive(EverybodyAsked)
    async def on_everybody_asked(self, message: EverybodyAsked) -> None:
        """End; whatever a connection said before its actor died has been handled by now."""
        side, cause, initiated_by = self.config.side, Cause(message.cause), Initiator(message.initiated_by)
        for record in list(self.peers.values()):
            await self._bury(record, posthumous.unanswered(record, side, cause, initiated_by))
        logger.info("Every connection has ended", extra={"event": "left"})
        self.stop()

    async def _say_goodbyes(self, cause: Cause, initiated_by: Initiator) -> None:
        logger.info("Leaving", extra={"event": "leaving", "cause": cause, "connections": len(self.peers)})
        await leave_portal(self.portal_link, cause)
        await asyncio.gather(*(self.close_peer(record, cause, initiated_by) for record in list(self.peers.values())))

    async def on_crash(self, failure: Failure) -> None:
        """Crash the way one leaves: the portal is told; the peers watch us, and say goodbye by themselves."""
        await leave_portal(self.portal_link, "crashed")

    async def on_stop(self) -> None:
        """Leave, if a supervisor ends us before anybody asked us to."""
        if self.session != "leaving":
            cause = Cause.SUPERVISOR_DIED if self.exit_reason == "supervisor_died" else Cause.SHUTTING_DOWN
            self.session = "leaving"
            await self._say_goodbyes(cause, Initiator.SUPERVISOR)

    # --- for both sides ---

    @property
    def portal_link(self) -> Ref:
        """The portal link."""
        return self.node.local("portal-link")

    @property
    def network(self) -> Ref:
        """The network actor."""
        return self.node.ref(f"{self.ref.address.node}/network/network")

    def device_of(self, worker: str) -> Ref:
        """The device actor of a peers worker."""
        return self.node.ref(f"{self.ref.address.node}/{worker}/device")

    def publish(self, event: Event) -> None:
        """Tell the user."""
        self.node.local("event-stream").tell(Publish(event))

    def say(self, message: portal.FromPeer) -> None:
        """Tell the portal."""
        self.portal_link.tell(PortalSay(message))

    async def set_up_device(self, joined: portal.Joined) -> None:
        """Have the TUN device opened, addressed and handed to the pump. Raises Refused, or Unavailable."""
        config = self.config
        for worker in config.peer_workers:
            self.device_of(worker).tell(SetOwner(str(self.ref)))
        if config.manages_device:
            addresses = tunnel_addresses(joined)
            await self.network.ask(OpenDevice(config.device, addresses, config.mtu, config.hand_over))

    def _set_resources(self, resources: tuple[portal.Resource, ...]) -> None:
        self.resources = readable_resources(resources)

    def _claim(self) -> None:
        self.portal_link.tell(
            PortalClaim({one.connection: (one.peer_id, tuple(sorted(one.resource_ids))) for one in self.peers.values()})
        )
