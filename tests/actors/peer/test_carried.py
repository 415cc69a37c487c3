"""What is read in a lane's books leaves a connection as it would be had each packet been told it by itself."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import random
from array import array
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.batch import OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES
from exeunt.actors.batch.lanes import Books
from exeunt.actors.peer.carried import CarriedConnection
from exeunt.actors.wireguard import PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import SIDES, Side, ipv4_packet, public_key

PRIVATE_KEYS: dict[Side, bytes] = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
OF_NO_ACCOUNT = ("_events", "_wake_at")
"""A wake-up may come too early: then it is looked again."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["data goes", "data goes", "data comes", "data comes", "keepalive comes", "forgery comes"]),
        st.floats(0.0001, 0.01),
    ),
    max_size=12,
)


class Pair:
    """A client, which is looked at, and the gateway that makes what comes. The same each time."""

    def __init__(self, keepalive_s: float | None) -> None:
        self.now = 1000.0
        self.client, self.gateway = (self._connection(side, keepalive_s) for side in SIDES)
        for one in (self.gateway, self.client):
            one.handle_path(20.0, self.now)
        for _ in range(3):
            self._exchange(self.client, self.gateway)
            self._exchange(self.gateway, self.client)
        assert self.client.state == self.gateway.state == "established"

    def _connection(self, side: Side, keepalive_s: float | None) -> CarriedConnection:
        peer: Side = "gateway" if side == "client" else "client"
        tunnel = Tunnel(
            private_key=PRIVATE_KEYS[side],
            peer_public_key=public_key(PRIVATE_KEYS[peer]),
            initiator=side == "client",
            allocate_index=PrefixedIndices(SIDES.index(side) + 1),
            rng=random.Random(1),
            persistent_keepalive_s=keepalive_s,
            wall_clock_ns=lambda: 10**18,
        )
        initiator = side == "client"
        return CarriedConnection(tunnel, initiator=initiator, identifier=lambda: bytes(8), idle_after_s=30.0)

    def _exchange(self, one: CarriedConnection, other: CarriedConnection) -> None:
        while (datagram := one.poll_transmit()) is not None:
            self.come(other, bytes(datagram))

    def come(self, to: CarriedConnection, datagram: bytes) -> None:
        buffer = memoryview(bytearray(datagram))
        out = memoryview(bytearray(len(buffer) + OUT_BYTES_EACH))
        to.handle_datagrams(buffer, array("I", (0, len(buffer))), out, self.now)

    def go(self, sender: CarriedConnection) -> bytes:
        frame = bytes(VNET_BYTES) + ipv4_packet(100)
        train = memoryview(bytearray(TRAIN_BYTES))
        sealed = sender.handle_frames(memoryview(bytearray(frame)), array("I", (0, len(frame))), train, self.now)
        assert sealed
        return bytes(train[: sealed[0].total])

    def step(self, what: str) -> None:
        """Have it happen to the client now."""
        if what == "data goes":
            self.go(self.client)
        elif what == "data comes":
            self.come(self.client, self.go(self.gateway))
        else:
            session = self.gateway.tunnel.current
            assert session is not None
            datagram = bytearray(session.seal(b""))
            datagram[-1] ^= what == "forgery comes"
            self.come(self.client, bytes(datagram))

    def state(self) -> dict[str, Any]:
        """All of the client that time decides by."""
        tunnel, idle = self.client.tunnel, self.client._idle
        snapshot = tunnel.snapshot()
        alive = {name: value for name, value in vars(self.client._liveness).items() if name not in OF_NO_ACCOUNT}
        return {
            "timers": snapshot.timers,
            "bytes": (tunnel.rx_bytes, tunnel.tx_bytes),
            "times": (tunnel.last_received_at, tunnel.last_sent_at),
            "drops": dict(tunnel.drops),
            "idle": idle.last_traffic_at,
            **alive,
        }


def books_of(pair: Pair, steps: list[tuple[str, float]]) -> Books:
    """What the books would say of these steps, which the pair has gone through, by the sizes that they had."""
    before_at = at = delivered_at = owed_at = sent_at = unanswered_at = 0.0
    came = keepalives = forged = octets = sent = 0
    now = pair.now
    for what, after in steps:
        now += after
        if what == "forgery comes":
            forged += 1
        elif what == "data goes":
            sent, sent_at, owed_at, unanswered_at = sent + 1, now, 0.0, unanswered_at or now
        else:
            before_at, at, unanswered_at = at, now, 0.0
            came, keepalives = came + 1, keepalives + (what == "keepalive comes")
            octets += 32 if what == "keepalive comes" else 144
            if what == "data comes":
                delivered_at, owed_at = now, owed_at or now
    return Books(
        came,
        octets,
        keepalives,
        0,
        forged,
        0,
        0,
        before_at,
        at,
        delivered_at,
        owed_at,
        sent,
        144 * sent,
        sent_at,
        unanswered_at,
    )


@given(before=STEPS, steps=STEPS, keepalive_s=st.sampled_from([None, 25.0]))
def test_books_are_what_each_packet_would_have_said(
    before: list[tuple[str, float]], steps: list[tuple[str, float]], keepalive_s: float | None
) -> None:
    each, booked = Pair(keepalive_s), Pair(keepalive_s)
    for pair in (each, booked):
        for what, after in before:
            pair.now += after
            pair.step(what)
    books = books_of(booked, steps)
    for what, after in steps:
        each.now += after
        each.step(what)
    booked.client.handle_books(books, each.now)
    assert booked.state() == each.state()


def test_there_is_a_session_to_be_used_while_it_is_established() -> None:
    pair = Pair(None)
    session = pair.client.session_in_use
    assert session is not None
    assert session.lane_keys() is None  # nothing has come and gone that was not a control packet
    for what in ("data goes", "data comes"):
        pair.step(what)
    keys = session.lane_keys()
    assert keys is not None
    assert keys["counter"] is session.counter
    pair.client.handle_failed({}, pair.now)
    assert pair.client.session_in_use is None


def test_a_session_that_grows_old_is_renewed_by_what_is_in_the_books() -> None:
    pair = Pair(None)
    while pair.client.poll_transmit() is not None:
        pass
    pair.now += 121.0
    pair.client.handle_books(Books(0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 1, 144, pair.now, pair.now), pair.now)
    initiation = pair.client.poll_transmit()
    assert initiation is not None
    assert initiation[0] == 1
