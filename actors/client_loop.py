"""The client's event loop: turns packets that want a resource into connections to gateways."""

from __future__ import annotations

import logging
import time
from typing import Any

from exeunt.runtime import ExeuntError, receive

from .device.messages import Intent, SetResources
from .endings import Cause, Ending, Initiator
from .event_loop import EventLoop
from .expiries import Expired, Expiries
from .inner_networks import covers_internet, tunnel_addresses
from .legacy import ClientLegacy, LoopLegacy
from .loop_config import PeerRecord
from .messages import (
    AllGatewaysOffline,
    GatewayVersionMismatch,
    ResourcesUpdated,
    SetDns,
    SetInternetResource,
    TunConfig,
    TunInterfaceUpdated,
)
from .network.messages import RoutesSet, SetRoutes
from .peer.messages import SetNetworks
from .portal import messages as portal
from .timing import AUTHORIZE_S, EXCLUDE_GATEWAY_S, EXPIRY_PATIENCE_S

logger = logging.getLogger(__name__)

_EXCLUDED_TOLD = 64  # the portal takes no more in one request

_GATEWAY_GONE = frozenset(
    {
        Cause.SHUTTING_DOWN,
        Cause.WORKER_CRASHED,
        Cause.SUPERVISOR_DIED,
        Cause.PROCESS_DIED,
        Cause.NEVER_CONNECTED,
        Cause.NETWORK_LOST,
        Cause.PROTOCOL_ERROR,
    }
)
"""Endings after which this gateway is left alone for a while."""

_RECONNECT_AT_ONCE = frozenset(
    {Cause.SHUTTING_DOWN, Cause.WORKER_CRASHED, Cause.SUPERVISOR_DIED, Cause.PROCESS_DIED, Cause.REPLACED}
)
"""Endings that we are told of while the resource is wanted: another gateway is asked for without waiting for a
packet.
"""


