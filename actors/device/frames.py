"""A TUN descriptor as frames, whether or not the kernel puts a header before each packet.

Where it doesn't, a header of zeros is put there: "one packet, and nothing left to do". So whoever takes frames need not
know which kind of device there is, and only what goes to the device differs: packets that were merged are given as one
to a kernel that can cut them again, and never merged for another.

There is one buffer for reading. Nothing here allocates what grows with the traffic.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ..batch.contract import MAX_FRAME_BYTES, VNET_BYTES
from ..batch.split import Template, complete, lay_out, read_frame
from .tun import has_frames

_NOTHING_LEFT_TO_DO: Final = bytes(VNET_BYTES)


class FrameDevice:
    """One descriptor; it stays the caller's."""

    def __init__(self, fd: int) -> None:
        """Find out what it carries. Raises OSError when it is a TUN device of a kind that cannot be used."""
        self.fd = fd
        self.has_frames = has_frames(fd)
        self.merges = self.has_frames
        """Whether packets of one flow may be given to it as one."""
        self._buffer = memoryview(bytearray(MAX_FRAME_BYTES))
        self._packet = [self._buffer[VNET_BYTES:]]
        self._frame = [self._buffer]

    def read(self) -> memoryview:
        """Return the next frame, empty at the end; it may be overwritten, and is at the next read.

        Raises:
            BlockingIOError: there is none now.
            OSError: the device is gone.
        """
        if self.has_frames:
            return self._buffer[: os.readv(self.fd, self._frame)]
        size = os.readv(self.fd, self._packet)
        self._buffer[:VNET_BYTES] = _NOTHING_LEFT_TO_DO
        return self._buffer[: VNET_BYTES + size] if size else self._buffer[:0]

    def write(self, frame: memoryview, packets: int) -> None:
        """Give the kernel a frame that stands for so many packets.

        One that it refuses for being merged is cut again, and so are all after it.

        Raises:
            OSError: it was not taken.
        """
        if not self.has_frames:
            os.write(self.fd, frame[VNET_BYTES:])
            return
        try:
            os.write(self.fd, frame)
        except OSError as error:
            if packets == 1 or error.errno != errno.EINVAL:
                raise
            self.merges = False

            for packet in packets_of(frame):
                os.writev(self.fd, (_NOTHING_LEFT_TO_DO, packet))


def packets_of(frame: memoryview) -> list[bytes]:
    """Return the packets that a frame stands for, complete; none: it is malformed. It may be overwritten."""
    cut = read_frame(frame)
    if cut is None:
        return []
    packet = frame[VNET_BYTES : VNET_BYTES + cut.size]
    if not cut.protocol:
        complete(packet, cut)
        return [bytes(packet)]
    train = bytearray((cut.packets - 1) * cut.longest + cut.last)
    lay_out(packet, Template(packet, cut), cut, memoryview(train), start=0, stride=cut.longest)
    return [bytes(train[at : at + cut.longest]) for at in range(0, len(train), cut.longest)]
