"""What of ours is still on this host: the proof that leaving was complete, or the list of what was not.

Everything that exeunt puts on a host can be recognised without knowing who put it there: devices and tables by
their names, routes by their protocol number.
"""

from .firewall import TABLE_PREFIX, table_name
from .links import Links
from .nftables import NftSocket

DEVICE_PREFIX = "exeunt"


def leftovers(instance: str | None = None) -> list[str]:
    """One line for each device, route and firewall table of ours in the calling thread's network namespace.

    Args:
        instance: count only this instance's table; None counts every table of ours. Devices and routes do not
            say whose they are, so they always count.

    Raises:
        PermissionDenied: firewall tables cannot be listed without CAP_NET_ADMIN.
    """
    with Links() as links:
        found = [f"device {name}" for name in links.names() if name.startswith(DEVICE_PREFIX)]
        found += [f"route {network}" for network in links.own_routes()]
    with NftSocket() as firewall:
        for table in firewall.tables():
            ours = table.name == table_name(instance) if instance else table.name.startswith(TABLE_PREFIX)
            if ours:
                found.append(f"table {table.name}")
    return found