class ClientLoop(EventLoop):
    """Decides for a client."""

    legacy_type = ClientLegacy

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._requested: dict[str, float] = {}
        """Resources asked for and not answered, with the time until when we wait."""
        self._offline: set[str] = set()
        self._excluded: dict[str, float] = {}
        """Gateways that have just left, until when they are not asked for."""
        self._expiries = Expiries(self, patience_s=EXPIRY_PATIENCE_S)
        self._dns: tuple[str, ...] = ()
        self._uses_internet = False

    def legacy(self) -> ClientLegacy:
        """As the base, and what is wanted."""
        return ClientLegacy(
            **self.common_legacy(),
            expiries=self._expiries.known(),
            requested=self._requested,
            offline=tuple(self._offline),
            excluded=self._excluded,
            dns=self._dns,
            uses_internet=self._uses_internet,
        )

    def remember(self, left: LoopLegacy) -> None:
        """Want the same."""
        assert isinstance(left, ClientLegacy)
        self._expiries.restore(left.expiries)
        self._requested, self._offline, self._excluded = left.requested, set(left.offline), left.excluded
        self._dns, self._uses_internet = left.dns, left.uses_internet

    # --- the portal ---

    async def joined_first(self, joined: portal.Joined) -> None:
        """Open the device with our addresses."""
        await self.set_up_devices(joined)

    async def resources_changed(self) -> None:
        """Route what we may reach, close what we may not any more, tell the user."""
        usable = self._usable()
        self._forget_resources()
        for record in self.living():
            # What is still ours to use, we have chosen not to.
            unwanted = (record.resource_ids - usable.keys()) <= self.resources.keys()
            cause, by = (Cause.IDLE, Initiator.US) if unwanted else (Cause.ACCESS_REVOKED, Initiator.PORTAL)
            self._narrow(record, record.resource_ids & usable.keys(), cause, by)
        for worker in self.config.peer_workers:
            self.device_of(worker).tell(SetResources({one.address: one.id for one in usable.values()}))
        routes = tuple(sorted({one.address for one in usable.values()}))
        await self._route(routes)
        self.publish(ResourcesUpdated(tuple(self.resources.values())))
        self._publish_tun(routes)

    async def portal_said(self, message: portal.FromPortal) -> None:
        """Authorisations come and go."""
        match message:
            case portal.AuthorizationCreated():
                await self._authorized(message)
            case portal.AuthorizationFailed(resource_id=resource_id, reason=reason):
                self._refused(resource_id, reason)
            case portal.AccessRevoked(resource_id=resource_id, connection=connection):
                record = self.peers.get(connection)
                if record is not None and record.state != "closing":
                    remaining = record.resource_ids - {resource_id}
                    self._narrow(record, remaining, Cause.ACCESS_REVOKED, Initiator.PORTAL)
            case _:
                pass  # what only a gateway hears, or a later version's

    async def joined_again(self) -> None:
        """The portal has forgotten what we asked over the lost link: ask again for what is still wanted."""
        now = time.monotonic()
        wanted = [resource_id for resource_id, until in self._requested.items() if now < until]
        self._requested.clear()
        for resource_id in wanted:
            self._request(resource_id)

    async def _authorized(self, message: portal.AuthorizationCreated) -> None:
        self._requested.pop(message.resource_id, None)
        self._offline.discard(message.resource_id)
        self.problems.pop(f"resource {message.resource_id}", None)
        if self.was_ended(message.connection):
            self.say(portal.ConnectionEnded(connection=message.connection, cause=Cause.REPLACED))
            self._request(message.resource_id)
            return
        record = self.peers.get(message.connection)
        if message.resource_id not in self._usable():
            if record is None:  # we have lost interest, or the right, since we asked
                self.say(portal.ConnectionEnded(connection=message.connection, cause=Cause.IDLE))
            return
        self._expiries.set((message.connection, message.resource_id), message.expires_at)
        if record is not None:
            record.resource_ids.add(message.resource_id)
            self._set_networks(record)
            self._replace([one for one in self.living() if one is not record], record, message.resource_id)
            return
        record = self.new_record(message.connection, peer=message.gateway_name, peer_id=message.gateway_id)
        record.resource_ids.add(message.resource_id)
        record.networks = self._networks_of(record)
        self.start_peer(
            record,
            peer_public_key=message.gateway_public_key,
            preshared_key=message.preshared_key,
            local_username=message.local_ice.username,
            local_password=message.local_ice.password,
            remote_username=message.remote_ice.username,
            remote_password=message.remote_ice.password,
        )

    def peer_started(self, record: PeerRecord) -> None:
        """It takes the place of others, but not of those that have come after it."""
        living = self.living()
        for resource_id in sorted(record.resource_ids):
            self._replace(living[: living.index(record)], record, resource_id)

    def _replace(self, others: list[PeerRecord], newest: PeerRecord, resource_id: str) -> None:
        """What the newest connection carries, no older one does; to one gateway there is one connection."""
        for record in others:
            if record.state == "closing":
                continue
            if record.peer_id == newest.peer_id:
                self.end_peer(record, Cause.REPLACED, Initiator.US, {"replaced_by": newest.connection})
            elif resource_id in record.resource_ids:
                self._narrow(record, record.resource_ids - {resource_id}, Cause.REPLACED, Initiator.US)

    def _refused(self, resource_id: str, reason: str) -> None:
        self._requested.pop(resource_id, None)
        name = self.resources[resource_id].name if resource_id in self.resources else resource_id
        if reason == "version_mismatch":
            self.publish(GatewayVersionMismatch(resource_id))
            self.problems[f"resource {resource_id}"] = f"The gateways of {name} are of another version."
        elif reason == "offline" and self._forgive():
            self._request(resource_id)
        elif reason == "offline":
            self._offline.add(resource_id)
            self.publish(AllGatewaysOffline(resource_id))
            self.problems[f"resource {resource_id}"] = f"All gateways of {name} are offline."
        else:
            self.problems[f"resource {resource_id}"] = f"The portal refuses {name}: {reason}."

    def _forgive(self) -> bool:
        """Nobody but the gateways that we exclude serves it: better one that has failed us than none."""
        now = time.monotonic()
        forgiven = any(now < until for until in self._excluded.values())
        self._excluded.clear()
        return forgiven

    @receive(Expired)
    def on_expired(self, message: Expired) -> None:
        """An authorisation's time is over, and the gateway has not said so: end it from here."""
        record = self.peers.get(message.connection)
        if self._expiries.take(message) and record is not None and record.state != "closing":
            remaining = record.resource_ids - {message.resource_id}
            self._narrow(record, remaining, Cause.ACCESS_EXPIRED, Initiator.PORTAL)

    async def on_stop(self) -> None:
        """As the base; no timer is left."""
        await super().on_stop()
        self._expiries.close()

    # --- intents ---

    @receive(Intent)
    def on_intent(self, message: Intent) -> None:
        """A packet wants a resource that nobody carries."""
        if self.session == "connected":
            self._request(message.resource_id)

    def _request(self, resource_id: str) -> None:
        now = time.monotonic()
        pending_until = self._requested.get(resource_id, 0.0)
        carried = any(resource_id in record.resource_ids for record in self.living())
        if carried or now < pending_until or resource_id not in self._usable():
            return
        self._requested[resource_id] = now + AUTHORIZE_S
        self._excluded = {gateway: until for gateway, until in self._excluded.items() if until > now}
        logger.info("Asking for a gateway", extra={"event": "authorization_requested", "resource": resource_id})
        excluded = tuple(self._excluded)[-_EXCLUDED_TOLD:]
        self.say(portal.RequestAuthorization(resource_id=resource_id, excluded_gateway_ids=excluded))

    # --- peers ---

    async def peer_ended(self, record: PeerRecord, ending: Ending) -> None:
        """If the gateway left and we still want what it served, ask for another one at once."""
        self._expiries.forget_connection(record.connection)
        self._reattach(record.networks)
        if ending.cause in _GATEWAY_GONE and ending.initiated_by is not Initiator.US:
            self._excluded.pop(record.peer_id, None)  # the latest is the last
            self._excluded[record.peer_id] = time.monotonic() + EXCLUDE_GATEWAY_S
        if self.session == "connected" and ending.cause in _RECONNECT_AT_ONCE:
            for resource_id in sorted(record.resource_ids):
                self._request(resource_id)

    def _narrow(self, record: PeerRecord, resource_ids: set[str], cause: Cause, initiated_by: Initiator) -> None:
        """Leave a connection only these resources; one without any ends."""
        former = record.networks
        record.resource_ids = set(resource_ids)
        if not resource_ids:
            self.end_peer(record, cause, initiated_by)
        elif self._networks_of(record) != former:
            self._set_networks(record)
            self._reattach(former)

    def _reattach(self, networks: tuple[str, ...]) -> None:
        """A network leads to whoever said so last. When that one lets go of it, another may have it too: say it again.

        Two resources may well be the same network.
        """
        for record in self.living():
            if set(record.networks) & set(networks):
                self.tell(record, SetNetworks(record.networks))

    def _forget_resources(self) -> None:
        """Complain no more about what is not ours any more."""
        self._offline &= self.resources.keys()
        self._requested = {one: until for one, until in self._requested.items() if one in self.resources}
        for key in [key for key in self.problems if key.startswith("resource ")]:
            if key.removeprefix("resource ") not in self.resources:
                del self.problems[key]

    def _set_networks(self, record: PeerRecord) -> None:
        record.networks = self._networks_of(record)
        self.tell(record, SetNetworks(record.networks))

    def _networks_of(self, record: PeerRecord) -> tuple[str, ...]:
        ids = sorted(record.resource_ids)
        return tuple(self.resources[one].address for one in ids if one in self.resources)

    def resource_state(self, resource_id: str) -> str:
        """As the base's, or `offline`."""
        state = super().resource_state(resource_id)
        return "offline" if state == "idle" and resource_id in self._offline else state

    # --- commands ---

    @receive(SetDns)
    def on_set_dns(self, message: SetDns) -> None:
        """The system's DNS servers are these now."""
        self._dns = message.servers
        self._publish_tun(tuple(sorted({one.address for one in self._usable().values()})))

    @receive(SetInternetResource)
    async def on_set_internet_resource(self, message: SetInternetResource) -> None:
        """Use, or don't, the resources that cover the whole Internet."""
        if message.enabled != self._uses_internet:
            self._uses_internet = message.enabled
            await self.resources_changed()

    def _usable(self) -> dict[str, portal.Resource]:
        return {
            one.id: one for one in self.resources.values() if self._uses_internet or not covers_internet(one.address)
        }

    async def _route(self, routes: tuple[str, ...]) -> None:
        if not self.config.manages_device:
            return
        # A default route would lead our own datagrams into the tunnel that they are to carry. Where the app opens the
        # device, the system keeps our sockets out of it; here nothing does yet.
        narrow = tuple(network for network in routes if not covers_internet(network))
        if narrow != routes:
            self.problems["internet"] = "The Internet resource needs a device that the app manages; it is not routed."
        else:
            self.problems.pop("internet", None)
        try:
            answer: RoutesSet = await self.network.ask(SetRoutes(self.config.device, narrow))
        except ExeuntError as error:
            self.problems["routes"] = f"Routes could not be set: {error}."
            return
        self.problems.pop("routes", None)
        if answer.refused:
            what = "; ".join(f"{network}: {why}" for network, why in answer.refused.items())
            self.problems["routes"] = f"Some routes could not be set. {what}"
            logger.warning("Routes were refused", extra={"event": "routes_refused", "count": len(answer.refused)})

    def _publish_tun(self, routes: tuple[str, ...]) -> None:
        if self.joined is None:
            return
        config = TunConfig(
            device=self.config.device,
            mtu=self.config.mtu,
            addresses=tunnel_addresses(self.joined),
            routes=routes,
            dns=self._dns,
        )
        self.publish(TunInterfaceUpdated(config))
