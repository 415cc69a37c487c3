"""The pump, with a socket pair in place of the TUN device: a datagram is a packet."""

import asyncio
import ipaddress
import os
import socket
from array import array
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.batch.oracle import Tcp, frame_of
from tests.actors.batch.oracle import packets_of as cut_up
from tests.actors.device.test_mss import mss, syn

from exeunt.actors.batch.contract import MAX_FRAME_BYTES, VNET_BYTES
from exeunt.actors.device.frames import READ_FRAMES, packets_of
from exeunt.actors.device.packet import read_header
from exeunt.actors.device.pump import Pump
from exeunt.actors.device.reach import Reach, refused_mtu
from exeunt.actors.device.waiting import WAITING_PACKETS
from exeunt.actors.wireguard.testing import ipv4_packet

US = "100.64.0.1"


def packet(source: str, destination: str, body: bytes = b"x") -> bytes:
    ends = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(ends[0]) == 4:
        return bytes([0x45, 0]) + (20 + len(body)).to_bytes(2, "big") + bytes(8) + ends[0] + ends[1] + body
    return bytes([0x60, 0, 0, 0]) + len(body).to_bytes(2, "big") + bytes([17, 64]) + ends[0] + ends[1] + body


def cut_short(size: int) -> bytes:
    return ipv4_packet(60)[:size]


class Sink:
    """Takes frames apart, and notes when it was told to send them."""

    def __init__(self, reach: Reach | None = None) -> None:
        self.reach = reach or Reach()
        self.packets: list[bytes] = []
        self.flushed: list[int] = []

    def send_frames(self, buffer: memoryview, spans: "array[int]") -> int:
        frames = [packets_of(buffer[at : at + size]) for at, size in zip(spans[::2], spans[1::2], strict=True)]
        self.packets += [packet for packets in frames for packet in packets]
        return frames.count([])

    def send_packet(self, packet: bytes) -> None:
        self.packets.append(packet)

    def flush(self) -> None:
        self.flushed.append(len(self.packets))


class Bench:
    """A pump and the kernel's side of its device."""

    def __init__(self) -> None:
        self.intents: list[str] = []
        self.failures: list[str] = []
        self.pump = Pump(asyncio.get_running_loop(), on_intent=self.intents.append, on_failed=self.failures.append)
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self.device_fd = device.detach()
        self.pump.set_device(self.device_fd)

    async def send(self, *packets: bytes) -> None:
        """Have the kernel route packets into the device, and let the pump take them."""
        for one in packets:
            self.kernel.send(one)
        for _ in range(3 + len(packets)):
            await asyncio.sleep(0)

    def deliver(self, sink: Sink, *packets: bytes, ecn: int = 0) -> None:
        """Have a peer's packets written, as a kernel of `batch` opens them."""
        out, frames = bytearray(), list[tuple[int, int, int]]()
        for one in packets:
            start = len(out)
            out += bytes(VNET_BYTES) + one
            frames.append((start, len(out), 1))
        self.pump.deliver(sink, memoryview(out), frames, ecn)

    def received(self) -> list[bytes]:
        """What the pump has given to the kernel."""
        found: list[bytes] = []
        while True:
            try:
                found.append(self.kernel.recv(65_535))
            except BlockingIOError:
                return found


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.pump.close()
    bench.kernel.close()


async def test_a_packet_goes_to_the_longest_prefix(bench: Bench) -> None:
    wide, narrow, six = Sink(), Sink(), Sink()
    bench.pump.attach(wide, ("10.0.0.0/8",))
    bench.pump.attach(narrow, ("10.1.0.0/16",))
    bench.pump.attach(six, ("fd00::/64",))
    await bench.send(packet(US, "10.2.0.1"), packet(US, "10.1.0.1"), packet("fd65::1", "fd00::7"))
    assert wide.packets == [packet(US, "10.2.0.1")]
    assert narrow.packets == [packet(US, "10.1.0.1")]
    assert six.packets == [packet("fd65::1", "fd00::7")]


