"""The terms that several documents use: times, ids, states, causes."""

from typing import Annotated, Literal

from msgspec import Meta

Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]
TraceId = Annotated[str, Meta(description="16 hexadecimal digits", pattern="^[0-9a-f]{16}$")]
ActorState = Annotated[str, Meta(examples=["starting", "running", "backoff", "stopping", "exited", "fatal"])]
PathKind = Literal["direct", "relay", "wireguard"]
"""How a peer is reached; `wireguard` is one that speaks nothing else, on whatever path."""
Cause = Annotated[
    str,
    Meta(
        examples=[
            "signed_out",
            "shutting_down",
            "idle",
            "replaced",
            "access_revoked",
            "access_expired",
            "worker_crashed",
            "supervisor_died",
            "process_died",
            "device_lost",
            "portal_denied",
            "protocol_error",
            "never_connected",
            "relay_lost",
            "network_lost",
        ]
    ),
]
