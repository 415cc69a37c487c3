"""Devices as frames: plain ones, ones with a header of the kernel's, and kernels that refuse what is merged."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.actors.batch.oracle import LONE, SIX, Tcp, Udp, Whole, frame_of
from tests.actors.batch.oracle import packets_of as packets_made_of

from exeunt.actors.batch.contract import MAX_FRAME_BYTES, VNET_BYTES
from exeunt.actors.batch.pure import KERNEL
from exeunt.actors.device.frames import READ_FRAMES, FrameDevice, packets_of
from exeunt.actors.wireguard.testing import ipv4_packet

WHOLES: list[Whole] = [
    Tcp(payload=bytes(range(250)) * 20, flags=0x18),
    Tcp(ip=SIX, payload=bytes(4001), flags=0x99),
    Udp(payload=bytes(range(250)) * 9),
    Tcp(payload=bytes(700)),
]


@pytest.mark.parametrize("whole", WHOLES)
def test_a_frame_is_the_packets_that_it_stands_for(whole: Whole) -> None:
    assert packets_of(memoryview(bytearray(frame_of(whole, 1000)))) == packets_made_of(whole, 1000)


def test_a_lone_packet_is_itself_and_nonsense_is_nothing() -> None:
    assert packets_of(memoryview(bytearray(LONE + ipv4_packet(99)))) == [ipv4_packet(99)]
    for nonsense in (b"", LONE, LONE + bytes(40), LONE + ipv4_packet(99)[:50]):
        assert packets_of(memoryview(bytearray(nonsense))) == []


@pytest.fixture(params=["native", "each"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read, where there are both."""
    if request.param == "each":
        monkeypatch.setattr("exeunt.actors.device.frames.choose", lambda: KERNEL)


@pytest.fixture
def ends(reading: None) -> Iterator[tuple[FrameDevice, socket.socket]]:
    """A device that carries bare packets, and the kernel's side of it."""
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device.setblocking(False)
    kernel.setblocking(False)
    with kernel, device:
        yield FrameDevice(device.fileno()), kernel


def test_a_plain_device_gives_frames_of_one_packet(ends: tuple[FrameDevice, socket.socket]) -> None:
    device, kernel = ends
    assert not device.merges
    with pytest.raises(BlockingIOError):
        device.read()
    for fill in (1, 3):
        kernel.send(ipv4_packet(1280, fill))
        kernel.send(ipv4_packet(80, fill + 1))
        spans = device.read()
        frames = [device.buffer[at : at + size] for at, size in zip(spans[::2], spans[1::2], strict=True)]
        assert [bytes(one) for one in frames] == [LONE + ipv4_packet(1280, fill), LONE + ipv4_packet(80, fill + 1)]
        frames[0][:VNET_BYTES] = b"scribbled!"
    kernel.send(ipv4_packet(1280))
    kernel.close()
    assert len(device.read()) == 2, "what was there before the end"
    with pytest.raises(EOFError):
        device.read()


def test_so_much_is_read_at_once_at_most(ends: tuple[FrameDevice, socket.socket]) -> None:
    device, kernel = ends
    for _ in range(READ_FRAMES + 1):
        kernel.send(ipv4_packet(60))
    assert [len(device.read()) // 2 for _ in range(2)] == [READ_FRAMES, 1]
    device.buffer = device.buffer[: 2 * MAX_FRAME_BYTES]
    for _ in range(3):
        kernel.send(ipv4_packet(MAX_FRAME_BYTES - VNET_BYTES))
    assert [len(device.read()) // 2 for _ in range(2)] == [2, 1]


def test_a_device_that_is_gone_says_why(reading: None, ends: tuple[FrameDevice, socket.socket]) -> None:
    device, _ = ends
    device.fd = os.open("/", os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        device.read()
    os.close(device.fd)


def test_a_plain_device_is_given_bare_packets(ends: tuple[FrameDevice, socket.socket]) -> None:
    device, kernel = ends
    device.write(memoryview(bytearray(LONE + ipv4_packet(99))), 1)
    assert kernel.recv(2000) == ipv4_packet(99)


class Refusing:
    """The kernel's side of a device with headers: takes what stands for itself, and merged frames not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int = errno.EINVAL) -> None:
        self.taken: list[bytes] = []
        self._error = error
        monkeypatch.setattr("exeunt.actors.device.frames.has_frames", bool)
        monkeypatch.setattr(os, "write", self._write)
        monkeypatch.setattr(os, "writev", self._writev)

    def _writev(self, fd: int, parts: Sequence[bytes]) -> int:
        return self._write(fd, b"".join(parts))

    def _write(self, _fd: int, frame: Any) -> int:
        if bytes(frame)[:VNET_BYTES] != LONE:
            raise OSError(self._error, os.strerror(self._error))
        self.taken.append(bytes(frame))
        return len(frame)


def test_what_a_kernel_refuses_merged_it_gets_cut_and_nothing_merged_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, device = Refusing(monkeypatch), FrameDevice(7)
    assert device.merges
    whole = WHOLES[0]
    device.write(memoryview(bytearray(frame_of(whole, 1000))), 5)
    assert kernel.taken == [LONE + packet for packet in packets_made_of(whole, 1000)]
    assert not device.merges


def test_a_full_device_is_not_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    Refusing(monkeypatch, errno.ENOBUFS)
    device = FrameDevice(7)
    with pytest.raises(OSError, match="No buffer space"):
        device.write(memoryview(bytearray(frame_of(WHOLES[0], 1000))), 5)
    assert device.merges
