"""A connection in words, while it lives and when it ends, from what its tunnel and its path have seen."""

from __future__ import annotations

import time

from exeunt.runtime.log import rfc3339

from ..endings import Ending, Initiator
from ..ice import Path, PathAgent
from ..wireguard import Tunnel
from .events import Ended
from .machine import Connection
from .messages import PeerConfig, PeerDescription


def last_seen_s_ago(tunnel: Tunnel, agent: PathAgent, now: float) -> float | None:
    """Return how long ago the peer gave its last authenticated sign of life: a packet, or one of ICE's."""
    seen = (tunnel.last_received_at, agent.last_alive)
    seen_at = max((one for one in seen if one is not None), default=None)
    return None if seen_at is None else round(now - seen_at, 3)


def ending_of(
    config: PeerConfig,
    ended: Ended,
    tunnel: Tunnel,
    agent: PathAgent,
    path: Path | None,
    *,
    since_ns: int,
    now: float,
) -> Ending:
    """Return the record; the ending is `now`. `since_ns` is wall-clock time; `path` is the last one.

    When we sent last is evidence where the peer's silence is what the cause was concluded from, and how often ICMP said
    that the peer could not be reached.
    """
    seen_s_ago = last_seen_s_ago(tunnel, agent, now)
    sent_s_ago = None if tunnel.last_sent_at is None else now - tunnel.last_sent_at
    unreachable = agent.counters["path_refused"] + agent.counters["path_unreachable"]
    now_ns = time.time_ns()
    evidence = dict(ended.evidence)
    if unreachable:
        evidence["icmp"] = unreachable
    if ended.initiated_by is Initiator.NETWORK and sent_s_ago is not None:
        evidence["last_sent_at"] = rfc3339(now_ns - int(sent_s_ago * 1e9))
    return Ending(
        connection=config.connection,
        peer=config.peer,
        side=config.side,
        cause=ended.cause,
        initiated_by=ended.initiated_by,
        evidence=evidence,
        detection_ms=None if ended.detection_ms is None else round(ended.detection_ms, 3),
        acknowledged=ended.acknowledged,
        started_at=rfc3339(since_ns),
        ended_at=rfc3339(now_ns),
        last_seen_at=None if seen_s_ago is None else rfc3339(now_ns - int(seen_s_ago * 1e9)),
        rx_bytes=tunnel.rx_bytes,
        tx_bytes=tunnel.tx_bytes,
        path=path.kind if path else None,
    )


def description_of(
    config: PeerConfig,
    connection: Connection,
    path: Path | None,
    *,
    rtt_ms: float | None,
    seen_s_ago: float | None,
    now: float,
) -> PeerDescription:
    """Return how things are."""
    tunnel = connection.tunnel
    return PeerDescription(
        connection=config.connection,
        peer=config.peer,
        state=connection.state,
        path=path.kind if path else None,
        endpoint=f"{path.remote[0]}:{path.remote[1]}" if path else None,
        rtt_ms=rtt_ms,
        handshake_age_s=tunnel.handshake_age_s(now),
        rx_bytes=tunnel.rx_bytes,
        tx_bytes=tunnel.tx_bytes,
        last_seen_s_ago=seen_s_ago,
        generation=connection.restarts.generation,
        handshakes=tunnel.handshakes_total,
        path_mtu_bytes=connection.path_mtu.confirmed or None,
    )
