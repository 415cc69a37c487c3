"""What a request is answered with: the attributes of a success, or an error code with its reason."""

from dataclasses import dataclass, field

from aioice import stun

from . import codec


@dataclass(frozen=True, slots=True)
class Reply:
    """A success response."""

    carried: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    def attributes(self) -> list[tuple[int, bytes]]:
        """Answer the attributes in the order in which they are sent."""
        return list(self.carried)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error response."""

    code: int
    reason: str
    carried: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    def attributes(self) -> list[tuple[int, bytes]]:
        """Answer the attributes in the order in which they are sent, ERROR-CODE first."""
        return [(codec.ERROR_CODE, stun.pack_error_code((self.code, self.reason))), *self.carried]


def unknown_attributes(kinds: list[int]) -> Failure:
    """Answer 420 with the list of what was not understood (RFC 8489 sections 6.3.1 and 14.13)."""
    listed = b"".join(kind.to_bytes(2) for kind in kinds)
    return Failure(420, "Unknown Attribute", [(codec.UNKNOWN_ATTRIBUTES, listed)])


# RFC 8489 section 14.8, RFC 8656 section 19.
BAD_REQUEST = Failure(400, "Bad Request")
FORBIDDEN = Failure(403, "Forbidden")
ALLOCATION_MISMATCH = Failure(437, "Allocation Mismatch")
FAMILY_NOT_SUPPORTED = Failure(440, "Address Family not Supported")
WRONG_CREDENTIALS = Failure(441, "Wrong Credentials")
TRANSPORT_NOT_SUPPORTED = Failure(442, "Unsupported Transport Protocol")
FAMILY_MISMATCH = Failure(443, "Peer Address Family Mismatch")
QUOTA_REACHED = Failure(486, "Allocation Quota Reached")
NO_CAPACITY = Failure(508, "Insufficient Capacity")
