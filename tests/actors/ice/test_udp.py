"""Reading what a relay sends, on the real network stack: both ways give the same."""

# pyright: reportPrivateUsage=false

import socket
import struct
from array import array
from collections import Counter

import pytest

from exeunt.actors.batch.pure import KERNEL
from exeunt.actors.ice import Address, udp
from exeunt.actors.ice.ancillary import SOL_UDP, UDP_SEGMENT
from exeunt.actors.ice.burst import BUFFER_BYTES
from exeunt.actors.ice.channel_burst import ChannelBurst
from exeunt.actors.ice.udp import UdpSocket

PEER, OTHER = ("203.0.113.1", 1), ("203.0.113.2", 2)
MESSAGE = b"\x01\x01" + bytes(18)


def data(tag: int, length: int = 48) -> bytes:
    return struct.pack("<II", 4, 7) + bytes([tag]) * (length - 8)


def framed(number: int, payload: bytes, *, padding: int = 0) -> bytes:
    return struct.pack("!HH", number, len(payload)) + payload + bytes(padding)


class Rig:
    """A relay, and our socket to it, which the test reads."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.taken: list[tuple[list[bytes], Address]] = []
        self.counters: Counter[str] = Counter()
        self.is_refused = False
        burst = ChannelBurst({0x4000: PEER, 0x4001: OTHER}, self._heard, self.counters)
        burst.on_data = self._take
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.socket = UdpSocket.open(
            self.server.getsockname(),
            burst,
            memoryview(bytearray(BUFFER_BYTES)),
            self.counters,
            on_refused=lambda: setattr(self, "is_refused", True),
        )
        self.there = self.socket.get_extra_info("socket").getsockname()
        self.closes = False

    def send(self, *messages: bytes) -> None:
        """A message, or a train of them."""
        marks = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(messages[0])))] if len(messages) > 1 else []
        self.server.sendmsg([b"".join(messages)], marks, 0, self.there)

    def read(self) -> None:
        """As the loop has it do when something has come: on loopback that is at once."""
        self.socket._read()

    def close(self) -> None:
        self.socket.close()
        self.server.close()

    def _heard(self, message: bytes) -> None:
        self.messages.append(message)
        if self.closes:
            self.socket.close()

    def _take(self, buffer: memoryview, spans: "array[int]", peer: Address, _ecn: int) -> None:
        found = [bytes(buffer[at : at + size]) for at, size in zip(spans[::2], spans[1::2], strict=True)]
        self.taken.append((found, peer))


@pytest.fixture(params=["all", "each"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "each":
        monkeypatch.setattr(udp, "choose", lambda: KERNEL)


async def test_headers_are_taken_off_and_messages_heard() -> None:
    rig = Rig()
    rig.send(framed(0x4000, data(1)), framed(0x4000, data(2)), framed(0x4000, data(3, 40)))
    rig.send(framed(0x4000, data(4, 50), padding=2))
    rig.send(framed(0x4001, data(5)))
    rig.send(MESSAGE)
    rig.send(framed(0x4001, b"\1" + bytes(147)))
    rig.read()
    first = [data(1), data(2), data(3, 40), data(4, 50)]
    assert rig.taken == [(first, PEER), ([data(5), b"\1" + bytes(147)], OTHER)]
    assert rig.messages == [MESSAGE]
    rig.close()


async def test_what_is_not_true_costs_only_itself() -> None:
    rig = Rig()
    good = framed(0x4000, data(1))
    rig.send(good, b"\x40\0\xff\xff" + data(2), framed(0x4007, data(3)), good)
    rig.send(b"\x40\0\0\x10" + data(4))
    rig.read()
    assert rig.taken == [([data(1), data(1), data(4)[:16]], PEER)]
    assert rig.counters["malformed_turn"] == 2
    rig.close()


async def test_who_closes_it_hears_nothing_more() -> None:
    rig = Rig()
    rig.closes = True
    for _ in range(3):
        rig.send(MESSAGE)
    rig.read()
    assert rig.messages == [MESSAGE]
    rig.close()


async def test_a_refusal_is_told_and_reading_goes_on() -> None:
    rig = Rig()
    address = rig.server.getsockname()
    rig.server.close()
    rig.socket.sendto(b"x")
    rig.read()
    assert rig.is_refused
    assert rig.counters["receive_failed"] == 1
    rig.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rig.server.bind(address)
    rig.send(framed(0x4000, data(1)))
    rig.read()
    assert rig.taken == [([data(1)], PEER)]
    rig.close()
