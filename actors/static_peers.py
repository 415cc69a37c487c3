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
from dataclasses import dataclass
from typing import Final

import msgspec

from exeunt.runtime import Backoff, ChildSpec, ExeuntError, Restart

from .endings import Cause
from .event_loop import EventLoop
from .expiries import Key
from .inner_networks import Grant, client_addresses, grants, host_networks
from .loop_config import PeerRecord
from .messages import StaticPeersDue
from .peer.static_messages import StaticPeerConfig
from .portal.messages import Resource
from .portal.static import StaticPeer
from .timing import PEER_CLOSE_S

logger = logging.getLogger(__name__)

AGAIN: Final = Backoff(first_s=1.0, max_s=60.0, reset_s=60.0, eager=False)
"""When a static peer that has ended by itself is started again."""


@dataclass(slots=True, frozen=True)
class _Failure:
    reason: str
    in_a_row: int
    until: float
    """Before that it is not started again."""


class StaticPeers:
    """The static peers of one event loop. Use it in its handlers only."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        allow: Callable[[Key, frozenset[Grant]], Awaitable[bool]],
        take_away: Callable[[Key, Cause], Awaitable[None]],
    ) -> None:
        """`allow` opens the firewall for a resource of a connection, `take_away` ends that."""
        self._loop = loop
        self._allow = allow
        self._take_away = take_away
        self._failures: dict[str, _Failure] = {}
        """By the peer's id."""
        self._rng = random.Random()  # noqa: S311 - it only spreads timers

    async def serve(self) -> None:
        """Make it so: the list, or the resources, may be others now."""
        resources = self._loop.resources
        wanted = self._wanted(resources)
        for record in self._records():
            allowed = wanted[record.peer_id][1] if record.peer_id in wanted else set[str]()
            for resource_id in sorted(record.resource_ids - allowed):
                await self._take_away((record.connection, resource_id), Cause.ACCESS_REVOKED)
        self._failures = {peer_id: failed for peer_id, failed in self._failures.items() if peer_id in wanted}
        records = {record.peer_id: record for record in self._records()}
        for peer, allowed in wanted.values():
            served = records.get(peer.id)
            if served is not None:
                await self._open(served, peer, {one: resources[one] for one in allowed - served.resource_ids})
            elif peer.id not in self._failures or time.monotonic() >= self._failures[peer.id].until:
                await self._start(peer, {one: resources[one] for one in allowed})
        self._tell_problem()

    def ended(self, record: PeerRecord) -> None:
        """One has ended. If nobody wanted that, it is started again."""
        if record.close is None:
            if time.time() - record.started_ns / 1e9 >= AGAIN.reset_s:
                self._failures.pop(record.peer_id, None)
            self._put_off(record.peer_id, "it has ended unasked")
            self._tell_problem()
        else:  # it may be wanted again already
            self._loop.ref.tell(StaticPeersDue())

    async def not_started(self, record: PeerRecord, error: ExeuntError) -> None:
        """One could not be started. It was nobody's connection yet."""
        self._loop.peers.pop(record.connection, None)
        for resource_id in sorted(record.resource_ids):
            await self._take_away((record.connection, resource_id), Cause.ACCESS_REVOKED)
        extra = {"event": "static_peer_failed", "peer": record.peer, "error": str(error)}
        logger.warning("A static peer could not be started", extra=extra)
        if record.close is None:
            self._put_off(record.peer_id, str(error))
            self._tell_problem()
        else:  # it may be wanted again already
            self._loop.ref.tell(StaticPeersDue())

    # --- inside ---

    def _wanted(self, resources: dict[str, Resource]) -> dict[str, tuple[StaticPeer, set[str]]]:
        joined = self._loop.joined
        listed = () if joined is None else joined.static_peers
        if not self._loop.config.listen_port:
            return {}
        found: dict[str, tuple[StaticPeer, set[str]]] = {}
        for peer in listed:
            allowed = {one for one in peer.resource_ids if one in resources}
            if allowed and _makes_sense(peer):
                found[peer.id] = peer, allowed
        return found

    def _tell_problem(self) -> None:
        problems, joined = self._loop.problems, self._loop.joined
        problems.pop("static_peers", None)
        served = {record.peer_id for record in self._records()}
        failed = [failure for peer_id, failure in self._failures.items() if peer_id not in served]
        if joined is not None and joined.static_peers and not self._loop.config.listen_port:
            problems["static_peers"] = (
                f"{_number(len(joined.static_peers))} to be served here, and there is no port for that:"
                " exeunt gateway run --listen 51820."
            )
        elif failed:
            problems["static_peers"] = f"{_number(len(failed))} not served: {failed[0].reason}."

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
        if not record.resource_ids:
            self._put_off(peer.id, "the firewall could not be changed")
            return
        loop.start_actor(record, self._spec(record, peer))

    def _put_off(self, peer_id: str, reason: str) -> None:
        former = self._failures.get(peer_id)
        in_a_row = 1 if former is None else former.in_a_row + 1
        delay_s = AGAIN.delay_s(in_a_row, self._rng)
        self._failures[peer_id] = _Failure(reason, in_a_row, time.monotonic() + delay_s)
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


def _makes_sense(peer: StaticPeer) -> bool:
    try:
        client_addresses(peer)
    except ValueError:
        logger.warning("A static peer makes no sense", extra={"event": "static_peer_malformed", "peer": peer.id})
        return False
    return True


def _number(peers: int) -> str:
    return "A WireGuard peer is" if peers == 1 else f"{peers} WireGuard peers are"