async def test_a_peer_may_only_send_from_what_leads_back_to_it(bench: Bench) -> None:
    alice, bob = Sink(), Sink()
    bench.pump.attach(alice, ("100.64.0.2/32",))
    bench.pump.attach(bob, ("100.64.0.3/32",))
    bench.deliver(alice, packet("100.64.0.2", "10.0.0.1"))
    bench.deliver(alice, packet("100.64.0.3", "10.0.0.1"))
    bench.deliver(bob, packet("100.64.0.2", "10.0.0.1"))
    bench.deliver(bob, packet("8.8.8.8", "10.0.0.1"))
    assert bench.received() == [packet("100.64.0.2", "10.0.0.1")]
    assert bench.pump.counters["spoofed_inbound"] == 3


async def test_what_answers_a_spoofed_source_never_reaches_the_spoofer(bench: Bench) -> None:
    alice, bob = Sink(), Sink()
    bench.pump.attach(alice, ("100.64.0.2/32",))
    bench.pump.attach(bob, ("100.64.0.3/32",))
    bench.deliver(alice, packet("100.64.0.3", "10.0.0.1"))
    await bench.send(packet("10.0.0.1", "100.64.0.3"))
    assert alice.packets == []
    assert bob.packets == [packet("10.0.0.1", "100.64.0.3")]


async def test_what_this_host_sends_from_elsewhere_is_not_for_the_tunnel(bench: Bench) -> None:
    sink, check = Sink(), packet("192.168.1.5", "10.0.0.9")
    bench.pump.attach(sink, ("10.0.0.0/24", "fd00::/64"))
    bench.pump.set_resources({"10.9.0.0/24": "r-1"})
    bench.pump.set_sources((US, "fd65::1"))
    await bench.send(check, packet("192.168.1.5", "10.9.0.9"), packet("fe80::1", "fd00::9"))
    assert (sink.packets, bench.intents) == ([], [])
    assert bench.pump.counters["foreign_outbound"] == 3
    await bench.send(packet(US, "10.0.0.9"), packet("fd65::1", "fd00::9"), packet(US, "10.9.0.9"))
    assert (len(sink.packets), bench.intents) == (2, ["r-1"])
    bench.pump.set_sources(())
    await bench.send(check)
    assert sink.packets[2:] == [check]


async def test_a_narrower_network_of_another_peer_is_not_the_wider_ones(bench: Bench) -> None:
    wide, narrow = Sink(), Sink()
    bench.pump.attach(wide, ("10.0.0.0/8",))
    bench.pump.attach(narrow, ("10.1.0.0/16",))
    bench.deliver(wide, packet("10.1.0.1", US))
    bench.deliver(narrow, packet("10.1.0.1", US))
    assert len(bench.received()) == 1


async def test_packets_wait_for_whoever_can_carry_them(bench: Bench) -> None:
    bench.pump.set_resources({"10.0.0.0/8": "r-1", "11.0.0.0/8": "r-2"})
    ours = [packet(US, "10.0.0.1", bytes([number])) for number in range(3)]
    await bench.send(*ours, packet(US, "11.0.0.1"))
    assert bench.intents == ["r-1", "r-2"]
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    assert sink.packets == ours
    later = Sink()
    bench.pump.attach(later, ("11.0.0.0/8",))
    assert later.packets == [packet(US, "11.0.0.1")]
    assert sink.packets == ours, "none is sent twice"


async def test_few_of_many_waiting_packets_are_kept(bench: Bench) -> None:
    bench.pump.set_resources({"10.0.0.0/8": "r-1"})
    for number in range(WAITING_PACKETS * 3):
        await bench.send(packet(US, "10.0.0.1", number.to_bytes(2, "big")))
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    assert len(sink.packets) == WAITING_PACKETS
    assert sink.packets[-1].endswith((WAITING_PACKETS * 3 - 1).to_bytes(2, "big"))
    assert bench.intents == ["r-1"]


