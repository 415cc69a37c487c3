"""Sending on a UDP socket, now or not at all: one datagram, or a train of them with as few calls as the kernel allows.

With `UDP_SEGMENT` (udp(7), since Linux 4.18) one call sends up to 64 datagrams of equal length, the last one maybe
shorter, and the kernel cuts them apart as late as it can. It is optional: a kernel may not have it, a device may not do
the checksums that it needs (EIO), and a datagram that would have to be fragmented is refused (EINVAL, or EMSGSIZE).
Then the datagrams go one by one: for ever on this socket, or those of such a length to this destination for a while, as
one path's MTU is not another's. A full buffer means a drop: the flows inside have their own congestion control.
"""

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from .agent import Address
from .ancillary import Ancillary, has_segmentation, marked, segmented

MAX_SEGMENTS = 64
"""What every kernel that can do it takes at once (newer ones take 128)."""
MAX_TRAIN_BYTES = 65_507
"""The payload of the largest IPv4 datagram (RFC 768, RFC 791)."""
ALONE_S = 60.0
"""So long after a refusal are datagrams of such a length to a destination sent one by one."""
MAX_ALONE = 1024
"""Destinations; whoever comes after them is asked for again each time."""
_NEVER = frozenset({errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
_NOT_THERE = frozenset({errno.EINVAL, errno.EMSGSIZE})


class Sender:
    """Sends on one socket that somebody else owns.

    `take_error` looks after an error that an earlier datagram may have met, to whomever (the kernel reports it to the
    next call), and says whether to try again.
    """

    def __init__(
        self,
        sock: socket.socket,
        counters: Counter[str],
        take_error: Callable[[OSError], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sock = sock
        self._counters = counters
        self._take_error = take_error
        self._now = now
        self._alone: dict[Address | None, tuple[int, float]] = {}
        """The length that was refused, and until when it is not tried again."""
        self.is_segmenting = has_segmentation(sock)
        """Whether trains are sent with one call."""

    def send(self, datagram: bytes | memoryview, ancillary: Ancillary, destination: Address | None) -> bool:
        """Send or drop; tell which. The destination is None only on a connected socket."""
        error = self._try(datagram, ancillary, destination)
        if error is not None:
            self._count(error, 1)
        return error is None

    def send_train(
        self, train: memoryview, stride: int, ancillary: Ancillary, destination: Address | None, ecn: int = 0
    ) -> int:
        """Send a train, marked with an ECN field; return how many of its datagrams went."""
        if ecn:
            ancillary = _with_mark(ancillary, self._sock.family, ecn)
        total, sent = len(train), 0
        most = min(MAX_SEGMENTS, MAX_TRAIN_BYTES // stride) * stride
        if most <= stride or not self.is_segmenting or self._is_alone(destination, stride):
            return self._send_each(train, stride, ancillary, destination)
        for at in range(0, total, most):
            piece = train[at : at + most]
            if len(piece) <= stride:
                return sent + self.send(piece, ancillary, destination)
            error = self._try(piece, _with_stride(ancillary, stride), destination)
            if error is not None and error.errno in _NEVER | _NOT_THERE:
                self._refused(error, destination, stride)
                return sent + self._send_each(train[at:], stride, ancillary, destination)
            if error is not None:
                self._count(error, _count(total - at, stride))
                break
            sent += _count(len(piece), stride)
        return sent

    def send_rest(
        self, train: memoryview, stride: int, ancillary: Ancillary, destination: Address | None, *, ecn: int, error: int
    ) -> None:
        """Send what somebody else tried to on the same socket, when he was told this errno."""
        self._take_error(OSError(error, os.strerror(error)))
        self.send_train(train, stride, ancillary, destination, ecn)

    def may_segment(self, destination: Address) -> bool:
        """Say whether any train to a destination may be sent with one call."""
        return self.is_segmenting and destination not in self._alone

    @property
    def descriptor(self) -> int:
        """The socket's; it stays ours."""
        return self._sock.fileno()

    def _send_each(self, train: memoryview, stride: int, ancillary: Ancillary, destination: Address | None) -> int:
        total, sent = len(train), 0
        for at in range(0, total, stride):
            error = self._try(train[at : at + stride], ancillary, destination)
            if isinstance(error, BlockingIOError):
                self._count(error, _count(total - at, stride))
                break
            if error is not None:
                self._count(error, 1)
            else:
                sent += 1
        return sent

    def _try(self, data: bytes | memoryview, ancillary: Ancillary, destination: Address | None) -> OSError | None:
        try:
            self._sock.sendmsg((data,), ancillary, 0, destination)
        except OSError as error:
            if isinstance(error, (BlockingIOError, InterruptedError)) or error.errno in _NEVER | {errno.EINVAL}:
                return error
            # EMSGSIZE may be said of an earlier datagram, a probe of the path that ICMP has answered.
            if not self._take_error(error):
                return error
            try:
                self._sock.sendmsg((data,), ancillary, 0, destination)
            except OSError as again:
                return again
        return None

    def _count(self, error: OSError, datagrams: int) -> None:
        if isinstance(error, (BlockingIOError, InterruptedError)):
            self._counters["send_buffer_full"] += datagrams
        elif error.errno == errno.EMSGSIZE:
            self._counters["too_big"] += datagrams
        else:
            self._counters["send_failed"] += datagrams

    # Without the kernel's help

    def _refused(self, error: OSError, destination: Address | None, stride: int) -> None:
        self._counters["segmentation_refused"] += 1
        if error.errno in _NEVER:
            self.is_segmenting = False
            return
        if len(self._alone) >= MAX_ALONE:
            self._alone.pop(next(iter(self._alone)))
        self._alone[destination] = stride, self._now() + ALONE_S

    def _is_alone(self, destination: Address | None, stride: int) -> bool:
        if not self._alone or (refused := self._alone.get(destination)) is None:
            return False
        if self._now() < refused[1]:
            return stride >= refused[0]
        del self._alone[destination]
        return False


def _count(size: int, stride: int) -> int:
    return -(-size // stride)


@lru_cache(maxsize=4096)
def _with_mark(ancillary: Ancillary, family: int, ecn: int) -> Ancillary:
    return (*ancillary, *marked(family, ecn))


@lru_cache(maxsize=4096)
def _with_stride(ancillary: Ancillary, stride: int) -> Ancillary:
    return (*ancillary, segmented(stride))
