"""What an ICE machine says: datagrams to send, and facts for the layer above."""

import msgspec

from .agent import Address, LostReason, NeverReason, Path, RelayLoss


class Transmit(msgspec.Struct, frozen=True):
    """Send `payload` from the base `base_id` to `destination`."""

    base_id: int
    destination: Address
    payload: bytes


class Rest(msgspec.Struct, frozen=True):
    """Nothing is due but to miss the peer, and nothing follows from its checks but answers. This is what they are."""

    local: str
    remote: Address
    """They come from there to here, a socket of ours."""
    key: bytes
    """Of their integrity, and of their answers'."""
    asked: bytes
    """Their attributes before the integrity, USERNAME first."""
    nominates: bool
    nominations: bytes
    """The transaction ids that have nominated so far, one behind the other, the oldest first."""
    heard_at: float
    quiet_s: float
    """When the peer was heard last, and after how long without it it is missed."""

    def __repr__(self) -> str:
        return f"Rest({self.local}, {self.remote})"


class PathSelected(msgspec.Struct, frozen=True):
    """Both sides agreed on a pair, the first one or another."""

    path: Path


class PathLost(msgspec.Struct, frozen=True):
    """Consent expired. Nothing more is sent."""

    reason: LostReason
    last_seen_s_ago: float


class PathBroken(msgspec.Struct, frozen=True):
    """The relay of ours that carried the path is given up, and no other pair has worked since. All are checked."""

    reason: RelayLoss


class ChecksFailed(msgspec.Struct, frozen=True):
    """Every pair failed and no more candidates will come."""

    reason: NeverReason


class AddressProven(msgspec.Struct, frozen=True):
    """The peer has shown, authentically and for the first time, that it sends from this address."""

    address: Address


Event = PathSelected | PathBroken | PathLost | ChecksFailed | AddressProven
