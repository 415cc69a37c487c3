"""TUN devices of the real kernel, each in a network namespace of its own."""

import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from exeunt.actors.device import DeviceBusy, DeviceError, InvalidDeviceName, PermissionDenied, open_tun, read_header
from exeunt.actors.device.tun import MTU_MAX, MTU_MIN
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
