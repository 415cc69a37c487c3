"""A TUN descriptor as frames, whether or not the kernel puts a header before each packet.

Where it doesn't, a header of zeros is put there: "one packet, and nothing left to do". So whoever takes frames need not
know which kind of device there is, and only what goes to the device differs: packets that were merged are given as one
to a kernel that can cut them again, and never merged for another.

There is one buffer for reading. Nothing here allocates what grows with the traffic.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import Final

from ..batch.choice import choose
from ..batch.contract import MAX_FRAME_BYTES, VNET_BYTES
from ..batch.split import Template, complete, lay_out, read_frame
from .tun import has_frames

READ_FRAMES: Final = 64
"""Frames read at once at most: of single packets as many as one datagram train has."""
READ_BYTES: Final = 8 * MAX_FRAME_BYTES
"""And so many bytes: eight frames of 64 kB, which are sealed and sent in less than a millisecond. Then timers, sockets
and actors get their turn."""
READ_EACH_BYTES: Final = 4 * MAX_FRAME_BYTES
"""And so many where they are read one by one: in Python it takes more than a hundred microseconds to seal one."""
_NOTHING_LEFT_TO_DO: Final = bytes(VNET_BYTES)


def read_each(fd: int, buffer: memoryview, header_bytes: int, most: int) -> tuple[bytes, int]:
    """Read frames one by one; see `ReadFrames`."""
    spans, at = array("I"), 0
    while len(spans) < 2 * most and len(buffer) - at >= MAX_FRAME_BYTES:
        try:
            size = os.readv(fd, (buffer[at + header_bytes : at + MAX_FRAME_BYTES],))
        except OSError as error:
            return spans.tobytes(), error.errno or errno.EIO
        if size == 0:
            return spans.tobytes(), -1
        buffer[at : at + header_bytes] = bytes(header_bytes)
        spans.extend((at, header_bytes + size))
        at += header_bytes + size
    return spans.tobytes(), 0


class FrameDevice:
    """One descriptor, which does not block; it stays the caller's."""

    def __init__(self, fd: int) -> None:
        """Find out what it carries. Raises OSError when it is a TUN device of a kind that cannot be used."""
        self.fd = fd
        self.has_frames = has_frames(fd)
        self.merges = self.has_frames
        """Whether packets of one flow may be given to it as one."""
        read = choose().read_frames
        self.buffer = memoryview(bytearray(READ_EACH_BYTES if read is None else READ_BYTES))
        """Where frames are read to."""
        self._read = read or read_each

    def read(self) -> array[int]:
        """Return where in the buffer the next frames are, as spans; they may be overwritten, and are at the next read.

        Raises:
            BlockingIOError: there is none now.
            EOFError: nor will there be.
            OSError: the device is gone.
        """
        found, error = self._read(self.fd, self.buffer, 0 if self.has_frames else VNET_BYTES, READ_FRAMES)
        return self.found(found, error, len(found))

    @staticmethod
    def found(found: bytes, error: int, reads: int) -> array[int]:
        """Return the spans that were found, or raise as `read` does if nothing was read."""
        if error > 0 and not reads:
            raise OSError(error, os.strerror(error))  # of the class that belongs to the number
        if error < 0 and not reads:
            raise EOFError("end of file")
        return array("I", found)

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
