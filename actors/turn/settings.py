"""What the relay's machine is told once, and the numbers that RFC 8656 gives it.

The relations between the lifetimes are asserted here, where they can be seen together.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import msgspec

from .codec import Address
from .discovery import Origins

DEFAULT_LIFETIME_S: Final = 600  # RFC 8656 section 3.2: ten minutes
MAX_LIFETIME_S: Final = 3600  # RFC 8656 section 7.2 recommends one hour
PERMISSION_LIFETIME_S: Final = 300.0  # RFC 8656 section 9: fixed, five minutes
CHANNEL_LIFETIME_S: Final = 600.0  # RFC 8656 section 12: fixed, ten minutes
NONCE_LIFETIME_S: Final = 3600  # RFC 8656 section 5: "at least once every hour"
# A request is repeated until Rc x RTO has passed: 39.5 s with Rc = 7 and Rm = 16 (RFC 8489 section 6.2.1).
ANSWERS_KEPT_S: Final = 40.0
DYNAMIC_PORTS: Final = (49152, 65535)  # RFC 6335 section 6

# The answer to an unauthenticated request must stay within three times its size, headers included (the
# factor is that of QUIC, RFC 9000 section 8.1). A 401 to an empty request is 88 bytes, plus the realm beyond
# 8 bytes, plus 28 bytes of IPv4 and UDP: 116 + 24 <= 3 x 48.
MAX_REALM_BYTES: Final = 32

assert PERMISSION_LIFETIME_S <= CHANNEL_LIFETIME_S <= DEFAULT_LIFETIME_S <= MAX_LIFETIME_S
assert ANSWERS_KEPT_S < PERMISSION_LIFETIME_S


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a relay behaves. Raises ValueError on construction where a value makes no sense."""

    secret: str
    """Shared with whoever issues credentials."""
    public_ipv4: str | None = None
    """The address that peers see relayed IPv4 datagrams come from; None: no IPv4 is relayed."""
    public_ipv6: str | None = None
    """The same for IPv6."""
    realm: str = "exeunt"
    software: str = "exeunt"
    """Told in answers (SOFTWARE); empty: not told. At most 16 bytes, since it is told to anybody."""
    min_port: int = DYNAMIC_PORTS[0]
    max_port: int = DYNAMIC_PORTS[1]
    default_lifetime_s: int = DEFAULT_LIFETIME_S
    max_lifetime_s: int = MAX_LIFETIME_S
    nonce_lifetime_s: int = NONCE_LIFETIME_S
    max_allocations: int = 4096
    max_allocations_per_user: int = 64
    max_allocations_per_gateway: int = 2048
    """The same for users whose name says that they serve many (`credentials.gateway_identifier`): one for each of
    1,000 clients, and another one while it finds a path anew."""
    max_permissions: int = 1024
    """Peer addresses that one allocation may permit at a time."""
    origins: tuple[Origins, ...] = ()
    """Where it can be reached twice, for NAT behaviour discovery (RFC 5780): at most one pair per family."""
    own_addresses: frozenset[Address] = frozenset()
    """Where this relay listens; never a peer."""
    denied_peers: tuple[IPv4Network | IPv6Network, ...] = ()
    allow_loopback_peers: bool = False
    """For tests on one machine."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.secret:
            raise ValueError("A relay needs a secret.")
        if self.public_ipv4 is None and self.public_ipv6 is None:
            raise ValueError("A relay needs a public address.")
        for version, host in ((4, self.public_ipv4), (6, self.public_ipv6)):
            if host is not None and ip_address(host).version != version:
                raise ValueError(f"The public IPv{version} address is not one.")
        if len({each.family for each in self.origins}) < len(self.origins):
            raise ValueError("A relay has one other address per family.")
        if not 0 < self.min_port <= self.max_port <= 65535:
            raise ValueError("The relayed ports must lie in 1-65535, the lowest first.")
        if not 0 < len(self.realm.encode()) <= MAX_REALM_BYTES or len(self.software.encode()) > 16:
            raise ValueError("The realm takes 1 to 32 bytes, the software's name at most 16.")
        if not 0 < self.default_lifetime_s <= self.max_lifetime_s:
            raise ValueError("The default lifetime must be positive and not above the highest.")
