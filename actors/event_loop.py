"""The event loop: the one actor that decides for a session. What a client's and a gateway's have in common is here,
and in `connections`, its half that knows peers.

It hears the portal, the device and the peers; it starts peer connections, records who serves what, publishes
events, and owns the order of leaving: the portal first, so that nobody is sent back to us; then every peer, side by
side; then itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, ClassVar

from exeunt.runtime import ExeuntError, Later, Ref, Refused, receive
from exeunt.runtime.errors import Failure

from . import posthumous
from .connections import Connections
from .device.messages import DeviceLost, DeviceReady, SetOwner
from .endings import Cause, Initiator
from .inner_networks import readable_resources, tunnel_addresses
from .inquiry import describe_peers
from .legacy import LoopLegacy
from .loop_config import PeerRecord
from .messages import (
    DescribeSession,
    Disconnected,
    EverybodyAsked,
    IgnoreAddresses,
    KnownRelay,
    NetworkChanged,
    PingPeer,
    Reset,
    SessionDescription,
    StopSession,
)
from .network.messages import NOBODY_THERE, OpenDevice
from .peer.messages import (
    AddCandidates,
    Hint,
    Moved,
    Ping,
    Pong,
    PortalDoubted,
    RestartPath,
    SetNetworks,
    SetServers,
    WillHeard,
)
from .peer_spec import relay_servers
from .portal import messages as portal
from .portal.actor_messages import (
    PortalDenied,
    PortalJoined,
    PortalLost,
    PortalReset,
    PortalSaid,
)
from .portal_leave import leave_portal
from .succession import hands_over, inherit, leave
from .timing import PEER_CLOSE_S, PORTAL_DOUBT_SPACING_S, RESTART_ANSWER_S

logger = logging.getLogger(__name__)


class EventLoop(Connections):
    """The decisions of a session. Lives in the `control` worker; one for a program."""

    legacy_type: ClassVar[type[LoopLegacy]] = LoopLegacy
    """What it leaves, and takes over."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.session = "connecting"
        self.resources: dict[str, portal.Resource] = {}
        self._doubt_portal_after = 0.0
        self.problems: dict[str, str] = {}
        """What a person should know, by a key under which it is replaced or withdrawn."""

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

    async def joined_again(self) -> None:
        """The portal has confirmed a further join, after the link was lost: what was asked before is not answered."""

    def legacy(self) -> LoopLegacy:
        """Return all that a successor has to know."""
        raise NotImplementedError

    def remember(self, left: LoopLegacy) -> None:
        """Take over what only this side leaves."""
        raise NotImplementedError

    # --- life ---

    def on_start(self) -> None:
        """Go on where the predecessor stopped, if there is one."""
        found = inherit(self, self.legacy_type)
        if found is None:
            return
        left, _ = found
        self.session, self.resources, self.problems = left.session, left.resources, left.problems
        self.know(left)
        self.remember(left)
        logger.info("The session goes on", extra={"event": "session_taken_over", "connections": len(self.peers)})

    async def on_crash(self, failure: Failure) -> None:
        """Crash the way one leaves: the portal is told; the peers watch us, and say goodbye by themselves."""
        self.starts.drop_all()
        await leave_portal(self.portal_link, "crashed")

    async def on_stop(self) -> None:
        """Leave, if a supervisor ends us before anybody asked us to; or leave everything to a successor."""
        if hands_over(self):
            await self.end_starts(PEER_CLOSE_S)
            leave(self, self.legacy())
            logger.info("The session is handed over", extra={"event": "session_handed_over"})
        elif self.session != "leaving":
            cause = Cause.SUPERVISOR_DIED if self.exit_reason == "supervisor_died" else Cause.SHUTTING_DOWN
            self.session = "leaving"
            await self._say_goodbyes(cause, Initiator.SUPERVISOR)

    # --- the portal ---

    @receive(PortalJoined)
    async def on_portal_joined(self, message: PortalJoined) -> None:
        """Take over the portal's state; the first time, set up the host."""
        if self.session == "leaving":
            return
        first, self.joined, self.known_join = self.joined is None, message.joined, message.join
        self.problems.pop("portal", None)
        self._set_relays(message.joined.relays)
        self._set_resources(message.joined.resources)
        addresses = tuple(one for one in (message.joined.address_ipv4, message.joined.address_ipv6) if one)
        self.node.local("watcher").tell(IgnoreAddresses(addresses))
        if first:
            try:
                await self.joined_first(message.joined)
            except ExeuntError as error:
                logger.error("The host could not be set up", extra={"event": "setup_failed", "error": str(error)})
                self.publish(Disconnected(f"the host could not be set up: {error}"))
                await self._leave(Cause.DEVICE_LOST)
                return
        # What is not answered until then was asked of the link before this one.
        self._doubt_portal_after = max(self._doubt_portal_after, time.monotonic() + RESTART_ANSWER_S)
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
            case portal.IceCandidates() as found:
                candidates = AddCandidates(found.candidates, found.end, found.generation, found.withdrawn)
                self.tell_peer(found.connection, candidates)
            case portal.IceRestarted():
                self.tell_peer(message.message.connection, _restart(message.message))
            case portal.PeerGone(connection=connection, reason=reason, kind=kind, cause=cause):
                self.tell_peer(connection, Hint(reason or "the portal lost sight of the peer", kind, cause))
            case portal.LastWill(connection=connection, datagram=datagram):
                self.tell_peer(connection, WillHeard(datagram))
            case portal.ResourcesChanged(resources=resources):
                self._set_resources(resources)
                await self.resources_changed()
            case portal.RelaysChanged(relays=relays):
                self._set_relays(relays)
            case portal.Error(code="unknown_connection", message=connection):
                # It has ended for the other side, and whoever told the portal why, we were asleep.
                self.tell_peer(connection, Hint("the portal does not know the connection", "ended", "network_lost"))
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

    # --- commands ---

    @receive(StopSession)
    async def on_stop_session(self, message: StopSession) -> None:
        """Leave, in order."""
        await self._leave(Cause(message.cause), text=message.text)

    @receive(DeviceReady)
    async def on_device_ready(self, message: DeviceReady) -> None:
        """A device actor was restarted, with its worker or alone: give it what its predecessor had."""
        self.placement.back(message.worker)
        if self.session != "connected" or self.joined is None:
            return
        try:
            if not await self.set_up_device(self.joined, message.worker):
                return
        except ExeuntError as error:
            await self.on_device_lost(DeviceLost(str(error)))
            return
        await self.resources_changed()
        self.take_over(message.worker)
        for record in self.living():
            if record.worker == message.worker:
                self.tell(record, SetNetworks(record.networks))

    @receive(DeviceLost)
    async def on_device_lost(self, message: DeviceLost) -> None:
        """Without a device there is nothing to carry."""
        if self.session != "leaving":
            self.publish(Disconnected(f"the tunnel device is gone: {message.reason}"))
        await self._leave(Cause.DEVICE_LOST)

    @receive(Reset)
    def on_reset(self, message: Reset) -> None:
        """The network changed, somebody says."""
        self._move(message.reason)

    @receive(NetworkChanged)
    def on_network_changed(self, message: NetworkChanged) -> None:
        """The network changed, the kernel says."""
        self._move(message.reason)

    @receive(PortalDoubted)
    def on_portal_doubted(self, message: PortalDoubted) -> None:
        """The portal has not answered a connection, whose peer does not answer either: is the link dead, too?"""
        now = time.monotonic()
        if self.session == "connected" and "portal" not in self.problems and now >= self._doubt_portal_after:
            self._doubt_portal_after = now + PORTAL_DOUBT_SPACING_S
            logger.info(
                "The portal does not answer", extra={"event": "portal_doubted", "connection": message.connection}
            )
            self.portal_link.tell(PortalReset())

    def _move(self, reason: str) -> None:
        """Connect to the portal anew, which then has both ends of each connection find paths anew."""
        if self.session == "leaving":
            return
        logger.info("The session is reset", extra={"event": "session_reset", "reason": reason})
        self.portal_link.tell(PortalReset())
        for record in self.living():
            self.tell(record, Moved(reason))

    @receive(DescribeSession)
    def on_describe(self, _message: DescribeSession) -> Later:
        """Say how things are; the peers are asked while we go on."""
        return Later(self._describe())

    @receive(PingPeer)
    def on_ping_peer(self, message: PingPeer) -> Later:
        """Measure a round trip; the answer comes while we go on."""
        known = [one for one in self._present() if message.peer in (one.peer, one.peer_id, one.connection)]
        if not known:
            raise Refused("no_such_peer", f"There is no connection to {message.peer!r}.")
        return Later(self._ping(known[0], message.timeout_s))

    async def _ping(self, record: PeerRecord, timeout_s: float) -> Pong:
        pong: Pong = await self.node.ref(record.address).ask(Ping(timeout_s), timeout_s=timeout_s + 1)
        return pong

    async def _describe(self) -> SessionDescription:
        peers = await describe_peers([self.node.ref(record.address) for record in self._present()])
        return SessionDescription(
            session=self.session,
            resources=tuple(self.resources.values()),
            resource_states={resource_id: self.resource_state(resource_id) for resource_id in self.resources},
            peers=peers,
            problems=tuple(self.problems.values()),
            relays=tuple(KnownRelay(each.host, each.port, each.transport) for each in self.relays),
        )

    def _present(self) -> list[PeerRecord]:
        """Return the connections whose actors can be asked."""
        return [record for record in self.peers.values() if record.connection not in self.starts]

    def resource_state(self, resource_id: str) -> str:
        """`idle`, `connecting` or `connected`."""
        states = {record.state for record in self.peers.values() if resource_id in record.resource_ids}
        return next((state for state in ("connected", "connecting") if state in states), "idle")

    # --- leaving ---

    async def _leave(self, cause: Cause, initiated_by: Initiator = Initiator.US, text: str = "") -> None:
        """Portal, peers, self. Each step has its deadline; the next one comes in any case."""
        if self.session != "leaving":
            self.session = "leaving"
            await self._say_goodbyes(cause, initiated_by, text)
            self.ref.tell(EverybodyAsked(cause, initiated_by))

    @receive(EverybodyAsked)
    async def on_everybody_asked(self, message: EverybodyAsked) -> None:
        """End; whatever a connection said before its actor died has been handled by now."""
        side, cause, initiated_by = self.config.side, Cause(message.cause), Initiator(message.initiated_by)
        for record in list(self.peers.values()):
            await self.bury(record, posthumous.unanswered(record, side, cause, initiated_by))
        logger.info("Every connection has ended", extra={"event": "left"})
        self.stop()

    async def _say_goodbyes(self, cause: Cause, initiated_by: Initiator, text: str = "") -> None:
        logger.info("Leaving", extra={"event": "leaving", "cause": cause, "connections": len(self.peers)})
        await leave_portal(self.portal_link, cause)
        peers = list(self.peers.values())
        await asyncio.gather(*(self.close_peer(record, cause, initiated_by, text) for record in peers))

    # --- for both sides ---

    def common_legacy(self) -> dict[str, Any]:
        """Return what both sides leave, by field of `LoopLegacy`."""
        return {
            "session": self.session,
            "resources": self.resources,
            "problems": self.problems,
            **self.connections_legacy(),
        }

    @property
    def network(self) -> Ref:
        """The network actor."""
        return self.node.ref(f"{self.ref.address.node}/network/network")

    def device_of(self, worker: str) -> Ref:
        """The device actor of a peers worker."""
        return self.node.ref(f"{self.ref.address.node}/{worker}/{self.config.device_actor_of(worker)}")

    async def set_up_devices(self, joined: portal.Joined) -> None:
        """Have each worker's TUN device opened, addressed and handed to its pump. Raises Refused, or Unavailable."""
        for worker in self.config.peer_workers:
            await self.set_up_device(joined, worker)

    async def set_up_device(self, joined: portal.Joined, worker: str) -> bool:
        """The same for one worker; False when it is not there: its next device actor will report. Each has all our
        tunnel addresses: whichever way something leaves this host, it leaves with one of them.
        """
        config, addresses = self.config, tunnel_addresses(joined)
        sources = tuple(one.partition("/")[0] for one in addresses) if config.side == "client" else ()
        self.device_of(worker).tell(SetOwner(str(self.ref), sources))
        if config.manages_device:
            path = config.hand_over_of(worker)
            try:
                await self.network.ask(OpenDevice(config.device_of(worker), addresses, config.mtu, path))
            except Refused as refused:
                if refused.code != NOBODY_THERE:
                    raise
                logger.warning("A worker is gone again", extra={"event": "worker_not_there", "worker": worker})
                return False
        return True

    def _set_resources(self, resources: tuple[portal.Resource, ...]) -> None:
        self.resources = readable_resources(resources)

    def _set_relays(self, relays: tuple[portal.Relay, ...]) -> None:
        servers = relay_servers(relays)
        if servers != self.relays:
            self.relays = servers
            for record in self.living():
                self.tell(record, SetServers(servers))


def _restart(message: portal.IceRestarted) -> RestartPath:
    return RestartPath(
        generation=message.generation,
        local_username=message.local_ice.username,
        local_password=message.local_ice.password,
        remote_username=message.remote_ice.username,
        remote_password=message.remote_ice.password,
    )
