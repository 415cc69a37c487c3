"""The gateway's firewall: what clients may reach through the tunnel, as one nf_tables table.

Three decisions, all of them the kernel's, per packet and without us:

- *forward*, from the tunnel: only where the pair (client's address, resource's address) is permitted. Everything
  else that comes in through the device is dropped and counted. Towards the tunnel: only replies, and only while
  the pair is still permitted, so revoking a permission ends established connections with the next packet.
- *input*, from the tunnel to the gateway itself: permitted pairs, replies, and ping. Otherwise every client
  could reach the gateway's own services, which no resource mentions.
- *postrouting*: what the tunnel's clients send out by any other device takes that device's address, as the
  resources have no route back to the tunnel's addresses.

Permitted pairs are a set of ranges (client . first … client . last), so the cost does not grow with their number. The
kernel refuses ranges that overlap; a client's networks are therefore kept collapsed (10.1.0.0/16 within
10.0.0.0/8 is not an element of its own).

"The tunnel" is one device, or several, one for each worker of the gateway: these are a set of names then.

The table is owned by our netlink socket and vanishes with it (`nftables`). An ``accept`` here does not overrule a
``drop`` of another program's table: on hosts whose own firewall drops forwarded packets, the operator must permit it.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import NamedTuple, Self

import msgspec

from . import nft_expressions as nft
from .errors import FirewallRefused, InstanceBusy, InvalidNetwork, NetworkError, PermissionDenied
from .nft_expressions import Address, Expression, Family, Network, State, Verdict
from .nftables import Chain, Hook, NftSocket, Range, Set, TableFlag, Transaction

TABLE_PREFIX = "exeunt_"
FILTER_PRIORITY = 0  # nft's "filter"
SOURCE_NAT_PRIORITY = 100  # nft's "srcnat"
_IPV4_ADDR, _IPV6_ADDR, _INTERFACE_NAME = 7, 8, 41  # nft's own type numbers, for `nft list`
_DEVICES = "devices"
_ECHO_REQUESTS = ((nft.ICMP, 8), (nft.ICMPV6, 128))  # RFC 792; RFC 4443, section 4.1


def table_name(instance: str) -> str:
    """The name of the instance's table: letters, digits and underscores, whatever the instance is called."""
    return TABLE_PREFIX + "".join(each if each.isascii() and each.isalnum() else "_" for each in instance)


class FirewallLegacy(msgspec.Struct, frozen=True):
    """What a firewall leaves to a successor, beside its socket: the networks that each client's address may reach."""

    permitted: dict[str, tuple[str, ...]]


class Firewall:
    """The instance's table. It exists from construction to `close`, or to the end of the process.

    Raises:
        InvalidNetwork: one of ``sources`` is no network.
        InstanceBusy: a running program of this instance has its table.
        PermissionDenied: no CAP_NET_ADMIN.
        FirewallRefused: the kernel has no nf_tables, or not what is needed of it (Linux 5.12).
    """

    def __init__(self, instance: str, devices: Sequence[str], *, sources: Sequence[str], masquerade: bool) -> None:
        self._table = table_name(instance)
        self._permitted: dict[Address, frozenset[Network]] = {}
        networks = [_network(text) for text in sources]
        self._socket = NftSocket()
        try:
            self._socket.commit(self._construction(devices, networks if masquerade else []))
        except (PermissionDenied, FirewallRefused) as error:
            # EEXIST when the table is nobody's, EPERM when another socket owns it, and without the privilege.
            with self._socket:
                taken = self._exists()
            if taken:
                raise InstanceBusy(
                    f"the firewall table {self._table} exists already",
                    hint="Another program of this instance is running; stop it or choose another instance.",
                ) from error
            raise
        except BaseException:
            self._socket.close()
            raise

    @classmethod
    def adopt(cls, instance: str, left: FirewallLegacy, descriptor: int) -> Self:
        """Go on with a predecessor's table and its socket. Raises ValueError when an address or a network is none."""
        firewall = cls.__new__(cls)
        firewall._table = table_name(instance)
        firewall._permitted = {
            ip_address(client): frozenset(ip_network(network) for network in networks)
            for client, networks in left.permitted.items()
        }
        firewall._socket = NftSocket(descriptor)
        return firewall

    def legacy(self) -> tuple[FirewallLegacy, int]:
        """Return what a successor has to know, and the socket's descriptor, which the table lives as long as."""
        permitted = {str(client): tuple(map(str, sorted(one, key=str))) for client, one in self._permitted.items()}
        return FirewallLegacy(permitted), self._socket.fileno()

    def allow(self, client_address: str, network: str) -> None:
        """Let the client reach the network. Idempotent; who permits a pair twice must count for himself.

        Raises:
            InvalidNetwork: not an address, not a network, or of different IP versions.
            FirewallRefused: the kernel refused; nothing has changed.
        """
        client, resource = _pair(client_address, network)
        self._change(client, self._permitted.get(client, frozenset()) | {resource})

    def revoke(self, client_address: str, network: str) -> None:
        """Take the permission back; established connections end with it. Idempotent.

        Raises:
            InvalidNetwork, FirewallRefused: as `allow`.
        """
        client, resource = _pair(client_address, network)
        self._change(client, self._permitted.get(client, frozenset()) - {resource})

    def close(self) -> None:
        """Close the socket, and with its last duplicate remove the table. Idempotent."""
        self._socket.close()

    def _change(self, client: Address, networks: frozenset[Network]) -> None:
        before = set(_ranges(client, self._permitted.get(client, frozenset())))
        after = set(_ranges(client, networks))
        change = Transaction(Family.INET, self._table)
        change.delete_elements(_set_of(client.version), sorted(before - after))
        change.add_elements(_set_of(client.version), sorted(after - before))
        self._socket.commit(change)
        if networks:
            self._permitted[client] = networks
        else:
            self._permitted.pop(client, None)

    def _construction(self, devices: Sequence[str], masqueraded: Sequence[Network]) -> Transaction:
        table = Transaction(Family.INET, self._table)
        table.add_table(TableFlag.OWNER)
        table.add_set(Set(_set_of(4), (4, 4), (_IPV4_ADDR, _IPV4_ADDR)))
        table.add_set(Set(_set_of(6), (16, 16), (_IPV6_ADDR, _IPV6_ADDR)))
        tunnel = _Tunnel.of(devices, table)
        table.add_chain(Chain("forward", Hook.FORWARD, FILTER_PRIORITY))
        _add_forward_rules(table, tunnel)
        table.add_chain(Chain("input", Hook.INPUT, FILTER_PRIORITY))
        _add_input_rules(table, tunnel)
        table.add_chain(Chain("postrouting", Hook.POSTROUTING, SOURCE_NAT_PRIORITY, kind="nat"))
        for network in masqueraded:
            table.add_rule("postrouting", *nft.source_within(network), *tunnel.elsewhere, nft.masquerade())
        return table

    def _exists(self) -> bool:
        try:
            return any(table.name == self._table for table in self._socket.tables())
        except NetworkError:
            return False


