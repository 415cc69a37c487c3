"""nf_tables without the nft program: transactions written to a netlink socket.

A change of the rule set is one *batch*: BEGIN, the changes, END. The kernel checks all of it and then takes
all or nothing, so no packet ever meets half a firewall.

A table made with the OWNER flag belongs to the socket that made it: no other socket can change it, and the
kernel removes it when that socket is closed, in whichever way its process ends. That is what makes "no rule
survives" true even of SIGKILL. The socket must therefore live as long as the rules should, and no child may
inherit it (it is close-on-exec; a forked child that does not exec would keep it).

Needs CAP_NET_ADMIN; the OWNER flag needs Linux 5.12. Source: Linux, net/netfilter/nf_tables_api.c and
include/uapi/linux/netfilter/nf_tables.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import NamedTuple, Self

from . import netlink
from .errors import FirewallRefused, PermissionDenied
from .netlink import attribute, be32, be64, nested, text
from .nft_expressions import Expression, Family, Verdict

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS = 5
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_RECEIVE_BYTES = 1 << 16
_REPLY_TIMEOUT_S = 5  # the kernel answers while the request is being sent: this only ends a hopeless wait
_LIST_ELEM = 1


class _Command(IntEnum):
    """NFT_MSG_*."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    NEWRULE = 6
    NEWSET = 9
    NEWSETELEM = 12
    DELSETELEM = 14


class Hook(IntEnum):
    """NF_INET_*: where on its way through the kernel a packet meets a chain."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class TableFlag(IntEnum):
    """NFT_TABLE_F_*."""

    NONE = 0
    OWNER = 2


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain: rules that every packet passing ``hook`` meets, ordered by ``priority``."""

    name: str
    hook: Hook
    priority: int
    """Lower is earlier. nft's names: dstnat -100, filter 0, srcnat 100."""
    kind: str = "filter"
    """``filter``, or ``nat``: that one sees only the first packet of each connection."""
    policy: Verdict = Verdict.ACCEPT


@dataclass(frozen=True, slots=True)
class Set:
    """A named set of keys; several fields in a key, one after the other, are a concatenation."""

    name: str
    fields_bytes: tuple[int, ...]
    """Size of each field; with two or more, the set is a concatenation of ranges (NFT_SET_CONCAT)."""
    type_ids: tuple[int, ...]
    """nft's own type of each field (7 ipv4_addr, 8 ipv6_addr), for `nft list` only: the kernel ignores it."""
    timeout_ms: int = 0
    """With a timeout the set is dynamic: rules add to it, and elements leave by themselves."""


class Range(NamedTuple):
    """An element of a concatenation of ranges: first and last key (all fields together), both included."""

    first: bytes
    last: bytes


class Table(NamedTuple):
    """A table that exists, as `NftSocket.tables` found it."""

    family: int
    name: str
    owner: int
    """Netlink port of the socket that owns it; 0 when nobody does."""


class Transaction:
    """Changes to one table, gathered, to be given to `NftSocket.commit` as a whole."""

    def __init__(self, family: Family, table: str) -> None:
        self.family = family
        self.table = table
        self._changes: list[tuple[int, int, bytes]] = []

    def __len__(self) -> int:
        return len(self._changes)

    def add_table(self, flag: TableFlag = TableFlag.NONE, *, exclusive: bool = True) -> None:
        """Create the table. If ``exclusive``, it must not exist (EEXIST); else an existing one is kept."""
        flags = netlink.NLM_F_CREATE | (netlink.NLM_F_EXCL if exclusive else 0)
        self._add(_Command.NEWTABLE, flags, be32(2, flag))

    def delete_table(self) -> None:
        """Delete the table with all that is in it; it must exist (ENOENT)."""
        self._add(_Command.DELTABLE, 0)

    def add_chain(self, chain: Chain) -> None:
        """Create a base chain."""
        self._add(
            _Command.NEWCHAIN,
            netlink.NLM_F_CREATE,
            text(3, chain.name),
            nested(4, be32(1, chain.hook), be32(2, chain.priority)),
            be32(5, chain.policy),
            text(7, chain.kind),
        )

    def add_rule(self, chain: str, *expressions: Expression) -> None:
        """Append a rule to a chain."""
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
        self._add(_Command.NEWRULE, flags, text(2, chain), nested(4, *expressions))

    def add_set(self, described: Set) -> None:
        """Create a set."""
        type_id = 0
        for each in described.type_ids:
            type_id = type_id << 6 | each  # nft's TYPE_BITS
        # Fields take whole registers, so every field counts as a multiple of four bytes.
        key_bytes = sum(size + -size % 4 for size in described.fields_bytes)
        attributes = [text(2, described.name), be32(4, type_id), be32(5, key_bytes), be32(10, len(self) + 1)]
        if described.timeout_ms:
            attributes += [
                be32(3, 0x10 | 0x20),
                be64(11, described.timeout_ms),
            ]  # NFT_SET_TIMEOUT | NFT_SET_EVAL
        elif len(described.fields_bytes) > 1:
            fields = [nested(_LIST_ELEM, be32(1, size)) for size in described.fields_bytes]
            attributes += [
                be32(3, 0x04 | 0x80),
                nested(9, nested(2, *fields)),
            ]  # NFT_SET_INTERVAL | NFT_SET_CONCAT
        self._add(_Command.NEWSET, netlink.NLM_F_CREATE, *attributes)

    def add_elements(self, set_name: str, elements: Iterable[Range]) -> None:
        """Add elements to a set of ranges. One message each, as an attribute holds no more than 64 kB."""
        for element in elements:
            flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
            self._add(_Command.NEWSETELEM, flags, text(2, set_name), _element(element))

    def add_keys(self, set_name: str, keys: Iterable[bytes]) -> None:
        """Add elements to a set of single keys, which may be one that this transaction makes."""
        for key in keys:
            flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
            element = nested(3, nested(_LIST_ELEM, nested(1, attribute(1, key))))
            self._add(_Command.NEWSETELEM, flags, text(2, set_name), element)

    def delete_elements(self, set_name: str, elements: Iterable[Range]) -> None:
        """Remove elements; each must be there exactly so (ENOENT)."""
        for element in elements:
            self._add(_Command.DELSETELEM, 0, text(2, set_name), _element(element))

    def encode(self) -> bytes:
        """The whole batch, numbered from 0 (BEGIN). Only the last change asks for an acknowledgement."""
        parts = [netlink.message(_BATCH_BEGIN, netlink.NLM_F_REQUEST, 0, 0, _SUBSYSTEM)]
        for sequence, (command, flags, attributes) in enumerate(self._changes, start=1):
            asking = netlink.NLM_F_REQUEST | (netlink.NLM_F_ACK if sequence == len(self) else 0)
            parts.append(
                netlink.message(_SUBSYSTEM << 8 | command, flags | asking, sequence, self.family, 0, attributes)
            )
        parts.append(netlink.message(_BATCH_END, netlink.NLM_F_REQUEST, len(self) + 1, 0, _SUBSYSTEM))
        return b"".join(parts)

    def _add(self, command: _Command, flags: int, *attributes: bytes) -> None:
        # In tables, chains, rules, sets and element lists alike, attribute 1 is the table's name.
        self._changes.append((command, flags, b"".join((text(1, self.table), *attributes))))


