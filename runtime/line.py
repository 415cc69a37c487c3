"""A line between a worker and its supervisor that carries descriptors: SOCK_SEQPACKET with SCM_RIGHTS (unix(7)).

Each message arrives whole, with the descriptors that belong to it. Sending is at once, and never waits: what the
kernel has no room for is kept here until it has. There, a later message for the same place takes an earlier one's.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Hashable, Sequence

import msgspec

from .wakeups import add_reader, add_writer

MAX_MESSAGE_BYTES = 40 * 1024
"""Five of them fit into what a Unix socket holds by default (net.core.wmem_default, 208 KiB)."""

MAX_DESCRIPTORS = 8
"""Of one message; the kernel would allow 253."""

_BATCH = 256  # messages that are read before others get a turn

OnMessage = Callable[[bytes | None, list[int]], None]
"""Called with a message and its descriptors, which are the callee's to close; None for a message that was too long."""


class _Kept(msgspec.Struct):
    """A message that the kernel has no room for, with duplicates of its descriptors."""

    message: bytes
    descriptors: list[int]


class Line:
    """One end. On the loop only."""

    def __init__(
        self, connection: socket.socket, on_message: OnMessage, on_end: Callable[[], None] = lambda: None
    ) -> None:
        """`on_end` is called once when the other end has hung up, or its process has ended, and all has been read."""
        self._socket = connection
        self._socket.setblocking(False)
        self._on_message = on_message
        self._on_end = on_end
        self._kept: dict[Hashable, _Kept] = {}
        self._count = 0
        self._is_deaf = False
        self._clear = asyncio.Event()
        self._clear.set()
        self._loop = asyncio.get_running_loop()
        add_reader(self._loop, connection.fileno(), "deposits", self._read)

    @property
    def is_open(self) -> bool:
        """Whether anybody can be spoken to. What an end has said that has gone can be read all the same."""
        return self._socket.fileno() >= 0 and not self._is_deaf

    async def until_clear(self) -> None:
        """Return when nothing is kept back any more."""
        await self._clear.wait()

    def send(self, message: bytes, descriptors: Sequence[int] = (), *, place: Hashable = None) -> None:
        """Send; duplicates of the descriptors go along. `place`: what a later message for it may replace."""
        if self.is_open and (self._kept or not self._try(message, descriptors)):
            self._keep(message, descriptors, place)

    def read(self) -> None:
        """Read a batch of what lies in the kernel, without waiting for the loop to say that there is something."""
        self._read()

    def read_to_the_end(self) -> None:
        """Read what lies in the kernel: its sender is dead, so that has an end."""
        while self._read():
            pass

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        for place in list(self._kept):
            self._forget(place)
        self._clear.set()

    # --- in ---

    def _read(self) -> bool:
        """Read a batch; False when there is nothing more for now."""
        for _ in range(_BATCH):
            if self._socket.fileno() < 0:
                return False
            try:
                message, descriptors, is_whole = _receive(self._socket)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                continue  # it went without having read everything; what it had said comes after this, and then the end
            except OSError:
                message, descriptors, is_whole = b"", [], True
            if not message and not descriptors:
                self.close()
                self._on_end()
                return False
            self._on_message(message if is_whole else None, descriptors)
        return True

    # --- out ---

    def _try(self, message: bytes, descriptors: Sequence[int]) -> bool:
        """Send; False when there is no room. What is said to an end that has gone is gone."""
        try:
            if descriptors:
                socket.send_fds(self._socket, [message], list(descriptors))
            else:
                self._socket.send(message)
        except BlockingIOError:
            return False
        except OSError:
            self._is_deaf = True
        return True

    def _keep(self, message: bytes, descriptors: Sequence[int], place: Hashable) -> None:
        if not self._kept:
            self._clear.clear()
            add_writer(self._loop, self._socket.fileno(), "deposits", self._flush)
        if place is None:
            self._count += 1
            place = self._count
        self._forget(place)
        self._kept[place] = _Kept(message, [os.dup(descriptor) for descriptor in descriptors])

    def _flush(self) -> None:
        while self._kept and self.is_open:
            place, kept = next(iter(self._kept.items()))
            if not self._try(kept.message, kept.descriptors):
                return
            self._forget(place)
        for place in list(self._kept):  # nobody is there to hear it
            self._forget(place)
        self._clear.set()
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket.fileno())

    def _forget(self, place: Hashable) -> None:
        kept = self._kept.pop(place, None)
        if kept is not None:
            close_all(kept.descriptors)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors, and forget their numbers."""
    while descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptors.pop())


def _receive(connection: socket.socket) -> tuple[bytes, list[int], bool]:
    """Return a message, the descriptors that came with it, and whether nothing of it is missing."""
    numbers = array.array("i")
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * numbers.itemsize)
    message, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers), not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
