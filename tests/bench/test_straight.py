"""What goes straight through a busy visitor is what its machine would have made of it, and the machine learns of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import random
import socket
from array import array
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench.tunnel.straight import Outlet, Straight
from tests.bench.tunnel.window import Frames

from exeunt.actors.batch.contract import MAX_DATAGRAMS, OUT_BYTES_EACH, TRAIN_BYTES
from exeunt.actors.ice.agent import Address, Route
from exeunt.actors.ice.sockets import Sockets
from exeunt.actors.peer.carried import CarriedConnection
from exeunt.actors.wireguard import PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import SIDES, Side, public_key

PRIVATE_KEYS: Final[dict[Side, bytes]] = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
PORT: Final = 5203
CLIENT, RESOURCE = bytes((100, 64, 0, 7)), bytes((10, 20, 0, 10))
OF_NO_ACCOUNT = ("_events", "_wake_at")
"""A wake-up may come too early: then it is looked again."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a train goes", "a train comes", "it comes again", "a keepalive comes", "a forgery comes"]),
        st.integers(1, 48),
        st.floats(0.0001, 0.3),
    ),
    max_size=12,
)


class Pair:
    """A client whose traffic goes straight, or does not, and the gateway that makes what comes. The same each time."""

    def __init__(self, *, is_straight: bool) -> None:
        self.now = 1000.0
        self.client, self.gateway = (self._connection(side) for side in SIDES)
        self.straight: Straight | None = None
        self._frames = Frames(PORT)
        self._train = memoryview(bytearray(TRAIN_BYTES))
        self._out = memoryview(bytearray(TRAIN_BYTES + MAX_DATAGRAMS * OUT_BYTES_EACH))
        self._last: list[bytes] = []
        for one in (self.gateway, self.client):
            one.handle_path(20.0, self.now)
        for _ in range(3):
            for one, other in ((self.client, self.gateway), (self.gateway, self.client)):
                while (datagram := one.poll_transmit()) is not None:
                    self._take(other, [bytes(datagram)])
        for step in ("a train goes", "a train comes"):  # now there are keys for many packets
            self.step(step, 1)
        if is_straight:
            session = self.client.session_in_use
            assert session is not None
            keys = session.lane_keys()
            assert keys is not None
            self.straight = Straight(session, keys)

    def _connection(self, side: Side) -> CarriedConnection:
        tunnel = Tunnel(
            private_key=PRIVATE_KEYS[side],
            peer_public_key=public_key(PRIVATE_KEYS["gateway" if side == "client" else "client"]),
            initiator=side == "client",
            allocate_index=PrefixedIndices(SIDES.index(side) + 1),
            rng=random.Random(1),
            wall_clock_ns=lambda: 10**18,
        )
        return CarriedConnection(tunnel, initiator=side == "client", identifier=lambda: bytes(8), idle_after_s=30.0)

    def _take(self, to: CarriedConnection, datagrams: list[bytes]) -> list[bytes]:
        buffer, spans = memoryview(bytearray(b"".join(datagrams))), array("I")
        for one in datagrams:
            spans.extend((sum(spans[-2:]), len(one)))
        frames = to.handle_datagrams(buffer, spans, self._out, self.now)
        return [bytes(self._out[start:end]) for start, end, _ in frames]

    def _seal(self, by: CarriedConnection, datagrams: int, source: bytes, destination: bytes) -> list[bytes]:
        frame = self._frames.make(source, destination, 9, datagrams)
        sealed = by.handle_frames(frame, array("I", (0, len(frame))), self._train, self.now)
        assert sealed
        return self._cut(sealed[0].stride, sealed[0].total)

    def _cut(self, stride: int, total: int) -> list[bytes]:
        return [bytes(self._train[at : min(at + stride, total)]) for at in range(0, total, stride)]

    def step(self, what: str, datagrams: int) -> list[bytes]:
        """Have it happen to the client now; return what comes out of it, at the gateway or here."""
        session = self.gateway.tunnel.current
        assert session is not None
        if what == "a train goes":
            if self.straight is None:
                return self._take(self.gateway, self._seal(self.client, datagrams, CLIENT, RESOURCE))
            frame = self._frames.make(CLIENT, RESOURCE, 9, datagrams)
            sealed = self.straight.seal(frame, self._train, self.now)
            assert sealed is not None
            return self._take(self.gateway, self._cut(sealed.stride, sealed.total))
        if what == "a train comes":
            self._last = self._seal(self.gateway, datagrams, RESOURCE, CLIENT)
        elif what == "a keepalive comes":
            self._last = [session.seal(b"")]
        elif what == "a forgery comes":
            forged = bytearray(session.seal(b""))
            forged[-1] ^= 1
            self._last = [bytes(forged)]
        if self.straight is None:
            return self._take(self.client, self._last)
        buffer, spans = memoryview(bytearray(b"".join(self._last))), array("I")
        for one in self._last:
            assert one[:8] == self.straight.head
            spans.extend((sum(spans[-2:]), len(one)))
        frames = self.straight.open(buffer, spans.tobytes(), self._out, self.now)
        assert frames is not None
        return [bytes(self._out[start:end]) for start, end, _ in frames]

    def state(self) -> dict[str, Any]:
        """All of the client that time decides by."""
        tunnel = self.client.tunnel
        alive = {name: value for name, value in vars(self.client._liveness).items() if name not in OF_NO_ACCOUNT}
        return {
            "timers": tunnel.snapshot().timers,
            "bytes": (tunnel.rx_bytes, tunnel.tx_bytes),
            "times": (tunnel.last_received_at, tunnel.last_sent_at),
            "drops": dict(tunnel.drops),
            "idle": self.client._idle.last_traffic_at,
            "counter": None if tunnel.current is None else tunnel.current.send_counter,
            **alive,
        }


