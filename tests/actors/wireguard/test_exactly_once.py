"""Each packet is opened once, and each counter used once: whatever the network repeats, whenever a process ends."""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import OUT_BYTES_EACH, VNET_BYTES, Kernel, native
from exeunt.actors.batch.pure import PureKernel
from exeunt.actors.wireguard import DropReason, Limits, Tunnel
from exeunt.actors.wireguard.snapshot import COUNTER_MARGIN
from exeunt.actors.wireguard.testing import TunnelPair, ipv4_packet, public_key
from exeunt.actors.wireguard.wire import MessageType, classify, decode_transport_header

PACKETS = 2_000
CLIENT_KEY, GATEWAY_KEY = b"\x11" * 32, b"\x22" * 32
COLLISION_S = 1.0
COMPILED = native.load()
KERNELS = pytest.mark.parametrize(
    "kernel", [PureKernel(), *([] if COMPILED is None else [COMPILED])], ids=lambda one: one.name
)


def numbered(number: int) -> bytes:
    return ipv4_packet(64, fill=number % 251)[:-4] + number.to_bytes(4, "big")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_reordered_and_repeated_packets_are_opened_exactly_once(seed: int) -> None:
    pair = TunnelPair()
    pair.connect()
    sealed = [pair.client.encapsulate(numbered(number), pair.now) for number in range(PACKETS)]
    datagrams = [datagram for datagram in sealed if datagram is not None] * 3
    assert len(datagrams) == 3 * PACKETS
    random.Random(seed).shuffle(datagrams)
    opened = [pair.gateway.handle_datagram(datagram, pair.now) for datagram in datagrams]
    packets = [packet for packet in opened if packet is not None]
    assert sorted(packets) == sorted(numbered(number) for number in range(PACKETS))
    assert pair.gateway.drops[DropReason.REPLAYED_PACKET] == 2 * PACKETS


@pytest.mark.slow
def test_damaged_packets_cost_the_good_ones_nothing() -> None:
    pair = TunnelPair()
    pair.connect()
    rng = random.Random(7)
    packets: list[bytes] = []
    for number in range(PACKETS):
        datagram = pair.client.encapsulate(numbered(number), pair.now)
        assert datagram is not None
        damaged = bytearray(datagram)
        damaged[rng.randrange(16, len(damaged))] ^= 1 << rng.randrange(8)
        for one in rng.sample((bytes(damaged), datagram), 2):
            packet = pair.gateway.handle_datagram(one, pair.now)
            packets += [packet] if packet is not None else []
    assert packets == [numbered(number) for number in range(PACKETS)]
    drops = pair.gateway.drops  # a damaged one behind its original is refused before its tag is looked at
    assert drops[DropReason.BAD_TAG] + drops[DropReason.REPLAYED_PACKET] == PACKETS
    assert drops[DropReason.BAD_TAG] > 0


def in_bursts(tunnel: Tunnel, datagrams: Sequence[bytes], now: float, rng: random.Random) -> list[bytes]:
    """Have a tunnel open datagrams in bursts of any size; return the packets."""
    packets: list[bytes] = []
    at = 0
    while at < len(datagrams):
        burst = datagrams[at : at + rng.choice((1, 2, 7, 64, 500))]
        at += len(burst)
        spans, buffer = array("I"), bytearray()
        for datagram in burst:
            spans.extend((len(buffer), len(datagram)))
            buffer += datagram
        out = memoryview(bytearray(len(buffer) + OUT_BYTES_EACH * len(burst)))
        frames = tunnel.handle_datagrams(memoryview(buffer), spans, out, now, coalesce=False)
        packets += [bytes(out[start + VNET_BYTES : end]) for start, end, _ in frames]
    return packets


