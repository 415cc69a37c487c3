"""Lanes on real sockets: what goes by is what Python would have made of it, byte for byte; the rest is as it was."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
import time
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import MAX_DATAGRAMS, OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES, native, pure
from exeunt.actors.batch.lanes import Books, Lane, Lanes
from exeunt.actors.ice.ancillary import marked, prepare, prepare_trains
from exeunt.actors.wireguard.replay import ReplayWindow

from .hostile import REMOTE_INDEX, Flow, hostile_burst, hostile_frame, hostile_packet

KEY = bytes(range(32))
RANDOM = st.integers(0, 2**32 - 1).map(random.Random)
LIMIT = 2**64 - 2**13 - 1
MTU = 1_400
EMPTY = (errno.EAGAIN, errno.EWOULDBLOCK)
V4, V6 = bytes(range(4)), bytes(range(16))
"""The sources of `hostile.Flow`; the destinations are what follows."""


class Bench:
    """A lane between a socket on loopback and a device, which is one end of a pair of sockets."""

    def __init__(self, kernel: native.NativeKernel, *, header: int = 0, merges: bool = True) -> None:
        assert kernel.lanes is not None
        self.lanes: Lanes = kernel.lanes()
        self.device, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours, self.theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.ours, self.theirs):
            one.bind(("127.0.0.1", 0))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        for one in (self.device, self.host):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
        for one in (self.device, self.host, self.ours, self.theirs):
            one.setblocking(False)
        prepare(self.ours)
        prepare_trains(self.ours)
        self.theirs.connect(self.ours.getsockname())
        self.header = header
        self.window, self.counter = ReplayWindow(), array("Q", (0,))
        self.buffer = memoryview(bytearray(3 * 65_536))
        self.out = memoryview(bytearray(len(self.buffer) + MAX_DATAGRAMS * OUT_BYTES_EACH))
        self.train = memoryview(bytearray(2 * TRAIN_BYTES))
        self.frames = memoryview(bytearray(8 * 65_545))
        self.kernel = kernel
        self.lanes.set_device(self.device.fileno(), header, merges, ())

    def open(self, **other: Any) -> Lane:
        how: dict[str, Any] = {
            "owner": "peer",
            "sealing": self.kernel.sealing(KEY, REMOTE_INDEX),
            "opening": self.kernel.opening(KEY, self.window),
            "counter": self.counter,
            "local_index": REMOTE_INDEX,
            "descriptor": self.ours.fileno(),
            "remote": named(self.theirs),
            "local": socket.inet_aton("127.0.0.1"),
            "expires_at": time.monotonic() + 100,
            "seal_before": LIMIT,
            "reject_after": LIMIT,
            "mtu": MTU,
            "limit": 0,
        }
        return self.lanes.open(**how | other)

    def receive(self, most: int = 512, *, lonely: bool = False) -> Any:
        return self.lanes.receive(self.ours.fileno(), self.buffer, 0, most, lonely, self.out)

    def send(self, most: int = 64) -> Any:
        return self.lanes.send(self.frames, most, self.train)

    def given(self) -> list[bytes]:
        """What the device was given."""
        return list(waiting(self.host))

    def sent(self) -> list[bytes]:
        return list(waiting(self.theirs))

    def close(self) -> None:
        for one in (self.device, self.host, self.ours, self.theirs):
            one.close()


def waiting(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(70_000)


def named(sock: socket.socket) -> bytes:
    port: int = sock.getsockname()[1]
    return port.to_bytes(2, "big") + bytes(4) + socket.inet_aton("127.0.0.1")


@pytest.fixture(scope="module")
def kernel() -> native.NativeKernel:
    found = native.load()
    if found is None or found.lanes is None:
        pytest.skip("no native kernel with lanes")
    return found


@pytest.fixture
def bench(kernel: native.NativeKernel) -> Iterator[Bench]:
    made = Bench(kernel)
    yield made
    made.close()


def datagram(counter: int, packet: bytes = b"", key: bytes = KEY) -> bytes:
    frame = memoryview(bytearray(VNET_BYTES) + packet)
    if packet:
        train = bytearray(TRAIN_BYTES)
        done = pure.KERNEL.sealing(key, REMOTE_INDEX).seal(frame, memoryview(train), counter=counter, mtu=MTU)
        return bytes(train[: done.total])
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    header = struct.pack("<IIQ", 4, REMOTE_INDEX, counter)
    return header + ChaCha20Poly1305(key).encrypt(bytes(4) + header[8:], b"", None)


def udp_packet(size: int = 100, source: bytes = V4, destination: bytes = bytes(range(4, 8)), tos: int = 0) -> bytes:
    total = 28 + size
    return (
        struct.pack("!BBHHHBBH", 0x45, tos, total, 0, 0, 64, 17, 0)
        + source
        + destination
        + struct.pack("!HHHH", 1, 2, 8 + size, 0)
        + bytes(size)
    )


def syn() -> bytes:
    flow = Flow(random.Random(1))
    flow.version, flow.protocol, flow.addresses, flow.options = 4, 6, bytes(range(8)), b""
    return bytes(flow.packet(0, 0x02))


# From the socket to the device


@settings(max_examples=200, deadline=None)
@given(rng=RANDOM, merges=st.booleans())
def test_what_is_opened_is_what_the_reference_opens(
    kernel: native.NativeKernel, rng: random.Random, merges: bool
) -> None:
    burst = hostile_burst(rng, KEY, rng.choice((0, 63, 8_190)))
    datagrams = [burst.buffer[at : at + size] for at, size in zip(burst.spans[::2], burst.spans[1::2], strict=True)]
    datagrams = [one for one in datagrams if one[:8] == struct.pack("<II", 4, REMOTE_INDEX)]
    bench = Bench(kernel, merges=merges)
    try:
        lane = bench.open(reject_after=burst.limit)
        bench.lanes.know(V4, lane)
        bench.lanes.know(V6, lane)
        for one in datagrams:
            bench.theirs.send(one)
        _, reads, error, runs, _, rest, noted = bench.receive()
        assert (reads, error in EMPTY, runs) == (len(datagrams), True, [])
        window = ReplayWindow()
        spans, buffer = array("I"), bytearray()
        for one in datagrams:
            spans.extend((len(buffer), len(one)))
            buffer += one
        out = bytearray(len(buffer) + OUT_BYTES_EACH * len(datagrams))
        opened = pure.KERNEL.opening(KEY, window).open(
            memoryview(buffer), spans, memoryview(out), limit=burst.limit, coalesce=merges
        )
        expected = [bytes(out[start:end]) for start, end, _ in opened.frames]
        left = [] if rest is None else [bytes(bench.out[start:end]) for start, end, _ in rest[1]]
        assert bench.given() + left == expected
        assert not left or is_odd(left[0])
        assert all(not is_odd(frame) for frame in expected[: len(expected) - len(left)])
        assert window.state == bench.window.state
        books = Books(*lane.books())
        assert books[:7] == opened[1:]
        assert noted == (["peer"] if datagrams else [])
    finally:
        bench.close()


def is_odd(frame: bytes) -> bool:
    """Whether a frame is left to Python: for its source, as a control packet's, or for what may be a SYN."""
    packet = frame[VNET_BYTES:]
    version = packet[0] >> 4
    if (packet[12:16] != V4) if version == 4 else (packet[8:24] != V6):
        return True
    header, protocol = ((packet[0] & 15) * 4, packet[9]) if version == 4 else (40, packet[6])
    is_syn = protocol == 6 and len(packet) > header + 13 and packet[header + 13] & 2
    return packet[6] == 255 or bool(len(packet) <= 120 and is_syn)


