"""Devices as frames: plain ones, ones with a header of the kernel's, and kernels that refuse what is merged."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.actors.batch.oracle import LONE, SIX, Tcp, Udp, Whole, frame_of
from tests.actors.batch.oracle import packets_of as packets_made_of

from exeunt.actors.batch.contract import VNET_BYTES
from exeunt.actors.device.frames import FrameDevice, packets_of
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


@pytest.fixture
def ends() -> Iterator[tuple[FrameDevice, socket.socket]]:
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
    for fill in (1, 2):
        kernel.send(ipv4_packet(1280, fill))
        frame = device.read()
        assert bytes(frame) == LONE + ipv4_packet(1280, fill)
        frame[:VNET_BYTES] = b"scribbled!"
    kernel.close()
    assert len(device.read()) == 0


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