class _Tunnel(NamedTuple):
    """How rules ask whether a packet comes from the tunnel, goes into it, or goes elsewhere."""

    coming: tuple[Expression, ...]
    going: tuple[Expression, ...]
    elsewhere: tuple[Expression, ...]

    @classmethod
    def of(cls, devices: Sequence[str], table: Transaction) -> Self:
        """The questions for these devices. A single one is compared with, which is cheaper than a set of one."""
        if len(devices) == 1:
            (device,) = devices
            return cls(nft.came_in_by(device), nft.leaves_by(device), nft.leaves_by(device, negate=True))
        table.add_set(Set(_DEVICES, (nft.INTERFACE_NAME_BYTES,), (_INTERFACE_NAME,)))
        table.add_keys(_DEVICES, [nft.interface_name(device) for device in devices])
        return cls(nft.came_in_by_any(_DEVICES), nft.leaves_by_any(_DEVICES), nft.leaves_by_any(_DEVICES, negate=True))


def _add_forward_rules(table: Transaction, tunnel: _Tunnel) -> None:
    accept, drop = nft.verdict(Verdict.ACCEPT), (nft.counter(), nft.verdict(Verdict.DROP))
    coming, going = tunnel.coming, tunnel.going
    table.add_rule("forward", *coming, *going, *drop)  # no client reaches another one through us
    for version in (4, 6):
        table.add_rule("forward", *coming, *_permitted_pair(version), accept)
    table.add_rule("forward", *coming, *drop)
    for version in (4, 6):
        table.add_rule("forward", *going, *nft.is_reply(), *_permitted_pair(version, reverse=True), accept)
    # Errors about a permitted connection (unreachable, too big) come from routers, which no pair names.
    table.add_rule("forward", *going, *nft.in_state(State.RELATED), accept)
    table.add_rule("forward", *going, *drop)


def _add_input_rules(table: Transaction, tunnel: _Tunnel) -> None:
    accept, coming = nft.verdict(Verdict.ACCEPT), tunnel.coming
    for version in (4, 6):
        table.add_rule("input", *coming, *_permitted_pair(version), accept)
    table.add_rule("input", *coming, *nft.is_reply(), accept)
    table.add_rule("input", *coming, *nft.in_state(State.RELATED), accept)
    for protocol, kind in _ECHO_REQUESTS:
        is_echo = (*nft.is_protocol(protocol), nft.transport_header(0, 1), nft.compare(bytes([kind])))
        table.add_rule("input", *coming, *is_echo, accept)
    table.add_rule("input", *coming, nft.counter(), nft.verdict(Verdict.DROP))


def _permitted_pair(version: int, *, reverse: bool = False) -> tuple[Expression, ...]:
    client, resource = nft.FIRST_REGISTER, nft.FIRST_REGISTER + (1 if version == 4 else 4)
    loads = (
        (nft.destination_address(version, client), nft.source_address(version, resource))
        if reverse
        else (nft.source_address(version, client), nft.destination_address(version, resource))
    )
    return (*nft.is_family(version), *loads, nft.in_set(_set_of(version)))


def _ranges(client: Address, networks: Iterable[Network]) -> list[Range]:
    collapsed: Iterable[Network]
    if client.version == 4:
        collapsed = collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
    else:
        collapsed = collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
    key = client.packed
    return [Range(key + each[0].packed, key + each[-1].packed) for each in collapsed]


def _set_of(version: int) -> str:
    return f"permitted{version}"


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidNetwork(f"{text!r} is no network: {error}") from error


def _pair(client_address: str, network: str) -> tuple[Address, Network]:
    resource = _network(network)
    try:
        client = ip_address(client_address)
    except ValueError as error:
        raise InvalidNetwork(f"{client_address!r} is no address: {error}") from error
    if client.version != resource.version:
        raise InvalidNetwork(f"{client_address} cannot reach {network}: they are of different IP versions")
    return client, resource