@pytest.mark.parametrize("header", [0, VNET_BYTES])
def test_a_device_without_headers_gets_none(kernel: native.NativeKernel, header: int) -> None:
    bench = Bench(kernel, header=header, merges=False)
    bench.lanes.know(V4, bench.open())
    packet = udp_packet()
    bench.theirs.send(datagram(0, packet))
    bench.receive()
    assert bench.given() == [bytes(VNET_BYTES - header) + packet]
    bench.close()


def test_what_comes_from_elsewhere_is_left_and_all_of_the_peer_behind_it(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    elsewhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elsewhere.connect(bench.ours.getsockname())
    packet = udp_packet()
    bench.theirs.send(datagram(0, packet))
    elsewhere.send(datagram(1, packet))
    bench.theirs.send(datagram(2, packet))
    elsewhere.close()
    _, _, _, runs, data, rest, _ = bench.receive()
    assert len(bench.given()) == 1
    assert len(runs) == 2
    assert data
    assert rest is None


def test_what_is_nobodys_is_left_in_order_and_holds_nobody_up(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    odd = [b"\x01" + bytes(60), struct.pack("<II", 4, 7) + bytes(60), b"\x00\x01" + bytes(40)]
    for one in (odd[0], datagram(0, udp_packet()), odd[1], datagram(1, udp_packet()), odd[2]):
        bench.theirs.send(one)
    _, reads, _, runs, _, _, _ = bench.receive()
    spans = [array("I", run[1]) for run in runs]
    assert [bytes(bench.buffer[at : at + size]) for at, size in spans] == odd
    assert reads == 5
    assert sum(frame.count(bytes(100)) for frame in bench.given()) > 0


@pytest.mark.parametrize(("mark", "goes_by"), [(0, True), (1, False), (2, True), (3, False)])
def test_a_mark_that_changes_something_is_for_python(bench: Bench, mark: int, goes_by: bool) -> None:
    bench.lanes.know(V4, bench.open())
    bench.theirs.sendmsg([datagram(0, udp_packet())], marked(socket.AF_INET, mark))
    runs = bench.receive()[3]
    assert (len(bench.given()), [run[2][0] for run in runs]) == ((1, []) if goes_by else (0, [mark]))


def test_nothing_goes_by_when_it_is_over(bench: Bench) -> None:
    lane = bench.open(expires_at=time.monotonic() - 1)
    bench.lanes.know(V4, lane)
    bench.theirs.send(datagram(0, udp_packet()))
    assert len(bench.receive()[3]) == 1
    bench.lanes.close(lane)
    bench.lanes.close(lane)
    bench.lanes.know(V4, lane)
    other = bench.open()
    bench.lanes.know(V4, other)
    bench.lanes.forget()
    bench.theirs.send(datagram(1, udp_packet()))
    assert bench.receive()[5] is not None
    bench.lanes.know(V4, other)
    bench.lanes.set_device(-1, 0, True, ())
    bench.theirs.send(datagram(2, udp_packet()))
    assert len(bench.receive()[3]) == 1


def test_a_spoofed_source_is_left_and_what_came_before_it_is_not(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    packets = [udp_packet(50), udp_packet(60, source=b"\x0a\0\0\1"), udp_packet(70)]
    for number, packet in enumerate(packets):
        bench.theirs.send(datagram(number, packet))
    owner, frames, mark = bench.receive()[5]
    assert bench.given() == [bytes(VNET_BYTES) + packets[0]]
    assert [bytes(bench.out[start + VNET_BYTES : end]) for start, end, _ in frames] == packets[1:]
    assert (owner, mark) == ("peer", 0)


def test_what_the_device_refuses_is_left(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    bench.host.close()
    bench.theirs.send(datagram(0, udp_packet()))
    assert len(bench.receive()[5][1]) == 1
    bench.host = socket.socket()


def test_one_forged_datagram_costs_the_others_nothing(bench: Bench) -> None:
    lane = bench.open()
    bench.lanes.know(V4, lane)
    for one in (datagram(0, udp_packet()), datagram(1, udp_packet(), key=bytes(32)), datagram(2, udp_packet())):
        bench.theirs.send(one)
    assert bench.receive()[5] is None
    books = Books(*lane.books())
    assert (books.datagrams, books.forged, books.replayed) == (2, 1, 0)


def test_a_lonely_reading_ends_behind_what_is_nobodys(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    for one in (b"\x00" * 40, b"\x00" * 40):
        bench.theirs.send(one)
    assert bench.receive(lonely=True)[1] == 1
    bench.receive()
    for number in range(2):
        bench.theirs.send(datagram(number, udp_packet()))
    _, reads, error, _, data, _, _ = bench.receive(lonely=True)
    assert (reads, error in EMPTY, data) == (2, True, 1)


def test_a_keepalive_is_no_data(bench: Bench) -> None:
    lane = bench.open()
    bench.theirs.send(datagram(0))
    assert bench.receive()[4] == 0
    books = Books(*lane.books())
    assert (books.datagrams, books.keepalives, books.owed_at) == (1, 1, 0)


def test_what_is_left_was_not_delivered(bench: Bench) -> None:
    """A connection is idle when the device has had nothing; an answer to a probe is nothing to the device."""
    lane = bench.open()
    bench.lanes.know(V6, lane)
    control = bytes([0x60, *bytes(3), 0, 8, 255, 0]) + V6 + bytes(16) + b"\x47" + bytes(7)
    bench.theirs.send(datagram(0, control))
    assert len(bench.receive()[5][1]) == 1
    books = Books(*lane.books())
    assert 0 == books.delivered_at < books.owed_at == books.received_at
    bench.lanes.know(V4, lane)
    bench.theirs.send(datagram(1, udp_packet()))
    assert bench.receive()[5] is None
    books = Books(*lane.books())
    assert books.delivered_at == books.received_at > 0


def test_no_more_is_read_at_once_than_the_buffer_holds(bench: Bench) -> None:
    bench.lanes.know(V4, bench.open())
    sent = 150
    for number in range(sent):
        bench.theirs.send(datagram(number, udp_packet(1_300)))
    end, reads, error, runs, *_ = bench.receive()
    assert (end, error, runs) == (0, 0, [])
    assert reads < sent
    assert bench.receive()[2] in EMPTY


# From the device to the socket


@settings(max_examples=200, deadline=None)
@given(rng=RANDOM, count=st.integers(1, 12))
def test_what_is_sealed_is_what_the_reference_seals(
    kernel: native.NativeKernel, rng: random.Random, count: int
) -> None:
    flow = Flow(rng)
    frames = [
        bytes(hostile_frame(rng)) if rng.randrange(3) == 0 else bytes(VNET_BYTES) + bytes(hostile_packet(rng, flow))
        for _ in range(count)
    ]
    frames = [frame for frame in frames if frame]  # an empty one would be the device's end
    bench = Bench(kernel)
    try:
        lane = bench.open()
        bench.lanes.know(bytes(range(4, 8)), lane)
        bench.lanes.know(bytes(range(16, 32)), lane)
        for frame in frames:
            bench.host.send(frame)
        found, reads, error, unsent, _ = bench.send()
        assert (reads, unsent) == (len(frames), [])
        assert error in EMPTY
        spans = array("I", found)
        left = [bytes(bench.frames[at : at + size]) for at, size in zip(spans[::2], spans[1::2], strict=True)]
        went = frames[: len(frames) - len(left)] if left and frames[-len(left) :] == left else without(frames, left)
        expected, counter = list[bytes](), 0
        for frame in went:
            train = bytearray(TRAIN_BYTES)
            done = pure.KERNEL.sealing(KEY, REMOTE_INDEX).seal(
                memoryview(bytearray(frame)), memoryview(train), counter=counter, mtu=MTU
            )
            assert done.datagrams > 0
            counter += done.datagrams
            stride = done.stride
            expected += [bytes(train[at : min(at + stride, done.total)]) for at in range(0, done.total, stride)]
        assert bench.sent() == expected
        assert bench.counter[0] == counter
        books = Books(*lane.books())
        assert (books.sent, books.sent_octets) == (len(expected), sum(map(len, expected)))
    finally:
        bench.close()


def without(frames: list[bytes], left: list[bytes]) -> list[bytes]:
    """What is not left: `left` is in the same order."""
    rest = iter([*left, b""])
    waits = next(rest)
    went: list[bytes] = []
    for frame in frames:
        if frame == waits:
            waits = next(rest)
        else:
            went.append(frame)
    assert waits == b""
    return went


def test_frames_of_one_size_go_with_one_mark(bench: Bench) -> None:
    bench.lanes.know(bytes(range(4, 8)), bench.open())
    prepare(bench.theirs)
    prepare_trains(bench.theirs)
    for mark in (0, 0, 2, 2, 1):
        bench.host.send(bytes(VNET_BYTES) + udp_packet(200, tos=mark))
    bench.send()
    marks = list[int]()
    with contextlib.suppress(BlockingIOError):
        while True:
            data, said, *_ = bench.theirs.recvmsg(70_000, 200)
            mark = next((value[0] & 3 for level, kind, value in said if (level, kind) == (0, 1)), 0)
            marks += [mark] * -(-len(data) // 272)
    assert marks == [0, 0, 2, 2, 1]


def test_who_a_peer_is_not_known_for_and_all_that_needs_a_look_is_left(bench: Bench) -> None:
    lane = bench.open(limit=500)
    bench.lanes.know(bytes(range(4, 8)), lane)
    small, other, long = udp_packet(), udp_packet(destination=b"\1\2\3\4"), udp_packet(600)
    for packet in (other, small, syn(), small, long):
        bench.host.send(bytes(VNET_BYTES) + packet)
    found, *_ = bench.send()
    spans = array("I", found)
    left = [bytes(bench.frames[at + VNET_BYTES : at + size]) for at, size in zip(spans[::2], spans[1::2], strict=True)]
    assert left == [other, syn(), small, long]  # what is behind the SYN is not to overtake it
    assert len(bench.sent()) == 1


def test_only_our_own_addresses_are_carried(bench: Bench) -> None:
    bench.lanes.know(bytes(range(4, 8)), bench.open())
    bench.lanes.set_device(bench.device.fileno(), 0, True, (V6, b"\x0a\0\0\1"))
    bench.host.send(bytes(VNET_BYTES) + udp_packet())
    bench.host.send(bytes(VNET_BYTES) + udp_packet(source=b"\x0a\0\0\1"))
    assert len(array("I", bench.send()[0])) == 2
    assert len(bench.sent()) == 1


def test_counters_end_for_a_lane_before_they_end(bench: Bench) -> None:
    bench.lanes.know(bytes(range(4, 8)), bench.open(seal_before=MAX_DATAGRAMS + 1))
    for _ in range(3):
        bench.host.send(bytes(VNET_BYTES) + udp_packet())
    assert len(array("I", bench.send()[0])) == 2
    assert len(bench.sent()) == 2


def test_what_the_socket_refuses_is_python_s(bench: Bench) -> None:
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lane = bench.open(descriptor=closed.fileno(), remote=bytes(6) + socket.inet_aton("127.0.0.1"))
    bench.lanes.know(bytes(range(4, 8)), lane)
    for size in (100, 300, 100):
        bench.host.send(bytes(VNET_BYTES) + udp_packet(size))
    found, reads, _, unsent, _ = bench.send()
    assert reads == 3
    sealed = b"".join(bytes(bench.train[start:end]) for _, start, end, *_ in unsent)
    assert sealed == datagram(0, udp_packet(100)) + datagram(1, udp_packet(300))
    assert len(array("I", found)) == 2  # nothing follows what was refused
    assert {one[5] for one in unsent} == {errno.EINVAL}
    assert bench.counter[0] == 2
    closed.close()


# The books


def test_the_books_say_what_is_owed_and_what_is_unanswered(bench: Bench) -> None:
    lane = bench.open()
    bench.lanes.know(V4, lane)
    bench.lanes.know(bytes(range(4, 8)), lane)

    def come(counter: int) -> None:
        bench.theirs.send(datagram(counter, udp_packet()))
        bench.receive()

    def go() -> None:
        bench.host.send(bytes(VNET_BYTES) + udp_packet())
        bench.send()

    assert not lane.is_noted
    come(0)
    assert lane.is_noted
    come(1)
    books = Books(*lane.books())
    assert not lane.is_noted
    assert 0 < books.received_before_at == books.owed_at < books.received_at < time.monotonic()
    assert books.sent_at == books.unanswered_at == 0
    go()
    go()
    books = Books(*lane.books())
    assert 0 < books.unanswered_at < books.sent_at
    assert books.received_at == books.owed_at == 0
    go()
    come(2)
    books = Books(*lane.books())
    assert (books.unanswered_at, books.owed_at) == (0, books.received_at)
    come(3)
    go()
    books = Books(*lane.books())
    assert (books.unanswered_at, books.owed_at) == (books.sent_at, 0)
    assert Books(*lane.books()) == Books(*[0] * 15)


# Who breaks the contract


def test_who_breaks_the_contract_is_told(bench: Bench) -> None:
    lane = bench.open()
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {}),  # the index has a lane
        (ValueError, {"local_index": 1, "local": bytes(5)}),
        (ValueError, {"local_index": 1, "local": bytes(16)}),
        (ValueError, {"local_index": 1, "remote": bytes(40)}),
        (ValueError, {"local_index": 1, "counter": array("Q", (0, 0))}),
        (TypeError, {"local_index": 1, "sealing": bench.kernel.opening(KEY, ReplayWindow())}),
        (TypeError, {"local_index": 1, "opening": None}),
        (OverflowError, {"local_index": 2**32}),
        (OverflowError, {"local_index": 1, "seal_before": 2**64 - 1}),
    ]
    for error, how in wrong:
        with pytest.raises(error):
            bench.open(**how)
    for address in (b"", bytes(5)):
        with pytest.raises(ValueError, match="4 or 16"):
            bench.lanes.know(address, lane)
    with pytest.raises(ValueError, match="header"):
        bench.lanes.set_device(-1, 3, True, ())
    with pytest.raises(ValueError, match="eight"):
        bench.lanes.set_device(-1, 0, True, (V4,) * 9)
    with pytest.raises(ValueError, match="room"):
        bench.lanes.receive(0, bench.buffer, 0, 1, False, bench.out[:-1])
    with pytest.raises(ValueError, match="room"):
        bench.lanes.receive(0, bench.buffer, len(bench.buffer) + 1, 1, False, bench.out)
    with pytest.raises(ValueError, match="1024"):
        bench.lanes.send(bench.frames, 1_025, bench.train)
    with pytest.raises(ValueError, match="room"):
        bench.lanes.send(bench.frames, 1, bench.train[: TRAIN_BYTES - 1])
    assert bench.lanes.receive(bench.ours.fileno(), bench.buffer, 0, 1, False, bench.out)[2] in EMPTY


# Whose an inner address is


def known_set(address: bytes) -> int:
    """Where the lanes keep an IPv4 address, as `_lane.h` has it: what is pushed out is of the same set."""
    place = 4
    for word in struct.unpack(">4I", address + bytes(12)):
        place = (place ^ word) * 0x01000193 % 2**32
    return (place ^ place >> 16) % 1024


@pytest.fixture(scope="module")
def crowded() -> list[bytes]:
    """Seven addresses of one set, which has room for four."""
    rng, by_set = random.Random(1), dict[int, list[bytes]]()
    while True:
        address = rng.randbytes(4)
        found = by_set.setdefault(known_set(address), [])
        found.append(address)
        if len(found) == 7:
            return found


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["know"] * 8 + ["close", "forget"]), st.integers(0, 6), st.integers(0, 2)))
)
def test_the_last_four_addresses_of_a_set_are_known_and_only_those(
    kernel: native.NativeKernel, crowded: list[bytes], steps: list[tuple[str, int, int]]
) -> None:
    bench, known = Bench(kernel), list[tuple[bytes, int]]()
    try:
        lanes = [open_another(bench, index) for index in range(3)]
        for what, number, index in steps:
            if what == "know":
                bench.lanes.know(crowded[number], lanes[index])
                known = [(crowded[number], index), *(one for one in known if one[0] != crowded[number])][:4]
            elif what == "close":
                bench.lanes.close(lanes[index])
                lanes[index] = open_another(bench, index)
                known = [one for one in known if one[1] != index]
            else:
                bench.lanes.forget()
                known = []
        for address in crowded:
            bench.host.send(bytes(VNET_BYTES) + udp_packet(destination=address))
        spans = array("I", bench.send()[0])
        went = [int.from_bytes(one[4:8], "little") for one in bench.sent()]
        assert went == [dict(known)[address] for address in crowded if address in dict(known)]
        assert len(spans) // 2 == len(crowded) - len(went)
    finally:
        bench.close()


def test_hundreds_of_peers_are_known_at_once(bench: Bench) -> None:
    rng = random.Random(7)
    addresses = [rng.randbytes(4) for _ in range(400)]
    lanes = [open_another(bench, index) for index in range(400)]
    for address, lane in zip(addresses, lanes, strict=True):
        bench.lanes.know(address, lane)
    for index, address in enumerate(addresses):
        bench.host.send(bytes(VNET_BYTES) + udp_packet(destination=address))
        assert bench.send()[0] == b""
        assert [int.from_bytes(one[4:8], "little") for one in bench.sent()] == [index]


def open_another(bench: Bench, index: int) -> Lane:
    """A lane to a peer of its own, who knows the session by this number."""
    return bench.open(
        owner=f"peer {index}",
        sealing=bench.kernel.sealing(KEY, index),
        opening=bench.kernel.opening(KEY, ReplayWindow()),
        counter=array("Q", (0,)),
        local_index=1_000 + index,
    )
