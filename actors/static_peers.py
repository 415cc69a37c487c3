"""Which static peers a gateway serves: what the portal wants, compared with what there is.

The portal tells the whole list at each join and at each change, so there is one road for all that can happen to it:
whoever is not in the list any more loses everything, whoever is new is started, what somebody may not use any more is
closed. A peer that may use nothing is not served at all. One that has ended by itself, as when its worker has crashed,
is started again, after a while that grows.

They live in the first peers worker, whose sockets have the port.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from exeunt.runtime import Backoff, ChildSpec, ExeuntError, Restart

from .connections import Connections
from .endings import Cause
from .expiries import Key
from .inner_networks import Grant, client_addresses, grants, host_networks
from .loop_config import PeerRecord
from .messages import StaticPeersDue
from .peer.static_messages import StaticPeerConfig
from .portal.messages import Resource
from .portal.static import StaticPeer
from .timing import PEER_CLOSE_S

logger = logging.getLogger(__name__)

AGAIN: Final = Backoff(first_s=1.0, max_s=60.0, reset_s=60.0)
"""When a static peer that has ended by itself is started again."""


class StaticPeers:
    """The static peers of one event loop. Use it in its handlers only."""

    def __init__(
        self,
        loop: Connections,
        *,
        allow: Callable[[Key, frozenset[Grant]], Awaitable[bool]],
        take_away: Callable[[Key, Cause], Awaitable[None]],
        problems: dict[str, str],
    ) -> None:
        """`allow` opens the firewall for a resource of a connection, `take_away` ends that; problems are for people."""
        self._loop = loop
        self._allow = allow
        self._take_away = take_away
        self._problems = problems
        self._failures: dict[str, tuple[int, float]] = {}
        """Of a peer: how often in a row it has failed, and until when it is not started."""
        self._rng = random.Random()  # noqa: S311 - it only spreads timers

    async def serve(self, resources: dict[str, Resource]) -> None:
        """Make it so: the list, or the resources, may be others now."""
        wanted = self._wanted(resources)
        for record in self._records():
            allowed = wanted[record.peer_id][1] if record.peer_id in wanted else set[str]()
            for resource_id in sorted(record.resource_ids - allowed):
                await self._take_away((record.connection, resource_id), Cause.ACCESS_REVOKED)
        self._failures = {peer_id: failed for peer_id, failed in self._failures.items() if peer_id in wanted}
        records = {record.peer_id: record for record in self._records()}
        for peer, allowed in wanted.values():
            record = records.get(peer.id)
            if record is not None:
                await self._open(record, peer, {one: resources[one] for one in allowed - record.resource_ids})
            elif time.monotonic() >= self._failures.get(peer.id, (0, 0.0))[1]:
                await self._start(peer, {one: resources[one] for one in allowed})

    def ended(self, record: PeerRecord) -> None:
        """One has ended. If nobody wanted that, it is started again."""
        if record.close is None:
            lived_s = time.time() - record.started_ns / 1e9
            self._put_off(
                record.peer_id, 0 if lived_s >= AGAIN.reset_s else self._failures.get(record.peer_id, (0, 0))[0]
            )
        else:  # it may be wanted again already
            self._loop.ref.tell(StaticPeersDue())

    # --- inside ---

    def _wanted(self, resources: dict[str, Resource]) -> dict[str, tuple[StaticPeer, set[str]]]:
        joined = self._loop.joined
        listed = () if joined is None else joined.static_peers
        self._problems.pop("static_peers", None)
        if listed and not self._loop.config.listen_port:
            self._problems["static_peers"] = (
                f"{len(listed)} WireGuard peers are to be served here, and there is no port for them:"
                " exeunt gateway run --listen 51820."
            )
            return {}
        found = {peer.id: (peer, {one for one in peer.resource_ids if one in resources}) for peer in listed}
        return {peer_id: (peer, allowed) for peer_id, (peer, allowed) in found.items() if allowed}

    def _records(self) -> list[PeerRecord]:
        return [record for record in self._loop.living() if record.static]

    async def _open(self, record: PeerRecord, peer: StaticPeer, resources: dict[str, Resource]) -> None:
        addresses = client_addresses(peer)
        for resource_id, resource in sorted(resources.items()):
            if await self._allow((record.connection, resource_id), grants(addresses, resource.address)):
                record.resource_ids.add(resource_id)

    async def _start(self, peer: StaticPeer, resources: dict[str, Resource]) -> None:
        loop, worker = self._loop, self._loop.config.peer_workers[0]
        connection = f"static-{secrets.token_hex(8)}"
        record = PeerRecord(
            connection=connection,
            peer=peer.name,
            peer_id=peer.id,
            worker=worker,
            address=loop.address_of(connection, worker),
            networks=host_networks(client_addresses(peer)),
            static=True,
        )
        await self._open(record, peer, resources)
        try:
            await loop.start_actor(record, self._spec(record, peer))
        except ExeuntError as error:
            loop.peers.pop(connection, None)
            for resource_id in sorted(record.resource_ids):
                await self._take_away((connection, resource_id), Cause.ACCESS_REVOKED)
            self._problems["static_peers"] = f"WireGuard peers cannot be served: {error}."
            extra = {"event": "static_peer_failed", "peer": peer.name, "error": str(error)}
            logger.warning("A static peer could not be started", extra=extra)
            self._put_off(peer.id, self._failures.get(peer.id, (0, 0.0))[0])

    def _put_off(self, peer_id: str, failures: int) -> None:
        delay_s = AGAIN.delay_s(failures + 1, self._rng)
        self._failures[peer_id] = failures + 1, time.monotonic() + delay_s
        self._loop.after(delay_s, StaticPeersDue())

    def _spec(self, record: PeerRecord, peer: StaticPeer) -> ChildSpec:
        loop = self._loop
        config = StaticPeerConfig(
            connection=record.connection,
            peer=record.peer,
            private_key=loop.config.listen_key,
            peer_public_key=peer.public_key,
            preshared_key=peer.preshared_key,
            networks=record.networks,
            endpoint=peer.endpoint,
            persistent_keepalive_s=peer.persistent_keepalive_s,
            owner=str(loop.ref),
            endings_file=loop.config.endings_file,
        )
        return ChildSpec(
            id=record.address.rsplit("/", 1)[1],
            worker=record.worker,
            start="exeunt.actors.peer.static:StaticPeer",
            args=msgspec.structs.asdict(config),
            restart=Restart.TEMPORARY,
            shutdown_ms=int(PEER_CLOSE_S * 1000),
        )