class NftSocket:
    """A netlink socket to the nf_tables of the network namespace that it is opened in.

    Blocking, for one thread. Closing it removes the tables that it owns.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Open a socket, or go on with one that a predecessor has opened, and with the tables that it owns: they belong
        to the socket, not to the process. Raises OSError.
        """
        if descriptor is not None:
            self._socket = socket.socket(fileno=descriptor)
            return
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            # Not settimeout(): that would make `_drain` wait too, MSG_DONTWAIT or not.
            timeval = struct.pack("@ll", _REPLY_TIMEOUT_S, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            # A large batch that fails throughout has more errors than the buffer holds; the first one is enough.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The netlink port, which `Table.owner` names."""
        address: tuple[int, int] = self._socket.getsockname()
        return address[0]

    def fileno(self) -> int:
        """The descriptor, to be handed over; closing this object leaves a duplicate, and its tables, alone."""
        return self._socket.fileno()

    def commit(self, transaction: Transaction) -> None:
        """Apply the whole transaction, or nothing of it.

        Raises:
            PermissionDenied: no CAP_NET_ADMIN here, or the table is another socket's.
            FirewallRefused: the kernel refused a change; ``errno`` says how.
        """
        if not len(transaction):
            return
        self._socket.send(transaction.encode())
        while True:
            for received in netlink.parse_messages(self._receive()):
                if received.kind != netlink.NLMSG_ERROR:
                    continue
                refusal = netlink.parse_refusal(received)
                if refusal.errno:
                    self._drain()
                    raise _refused(refusal, transaction.table)
                if received.sequence == len(transaction):
                    return

    def tables(self) -> Sequence[Table]:
        """Every nf_tables table of this network namespace.

        Raises:
            PermissionDenied: no CAP_NET_ADMIN here.
            FirewallRefused: this kernel has no nf_tables.
        """
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
        self._socket.send(netlink.message(_SUBSYSTEM << 8 | _Command.GETTABLE, flags, 0, 0, 0))
        found: list[Table] = []
        while True:
            for received in netlink.parse_messages(self._receive()):
                if received.kind == netlink.NLMSG_DONE:
                    return found
                if received.kind == netlink.NLMSG_ERROR:
                    raise _refused(netlink.parse_refusal(received), "")
                values = netlink.generic_attributes(received)
                name = values.get(1, b"").rstrip(b"\0").decode(errors="replace")
                found.append(Table(received.body[0], name, int.from_bytes(values.get(7, b""), "big")))

    def close(self) -> None:
        """Close the socket, and with it every table that it owns. Idempotent."""
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError as error:
            raise FirewallRefused("the kernel did not answer a change of the firewall", errno.ETIMEDOUT) from error

    def _drain(self) -> None:
        """Take the rest of a refused batch's answers, so that the next commit does not read them."""
        try:
            while self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return


def _element(element: Range) -> bytes:
    first = nested(1, attribute(1, element.first))
    last = nested(10, attribute(1, element.last))
    return nested(3, nested(_LIST_ELEM, first, last))


def _refused(refusal: netlink.Refusal, table: str) -> PermissionDenied | FirewallRefused:
    if refusal.errno in {errno.EPERM, errno.EACCES}:
        return PermissionDenied(
            f"the kernel does not let this process change the firewall table {table}".rstrip(),
            hint="Run as root or with CAP_NET_ADMIN; a table that another program owns cannot be changed.",
        )
    why = refusal.sentence or os.strerror(refusal.errno)
    return FirewallRefused(f"the kernel refused the firewall table {table}: {why}", refusal.errno)
