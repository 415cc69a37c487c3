"""What the kernel holds for exeunt in this thread's network namespace: elements of firewall sets, tracked flows.

Source: Linux, include/uapi/linux/netfilter/nf_tables.h and nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from exeunt.actors.network import netlink
from exeunt.actors.network.firewall import TABLE_PREFIX
from exeunt.actors.network.nftables import NftSocket

_NETFILTER: Final = 12  # NETLINK_NETFILTER
_NF_TABLES, _CONNTRACK = 10 << 8, 1 << 8  # NFNL_SUBSYS_NFTABLES, NFNL_SUBSYS_CTNETLINK
_GETSET, _GETSETELEM = _NF_TABLES | 10, _NF_TABLES | 13
_GET_FLOW = _CONNTRACK | 1
_TABLE, _NAME, _ELEMENTS = 1, 2, 3


def count_elements() -> int:
    """Count those of every set of every table of ours."""
    with NftSocket() as firewall:
        tables = [table for table in firewall.tables() if table.name.startswith(TABLE_PREFIX)]
    total = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.bind((0, 0))
        for table in tables:
            named = netlink.text(_TABLE, table.name)
            sets = [values[_NAME].rstrip(b"\0").decode() for values in _dump(kernel, _GETSET, table.family, named)]
            for name in sets:
                for values in _dump(kernel, _GETSETELEM, table.family, named, netlink.text(_NAME, name)):
                    total += _members(values.get(_ELEMENTS, b""))
    return total


def count_flows() -> int:
    """Count tracked flows. Those whose time is over don't count, though the kernel may yet have to remove them."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.bind((0, 0))
        return sum(1 for _ in _dump(kernel, _GET_FLOW, socket.AF_UNSPEC))


def _dump(kernel: socket.socket, kind: int, family: int, *attributes: bytes) -> Iterator[dict[int, bytes]]:
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
    kernel.send(netlink.message(kind, flags, 0, family, 0, *attributes))
    while True:
        for received in netlink.parse_messages(kernel.recv(1 << 20)):
            if received.kind == netlink.NLMSG_DONE:
                return
            if received.kind == netlink.NLMSG_ERROR:
                raise OSError(netlink.parse_refusal(received).errno, "the kernel does not list a set")
            yield netlink.generic_attributes(received)


def _members(nested: bytes) -> int:
    """Count a list's members: attributes of one kind, of which `parse_attributes` would keep the last."""
    count, at = 0, 0
    while at + 4 <= len(nested):
        length = int.from_bytes(nested[at : at + 2], "little")
        count, at = count + 1, at + max(4, (length + 3) & ~3)
    return count
