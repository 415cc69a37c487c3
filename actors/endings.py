"""The record that the whole product exists for: how a connection ended.

Each side that is still alive writes one `Ending` for each connection: what caused it, who ended it, the evidence,
and how long it took to know. It is logged as one INFO line, appended to `endings.jsonl`, shown by `exeunt endings`,
explained by `exeunt why`.
"""

from __future__ import annotations

import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

logger = logging.getLogger(__name__)


class Cause(StrEnum):
    """Why a connection ended."""

    SIGNED_OUT = "signed_out"
    SHUTTING_DOWN = "shutting_down"
    IDLE = "idle"
    REPLACED = "replaced"
    ACCESS_REVOKED = "access_revoked"
    ACCESS_EXPIRED = "access_expired"
    WORKER_CRASHED = "worker_crashed"
    SUPERVISOR_DIED = "supervisor_died"
    PROCESS_DIED = "process_died"
    DEVICE_LOST = "device_lost"
    PORTAL_DENIED = "portal_denied"
    PROTOCOL_ERROR = "protocol_error"
    NEVER_CONNECTED = "never_connected"
    RELAY_LOST = "relay_lost"
    NETWORK_LOST = "network_lost"


class Initiator(StrEnum):
    """Who ended it."""

    US = "us"
    PEER = "peer"
    SUPERVISOR = "supervisor"
    PORTAL = "portal"
    NETWORK = "network"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One ended connection, as one side saw it. Times are RFC 3339 UTC."""

    connection: str
    peer: str
    side: str
    """`client` or `gateway`."""
    cause: Cause
    initiated_by: Initiator
    evidence: dict[str, Any]
    """What the cause was concluded from."""
    detection_ms: float | None
    """From the event to knowing of it; None where that cannot be known."""
    acknowledged: bool | None
    """Whether the goodbye was confirmed by the other side; None where none was due."""
    started_at: str
    ended_at: str
    last_seen_at: str | None
    """When the last authenticated packet came."""
    rx_bytes: int
    tx_bytes: int
    path: str | None
    """`direct` or `relay`; None when there never was one."""


class EndingBook:
    """Appends endings to a file, one JSON object a line, each in one write: several processes may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, ending: Ending) -> None:
        """Log an ending and append it. A disk that refuses is logged and costs nothing else."""
        logger.info(
            "A connection ended",
            extra={"event": "connection_ended", **msgspec.to_builtins(ending)},
        )
        line = msgspec.json.encode(ending) + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.warning("An ending could not be kept", extra={"event": "ending_not_kept", "error": str(error)})
