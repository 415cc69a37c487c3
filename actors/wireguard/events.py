"""What a tunnel reports to its owner."""

from typing import Literal, TypeAlias

import msgspec


class HandshakeCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """A session can be used in both directions.

    The initiator says so when it has the response, the responder when the first packet under the new keys came in;
    `rtt_ms` is the time between our handshake message and that. `initiations` counts what the initiator had to send
    (1: the first was answered); a responder reports 0.
    """

    role: Literal["initiator", "responder"]
    local_index: int
    remote_index: int
    rtt_ms: float
    initiations: int


class HandshakeFailed(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of ours was given up after REKEY_ATTEMPT_TIME; packets queued for it are lost."""

    initiations: int
    duration_s: float


class SessionExpired(msgspec.Struct, frozen=True, kw_only=True):
    """The current session reached REJECT_AFTER_TIME without a successor. Normal for an idle tunnel.

    `last_received_at` is on the caller's clock; None when nothing ever authenticated.
    """

    last_received_at: float | None


TunnelEvent: TypeAlias = HandshakeCompleted | HandshakeFailed | SessionExpired
