"""TUN devices of the real kernel, each in a network namespace of its own."""

import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from exeunt.actors.batch.contract import VNET_BYTES
from exeunt.actors.device import DeviceBusy, DeviceError, InvalidDeviceName, PermissionDenied, open_tun, read_header
from exeunt.actors.device.frames import FrameDevice
from exeunt.actors.device.tun import (
    IFF_VNET_HDR,
    MTU_MAX,
    MTU_MIN,
    TUN_F_CSUM,
    TUN_F_USO4,
    TUNSETIFF,
    TUNSETOFFLOAD,
    TUNSETVNETHDRSZ,
    has_frames,
)
from exeunt.actors.network.links import Links
from exeunt.clients.lab import Namespace

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making TUN devices needs root")


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with Namespace("tun") as namespace:
        yield namespace


def device_names() -> list[str]:
    with Links() as links:
        return links.names()


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a/b", "a:b", "tun%d", "a b", ".", "..", "\0"])
def test_a_name_that_no_interface_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidDeviceName):
        open_tun(name, mtu=1280)


@pytest.mark.parametrize("mtu", [0, MTU_MIN - 1, MTU_MAX + 1])
def test_an_impossible_mtu_is_refused(mtu: int) -> None:
    with pytest.raises(ValueError, match="MTU"):
        open_tun("exeunt0", mtu=mtu)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EBUSY, DeviceBusy), (errno.EACCES, PermissionDenied), (errno.EPERM, PermissionDenied)]
)
def test_a_refusal_is_told_by_blame(monkeypatch: pytest.MonkeyPatch, number: int, kind: type[DeviceError]) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as caught:
        open_tun("exeunt0", mtu=1280)
    assert "exeunt0" in str(caught.value)
    assert caught.value.hint


@needs_root
@pytest.mark.root
def test_a_device_is_exclusive_and_lives_as_long_as_its_descriptor(inside: Namespace) -> None:
    def story() -> None:
        fd = open_tun("exeunt0", mtu=1280)
        assert "exeunt0" in device_names()
        with pytest.raises(DeviceBusy, match="exeunt0 exists"):
            open_tun("exeunt0", mtu=1280)
        os.close(fd)
        assert "exeunt0" not in device_names()
        os.close(open_tun("exeunt0", mtu=1280))

    inside.run(story)


@needs_root
@pytest.mark.root
def test_reading_an_idle_device_does_not_block_and_no_child_inherits_it(inside: Namespace) -> None:
    fd = inside.run(lambda: open_tun("exeunt0", mtu=1280))
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 2000)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@needs_root
@pytest.mark.root
def test_packets_cross_in_both_directions(inside: Namespace) -> None:
    def story() -> None:
        fd = open_tun("exeunt0", mtu=1280)
        with Links() as links, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            links.set_up("exeunt0")
            links.add_address("exeunt0", "10.9.0.1/24")
            udp.settimeout(5)
            udp.bind(("10.9.0.1", 4000))
            udp.sendto(b"hello", ("10.9.0.2", 4001))
            assert select.select([fd], [], [], 5)[0]
            packet = bytearray(os.read(fd, 2000))
            header = read_header(packet)
            assert header is not None
            assert (header.source, header.destination, header.protocol) == (b"\x0a\x09\0\1", b"\x0a\x09\0\2", 17)
            # Its own echo: addresses and ports exchanged, which leaves both checksums right.
            packet[12:16], packet[16:20] = header.destination, header.source
            packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
            os.write(fd, packet)
            assert udp.recvfrom(100) == (b"hello", ("10.9.0.2", 4001))
        os.close(fd)

    inside.run(story)


@needs_root
@pytest.mark.root
def test_a_device_with_offloads_takes_what_another_has_given(inside: Namespace) -> None:
    """Two devices in a row, and a TCP transfer over them: what one gives, the other takes as it is."""

    def story() -> None:
        with Namespace("far") as far:
            near_fd = open_tun("exeunt0", mtu=1280, offloads=True)
            far_fd = far.run(lambda: open_tun("exeunt0", mtu=1280, offloads=True))
            assert has_frames(near_fd)
            assert has_frames(far_fd)
            for where, address in ((None, "10.9.0.1/24"), (far, "10.9.0.2/24")):
                configure = address_setter(address)
                configure() if where is None else where.run(configure)
            listener = far.run(lambda: socket.create_server(("10.9.0.2", 4000)))
            stopped = threading.Event()
            pipe = Pipe(near_fd, far_fd, stopped)
            pipe.start()
            data = os.urandom(3_000_000)
            with socket.create_connection(("10.9.0.2", 4000), timeout=10) as client, listener:
                server, _ = listener.accept()
                server.settimeout(10)
                sender = threading.Thread(target=send_all, args=(client, data))
                sender.start()
                received = bytearray()
                with server:
                    while more := server.recv(1 << 16):
                        received += more
                sender.join()
            stopped.set()
            pipe.join()
            assert received == data
            assert pipe.longest > 5 * 1280, "many packets came as one"
            for fd in (near_fd, far_fd):
                os.close(fd)

    inside.run(story)


