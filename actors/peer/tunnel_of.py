"""The WireGuard tunnel of one connection, by its configuration."""

from __future__ import annotations

import random

from ..timing import HANDSHAKE_REPEAT_S, HANDSHAKE_S, SESSION_KEEPALIVE_S
from ..wireguard import Limits, PrefixedIndices, Tunnel
from .messages import PeerConfig

_LIMITS = Limits(rekey_timeout_s=HANDSHAKE_REPEAT_S, rekey_attempt_time_s=HANDSHAKE_S)
_JITTER = random.SystemRandom()
"""One for all tunnels, and without a state that forked workers would share: each one has 2.5 kB."""


def tunnel_of(config: PeerConfig, indices: PrefixedIndices) -> Tunnel:
    """Make it: the client is the fixed initiator, and keeps NAT mappings alive. Raises ValueError."""
    is_initiator = config.side == "client"
    return Tunnel(
        private_key=config.private_key,
        peer_public_key=config.peer_public_key,
        preshared_key=config.preshared_key,
        initiator=is_initiator,
        allocate_index=indices,
        rng=_JITTER,
        persistent_keepalive_s=SESSION_KEEPALIVE_S if is_initiator else None,
        limits=_LIMITS,
    )
