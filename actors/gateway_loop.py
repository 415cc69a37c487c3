"""The gateway's event loop: lets in whom the portal announces, to what the portal allows."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from exeunt.runtime import ExeuntError, receive

from .endings import Cause, Ending, Initiator
from .event_loop import EventLoop
from .expiries import Expired, Expiries, Key
from .inner_networks import Grant, canonical, client_addresses, grants, host_networks
from .legacy import GatewayLegacy, Granted, LoopLegacy
from .loop_config import PeerRecord
from .messages import ResourcesUpdated, StaticPeersDue
from .network.messages import AllowAccess, EnableForwarding, RevokeAccessTo, RoutesSet, SetRoutes, Steer
from .portal import messages as portal
from .static_peers import StaticPeers
from .steering import Steering

logger = logging.getLogger(__name__)

CLIENT_NETWORKS: Final = ("100.64.0.0/10", "fd65:7865:756e::/48")
"""Where clients' tunnel addresses come from: shared address space (RFC 6598), and a unique local prefix (RFC 4193)."""


class GatewayLoop(EventLoop):
    """Decides for a gateway."""

    legacy_type = GatewayLegacy

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._expiries = Expiries(self)
        self._grants: dict[Key, frozenset[Grant]] = {}
        """What the firewall lets through, and for whose sake. The firewall has each grant once, however many
        connections and resources it is for: it is closed behind the last of them.
        """
        self._unconfirmed: dict[str, list[portal.Authorize]] = {}
        """By connection: what the portal waits for until its actor is there."""
        self._steering = Steering(self.config)
        self._static_peers = StaticPeers(self, allow=self._open_firewall, take_away=self._take_away)

    def legacy(self) -> GatewayLegacy:
        """As the base, and whom the firewall lets through."""
        granted = tuple(Granted(*key, tuple(sorted(one))) for key, one in self._grants.items())
        return GatewayLegacy(**self.common_legacy(), expiries=self._expiries.known(), granted=granted)

    def remember(self, left: LoopLegacy) -> None:
        """The firewall and the routes stand as they are; know why."""
        assert isinstance(left, GatewayLegacy)
        self._expiries.restore(left.expiries)
        self._grants = {(one.connection, one.resource_id): frozenset(one.grants) for one in left.granted}
        self._steering.restore(left.peers)

    async def joined_first(self, joined: portal.Joined) -> None:
        """Open the devices, become a router that lets nobody through yet."""
        await self.set_up_devices(joined)
        await self.network.ask(EnableForwarding(self.config.devices, CLIENT_NETWORKS, self.config.masquerade))
        await self._route_clients()

    async def resources_changed(self) -> None:
        """Tell the user; static peers may use others now."""
        self.publish(ResourcesUpdated(tuple(self.resources.values())))
        await self._static_peers.serve()

    async def portal_said(self, message: portal.FromPortal) -> None:
        """Clients are announced and revoked."""
        match message:
            case portal.Authorize():
                await self._authorize(message)
            case portal.RevokeAccess(connection=connection, resource_id=resource_id):
                await self._take_away((connection, resource_id), Cause.ACCESS_REVOKED)
            case portal.StaticPeersChanged(static_peers=static_peers) if self.joined is not None:
                self.joined = msgspec.structs.replace(self.joined, static_peers=static_peers)
                await self._static_peers.serve()
            case _:
                pass  # what only a client hears, or a later version's

    @receive(StaticPeersDue)
    async def on_static_peers_due(self, _message: StaticPeersDue) -> None:
        """Try again what did not succeed."""
        if self.session == "connected":
            await self._static_peers.serve()

    @receive(Expired)
    async def on_expired(self, message: Expired) -> None:
        """An authorisation's time is over, unless it was prolonged since."""
        if self._expiries.take(message):
            await self._take_away((message.connection, message.resource_id), Cause.ACCESS_EXPIRED)

    async def peer_ended(self, record: PeerRecord, ending: Ending) -> None:
        """Close the firewall behind a client, and lead nothing to where it was."""
        self._expiries.forget_connection(record.connection)
        self._unconfirmed.pop(record.connection, None)
        freed = [self._grants.pop(key) for key in list(self._grants) if key[0] == record.connection]
        if self.session != "leaving":  # else the firewall goes as a whole
            await self._close_firewall(frozenset[Grant]().union(*freed))
            await self._steer(self._steering.end(record))
            if record.static:
                self._static_peers.ended(record)

    # --- inside ---

    async def _authorize(self, message: portal.Authorize) -> None:
        if self.session != "connected" or self.was_ended(message.connection):
            return  # the portal's request times out, and it asks somebody else
        client, record = message.client, self.peers.get(message.connection)
        if record is not None and record.peer_id != client.id:
            logger.warning("A connection changed its client", extra={"event": "authorize_malformed", "peer": client.id})
            return
        try:
            resource, addresses = canonical(message.resource), client_addresses(client)
        except ValueError:
            logger.warning("An authorisation makes no sense", extra={"event": "authorize_malformed", "peer": client.id})
            return
        key = message.connection, resource.id
        if not await self._open_firewall(key, grants(addresses, resource.address)):
            return
        if record is None:
            record = self.new_record(message.connection, peer=client.name, peer_id=client.id)
            record.networks = host_networks(addresses)
            record.resource_ids.add(resource.id)
            self._replace(client.id, by=record)
            await self._start(record, message)
        record.resource_ids.add(resource.id)
        self._expiries.set(key, message.expires_at)
        if record.connection in self.starts:
            self._unconfirmed.setdefault(record.connection, []).append(message)
        else:
            self._confirm(message)

    def peer_started(self, record: PeerRecord) -> None:
        """The client may come, to what was not taken away meanwhile."""
        for message in self._unconfirmed.pop(record.connection, ()):
            if message.resource.id in record.resource_ids:
                self._confirm(message)

    async def peer_not_started(self, record: PeerRecord, error: ExeuntError) -> None:
        """As the base; static peers are tried again."""
        if record.static:
            await self._static_peers.not_started(record, error)
        else:
            await super().peer_not_started(record, error)

    def _confirm(self, message: portal.Authorize) -> None:
        self.say(portal.Authorized(ref=message.ref))
        extra = {"event": "access_allowed", "peer": message.client.name, "resource": message.resource.name}
        logger.info("A client may use a resource", extra=extra)

    def _replace(self, client_id: str, *, by: PeerRecord) -> None:
        """A client has one connection to us. The portal knows only the newest: what it revokes must be all there is."""
        for record in self.living():
            if record.peer_id == client_id:
                self.end_peer(record, Cause.REPLACED, Initiator.PEER, {"replaced_by": by.connection})

    async def _start(self, record: PeerRecord, message: portal.Authorize) -> None:
        await self._steer(self._steering.begin(record))
        self.start_peer(
            record,
            peer_public_key=message.client.public_key,
            preshared_key=message.preshared_key,
            local_username=message.local_ice.username,
            local_password=message.local_ice.password,
            remote_username=message.remote_ice.username,
            remote_password=message.remote_ice.password,
        )

    async def _take_away(self, key: Key, cause: Cause) -> None:
        self._expiries.forget(key)
        closed = await self._close_firewall(self._grants.pop(key, frozenset()))
        connection, resource_id = key
        record = self.peers.get(connection)
        if record is None or resource_id not in record.resource_ids:
            return
        record.resource_ids.discard(resource_id)
        logger.info(
            "A client lost a resource", extra={"event": cause.value, "peer": record.peer, "resource": resource_id}
        )
        # If the firewall would not close, the connection must: no right outlives its revocation.
        if record.state != "closing" and (not record.resource_ids or not closed):
            self.end_peer(record, cause, Initiator.PORTAL)

    async def on_stop(self) -> None:
        """As the base; no timer is left."""
        await super().on_stop()
        self._expiries.close()

    # --- the firewall ---

    async def _open_firewall(self, key: Key, wanted: frozenset[Grant]) -> bool:
        former = self._grants.get(key, frozenset[Grant]())
        for number, grant in enumerate(sorted(wanted)):
            if not await self._tell_network(AllowAccess(*grant)):
                await self._close_firewall(frozenset(sorted(wanted)[:number]))
                return False
        self._grants[key] = wanted
        await self._close_firewall(former - wanted)
        return True

    async def _close_firewall(self, freed: frozenset[Grant]) -> bool:
        """Close it for what nobody is granted any more; False when it would not."""
        still = frozenset[Grant]().union(*self._grants.values())
        return all([await self._tell_network(RevokeAccessTo(*grant)) for grant in sorted(freed - still)])

    async def _tell_network(self, message: AllowAccess | RevokeAccessTo) -> bool:
        try:
            await self.network.ask(message)
        except ExeuntError as error:
            self.problems["firewall"] = f"The firewall could not be changed: {error}."
            logger.warning("The firewall refused", extra={"event": "firewall_refused", "error": str(error)})
            return False
        self.problems.pop("firewall", None)
        return True

    async def _route_clients(self) -> None:
        """Lead the clients' networks into the first device: what no connection carries is dropped there."""
        await self.network.ask(SetRoutes(self.config.device, CLIENT_NETWORKS))

    async def _steer(self, change: Steer | None) -> None:
        if change is None:
            return
        try:
            answer: RoutesSet = await self.network.ask(change)
            refused = "; ".join(f"{network}: {why}" for network, why in answer.refused.items())
        except ExeuntError as error:
            refused = str(error)
        if refused:
            self.problems["routes"] = f"A client could not be led to its worker: {refused}."
            logger.warning("Routes were refused", extra={"event": "routes_refused", "error": refused})
        else:
            self.problems.pop("routes", None)
