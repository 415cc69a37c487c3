"""Who knocks: the cheapest question first, everything bounded, and nobody is answered who does not know our key."""

import random
from array import array
from collections.abc import Callable

import pytest

from exeunt.actors.peer.doorkeeper import Doorkeeper
from exeunt.actors.peer.way import Way
from exeunt.actors.wireguard import PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import public_key
from exeunt.actors.wireguard.timing import HANDSHAKES_PER_SECOND, SOURCE_HANDSHAKE_BURST

OURS, ROUTER, PHONE = b"\x22" * 32, b"\x11" * 32, b"\x12" * 32
WAY = Way("192.0.2.1", ("198.51.100.2", 4500))


class Played:
    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Way]] = []

    def take_initiation(self, datagram: bytes, way: Way) -> None:
        self.taken.append((datagram, way))


class Knocking:
    """A plain WireGuard peer that begins handshakes."""

    def __init__(self, private: bytes, *, to: bytes = OURS) -> None:
        self.tunnel = Tunnel(
            private_key=private,
            peer_public_key=public_key(to),
            initiator=True,
            allocate_index=PrefixedIndices(1),
            rng=random.Random(1),
        )
        self._now = 0.0

    def initiation(self) -> bytes:
        self._now += 10.0
        self.tunnel.handle_timeout(self._now)
        self.tunnel.connect(self._now)
        datagram = self.tunnel.poll_transmit()
        assert datagram is not None
        assert len(datagram) == 148
        return datagram


class Rig:
    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[bytes | memoryview, Way]] = []
        self.door = Doorkeeper(OURS, send=lambda datagram, way: self.sent.append((datagram, way)), now=lambda: self.now)
        self.router, self.phone = Played(), Played()
        self.door.expect(public_key(ROUTER), self.router)
        self.door.expect(public_key(PHONE), self.phone)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_each_is_led_to_the_peer_whose_key_it_has(rig: Rig) -> None:
    knocks = [Knocking(ROUTER).initiation(), Knocking(PHONE).initiation()]
    buffer = memoryview(bytearray(b"".join(knocks)))
    rig.door.take_batch(WAY.host, buffer, array("I", (0, 148, 148, 148)), WAY.address, 0)
    assert (rig.router.taken, rig.phone.taken) == ([(knocks[0], WAY)], [(knocks[1], WAY)])
    assert rig.sent == []


@pytest.mark.parametrize(
    ("knock", "reason"),
    [
        (lambda: Knocking(b"\x13" * 32).initiation(), "stranger"),
        (lambda: Knocking(ROUTER, to=b"\x44" * 32).initiation(), "bad_mac1"),
        (lambda: b"\x01\x00\x00\x00" + bytes(144), "bad_mac1"),
        (lambda: b"", "no_initiation"),
        (lambda: b"\x04\x00\x00\x00" + bytes(60), "no_initiation"),
    ],
)
def test_who_is_turned_away_hears_nothing(rig: Rig, knock: Callable[[], bytes], reason: str) -> None:
    rig.door.take(knock(), WAY)
    assert rig.door.counters == {reason: 1}
    assert (rig.router.taken, rig.phone.taken, rig.sent) == ([], [], [])


def test_who_is_expected_no_more_is_a_stranger(rig: Rig) -> None:
    other = Played()
    rig.door.forget(public_key(ROUTER), other)
    rig.door.expect(public_key(PHONE), other)
    rig.door.forget(public_key(PHONE), rig.phone)
    rig.door.take(Knocking(ROUTER).initiation(), WAY)
    rig.door.take(Knocking(PHONE).initiation(), WAY)
    assert len(rig.router.taken) == len(other.taken) == 1
    rig.door.forget(public_key(ROUTER), rig.router)
    rig.door.take(Knocking(ROUTER).initiation(), WAY)
    assert rig.door.counters == {"stranger": 1}


def test_under_load_only_who_has_shown_its_address_gets_in_and_not_too_often(rig: Rig) -> None:
    flood = Knocking(b"\x13" * 32).initiation()
    for _ in range(HANDSHAKES_PER_SECOND + 1):
        rig.door.take(flood, WAY)
    rig.sent.clear()
    honest = Knocking(ROUTER)
    rig.door.take(honest.initiation(), WAY)
    ((reply, way),) = rig.sent
    assert way == WAY
    assert len(reply) == 64, "less than half of what it answers: it amplifies nothing"
    assert rig.router.taken == []
    honest.tunnel.handle_datagram(bytes(reply), 10.0)
    for _ in range(SOURCE_HANDSHAKE_BURST + 3):
        rig.door.take(honest.initiation(), WAY)
    assert len(rig.router.taken) == SOURCE_HANDSHAKE_BURST
    assert rig.door.counters["rate_limited"] == 3
    elsewhere = Way(WAY.host, ("203.0.113.7", 1))
    rig.door.take(honest.initiation(), elsewhere)
    assert len(rig.router.taken) == SOURCE_HANDSHAKE_BURST, "a cookie is for one address"
