"""The host's network as a tunnel needs it: devices with addresses, routes, forwarding, and a firewall.

Linux only, by netlink alone: no program is started. `HostNetwork` is what an actor uses; the other modules are
the layers below it: `links` (rtnetlink), `firewall` on `nftables` on `nft_expressions` on `netlink`, `sysctl`.
"""

from .errors import (
    FirewallRefused,
    InstanceBusy,
    InvalidNetwork,
    NetworkError,
    NetworkRefused,
    PermissionDenied,
)
from .host import HostNetwork
from .leftovers import leftovers

__all__ = [
    "FirewallRefused",
    "HostNetwork",
    "InstanceBusy",
    "InvalidNetwork",
    "NetworkError",
    "NetworkRefused",
    "PermissionDenied",
    "leftovers",
]
