"""What the portal machine counts."""

import msgspec


class PortalCounters(msgspec.Struct):
    """What peers sent that came to nothing, and what they asked for."""

    malformed_frames: int = 0
    unknown_messages: int = 0
    unknown_fields: int = 0
    refused_messages: int = 0
    """Before the join, twice joined, or of a kind that the peer may not send."""
    rate_limited: int = 0
    errors_received: int = 0
    stale_candidates: int = 0
    """Messages with candidates for ICE credentials that were replaced, or never were."""
    ice_restarts: int = 0
    last_wills: int = 0
    """Passed on to the other end."""