async def test_attaching_replaces_what_was_attached(bench: Bench) -> None:
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8", "11.0.0.0/8"))
    bench.pump.attach(sink, ("11.0.0.0/8",))
    await bench.send(packet(US, "10.0.0.1"), packet(US, "11.0.0.1"))
    assert sink.packets == [packet(US, "11.0.0.1")]
    assert bench.pump.counters["unroutable"] == 1
    bench.pump.detach(sink)
    bench.pump.detach(sink)
    await bench.send(packet(US, "11.0.0.1"))
    bench.deliver(sink, packet("11.0.0.1", US))
    assert len(sink.packets) == 1
    assert bench.received() == []


async def test_a_device_that_is_gone_is_told_once_and_let_go_of(bench: Bench) -> None:
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    bench.kernel.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(bench.failures) == 1
    assert bench.pump.counters["device_failed"] == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(bench.device_fd)
    bench.deliver(sink, packet("10.0.0.1", US))
    assert bench.pump.counters["no_device"] == 1


async def test_another_device_takes_over_and_the_former_one_is_closed(bench: Bench) -> None:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    bench.pump.set_device(device.detach())
    assert bench.kernel.recv(100) == b"", "the other end sees the close"
    kernel.send(packet(US, "10.0.0.1"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(sink.packets) == 1
    assert bench.failures == []
    kernel.close()


async def test_a_full_device_drops(bench: Bench) -> None:
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    for _ in range(5_000):
        bench.deliver(sink, packet("10.0.0.1", US, bytes(1200)))
    assert bench.pump.counters["device_full"] > 0


async def test_syns_in_both_directions_ask_for_what_the_path_takes(bench: Bench) -> None:
    sink = Sink(Reach(1232, 1232))
    bench.pump.attach(sink, ("0.0.0.0/0", "::/0"))
    for version, fitting in ((4, 1192), (6, 1172)):
        await bench.send(syn(mss(1240), version=version))
        assert sink.packets.pop() == syn(mss(fitting), version=version)
        bench.deliver(sink, syn(mss(1460), version=version))
        assert bench.received() == [syn(mss(fitting), version=version)]
    assert bench.pump.counters["mss_lowered"] == 4


async def test_what_is_too_long_for_the_path_is_answered(bench: Bench) -> None:
    sink = Sink(Reach(1232, 1232))
    bench.pump.attach(sink, ("0.0.0.0/0", "::/0"))
    fitting, too_long = (bytearray(packet(US, "10.0.0.1", bytes(size))) for size in (1212, 1213))
    for one in (fitting, too_long):
        one[6] = 0x40  # not to be fragmented
    await bench.send(bytes(fitting), bytes(too_long))
    assert sink.packets == [bytes(fitting)]
    (error,) = bench.received()
    assert (error[9], error[20], error[21], error[26:28]) == (1, 3, 4, (1232).to_bytes(2, "big"))
    assert error[28:] == too_long[: len(error) - 28]
    assert bench.pump.counters["too_big"] == 1


async def test_what_may_be_fragmented_or_is_no_longer_than_every_link_takes_goes_as_it_is(bench: Bench) -> None:
    sink = Sink(Reach(1232, 1232))
    bench.pump.attach(sink, ("0.0.0.0/0", "::/0"))
    ours = [packet(US, "10.0.0.1", bytes(1240)), packet("fd65::1", "fd00::7", bytes(1240))]
    await bench.send(*ours)
    assert sink.packets == ours
    await bench.send(packet("fd65::1", "fd00::7", bytes(1241)))
    assert sink.packets == ours
    (error,) = bench.received()
    assert (error[40], error[44:48]) == (2, (1280).to_bytes(4, "big"))


async def test_a_path_that_takes_all_of_the_device_refuses_nothing(bench: Bench) -> None:
    sink = Sink(Reach(1400))
    bench.pump.attach(sink, ("0.0.0.0/0",))
    long = bytearray(packet(US, "10.0.0.1", bytes(1400)))
    long[6] = 0x40
    await bench.send(bytes(long))
    assert sink.packets == [bytes(long)]


async def test_who_sends_to_nobody_is_told_so_once_resources_are_known(bench: Bench) -> None:
    await bench.send(syn(mss(1240)))
    assert bench.received() == [], "there may be one, as far as we know"
    bench.pump.set_resources({"10.9.0.0/16": "r-1"})
    await bench.send(syn(mss(1240)))
    (error,) = bench.received()
    assert (error[9], error[20], error[21]) == (1, 3, 1)
    assert error[28:] == syn(mss(1240))
    await bench.send(packet(US, "224.0.0.251"), packet(US, "10.9.0.1"))
    assert bench.received() == []
    assert bench.pump.counters["unroutable"] == 3


def test_of_frames_the_packets_in_them_count() -> None:
    whole = Tcp(payload=bytes(9000))
    frame = bytearray(frame_of(whole, 1000))
    frame[VNET_BYTES + 6] |= 0x40
    header = read_header(memoryview(frame)[VNET_BYTES:])
    assert header is not None
    longest = len(cut_up(whole, 1000)[0])
    assert refused_mtu(memoryview(frame), header, longest) == 0
    assert refused_mtu(memoryview(frame), header, longest - 1) == longest - 1


async def test_a_full_device_holds_the_loop_for_so_many_frames_at_most(bench: Bench) -> None:
    sink = Sink()
    bench.pump.attach(sink, ("10.0.0.0/8",))
    for _ in range(2 * READ_FRAMES):
        bench.kernel.send(packet(US, "10.0.0.1"))
    for _ in range(2):
        bench.pump._readable()  # pyright: ignore[reportPrivateUsage]
    assert sink.flushed == [READ_FRAMES, 2 * READ_FRAMES], "what was read is sent before others get their turn"


async def test_and_for_so_many_bytes_at_most(bench: Bench) -> None:
    sink, longest = Sink(), MAX_FRAME_BYTES - VNET_BYTES
    bench.pump.attach(sink, ("10.0.0.0/8",))
    device = bench.pump._device  # pyright: ignore[reportPrivateUsage]
    assert device is not None
    device.buffer = device.buffer[: 2 * MAX_FRAME_BYTES]
    for _ in range(3):
        bench.kernel.send(packet(US, "10.0.0.1", bytes(longest - 20)))
    bench.pump._readable()  # pyright: ignore[reportPrivateUsage]
    assert len(sink.packets) == 2
    bench.pump._readable()  # pyright: ignore[reportPrivateUsage]
    assert sink.flushed == [2, 3]


async def test_what_one_peer_put_off_is_sent_before_another_is_given_anything(bench: Bench) -> None:
    """They share the buffer."""
    one, other = Sink(), Sink()
    bench.pump.attach(one, ("10.0.0.0/8",))
    bench.pump.attach(other, ("11.0.0.0/8",))
    await bench.send(packet(US, "10.0.0.1"), packet(US, "10.0.0.1"), packet(US, "11.0.0.1"), packet(US, "10.0.0.1"))
    assert one.flushed == [2, 3]
    assert other.flushed == [1]


async def test_a_sink_that_fails_leaves_nothing_behind_for_the_next(bench: Bench) -> None:
    class Failing(Sink):
        def send_frames(self, buffer: memoryview, spans: "array[int]") -> int:
            raise RuntimeError("no")

    failing = Failing()
    bench.pump.attach(failing, ("10.0.0.0/8",))
    bench.kernel.send(packet(US, "10.0.0.1"))
    with pytest.raises(RuntimeError):
        bench.pump._readable()  # pyright: ignore[reportPrivateUsage]
    assert failing.flushed == [0]


@pytest.mark.slow
async def test_malformed_packets_are_counted(bench: Bench) -> None:
    sink = Sink()
    bench.pump.attach(sink, ("0.0.0.0/0", "::/0"))

    @settings(max_examples=10_000, deadline=None)
    @given(st.binary(max_size=120) | st.integers(0, 60).map(cut_short))
    def run(data: bytes) -> None:
        before = bench.pump.counters.total()
        frame = memoryview(bytearray(VNET_BYTES) + data)
        bench.pump._from_device(frame, array("I", (0, len(frame))))  # pyright: ignore[reportPrivateUsage]
        header = read_header(data)
        if header is None:
            assert bench.pump.counters.total() == before + 1
            assert sink.packets == []
        else:
            assert sink.packets == [data[: header.total_bytes]]
        sink.packets.clear()

    run()
