"""What a session on a direct path is, in bytes, for the process that goes on with it.

The peer notices nothing: same sockets, same credentials, same pair, same role. Checks that are under way are not part
of it; their answers come to somebody who did not ask, and are dropped. It holds secrets, so it is handed over in memory
and never written down.
"""

import msgspec

from .agent import CandidateType, Credentials
from .candidate import Candidate
from .packing import Role


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One connected session."""

    generation: int
    local_username: str
    local_password: str
    remote_username: str
    remote_password: str
    controlling: bool
    tie_breaker: int
    host: str
    """The local address of the selected pair."""
    local_type: CandidateType
    remote: Candidate
    """The peer's end of the selected pair."""
    remotes: tuple[Candidate, ...]
    rtt_ms: float
    last_alive: float | None
    """Seconds of the monotonic clock, which all processes of a host share."""

    def __repr__(self) -> str:
        return f"Snapshot(generation={self.generation})"

    @property
    def credentials(self) -> Credentials:
        """The four of them as one value."""
        return Credentials(
            local_username=self.local_username,
            local_password=self.local_password,
            remote_username=self.remote_username,
            remote_password=self.remote_password,
        )

    @property
    def role(self) -> Role:
        """Our side of the decision."""
        return Role(self.controlling, self.tie_breaker)

    def encode(self) -> bytes:
        """Return it as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        """Read what `encode` returned. Raises ValueError."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError("not a snapshot of a session") from error
