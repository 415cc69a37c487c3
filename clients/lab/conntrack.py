"""Making a router forget: what it does when it is switched off and on.

A NAT's mappings and a firewall's states are entries of conntrack, the kernel's table of connections. One netlink
message without a filter deletes them all, in the network namespace of the calling thread.

Source: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import socket

from exeunt.actors.network import netlink
from exeunt.actors.network.links import refused

from .namespace import Namespace

_NETLINK_NETFILTER = 12
_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REPLY_TIMEOUT_S = 5.0


def forget_connections(router: Namespace) -> None:
    """Delete every entry of the router's conntrack table.

    Raises:
        NetworkError: the kernel refused.
    """
    router.run(_flush)


def _flush() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.settimeout(_REPLY_TIMEOUT_S)
        asking.bind((0, 0))
        asking.send(netlink.message(_DELETE, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK, 1, socket.AF_UNSPEC, 0))
        for received in netlink.parse_messages(asking.recv(1 << 16)):
            number = netlink.parse_refusal(received).errno if received.kind == netlink.NLMSG_ERROR else errno.EPROTO
            if number:
                raise refused("cannot make the router forget its connections", number)
