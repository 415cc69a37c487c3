"""Endings written by somebody else than who lived through them.

A peer connection records its own ending. Where it can't (its worker was killed, it could not even be started, it does
not answer), its event loop does, with what little it knows: that is still more than silence.
"""

from __future__ import annotations

import time
from typing import Any

from exeunt.runtime import Terminated
from exeunt.runtime.log import rfc3339

from .endings import Cause, Ending, Initiator
from .loop_config import PeerRecord


def crashed(record: PeerRecord, side: str, message: Terminated) -> Ending:
    """Its actor, or its whole worker, died."""
    failure = message.failure
    evidence = {"actor": message.reason, **({"error": f"{failure.type}: {failure.message}"} if failure else {})}
    return _ending(record, side, Cause.WORKER_CRASHED, Initiator.SUPERVISOR, evidence)


def not_taken_over(record: PeerRecord, side: str, why: str) -> Ending:
    """Its worker was restarted, and no successor went on with it: for the peer that is a crash, and it is told so."""
    return _ending(record, side, Cause.WORKER_CRASHED, Initiator.SUPERVISOR, {"not_taken_over": why})


def not_started(record: PeerRecord, side: str, error: Exception) -> Ending:
    """Its actor could not be started. That was our doing, not the peer's."""
    return _ending(record, side, Cause.NEVER_CONNECTED, Initiator.US, {"not_started": str(error)})


def unanswered(record: PeerRecord, side: str, cause: Cause, initiated_by: Initiator) -> Ending:
    """It was told to say goodbye, and did not answer in time."""
    return _ending(record, side, cause, initiated_by, {"actor": "did not answer"}, acknowledged=False)


def _ending(
    record: PeerRecord,
    side: str,
    cause: Cause,
    initiated_by: Initiator,
    evidence: dict[str, Any],
    *,
    acknowledged: bool | None = None,
) -> Ending:
    now_ns = time.time_ns()
    return Ending(
        connection=record.connection,
        peer=record.peer,
        side=side,
        cause=cause,
        initiated_by=initiated_by,
        evidence=evidence,
        detection_ms=None,
        acknowledged=acknowledged,
        started_at=rfc3339(record.started_ns or now_ns),
        ended_at=rfc3339(now_ns),
        last_seen_at=None,
        rx_bytes=0,
        tx_bytes=0,
        path=record.path,
    )