def address_setter(address: str) -> Any:
    def configure() -> None:
        with Links() as links:
            links.set_up("exeunt0")
            links.add_address("exeunt0", address)

    return configure


def send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


class Pipe(threading.Thread):
    """Carries frames between two devices."""

    def __init__(self, one: int, other: int, stopped: threading.Event) -> None:
        super().__init__()
        for fd in (one, other):
            os.set_blocking(fd, False)
        self._devices = {one: FrameDevice(one), other: FrameDevice(other)}
        self._other = {one: other, other: one}
        self._stopped = stopped
        self.longest = 0

    def run(self) -> None:
        while not self._stopped.is_set():
            for fd in select.select(list(self._devices), [], [], 0.05)[0]:
                device = self._devices[fd]
                spans = device.read()
                for at, size in zip(spans[::2], spans[1::2], strict=True):
                    self.longest = max(self.longest, size - VNET_BYTES)
                    self._devices[self._other[fd]].write(device.buffer[at : at + size], 2)


@needs_root
@pytest.mark.root
def test_a_descriptor_says_by_itself_what_it_carries(inside: Namespace) -> None:
    plain = inside.run(lambda: open_tun("exeunt0", mtu=1280))
    framed = inside.run(lambda: open_tun("exeunt1", mtu=1280, offloads=True))
    try:
        assert not has_frames(plain)
        assert has_frames(framed)
        fcntl.ioctl(framed, TUNSETVNETHDRSZ, struct.pack("i", 12))
        assert has_frames(framed), "and is made to have the header that we know"
    finally:
        os.close(plain)
        os.close(framed)


def test_what_is_no_tun_descriptor_carries_bare_packets() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert not has_frames(one.fileno())


class OldKernel:
    """Knows some requests, and answers EINVAL to what came later than it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, offloads: int, headers: bool = True) -> None:
        self.asked: list[int] = []
        self.attached = 0
        self._offloads = offloads
        self._headers = headers
        monkeypatch.setattr(fcntl, "ioctl", self._ioctl)
        monkeypatch.setattr(os, "open", self._open)

    def _open(self, *_: Any) -> int:
        return os.dup(0)

    def _ioctl(self, _fd: Any, request: int, argument: Any) -> Any:
        if request == TUNSETIFF:
            (flags,) = struct.unpack_from("16xH", argument)
            if flags & IFF_VNET_HDR and not self._headers:
                raise OSError(errno.EINVAL, "Invalid argument")
            self.attached = flags
        elif request == TUNSETOFFLOAD:
            self.asked.append(argument)
            if argument & ~self._offloads:
                raise OSError(errno.EINVAL, "Invalid argument")
        return argument


@pytest.mark.parametrize("offloads", [0x7F, 0x0F, 0x07, TUN_F_CSUM, 0])
def test_as_much_is_left_to_us_as_the_kernel_can(monkeypatch: pytest.MonkeyPatch, offloads: int) -> None:
    kernel = OldKernel(monkeypatch, offloads=offloads)
    os.close(open_tun("exeunt0", mtu=1280, offloads=True))
    assert kernel.attached & IFF_VNET_HDR
    assert [one for one in kernel.asked if not one & ~offloads] == kernel.asked[-1:] * bool(offloads)
    assert kernel.asked[0] & TUN_F_USO4, "the most is asked for first"


def test_a_kernel_without_headers_gives_bare_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = OldKernel(monkeypatch, offloads=0, headers=False)
    os.close(open_tun("exeunt0", mtu=1280, offloads=True))
    assert kernel.attached
    assert not kernel.attached & IFF_VNET_HDR
    assert kernel.asked == []