@pytest.mark.slow
@KERNELS
def test_so_are_bursts_of_them_with_damaged_ones_among_them(kernel: Kernel) -> None:
    pair = TunnelPair(kernel=lambda: kernel)
    pair.connect()
    rng = random.Random(3)
    sealed = [pair.client.encapsulate(numbered(number), pair.now) for number in range(PACKETS)]
    genuine = [datagram for datagram in sealed if datagram is not None]
    damaged = [datagram[:-1] + bytes([datagram[-1] ^ 1]) for datagram in genuine]
    datagrams = genuine * 2 + damaged
    rng.shuffle(datagrams)
    packets = in_bursts(pair.gateway, datagrams, pair.now, rng)
    assert sorted(packets) == sorted(numbered(number) for number in range(PACKETS))
    drops = pair.gateway.drops
    assert drops[DropReason.BAD_TAG] + drops[DropReason.REPLAYED_PACKET] == 2 * PACKETS
    assert in_bursts(pair.gateway, genuine, pair.now, rng) == []
    assert [pair.gateway.handle_datagram(datagram, pair.now) for datagram in genuine] == [None] * PACKETS


class Nonces:
    """What was sealed under which key and counter."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        self._receivers: set[int] = set()

    def note(self, datagram: bytes | None) -> None:
        """A datagram was made. AssertionError: another one has its nonce."""
        if datagram is None or classify(datagram) is not MessageType.TRANSPORT:
            return
        index = int.from_bytes(datagram[4:8], "little")
        _, counter = decode_transport_header(datagram)
        self._seen[index, counter].add(datagram)
        assert len(self._seen[index, counter]) == 1, f"{counter} twice"


class Life:
    """A client that is succeeded again and again, and its gateway. Indices never repeat, so they stand for keys."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nonces = Nonces()
        self.client, self.gateway = self._tunnel("client"), self._tunnel("gateway")
        self._index = 0
        self.client.connect(self.now)
        self.carry()

    def _tunnel(self, side: str) -> Tunnel:
        is_client = side == "client"
        return Tunnel(
            private_key=CLIENT_KEY if is_client else GATEWAY_KEY,
            peer_public_key=public_key(GATEWAY_KEY if is_client else CLIENT_KEY),
            initiator=is_client,
            allocate_index=self._allocate,
            rng=random.Random(1),
            limits=Limits(rekey_timeout_s=0.1),
            wall_clock_ns=lambda: 1_800_000_000 * 10**9 + int(self.now * 10**9),
        )

    def _allocate(self) -> int:
        self._index = getattr(self, "_index", 0) + 1
        return self._index

    def carry(self) -> None:
        """Carry what both have to send."""
        sides = (self.client, self.gateway)
        for _ in range(3):
            for sender, receiver in (sides, sides[::-1]):
                while (datagram := sender.poll_transmit()) is not None:
                    self.nonces.note(datagram)
                    receiver.handle_datagram(datagram, self.now)

    def send(self, count: int) -> None:
        """Seal so many packets; every other one arrives."""
        for number in range(count):
            datagram = self.client.encapsulate(numbered(number), self.now)
            self.nonces.note(datagram)
            if datagram is not None and number % 2:
                self.gateway.handle_datagram(datagram, self.now)

    def will(self) -> None:
        """Seal the packet that is sealed ahead."""
        self.nonces.note(self.client.seal_last_will(numbered(0), self.now))

    def renew(self) -> None:
        """Make another session."""
        self.now += COLLISION_S
        self.client.connect(self.now)
        self.carry()

    def be_succeeded(self, late: int) -> None:
        """Another process goes on; this one's end comes `late` packets after it has left its snapshot."""
        snapshot = self.client.snapshot()
        self.send(late)
        self.client = self._tunnel("client")
        self.client.resume(snapshot, self.now)
        self.carry()

    def die(self) -> None:
        """The process ends without a word, and another one begins anew."""
        self.now += COLLISION_S
        self.client = self._tunnel("client")
        self.client.connect(self.now)
        self.carry()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("succeed"), st.sampled_from([0, 0, 1, 7, 300, COUNTER_MARGIN])),
        st.tuples(st.sampled_from(["will", "renew", "die"]), st.just(0)),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_no_counter_is_used_again_wherever_a_process_ends(steps: list[tuple[str, int]]) -> None:
    life = Life()
    for step, number in steps:
        match step:
            case "send":
                life.send(number)
            case "succeed":
                life.be_succeeded(number)
            case "will":
                life.will()
            case "renew":
                life.renew()
            case _:
                life.die()
    life.send(3)
    before = life.gateway.rx_bytes
    life.renew()
    life.send(2)
    assert life.gateway.rx_bytes > before
