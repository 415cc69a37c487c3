"""TUN: a network interface whose cable ends in a file descriptor.

Each read yields one IP packet that the kernel routed to the interface, each write injects one. The interface
lives exactly as long as a descriptor to it is open (it is never made persistent), so whatever ends the
process removes it. IFF_TUN_EXCL asks for an interface that did not exist before: without it, opening the
name of somebody's persistent interface would silently adopt it.

With IFF_VNET_HDR a header of ten bytes stands before each packet (`batch.contract` calls the two a frame), and the
kernel may then leave work to us: checksums, and the cutting of up to 64 kB of one flow into packets. What it may leave
is asked for from the most to the least, since older kernels refuse what they do not know. A descriptor says by itself
whether it is of this kind, so whoever is given one need not be told.

Source: Linux, Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h.
"""

import errno
import fcntl
import os
import socket
import struct
from typing import Final, NoReturn

from ..batch.contract import VNET_BYTES
from .errors import DeviceBusy, DeviceError, DeviceUnavailable, InvalidDeviceName, PermissionDenied

TUN_NODE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # _IOW('T', 202, int)
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000  # no 4-byte packet information in front of each packet
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000
TUNSETOFFLOAD = 0x400454D0  # _IOW('T', 208, unsigned int)
TUNGETIFF = 0x800454D2  # _IOR('T', 210, unsigned int)
TUNGETVNETHDRSZ = 0x800454D7  # _IOR('T', 215, int)
TUNSETVNETHDRSZ = 0x400454D8  # _IOW('T', 216, int)
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
SIOCSIFMTU = 0x8922
NAME_BYTES_MAX = 15  # IFNAMSIZ, less the closing NUL
MTU_MIN = 576  # RFC 791: what every IPv4 host must be able to receive
MTU_MAX = 65_535  # the drivers' own MAX_MTU for TUN

_TCP: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
OFFLOADS: Final = (
    _TCP | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,  # Linux 6.2, which has the two for UDP only together
    _TCP | TUN_F_TSO_ECN,
    _TCP,
    TUN_F_CSUM,
)
"""What the kernel is asked to leave to us, until it agrees."""


def open_tun(name: str, *, mtu: int, offloads: bool = False) -> int:
    """Create the interface ``name`` and return its descriptor (non-blocking, close-on-exec).

    One packet a read, one a write. The interface is down and has no address yet. Closing every copy of the
    descriptor removes it.

    Args:
        name: at most 15 bytes, without ``/``, ``:``, ``%`` or white space.
        mtu: bytes of the largest inner packet, header included.
        offloads: reads and writes are of frames, each up to 64 kB of one flow, if the kernel can do that;
            `has_frames` tells.

    Raises:
        InvalidDeviceName: the name cannot be an interface's.
        ValueError: the MTU is outside 576…65535.
        DeviceBusy: an interface of this name exists.
        PermissionDenied: no CAP_NET_ADMIN, or ``/dev/net/tun`` may not be opened.
        DeviceUnavailable: this system has no TUN driver.
    """
    _check_name(name)
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise ValueError(f"the MTU must lie between {MTU_MIN} and {MTU_MAX}, not {mtu}")
    try:
        fd = os.open(TUN_NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _explain(error, name)
    try:
        _attach(fd, name, offloads=offloads)
        _set_mtu(name, mtu)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_name(name: str) -> None:
    """The kernel's ``dev_valid_name``, and no ``%``: that one would be taken as a pattern (``tun%d``)."""
    encoded = name.encode(errors="replace")
    if not 1 <= len(encoded) <= NAME_BYTES_MAX or name in {".", ".."}:
        raise InvalidDeviceName(f"an interface name has 1 to {NAME_BYTES_MAX} bytes; {name!r} does not fit")
    if any(character in "/:%\0" or character.isspace() for character in name):
        raise InvalidDeviceName(f"{name!r} has a character that no interface name may have")


def has_frames(fd: int) -> bool:
    """Say whether a header stands before each packet, and see to it that it has `VNET_BYTES`.

    Anything that is no TUN descriptor is taken for something that carries bare packets.

    Raises:
        OSError: there is a header, but of another length that cannot be changed.
    """
    try:
        request = fcntl.ioctl(fd, TUNGETIFF, bytes(40))
    except OSError:
        return False
    (flags,) = struct.unpack_from("16xH", request)
    if not flags & IFF_VNET_HDR:
        return False
    if fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)) != struct.pack("i", VNET_BYTES):
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_BYTES))
    return True


def _attach(fd: int, name: str, *, offloads: bool) -> None:
    flags = IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL
    try:
        if not offloads or not _attached_with_frames(fd, name, flags):
            fcntl.ioctl(fd, TUNSETIFF, _interface(name, flags))
    except OSError as error:
        _explain(error, name)


def _attached_with_frames(fd: int, name: str, flags: int) -> bool:
    """Have frames, and as much work left to us as the kernel can; False: it knows no frames, and nothing was done."""
    try:
        fcntl.ioctl(fd, TUNSETIFF, _interface(name, flags | IFF_VNET_HDR))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_BYTES))
    for wanted in OFFLOADS:
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, wanted)
        except OSError:
            continue
        break
    return True


def _interface(name: str, flags: int) -> bytes:
    # struct ifreq: char ifr_name[16]; short ifr_flags; the rest of the 40 bytes is a union we leave zero.
    return struct.pack("16sH22x", name.encode(), flags)


def _set_mtu(name: str, mtu: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))
        except OSError as error:
            _explain(error, name)


def _explain(error: OSError, name: str) -> NoReturn:
    raise _translated(error, name) from error


def _translated(error: OSError, name: str) -> DeviceError:
    if error.errno in {errno.EBUSY, errno.EEXIST}:
        return DeviceBusy(
            f"an interface called {name} exists already",
            hint="Another program uses it; stop that one or choose another name.",
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return PermissionDenied(
            f"this process may not create the interface {name}",
            hint=f"Run as root or with CAP_NET_ADMIN, and let it open {TUN_NODE}.",
        )
    if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return DeviceUnavailable(
            f"this system has no TUN driver behind {TUN_NODE}",
            hint="Load it with: modprobe tun",
        )
    return DeviceUnavailable(f"the TUN driver refused to create {name}: {os.strerror(error.errno or 0)}")
