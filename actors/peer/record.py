"""A connection's ending, written down from what its tunnel and its path have seen."""

from __future__ import annotations

import time

from exeunt.runtime.log import rfc3339

from ..endings import Ending
from ..ice import Path
from ..wireguard import Tunnel
from .events import Ended
from .messages import PeerConfig


def ending_of(
    config: PeerConfig,
    ended: Ended,
    tunnel: Tunnel,
    path: Path | None,
    *,
    since_ns: int,
    seen_s_ago: float | None,
) -> Ending:
    """Return the record; the ending is now. `since_ns` is wall-clock time, `seen_s_ago` how long ago the peer gave its
    last authenticated sign of life.
    """
    now_ns = time.time_ns()
    return Ending(
        connection=config.connection,
        peer=config.peer,
        side=config.side,
        cause=ended.cause,
        initiated_by=ended.initiated_by,
        evidence=ended.evidence,
        detection_ms=None if ended.detection_ms is None else round(ended.detection_ms, 3),
        acknowledged=ended.acknowledged,
        started_at=rfc3339(since_ns),
        ended_at=rfc3339(now_ns),
        last_seen_at=None if seen_s_ago is None else rfc3339(now_ns - int(seen_s_ago * 1e9)),
        rx_bytes=tunnel.rx_bytes,
        tx_bytes=tunnel.tx_bytes,
        path=path.kind if path else None,
    )
