"""The terms that several documents use: times, ids, states."""

from typing import Annotated

from msgspec import Meta

Time = Annotated[str, Meta(description="RFC 3339, UTC", extra_json_schema={"format": "date-time"})]
TraceId = Annotated[str, Meta(description="16 hexadecimal digits", pattern="^[0-9a-f]{16}$")]
ActorState = Annotated[str, Meta(examples=["starting", "running", "backoff", "stopping", "exited", "fatal"])]
