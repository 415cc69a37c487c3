"""Both ways to read a socket, on the real network stack: whatever arrives, they give a burst the same."""

import os
import socket
import struct
from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.batch import MAX_DATAGRAMS, OUT_BYTES_EACH
from exeunt.actors.batch.choice import choose
from exeunt.actors.batch.lanes import Lanes, Passed
from exeunt.actors.batch.pure import KERNEL
from exeunt.actors.ice import Address
from exeunt.actors.ice.ancillary import SOL_UDP, UDP_SEGMENT, marked, prepare, prepare_trains
from exeunt.actors.ice.burst import BUFFER_BYTES, MAX_DATAGRAM_BYTES, MAX_READS, Burst
from exeunt.actors.ice.demultiplexer import Demultiplexer
from exeunt.actors.ice.reading import Brought, Passing, Read, all_of, read_all, read_each, source_of

STUN = b"\x01\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12
INDEX = 0x0102_0300
RECEIVE = choose().receive
LANES = choose().lanes


def beside_lanes(lanes: Lanes) -> Passing:
    """What reads all with lanes of which none is open."""
    lanes.set_device(os.open("/dev/null", os.O_WRONLY), 0, True, ())
    out = memoryview(bytearray(BUFFER_BYTES + MAX_DATAGRAMS * OUT_BYTES_EACH))

    def read(descriptor: int, buffer: memoryview, at: int, most: int, lonely: bool) -> Passed:
        end, reads, error, runs, data, rest, noted = lanes.receive(descriptor, buffer, at, most, lonely, out)
        assert (data, rest, noted) == (0, None, [])
        return end, reads, error, runs, data, ()

    return read


WAYS: dict[str, Read] = {"each": read_each}
if RECEIVE is not None:
    WAYS["all"] = read_all(all_of(RECEIVE))
if LANES is not None:
    WAYS["lanes"] = read_all(beside_lanes(LANES()))


def data(tag: int, length: int = 48, index: int = INDEX) -> bytes:
    return struct.pack("<II", 4, index) + bytes([tag]) * (length - 8)


class Heard:
    """An agent and a session: notes what comes, in order."""

    def __init__(self) -> None:
        self.stun: list[tuple[str, bytes, Address]] = []
        self.batches: list[tuple[str, list[bytes], Address, int]] = []

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        self.stun.append((host, datagram, source))

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        datagrams = [bytes(buffer[at : at + size]) for at, size in zip(spans[::2], spans[1::2], strict=True)]
        self.batches.append((host, datagrams, source, ecn))

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        raise AssertionError("nobody says so")


class Rig:
    """A socket as `Sockets` has them, and somebody who sends to it."""

    def __init__(self, read: Read, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.read_with = read
        self.sock, self.sender = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        prepare(self.sock)
        prepare_trains(self.sock)
        for one in (self.sock, self.sender):
            one.bind((host, 0))
        self.counters: Counter[str] = Counter()
        table = Demultiplexer(self.counters)
        self.burst = Burst(table, self.counters)
        self.heard = Heard()
        self.source: Address = self.sender.getsockname()[:2]
        table.add_agent(self.heard)
        table.know(self.source, self.heard, proven=True)
        table.claim(INDEX >> 8, self.heard)
        table.expect_answer(STUN[8:20], self.heard, 0.0)
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.errors = 0

    def send(self, *datagrams: bytes, ecn: int = 0) -> None:
        """One datagram, or a train."""
        marks = list(marked(self.sender.family, ecn))
        if len(datagrams) > 1:
            marks.append((SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(datagrams[0]))))
        self.sender.sendmsg([b"".join(datagrams)], marks, 0, self.sock.getsockname())

    def read(self, *, lonely: bool = False) -> Brought:
        brought = self.read_with(self.sock, self.buffer, self.burst, self._on_error, lonely)
        self.burst.deliver()
        return brought

    def close(self) -> None:
        self.sock.close()
        self.sender.close()

    def _on_error(self) -> None:
        self.errors += 1
        self.sock.recvmsg(0, 512, 0x2000)  # MSG_ERRQUEUE


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Read:
    return WAYS[request.param]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_trains_checks_and_marks_arrive_as_they_were_sent(way: Read, host: str) -> None:
    rig = Rig(way, host)
    rig.send(data(1), data(2), data(3, 40))
    rig.send(data(4))
    rig.send(data(5), data(6), STUN)
    rig.send(data(7), ecn=3)
    rig.send(data(8, index=0x0908_0700), ecn=3)
    rig.send(b"")
    assert rig.read() == Brought(6, data=True, more=False)
    assert rig.heard.stun == [(host, STUN, rig.source)]
    unmarked, marked_batch = rig.heard.batches  # and nothing of what is nobody's
    assert unmarked == (host, [data(1), data(2), data(3, 40), data(4), data(5), data(6)], rig.source, 0)
    assert marked_batch == (host, [data(7)], rig.source, 3)
    assert rig.read() == Brought(0, data=False, more=False)
    rig.close()


