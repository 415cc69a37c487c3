"""One allocation: a relayed port of one client, with its permissions and channels (RFC 8656 section 3).

Time is only compared, never waited for: an expired permission or channel is one whose time lies in the past,
and is forgotten when somebody next looks at it.
"""

from dataclasses import dataclass, field

from .codec import Address
from .settings import CHANNEL_LIFETIME_S, PERMISSION_LIFETIME_S

MIN_CHANNEL = 0x4000
MAX_CHANNEL = 0x4FFF  # RFC 8656 section 12; 0x5000-0x7FFF are reserved


@dataclass(slots=True)
class Channel:
    """A channel number's binding to a peer."""

    number: int
    peer: Address
    expires_at: float


@dataclass(slots=True, kw_only=True)
class Allocation:
    """What the relay remembers of one allocation."""

    identity: int
    client: Address
    username: str
    identifier: str
    family: int
    port: int
    opened_at: float
    expires_at: float
    is_open: bool = False
    """Whether its port is open; until then only the Allocate transaction knows about it."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    _permissions: dict[str, float] = field(default_factory=dict[str, float])
    _channels: dict[int, Channel] = field(default_factory=dict[int, Channel])
    _channel_of: dict[Address, Channel] = field(default_factory=dict[Address, Channel])

    def is_permitted(self, host: str, now: float) -> bool:
        """Tell whether this peer address may send and be sent to."""
        expires_at = self._permissions.get(host)
        return expires_at is not None and expires_at > now

    def permit(self, hosts: list[str], now: float, limit: int, lifetime_s: float = PERMISSION_LIFETIME_S) -> bool:
        """Install or refresh permissions, all or none; False when there would be more than ``limit``."""
        if len(self._permissions) + len(hosts) > limit:
            self._permissions = {host: at for host, at in self._permissions.items() if at > now}
            if len(self._permissions.keys() | set(hosts)) > limit:
                return False
        for host in hosts:
            # A channel's permission may outlive an ordinary one: never shorten it.
            self._permissions[host] = max(now + lifetime_s, self._permissions.get(host, 0.0))
        return True

    def peer_of(self, channel: int, now: float) -> Address | None:
        """Answer the peer that a channel number is bound to now."""
        bound = self._channels.get(channel)
        return bound.peer if bound is not None and bound.expires_at > now else None

    def channel_of(self, peer: Address, now: float) -> int | None:
        """Answer the channel number that is bound to a peer now."""
        bound = self._channel_of.get(peer)
        return bound.number if bound is not None and bound.expires_at > now else None

    def may_bind(self, channel: int, peer: Address, now: float) -> bool:
        """Apply RFC 8656 section 12.2: one number a peer, one peer a number, until the binding expires."""
        return (
            MIN_CHANNEL <= channel <= MAX_CHANNEL
            and self.peer_of(channel, now) in (None, peer)
            and self.channel_of(peer, now) in (None, channel)
        )

    def bind(self, channel: int, peer: Address, now: float, limit: int) -> bool:
        """Bind or refresh a channel, where `may_bind` said yes; False when its permission finds no room.

        RFC 8656 gives the permission that comes with a channel 300 s, half the channel's own time, and wants
        the client to refresh it by itself. Widespread clients don't (aioice is one), so that a channel used
        in one direction only went deaf after five minutes. Like coturn, let the permission last as long as
        the channel.
        """
        if not self.permit([peer[0]], now, limit, CHANNEL_LIFETIME_S):
            return False
        self._forget(self._channels.get(channel))
        self._forget(self._channel_of.get(peer))
        bound = Channel(channel, peer, now + CHANNEL_LIFETIME_S)
        self._channels[channel] = self._channel_of[peer] = bound
        return True

    def _forget(self, bound: Channel | None) -> None:
        if bound is not None:
            self._channels.pop(bound.number, None)
            self._channel_of.pop(bound.peer, None)
