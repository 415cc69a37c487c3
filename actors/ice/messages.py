"""What an ICE machine says: datagrams to send, and facts for the layer above."""

import msgspec

from .agent import Address, LostReason, NeverReason, Path, RelayLoss


class Transmit(msgspec.Struct, frozen=True):
    """Send `payload` from the base `base_id` to `destination`."""

    base_id: int
    destination: Address
    payload: bytes


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
