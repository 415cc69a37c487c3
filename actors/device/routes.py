"""Cryptokey routing: which peer an inner address belongs to (WireGuard paper, section 2).

Outgoing packets are sealed for the peer whose network is the longest prefix of the destination; incoming
ones are accepted only when their *source* leads to the peer that sealed them. Both questions are one
longest-prefix match.

The table keeps one dictionary per prefix length in use and tries the lengths from the longest. A tunnel has
few distinct lengths (typically /32, /24, /16, /0), so a lookup is a handful of dictionary probes; a trie
would walk up to 128 Python objects for the same answer.

Traffic asks for the same few addresses again and again, so answers are kept, in bounds, until the table changes. Beside
it stands what each owner has: when a gateway leaves, hundreds of peers take their networks out within a second,
and none of them may look through those of all others.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Generic, TypeVar

MAX_ANSWERS: Final = 1024
"""Kept at once; who asks for more addresses than that has them looked up."""

_Owner = TypeVar("_Owner")
_Network = IPv4Network | IPv6Network


class AllowedIPs(Generic[_Owner]):
    """Networks of both families, each belonging to one owner. Not safe for use by several threads at once."""

    def __init__(self) -> None:
        self._v4 = _Prefixes[_Owner](32)
        self._v6 = _Prefixes[_Owner](128)
        self._of_owner: dict[_Owner, set[_Network]] = {}
        self._answers: dict[bytes, _Owner | None] = {}

    def insert(self, network: str | _Network, owner: _Owner) -> None:
        """Give ``network`` to ``owner``; a network has one owner, the last one given (as `wg set` does).

        Raises:
            ValueError: no network, or it has bits set beyond its prefix.
        """
        network = ip_network(network)
        self.remove(network)
        self._answers.clear()
        self._of(network).insert(network.prefixlen, int(network.network_address), owner)
        self._of_owner.setdefault(owner, set()).add(network)

    def remove(self, network: str | _Network) -> bool:
        """Take exactly this network out; True if it was there.

        Raises:
            ValueError: as `insert`.
        """
        network = ip_network(network)
        self._answers.clear()
        owner = self._of(network).remove(network.prefixlen, int(network.network_address))
        if owner is None:
            return False
        mine = self._of_owner[owner]
        mine.discard(network)
        if not mine:
            del self._of_owner[owner]
        return True

    def remove_owner(self, owner: _Owner) -> int:
        """Take out every network of ``owner`` (compared with ``==``); return how many there were."""
        self._answers.clear()
        mine = self._of_owner.pop(owner, set())
        for network in mine:
            self._of(network).remove(network.prefixlen, int(network.network_address))
        return len(mine)

    def lookup(self, address: bytes) -> _Owner | None:
        """The owner of the longest prefix of ``address`` (4 or 16 bytes in network order), or None.

        An address of any other length belongs to nobody: it came from the network, so it is no error.
        """
        try:
            return self._answers[address]
        except KeyError:
            owner = self._look_up(address)
        if len(self._answers) >= MAX_ANSWERS:
            self._answers.clear()
        self._answers[address] = owner
        return owner

    def _look_up(self, address: bytes) -> _Owner | None:
        if len(address) == 4:
            return self._v4.lookup(int.from_bytes(address, "big"))
        if len(address) == 16:
            return self._v6.lookup(int.from_bytes(address, "big"))
        return None

    def __iter__(self) -> Iterator[tuple[_Network, _Owner]]:
        for prefix_bits, key, owner in self._v4:
            yield IPv4Network((key, prefix_bits)), owner
        for prefix_bits, key, owner in self._v6:
            yield IPv6Network((key, prefix_bits)), owner

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6)

    def _of(self, network: _Network) -> "_Prefixes[_Owner]":
        return self._v4 if network.version == 4 else self._v6


class _Prefixes(Generic[_Owner]):
    """One family: a dictionary from network address to owner for each prefix length, longest first."""

    def __init__(self, address_bits: int) -> None:
        self._address_bits = address_bits
        self._by_length: list[tuple[int, int, dict[int, _Owner]]] = []
        """(prefix bits, mask, networks), in descending order of prefix bits, none of them empty."""

    def insert(self, prefix_bits: int, key: int, owner: _Owner) -> None:
        for length, _, networks in self._by_length:
            if length == prefix_bits:
                networks[key] = owner
                return
        host_bits = self._address_bits - prefix_bits
        mask = (1 << self._address_bits) - (1 << host_bits)
        self._by_length.append((prefix_bits, mask, {key: owner}))
        self._by_length.sort(key=lambda entry: entry[0], reverse=True)

    def remove(self, prefix_bits: int, key: int) -> _Owner | None:
        for index, (length, _, networks) in enumerate(self._by_length):
            if length == prefix_bits and key in networks:
                owner = networks.pop(key)
                if not networks:
                    del self._by_length[index]
                return owner
        return None

    def lookup(self, address: int) -> _Owner | None:
        for _, mask, networks in self._by_length:
            key = address & mask
            if key in networks:
                return networks[key]
        return None

    def __iter__(self) -> Iterator[tuple[int, int, _Owner]]:
        for prefix_bits, _, networks in self._by_length:
            for key, owner in networks.items():
                yield prefix_bits, key, owner

    def __len__(self) -> int:
        return sum(len(networks) for _, _, networks in self._by_length)
