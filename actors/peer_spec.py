"""How an event loop has a peer connection started: the child spec of its actor."""

from __future__ import annotations

from typing import Any

import msgspec

from exeunt.runtime import ChildSpec, Restart

from .loop_config import LoopConfig, PeerRecord
from .peer.messages import PeerConfig, RelayServer
from .portal.messages import Joined, Relay
from .timing import PEER_CLOSE_S


def peer_spec(
    record: PeerRecord,
    config: LoopConfig,
    joined: Joined,
    *,
    servers: tuple[RelayServer, ...],
    owner: str,
    portal_link: str,
    secrets: dict[str, Any],
) -> ChildSpec:
    """Return the spec; `secrets` are the keys and ICE credentials of `PeerConfig`. A connection is temporary: with
    its actor its keys are gone, and the other side is told to make another one.
    """
    peer = PeerConfig(
        connection=record.connection,
        peer=record.peer,
        peer_id=record.peer_id,
        side=config.side,
        private_key=config.private_key,
        servers=servers,
        networks=record.networks,
        mtu=config.mtu,
        excluded_hosts=tuple(one for one in (joined.address_ipv4, joined.address_ipv6) if one),
        relay_only=config.relay_only,
        lost_after_s=config.lost_after_s,
        idle_after_s=config.idle_after_s,
        owner=owner,
        portal_link=portal_link,
        endings_file=config.endings_file,
        **secrets,
    )
    return ChildSpec(
        id=record.address.rsplit("/", 1)[1],
        worker=record.worker,
        start="exeunt.actors.peer.actor:PeerConnection",
        args=msgspec.structs.asdict(peer),
        restart=Restart.TEMPORARY,
        shutdown_ms=int(PEER_CLOSE_S * 1000),
    )


def relay_servers(relays: tuple[Relay, ...]) -> tuple[RelayServer, ...]:
    """Return the portal's relays as a connection needs them."""
    return tuple(
        RelayServer(
            host=relay.host,
            port=relay.port,
            transport=relay.transport,
            username=relay.username,
            password=relay.password,
        )
        for relay in relays
    )