@settings(deadline=None)
@given(steps=STEPS, books=st.sets(st.integers(0, 11)))
def test_it_is_as_if_the_machine_had_done_it(steps: list[tuple[str, int, float]], books: set[int]) -> None:
    plain, straight = Pair(is_straight=False), Pair(is_straight=True)
    for number, (what, datagrams, after) in enumerate(steps):
        for pair in (plain, straight):
            pair.now += after
        assert straight.step(what, datagrams) == plain.step(what, datagrams)
        if number in books or number == len(steps) - 1:
            assert straight.straight is not None
            straight.client.handle_books(straight.straight.books(), straight.now)
            assert straight.state() == plain.state()


def test_what_comes_twice_is_opened_once() -> None:
    pair = Pair(is_straight=True)
    assert len(pair.step("a train comes", 24)) == 1
    assert pair.step("it comes again", 24) == []
    assert pair.straight is not None
    books = pair.straight.books()
    assert (books.datagrams, books.replayed) == (24, 24)
    assert pair.straight.books().datagrams == 0


def test_a_session_that_is_over_carries_nothing() -> None:
    pair = Pair(is_straight=True)
    straight = pair.straight
    assert straight is not None
    late, frame = straight.session.expires_at, Frames(PORT).make(CLIENT, RESOURCE, 1, 2)
    room = memoryview(bytearray(TRAIN_BYTES))
    assert straight.open(frame, bytes(8), room, late) is None
    assert straight.seal(frame, room, late) is None
    straight.session.counter[0] = 2**64 - 2**13
    assert straight.seal(frame, room, pair.now) is None
    assert straight.session.counter[0] == 2**64 - 2**13
    many = array("I", bytes(8 * (MAX_DATAGRAMS + 1)))
    assert straight.open(frame, many.tobytes(), room, pair.now) is None


class Nobody:
    """Who uses sockets, and is told of nothing."""

    def take_batch(self, host: str, buffer: memoryview, spans: array[int], source: Address, ecn: int) -> None:
        raise AssertionError(host, source, ecn)

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        raise AssertionError(destination, refused)


async def test_a_train_goes_on_its_path_whole() -> None:
    sockets, nobody = Sockets(), Nobody()
    sockets.acquire(nobody)
    with socket.socket(type=socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(5)
        outlet = Outlet(sockets, Route("udp4", far.getsockname(), "127.0.0.1", b"", "direct"))
        outlet.send(memoryview(bytes(2 * 1264 + 700)), 1264)
        outlet.send(memoryview(bytes(900)), 1264)
        assert [len(far.recv(2000)) for _ in range(4)] == [1264, 1264, 700, 900]
        many = memoryview(bytes(130 * 100))  # more than any kernel cuts at once: Python sends them, in pieces
        outlet.send(many, 100)
        assert [len(far.recv(2000)) for _ in range(130)] == [100] * 130
    sockets.release(nobody)
    with pytest.raises(LookupError):
        Outlet(sockets, Route("udp4", ("127.0.0.1", 9), "127.0.0.1", b"", "direct"))
