"""One socket carries STUN, ChannelData and WireGuard: which is which, and whose, the content says, never an address."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.ice.test_demultiplexer import Heard, request_to

from exeunt.actors.ice import Address
from exeunt.actors.ice.binding import MAGIC_COOKIE, is_stun
from exeunt.actors.ice.demultiplexer import Demultiplexer
from exeunt.actors.turn.codec import channel_data, is_channel_data
from exeunt.actors.wireguard import DropReason, MessageType, PrefixedIndices, Tunnel, classify
from exeunt.actors.wireguard.testing import ipv4_packet, public_key

GATEWAY_KEY = b"\x22" * 32
COOKIE_INDEX = int.from_bytes(MAGIC_COOKIE, "little")
"""A session index that looks like STUN's magic cookie."""
ADDRESSES = st.tuples(st.sampled_from(["192.0.2.1", "198.51.100.7", "2001:db8::1"]), st.integers(1, 65_535))

SIZES = st.sampled_from([0, 4, 20, 32, 64, 92, 148, 200])


def tricky(kind: int, middle: bytes, fourth: bytes, rest: bytes, size: int) -> bytes:
    return (bytes([kind]) + middle + fourth + rest).ljust(size, b"\0")


TRICKY = st.builds(
    tricky,
    st.integers(0, 255),
    st.sampled_from([b"\0\0\0", b"\1\0\0", b"\0\0\x80", b"\0\0\x48", b"\0\0\x2c"]),
    st.one_of(st.just(MAGIC_COOKIE), st.binary(min_size=4, max_size=4)),
    st.binary(max_size=160),
    SIZES,
)


@settings(max_examples=2_000, deadline=None)
@given(st.one_of(st.binary(max_size=200), TRICKY))
def test_no_datagram_is_two_things(datagram: bytes) -> None:
    assert is_stun(datagram) + is_channel_data(datagram) + (classify(datagram) is not None) <= 1


@given(st.binary(min_size=4, max_size=32), st.integers(0x4000, 0x4FFF), st.binary(max_size=1500))
def test_each_is_known_for_what_it_is(fragment: bytes, channel: int, payload: bytes) -> None:
    assert is_stun(request_to(fragment.hex()))
    framed = channel_data(channel, payload)
    assert is_channel_data(framed)
    assert not is_stun(framed)
    assert classify(framed) is None


class Side(Heard):
    """An agent with a tunnel behind it."""

    def __init__(self, own_key: bytes, peer_key: bytes, first_index: int, *, initiator: bool) -> None:
        self._next = first_index
        self.tunnel = Tunnel(
            private_key=own_key,
            peer_public_key=public_key(peer_key),
            initiator=initiator,
            allocate_index=self._index,
            rng=random.Random(1),
        )

    def _index(self) -> int:
        self._next += 1
        return self._next - 1

    def transmits(self) -> list[bytes]:
        found: list[bytes] = []
        while (datagram := self.tunnel.poll_transmit()) is not None:
            found.append(datagram)
        return found


def test_an_index_may_look_like_the_magic_cookie() -> None:
    """Messages whose receiver or sender index is STUN's cookie are WireGuard's."""
    gateway = Side(GATEWAY_KEY, b"\x11" * 32, COOKIE_INDEX, initiator=False)
    client = Side(b"\x11" * 32, GATEWAY_KEY, COOKIE_INDEX, initiator=True)
    client.tunnel.connect(1.0)
    seen: Counter[MessageType | None] = Counter()
    for sender, receiver in ((client, gateway), (gateway, client), (client, gateway)):
        for datagram in sender.transmits():
            assert not is_stun(datagram)
            seen[classify(datagram)] += 1
            receiver.tunnel.handle_datagram(datagram, 1.0)
    data = gateway.tunnel.encapsulate(ipv4_packet(), 1.0)
    assert data is not None
    assert not is_stun(data)
    assert set(seen) == {MessageType.INITIATION, MessageType.RESPONSE, MessageType.TRANSPORT}


class House:
    """A gateway's table, its connections to three clients, and the clients."""

    def __init__(self) -> None:
        self.table = Demultiplexer(Counter())
        keys = [bytes([number]) * 32 for number in (0x31, 0x32, 0x33)]
        prefixes = [PrefixedIndices(number)() for number in (0xA00001, 0xA00002, 0xA00003)]
        self.clients = [Side(key, GATEWAY_KEY, 0x50 << number, initiator=True) for number, key in enumerate(keys)]
        self.connections = [
            Side(GATEWAY_KEY, key, index, initiator=False) for key, index in zip(keys, prefixes, strict=True)
        ]
        for connection, index in zip(self.connections, prefixes, strict=True):
            self.table.add_agent(connection)
            self.table.claim(PrefixedIndices.prefix_of(index), connection)

    def arrive(self, datagram: bytes, source: Address, now: float) -> list[Side]:
        """Return the connections that the datagram is given to."""
        taken = [one for one in self.connections if one in self.table.agents_for(datagram, source)]
        for one in taken:
            one.tunnel.handle_datagram(datagram, now)
        return taken

    def answer(self, number: int, now: float) -> None:
        """Carry what a connection has to send to its client."""
        for datagram in self.connections[number].transmits():
            self.clients[number].tunnel.handle_datagram(datagram, now)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2), ADDRESSES, st.sets(st.integers(0, 2)), ADDRESSES)
def test_an_initiation_from_a_new_address_reaches_the_right_connection(
    number: int, source: Address, neighbours: set[int], elsewhere: Address
) -> None:
    """ICE has proven the address for its connection, and maybe for others behind the same NAT: they find that it is
    not theirs. All that follows goes by index, wherever it comes from.
    """
    house = House()
    for other in neighbours:
        house.table.know(source, house.connections[other], proven=True)
    house.table.know(source, house.connections[number], proven=True)
    house.clients[number].tunnel.connect(1.0)
    (initiation,) = house.clients[number].transmits()
    offered = house.arrive(initiation, source, 1.0)
    assert house.connections[number] in offered
    assert len(offered) == len(neighbours | {number})
    for one in offered:
        mine = one is house.connections[number]
        assert one.tunnel.drops[DropReason.BAD_HANDSHAKE] == (0 if mine else 1)
        assert (one.tunnel.last_received_at == 1.0) is mine
    house.answer(number, 1.0)
    data = [*house.clients[number].transmits(), house.clients[number].tunnel.encapsulate(ipv4_packet(), 1.0)]
    assert len(data) == 2
    for datagram in data:
        assert datagram is not None
        assert house.arrive(datagram, elsewhere, 1.0) == [house.connections[number]]
    assert house.connections[number].tunnel.can_send(1.0)
    assert [one.tunnel.can_send(1.0) for one in house.connections].count(True) == 1


def test_an_initiation_from_an_address_that_nobody_knows_is_nobodys() -> None:
    house = House()
    house.clients[0].tunnel.connect(1.0)
    (initiation,) = house.clients[0].transmits()
    assert house.arrive(initiation, ("203.0.113.9", 9), 1.0) == []
