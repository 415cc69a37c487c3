"""The estates of workers: where they deposit their last words, and who says them. The I/O of `last_words`.

The supervisor listens at a Unix socket of the program's 0700 directory (SOCK_SEQPACKET, unix(7): each message arrives
whole, with the descriptor that belongs to it). Only a process that it started itself is let in, known by the
credentials that the kernel vouches for. A worker connects at its start; what it deposits lies in the kernel from that
moment, and is read also if the worker dies before it was.

A duplicate of a socket shares the original's port, and its state with any NAT on the way: for a receiver there is no
difference. It also keeps the socket from being closed, so it is let go when nothing is to be sent through it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from .last_words import (
    MAX_MESSAGE_BYTES,
    CloseChannel,
    Deposit,
    OpenChannel,
    Recital,
    Register,
    Withdraw,
    WithdrawAll,
    Words,
    decode,
)

logger = logging.getLogger(__name__)

MAX_CHANNELS = 1024  # of one worker: descriptors are dear
_BATCH = 256  # messages that are read before others get a turn
_DESCRIPTORS = 4  # more than one is a mistake, but they arrive and must be closed
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid: SO_PEERCRED, socket(7)
_IP_PKTINFO = 8  # <linux/in.h>; Python 3.11 has no name for it
_PKTINFO_V4 = struct.Struct("=I4s4s")  # interface, source, unused: ip(7)
_PKTINFO_V6 = struct.Struct("=16sI")  # source, interface: RFC 3542


def estate_path(ipc: Path, epoch: int) -> Path:
    """Return where a supervisor takes deposits. `Directories.sweep` knows the name as well."""
    return ipc / f"supervisor.{epoch}w"


def open_estates(ipc: Path, epoch: int, is_ours: Callable[[int], bool]) -> Estates | None:
    """Begin to take deposits; None where this system lacks what it takes: sockets that keep messages apart and name
    the process behind them. A supervisor that can't works all the same.
    """
    if sys.platform != "linux":
        return None
    try:
        return Estates(estate_path(ipc, epoch), is_ours)
    except OSError as error:
        logger.warning("No last words can be kept", extra={"event": "no_estates", "error": str(error)})
        return None


class Estates:
    """What all workers of one supervisor have deposited. On its loop only."""

    def __init__(self, path: Path, is_ours: Callable[[int], bool]) -> None:
        """Listen at `path`. `is_ours`: whether a process id is that of a worker. Raises OSError."""
        self.malformed_total = 0
        """Messages that made no sense, all workers together."""
        self.strangers_total = 0
        """Processes that were not let in."""
        self.path = path
        """Where it listens."""
        self._is_ours = is_ours
        self._loop = asyncio.get_running_loop()
        self._estates: dict[int, Estate] = {}
        self._reciting: dict[asyncio.Task[None], Estate] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(64)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def of(self, pid: int) -> Estate | None:
        """Return what a living worker has deposited."""
        return self._estates.get(pid)

    def ended(self, pid: int, worker: str) -> int:
        """A worker has ended: say what it left to be said, and return how many words that is. Never blocks."""
        self._accept(lately=pid)
        estate = self._estates.pop(pid, None)
        if estate is None:
            return 0
        estate.read_to_the_end()
        estate.hang_up()
        count = len(estate.register.words)
        if count == 0:
            estate.close()
            return 0
        recital = Recital(self._loop.time())
        recital.handle_timeout(recital.died_at)
        estate.say(first=True)
        logger.info(
            "The last words of %s are said", worker, extra={"event": "last_words", "of": worker, "count": count}
        )
        task = self._loop.create_task(self._go_on(estate, recital))
        self._reciting[task] = estate
        task.add_done_callback(self._silent)
        return count

    async def until_silent(self) -> None:
        """Return when everything has been said as often as it should be: a fifth of a second at most."""
        while self._reciting:
            await asyncio.wait(list(self._reciting))

    def close(self) -> None:
        """Let go of everything; whatever is still to be said is not. Idempotent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.path.unlink(missing_ok=True)
        for task in self._reciting:
            task.cancel()
        for estate in self._estates.values():
            estate.hang_up()
            estate.close()
        self._estates.clear()

    async def _go_on(self, estate: Estate, recital: Recital) -> None:
        while (due := recital.poll_timeout()) is not None:
            await asyncio.sleep(due - self._loop.time())
            if recital.handle_timeout(self._loop.time()):
                estate.say()

    def _silent(self, task: asyncio.Task[None]) -> None:
        self._reciting.pop(task).close()

    def _accept(self, lately: int = 0) -> None:
        """Let in who waits, if it is a worker, or was one until now (`lately`)."""
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return  # nobody (any more)
            pid, uid, _ = _CREDENTIALS.unpack(
                caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid != os.geteuid() or pid in self._estates or not (pid == lately or self._is_ours(pid)):
                self.strangers_total += 1
                caller.close()
            else:
                caller.setblocking(False)
                self._estates[pid] = Estate(caller, self._loop, self._malformed)

    def _malformed(self) -> None:
        self.malformed_total += 1


class Estate:
    """What one worker has deposited: its words, and duplicates of its sockets."""

    def __init__(
        self, connection: socket.socket, loop: asyncio.AbstractEventLoop, on_malformed: Callable[[], None]
    ) -> None:
        self.register = Register()
        self.channels: dict[str, socket.socket] = {}
        self.unsaid_total = 0
        """Sends that the kernel refused."""
        self._connection: socket.socket | None = connection
        self._loop = loop
        self._on_malformed = on_malformed
        loop.add_reader(connection.fileno(), self._read)

    def read_to_the_end(self) -> None:
        """Read what lies in the kernel: its sender is dead, so that has an end."""
        while self._read():
            pass

    def say(self, *, first: bool = False) -> None:
        """Send everything once. On a stream only the `first` time: nothing gets lost there."""
        for words in self.register.words.values():
            channel = self.channels.get(words.channel)
            if channel is None or (channel.type is socket.SOCK_STREAM and not first):
                continue
            try:
                _send(channel, words)
            except (OSError, ValueError, TypeError):  # the last: a socket that has no such addresses
                self.unsaid_total += 1

    def hang_up(self) -> None:
        """Read nothing more. Idempotent."""
        if self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close the duplicates. Idempotent."""
        while self.channels:
            self.channels.popitem()[1].close()

    def _read(self) -> bool:
        """Read a batch; False when there is nothing more for now."""
        for _ in range(_BATCH):
            if self._connection is None:
                return False
            try:
                message, descriptors, truncated = _receive(self._connection)
            except BlockingIOError:
                return False
            except OSError:
                self.hang_up()
                return False
            if not message and not descriptors:
                self.hang_up()  # the worker has; whether it died is not known from that
                return False
            self._take(None if truncated else decode(message), descriptors)
        return True

    def _take(self, deposit: Deposit | None, descriptors: list[int]) -> None:
        if isinstance(deposit, OpenChannel) and len(descriptors) == 1:
            if not self._open(deposit.channel, descriptors[0]):
                self._on_malformed()
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if descriptors:
            deposit = None
        match deposit:
            case Words():
                self.register.put(deposit)
            case Withdraw(key=key):
                self.register.withdraw(key)
            case WithdrawAll():
                self.register.withdraw_all()
                self.close()
            case CloseChannel(channel=channel):
                if channel in self.channels:
                    self.channels.pop(channel).close()
            case _:
                self._on_malformed()

    def _open(self, channel: str, descriptor: int) -> bool:
        if channel not in self.channels and len(self.channels) >= MAX_CHANNELS:
            os.close(descriptor)
            return False
        try:
            opened = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)  # it is no socket
            return False
        before = self.channels.pop(channel, None)
        if before is not None:
            before.close()
        self.channels[channel] = opened
        return True


def _receive(connection: socket.socket) -> tuple[bytes, list[int], bool]:
    """Return a message, the descriptors that came with it, and whether something of it is missing."""
    numbers = array.array("i")
    room = socket.CMSG_SPACE(_DESCRIPTORS * numbers.itemsize)
    message, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return message, list(numbers), bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))


def _send(channel: socket.socket, words: Words) -> None:
    """Send words without waiting. Raises OSError; ValueError when addresses and socket are of different families."""
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    if words.destination is None:
        channel.send(words.payload, flags)
    else:
        channel.sendmsg([words.payload], _from(channel, words.source), flags, words.destination)


def _from(channel: socket.socket, source: str | None) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that makes a datagram leave from this address."""
    if source is None:
        return []
    with contextlib.suppress(OSError):
        if channel.family == socket.AF_INET6:
            address = socket.inet_pton(socket.AF_INET6, source.partition("%")[0])
            return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO_V6.pack(address, 0))]
        return [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO_V4.pack(0, socket.inet_aton(source), bytes(4)))]
    raise ValueError("the source address is of another family")
