"""The estates of workers: what they have deposited, and what becomes of it when they end. The supervisor's side.

The supervisor listens at a Unix socket of the program's 0700 directory (`line`). Only a process that it started itself
is let in, known by the credentials that the kernel vouches for. A worker connects at its start; what it deposits lies
in the kernel from that moment, and is read also if the worker dies before it was.

A worker that *ended* has its last words said (`last_words`). One that hands over has not ended: what it left is *passed
on* to its successor (`inheritance`), and its words are said only for what the successor did not take in time.

A duplicate of a socket shares the original's port, and its state with any NAT on the way: for a receiver there is no
difference. It also keeps the socket from being closed, so it is let go when nothing is to be sent through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from .address import Address
from .errors import ExeuntError
from .inheritance import DEADLINE_S, Assembly, Complete, Part, Taken, parts
from .last_words import CloseChannel, Deposit, OpenChannel, Recital, Register, Withdraw, WithdrawAll, Words, decode
from .line import Line, close_all
from .messages import LastWords
from .wakeups import add_reader, call_later

logger = logging.getLogger(__name__)

_ENCODER = msgspec.msgpack.Encoder()

MAX_CHANNELS = 1024  # of one worker: descriptors are dear
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid: SO_PEERCRED, socket(7)
_IP_PKTINFO = 8  # <linux/in.h>; Python 3.11 has no name for it
_PKTINFO_V4 = struct.Struct("=I4s4s")  # interface, source, unused: ip(7)
_PKTINFO_V6 = struct.Struct("=16sI")  # source, interface: RFC 3542


def estate_path(ipc: Path, epoch: int) -> Path:
    """Return where a supervisor takes deposits. `Directories.sweep` knows the name as well."""
    return ipc / f"supervisor.{epoch}w"


Tell = Callable[[str, LastWords], Awaitable[object]]
"""Tells an actor, at once; to be awaited for its answer, or an ExeuntError."""


def open_estates(ipc: Path, epoch: int, worker_of: Callable[[int], str | None], tell: Tell) -> Estates | None:
    """Begin to take deposits; None where this system lacks what it takes: sockets that keep messages apart and name
    the process behind them. A supervisor that can't works all the same.
    """
    if sys.platform != "linux":
        return None
    try:
        return Estates(estate_path(ipc, epoch), worker_of, tell)
    except OSError as error:
        logger.warning("No last words can be kept", extra={"event": "no_estates", "error": str(error)})
        return None


class Estates:
    """What all workers of one supervisor have deposited. On its loop only."""

    def __init__(self, path: Path, worker_of: Callable[[int], str | None], tell: Tell) -> None:
        """Listen at `path`. `worker_of`: the name of the worker with a process id, or None. Raises OSError."""
        self.malformed_total = 0
        """Messages that made no sense, all workers together."""
        self.strangers_total = 0
        """Processes that were not let in."""
        self.path = path
        """Where it listens."""
        self._worker_of = worker_of
        self._tell = tell
        self._telling: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._estates: dict[int, Estate] = {}
        """By process id."""
        self._arrivals: dict[int, asyncio.Event] = {}
        self._passed_on: dict[str, Estate] = {}
        """By worker: what a successor has still to take."""
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
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
        add_reader(self._loop, self._socket.fileno(), "deposits", self._accept)

    def of(self, pid: int) -> Estate | None:
        """Return what a living worker has deposited."""
        return self._estates.get(pid)

    def ended(self, pid: int, worker: str) -> int:
        """A worker has ended: say what it left to be said, and return how many words that is. Never blocks.

        What a predecessor had passed on to it, and it had not taken, is said as well.
        """
        count = self._say(worker, self._release(pid, worker)) + self.give_up(worker)
        self._leave_to(worker, None)
        return count

    def pass_on(self, pid: int, worker: str) -> None:
        """A worker has ended that handed over: keep everything for its successor, until it has taken it."""
        self.give_up(worker)
        estate = self._release(pid, worker)
        if estate is not None:
            self._passed_on[worker] = estate
            self._deadlines[worker] = call_later(self._loop, DEADLINE_S, "inheritance", self.give_up, worker)
        self._leave_to(worker, estate)

    async def until_here(self, pid: int, ended: asyncio.Event) -> None:
        """Return when a process has come and waits for what it inherits, or has ended."""
        arrival = self._arrivals.setdefault(pid, asyncio.Event())
        waiting = [asyncio.ensure_future(one.wait()) for one in (arrival, ended)]
        try:
            if pid not in self._estates:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._arrivals.pop(pid, None)
            for one in waiting:
                one.cancel()

    def forget(self, pid: int) -> None:
        """A successor has ended before it had anything."""
        estate = self._estates.pop(pid, None)
        if estate is not None:
            estate.close()

    def has_passed_on(self, worker: str) -> bool:
        """Say whether there is anything for a successor."""
        return worker in self._passed_on

    async def until_taken(self, worker: str) -> None:
        """Return when a successor has taken everything, or it has been given up."""
        estate = self._passed_on.get(worker)
        if estate is not None:
            await estate.settled.wait()

    def give_up(self, worker: str) -> int:
        """Nobody will come for what a worker had handed over: say what it left to be said for that."""
        deadline = self._deadlines.pop(worker, None)
        if deadline is not None:
            deadline.cancel()
        estate = self._passed_on.pop(worker, None)
        if estate is not None:
            estate.settled.set()
        return self._say(worker, estate)

    async def until_silent(self) -> None:
        """Return when everything has been said as often as it should be, or told: a fifth of a second at most. Nobody
        inherits any more.
        """
        for worker in list(self._passed_on):
            self.give_up(worker)
        while self._reciting or self._telling:
            await asyncio.wait([*self._reciting, *self._telling])

    def confidants(self) -> set[str]:
        """Return the names of the workers with actors that would be told something if others died now."""
        self._accept()
        for estate in list(self._estates.values()):
            estate.catch_up()
        estates = (*self._estates.values(), *self._passed_on.values())
        return {Address.parse(to).worker for estate in estates for to in estate.register.told()}

    async def until_told(self) -> None:
        """Return when everybody who had to be told has answered, or could not."""
        while self._telling:
            await asyncio.wait(list(self._telling))

    def close(self) -> None:
        """Let go of everything; whatever is still to be said is not. Idempotent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.path.unlink(missing_ok=True)
        for task in (*self._reciting, *self._telling):
            task.cancel()
        for deadline in self._deadlines.values():
            deadline.cancel()
        for estate in (*self._estates.values(), *self._passed_on.values()):
            estate.close()
        self._estates.clear()
        self._passed_on.clear()
        self._deadlines.clear()

    # --- inside ---

    def _leave_to(self, worker: str, estate: Estate | None) -> None:
        """Let a successor that waits have what there is for it."""
        for other in self._estates.values():
            if other.worker == worker:
                other.inherit(estate)

    def _release(self, pid: int, worker: str) -> Estate | None:
        """Take out the estate of a worker that has ended, with everything that it had said."""
        self._accept(lately=(pid, worker))
        estate = self._estates.pop(pid, None)
        if estate is not None:
            estate.hang_up()
        return estate

    def _say(self, worker: str, estate: Estate | None) -> int:
        if estate is None:
            return 0
        count = len(estate.register.words)
        if count == 0:
            estate.close()
            return 0
        recital = Recital(self._loop.time())
        recital.handle_timeout(recital.died_at)
        estate.say(first=True)
        for to, told in estate.register.told().items():
            telling = self._loop.create_task(_heard(self._tell(to, LastWords(worker, told))))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        extra = {"event": "last_words", "of": worker, "count": count}
        logger.info("What %s had left to be said is said", worker, extra=extra)
        task = self._loop.create_task(self._go_on(estate, recital))
        self._reciting[task] = estate
        task.add_done_callback(self._silent)
        return count

    async def _go_on(self, estate: Estate, recital: Recital) -> None:
        while (due := recital.poll_timeout()) is not None:
            await asyncio.sleep(due - self._loop.time())
            if recital.handle_timeout(self._loop.time()):
                estate.say()

    def _silent(self, task: asyncio.Task[None]) -> None:
        self._reciting.pop(task).close()

    def _accept(self, lately: tuple[int, str] = (0, "")) -> None:
        """Let in who waits, if it is a worker, or was one until now (`lately`)."""
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return  # nobody (any more)
            pid, uid, _ = _CREDENTIALS.unpack(
                caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            worker = lately[1] if pid == lately[0] else self._worker_of(pid)
            if uid != os.geteuid() or pid in self._estates or worker is None:
                self.strangers_total += 1
                caller.close()
            else:
                has_predecessor = any(other.worker == worker for other in self._estates.values())
                estate = self._estates[pid] = Estate(caller, worker, self)
                is_successor = pid in self._arrivals or worker in self._passed_on
                if is_successor and not has_predecessor:  # else it inherits when that one has ended
                    estate.inherit(self._passed_on.get(worker))
                if pid in self._arrivals:
                    self._arrivals[pid].set()

    def malformed(self) -> None:
        """Count a message that made no sense."""
        self.malformed_total += 1

    def taken(self, worker: str, key: str) -> None:
        """A successor goes on with something that was passed on to it."""
        estate = self._passed_on.get(worker)
        if estate is None:
            return
        estate.register.withdraw(key)
        estate.awaited.discard(key)
        if not estate.awaited:
            self.give_up(worker)  # what was deposited for things that were not handed over is due now


class Estate:
    """What one worker has deposited: its words, duplicates of its sockets, and what it hands over."""

    def __init__(self, connection: socket.socket, worker: str, estates: Estates) -> None:
        self.worker = worker
        self.register = Register()
        self.channels: dict[str, socket.socket] = {}
        self.bequests = Assembly()
        self.awaited: set[str] = set()
        """The keys that its successor has still to take."""
        self.settled = asyncio.Event()
        """Set when there is nothing more for a successor to take."""
        self.unsaid_total = 0
        """Sends that the kernel refused."""
        self._estates = estates
        self._line = Line(connection, self._take)

    def say(self, *, first: bool = False) -> None:
        """Send everything once. On a stream only the `first` time: nothing gets lost there."""
        for words in self.register.words.values():
            channel = self.channels.get(words.channel) if words.channel else None
            if channel is None or (channel.type is socket.SOCK_STREAM and not first):
                continue
            try:
                _send(channel, words)
            except (OSError, ValueError, TypeError):  # the last: a socket that has no such addresses
                self.unsaid_total += 1

    def inherit(self, estate: Estate | None) -> None:
        """Tell this worker all that its predecessor has left to it; None: nothing."""
        if estate is not None:
            estate.awaited = set(estate.bequests.bequests)
            for key in list(estate.bequests.bequests):
                bequest = estate.bequests.take(key)
                assert bequest is not None
                for part in parts(key, bequest.document):
                    self._line.send(_ENCODER.encode(part), bequest.descriptors if part.number == 0 else ())
                close_all(bequest.descriptors)
        self._line.send(_ENCODER.encode(Complete()))

    def catch_up(self) -> None:
        """Read what the worker has said and nobody has read yet."""
        self._line.read()

    def hang_up(self) -> None:
        """Read what the dead worker had said, and nothing more. Idempotent."""
        self._line.read_to_the_end()
        self._line.close()

    def close(self) -> None:
        """Hang up, and close everything that it holds. Idempotent."""
        self._line.close()
        close_all(self.bequests.take_descriptors())
        self._close_channels()

    def _close_channels(self) -> None:
        while self.channels:
            self.channels.popitem()[1].close()

    def _take(self, message: bytes | None, descriptors: list[int]) -> None:
        """Handle a deposit; descriptors that it should not have are closed."""
        deposit = None if message is None else decode(message)
        if isinstance(deposit, OpenChannel) and len(descriptors) == 1:
            is_taken = self._open(deposit.channel, descriptors.pop())
        elif isinstance(deposit, Part):
            is_taken = self.bequests.add(deposit, descriptors)
            descriptors = [] if is_taken else descriptors
        else:
            is_taken = not descriptors and self._note(deposit)
        close_all(descriptors)
        if not is_taken:
            self._estates.malformed()

    def _note(self, deposit: Deposit | None) -> bool:
        match deposit:
            case Words():
                self.register.put(deposit)
            case Withdraw(key=key):
                self.register.withdraw(key)
            case WithdrawAll():
                self.register.withdraw_all()
                self._close_channels()
            case CloseChannel(channel=channel):
                if channel in self.channels:
                    self.channels.pop(channel).close()
            case Taken(key=key):
                self._estates.taken(self.worker, key)
            case _:
                return False
        return True

    def _open(self, channel: str, descriptor: int) -> bool:
        try:
            opened = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)  # it is no socket
            return False
        before = self.channels.pop(channel, None)
        if before is not None:
            before.close()
        if len(self.channels) >= MAX_CHANNELS:
            opened.close()
            return False
        self.channels[channel] = opened
        return True


async def _heard(telling: Awaitable[object]) -> None:
    """Wait for an answer. Who cannot be told is not."""
    with contextlib.suppress(ExeuntError):
        await telling


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
