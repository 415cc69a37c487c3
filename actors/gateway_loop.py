"""The gateway's event loop: lets in whom the portal announces, to what the portal allows."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from exeunt.runtime import ExeuntError, Message, receive

from .endings import Cause, Ending, Initiator
from .event_loop import EventLoop
from .loop_config import PeerRecord
from .messages import ResourcesUpdated
from .network.messages import AllowAccess, EnableForwarding, RevokeAccessTo, SetRoutes
from .portal import messages as portal

logger = logging.getLogger(__name__)

CLIENT_NETWORKS: Final = ("100.64.0.0/10", "fd65:7865:756e::/48")
"""Where clients' tunnel addresses come from: shared address space (RFC 6598), and a unique local prefix (RFC 4193)."""


class Expired(Message, frozen=True):
    """To ourselves: an authorisation's time is over."""

    connection: str
    resource_id: str


class GatewayLoop(EventLoop):
    """Decides for a gateway."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._expiries: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._allowed: dict[str, set[tuple[str, str]]] = {}
        """By connection: (client address, network) pairs that the firewall lets through for it."""
        self._authorizing: dict[str, portal.Resource] = {}

    async def joined_first(self, joined: portal.Joined) -> None:
        """Open the device, become a router that lets nobody through yet."""
        pairs = ((joined.address_ipv4, 32), (joined.address_ipv6, 128))
        await self.open_device([f"{address}/{bits}" for address, bits in pairs if address])
        await self.network.ask(EnableForwarding(self.config.device, CLIENT_NETWORKS, self.config.masquerade))
        await self._route_clients()

    async def resources_changed(self) -> None:
        """Tell the user."""
        self.publish(ResourcesUpdated(tuple(self.resources.values())))

    async def portal_said(self, message: portal.FromPortal) -> None:
        """Clients are announced and revoked."""
        match message:
            case portal.Authorize():
                await self._authorize(message)
            case portal.RevokeAccess(connection=connection, resource_id=resource_id):
                await self._take_away(connection, resource_id, Cause.ACCESS_REVOKED)
            case _:
                pass  # what only a client hears, or a later version's

    @receive(Expired)
    async def on_expired(self, message: Expired) -> None:
        """An authorisation's time is over."""
        await self._take_away(message.connection, message.resource_id, Cause.ACCESS_EXPIRED)

    async def peer_ended(self, record: PeerRecord, ending: Ending) -> None:
        """Close the firewall behind a client."""
        for key in [key for key in self._expiries if key[0] == record.connection]:
            self._expiries.pop(key).cancel()
        for address, network in sorted(self._allowed.pop(record.connection, set())):
            if not any((address, network) in pairs for pairs in self._allowed.values()):
                await self._tell_network(RevokeAccessTo(address, network))

    # --- inside ---

    async def _authorize(self, message: portal.Authorize) -> None:
        client, resource = message.client, message.resource
        if self.session != "connected" or self.was_ended(message.connection):
            return  # the portal's request times out, and it asks somebody else
        addresses = tuple(one for one in (client.address_ipv4, client.address_ipv6) if one)
        pairs = [(one, resource.address) for one in addresses if (":" in one) == (":" in resource.address)]
        for address, network in pairs:
            if not await self._tell_network(AllowAccess(address, network)):
                return
        self._allowed.setdefault(message.connection, set()).update(pairs)
        record = self.peers.get(message.connection)
        if record is None:
            record = self.new_record(message.connection, peer=client.name, peer_id=client.id)
            record.networks = tuple(f"{one}/{128 if ':' in one else 32}" for one in addresses)
            record.client_addresses = addresses
            record.resource_ids.add(resource.id)
            if not await self._start(record, message):
                return
        record.resource_ids.add(resource.id)
        self._expire_later(message)
        self.say(portal.Authorized(ref=message.ref))
        extra = {"event": "access_allowed", "peer": client.name, "resource": resource.name}
        logger.info("A client may use a resource", extra=extra)

    async def _start(self, record: PeerRecord, message: portal.Authorize) -> bool:
        started = await self.start_peer(
            record,
            peer_public_key=message.client.public_key,
            preshared_key=message.preshared_key,
            local_username=message.local_ice.username,
            local_password=message.local_ice.password,
            remote_username=message.remote_ice.username,
            remote_password=message.remote_ice.password,
        )
        if not started:
            self._allowed.pop(record.connection, None)
        return started

    def _expire_later(self, message: portal.Authorize) -> None:
        if message.expires_at is None:
            return
        key = (message.connection, message.resource.id)
        earlier = self._expiries.pop(key, None)
        if earlier is not None:
            earlier.cancel()
        delay_s = max(0.0, message.expires_at - time.time())
        self._expiries[key] = self.node.loop.call_later(delay_s, self.ref.tell, Expired(*key))

    async def _take_away(self, connection: str, resource_id: str, cause: Cause) -> None:
        record = self.peers.get(connection)
        if record is None or resource_id not in record.resource_ids:
            return
        record.resource_ids.discard(resource_id)
        logger.info(
            "A client lost a resource", extra={"event": cause.value, "peer": record.peer, "resource": resource_id}
        )
        resource = self.resources.get(resource_id)
        if resource is not None:
            for address in record.client_addresses:
                pair = (address, resource.address)
                if pair in self._allowed.get(connection, set()):
                    self._allowed[connection].discard(pair)
                    await self._tell_network(RevokeAccessTo(*pair))
        if not record.resource_ids:
            await self.close_peer(record, cause, Initiator.PORTAL)

    async def _tell_network(self, message: AllowAccess | RevokeAccessTo) -> bool:
        try:
            await self.network.ask(message)
        except ExeuntError as error:
            logger.warning("The firewall refused", extra={"event": "firewall_refused", "error": str(error)})
            return False
        return True

    async def _route_clients(self) -> None:
        """Lead the clients' networks into the device."""
        await self.network.ask(SetRoutes(self.config.device, CLIENT_NETWORKS))


MESSAGES: tuple[type[Message], ...] = (Expired,)