def test_a_lone_check_is_read_alone(way: Read) -> None:
    rig = Rig(way)
    rig.send(STUN)
    rig.send(data(1))
    assert rig.read(lonely=True) == Brought(1, data=False, more=False)
    assert rig.read(lonely=True) == Brought(1, data=True, more=False)
    rig.send(data(1))
    rig.send(data(2))
    assert rig.read(lonely=True) == Brought(2, data=True, more=False)
    rig.close()


def test_it_ends_where_the_buffer_does(way: Read) -> None:
    rig = Rig(way)
    long = 60_000
    fit = (BUFFER_BYTES - MAX_DATAGRAM_BYTES) // long + 1
    for tag in range(fit + 1):
        rig.send(data(tag, long))
    assert rig.read() == Brought(fit, data=True, more=True)
    assert rig.read() == Brought(1, data=True, more=False)
    assert [one[:9] for _, batch, _, _ in rig.heard.batches for one in batch] == [
        data(tag, 9) for tag in range(fit + 1)
    ]
    rig.close()


def test_it_ends_after_so_many(way: Read) -> None:
    rig = Rig(way)
    for tag in range(MAX_READS + 1):
        rig.send(data(tag % 256, 40))
    assert rig.read() == Brought(MAX_READS, data=True, more=True)
    assert rig.read() == Brought(1, data=True, more=False)
    rig.close()


def test_an_error_is_told_and_what_comes_behind_it_is_read(way: Read) -> None:
    rig = Rig(way)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = nobody.getsockname()
    rig.sock.sendto(b"x", gone)
    rig.send(data(1))
    assert rig.read() == Brought(1, data=True, more=False)
    assert rig.errors == 1
    rig.close()


def test_without_a_local_address_it_is_counted(way: Read) -> None:
    rig = Rig(way)
    rig.sock.setsockopt(socket.IPPROTO_IP, 8, 0)  # IP_PKTINFO
    rig.send(data(1), data(2))
    rig.send(STUN)
    rig.read()
    assert (rig.heard.batches, rig.heard.stun) == ([], [])
    assert rig.counters["arrived_nowhere"] >= 2
    rig.close()


def test_sources_are_written_as_python_writes_them() -> None:
    assert source_of(struct.pack("!H4x4s", 7, bytes([192, 0, 2, 1]))) == ("192.0.2.1", 7)
    assert source_of(struct.pack("!H4x16s", 8, socket.inet_pton(socket.AF_INET6, "2001:db8::1"))) == ("2001:db8::1", 8)
    name, index = next(iter((name, index) for index, name in socket.if_nameindex()))
    scoped = struct.pack("!H", 9) + struct.pack("=I", index) + socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert source_of(scoped) == (f"fe80::1%{name}", 9)
    gone = struct.pack("!H", 9) + struct.pack("=I", 2**31 - 1) + scoped[6:]
    assert source_of(gone) == (f"fe80::1%{2**31 - 1}", 9)


def test_whoever_raises_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    if RECEIVE is None:
        pytest.skip("there is no native kernel")
    rig = Rig(WAYS["all"])
    monkeypatch.setattr(rig.heard, "take_stun", _raises)
    rig.send(STUN)
    rig.send(data(1))
    with pytest.raises(RuntimeError):
        rig.read_with(rig.sock, rig.buffer, rig.burst, rig._on_error, False)  # pyright: ignore[reportPrivateUsage]
    rig.burst.deliver()
    assert [batch for _, batch, _, _ in rig.heard.batches] == [[data(1)]]
    rig.close()


def _raises(_host: str, _datagram: bytes, _source: Address) -> None:
    raise RuntimeError("a fault of its own")


@given(st.lists(st.tuples(st.sampled_from([0, 8, 31, 32, 48]), st.sampled_from([3, 4]), st.integers(0, 2)), max_size=6))
def test_index_of_says_the_same_natively(datagrams: list[tuple[int, int, int]]) -> None:
    joined, spans = b"", array("I")
    for size, kind, index in datagrams:
        spans.extend((len(joined), size))
        joined += struct.pack("<II", kind, index)[:size].ljust(size, b"\0")
    buffer = memoryview(bytearray(joined))
    found = KERNEL.index_of(buffer, spans)
    assert found == choose().index_of(buffer, spans)
    alike = datagrams and all(size >= 32 and kind == 4 for size, kind, _ in datagrams)
    assert (found is not None) == bool(alike and len({index for _, _, index in datagrams}) == 1)
