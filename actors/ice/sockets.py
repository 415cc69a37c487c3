"""The UDP sockets that all connections of a process share: one for each address family, bound to no address.

Ten thousand peers on sockets of their own would be ten thousand descriptors, and a hole in a firewall for each. So
there is one socket for IPv4 and one for IPv6; what arrives is told apart by content (`demultiplexer`). A *base* is such
a socket together with one of this host's addresses, which is the source of all that is sent from it. When addresses
change, bases come and go, and the sockets, their ports and the NAT mappings behind them stay.

A gateway may be told which port they shall have, so that peers without ICE can find it; when somebody else has it, they
take another one, and only those peers are not served.

Sockets are opened for the first agent that uses them, unless they are those of a predecessor, and closed after the last
one. Where the host has no IPv6, there is just no such socket.

ICMP errors arrive through the error queue. It has to be emptied: else the descriptor stays readable for ever, the next
datagram to somebody else fails in place of the one that was refused, and libuv stops looking at the descriptor
altogether, so that watching it is begun anew after each error.

A wake-up reads until the socket is empty, burst by burst (`burst`), and sends whole trains (`trains`), as far as the
kernel helps.
"""

import asyncio
import errno
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping

from exeunt.runtime.wakeups import add_reader, call_at

from ..batch.answers import Answers
from ..batch.choice import choose
from .agent import Address, Route
from .ancillary import (
    ERROR_BYTES,
    MSG_ERRQUEUE,
    UNREACHABLE,
    prepare,
    prepare_trains,
    reported,
    sent_from,
)
from .burst import BUFFER_BYTES, LONG_BUFFER_BYTES, Burst
from .demultiplexer import DataReceiver, Demultiplexer, StunReceiver
from .lull import REST_S, Lull
from .reading import Brought, Passing, read_all, reader
from .rest import Rests
from .trains import Sender
from .udp import SOCKET_BUFFER_BYTES
from .whole import permit_fragments

FAMILIES = {"udp4": socket.AF_INET, "udp6": socket.AF_INET6}
_WILDCARDS = {"udp4": "0.0.0.0", "udp6": "::"}
BURST_S, LONGEST_BURST_S = 0.005, 0.1
"""A wake-up reads for so long, or for as long as others have had since the last one, if that is more. When a thousand
sessions begin at once, reading must not fall behind the timers that repeat what was not answered: the answers wait
here, and each repetition would add to them. Data waits for nobody's answer: of that a wake-up reads one buffer."""
LONELY_S = 0.001
"""After so long without anything to read, a check comes alone: that of an idle peer."""
MAX_ERRORS = 64
"""So many entries of the error queue are read at once; the next wake-up goes on."""


def channel_of(host: str) -> str:
    """Return the name of the socket that serves a local address."""
    return "udp6" if ":" in host else "udp4"


class HostBase:
    """What one session sends from one local address with. Sends or drops, like every channel of a session."""

    def __init__(self, sockets: "Sockets", host: str, port: int, session: StunReceiver) -> None:
        self.address: Address = (host, port)
        self._sockets = sockets
        self._session = session
        self._channel = channel_of(host)
        self._ancillary = sent_from(host)

    def sendto(self, datagram: bytes | memoryview, destination: Address) -> bool:
        """Send now or drop; tell which."""
        sender = self._sockets.sender(self._channel)
        return sender is not None and sender.send(datagram, self._ancillary, destination)

    def send_train(self, train: memoryview, stride: int, destination: Address, ecn: int) -> int:
        """Send datagrams of `stride` bytes each, the last maybe shorter; return how many went."""
        sender = self._sockets.sender(self._channel)
        return 0 if sender is None else sender.send_train(train, stride, self._ancillary, destination, ecn)

    def route(self, destination: Address) -> Route:
        """Say how somebody else could send the same way."""
        return Route(self._channel, destination, self.address[0], b"", "direct")

    def descriptor(self) -> int | None:
        """Return the descriptor that this base sends on; None: it is closed."""
        sock = self._sockets.descriptors().get(self._channel)
        return None if sock is None else sock.fileno()

    def ask(self, request: bytes, destination: Address) -> None:
        """Send a STUN message; the answer to a request finds its way to the session."""
        if request[0] == 0:
            self._sockets.table.expect_answer(request[8:20], self._session, self._sockets.now())
        self.sendto(request, destination)


class Sockets:
    """One UDP socket for each address family, and who listens on them. Use them on one event loop."""

    def __init__(
        self, *, port: int = 0, now: Callable[[], float] = time.monotonic, counters: Counter[str] | None = None
    ) -> None:
        """`port` is the one that is wanted; 0: any."""
        self.now = now
        self._port = port
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.table = Demultiplexer(self.counters)
        self.rng = random.Random()  # noqa: S311 - it only spreads timers, of thousands of sessions: each has 2.5 kB
        self.buffer = memoryview(bytearray(LONG_BUFFER_BYTES if choose().receive is None else BUFFER_BYTES))
        """What all sockets of the process read into, these and those of relays, one after another."""
        self._burst = Burst(self.table, self.counters)
        self._reader = reader()
        self.rests: Rests | None = None
        """Where sessions may rest; None: nowhere."""
        self._sockets: dict[str, socket.socket] = {}
        self._senders: dict[str, Sender] = {}
        self._unreachable: dict[Address, bool] = {}
        """Of whom ICMP spoke; True: refused."""
        self._users = 0
        self._read_until = 0.0
        self._lulls: dict[str, Lull] = {}
        self._is_paused = False
        self._resting: dict[str, asyncio.TimerHandle] = {}
        """The sockets that are not watched, but read again by a timer."""
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def adopt(
        cls,
        descriptors: Mapping[str, socket.socket],
        *,
        port: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> "Sockets":
        """Take over the sockets of another process, by the names that `descriptors` gave them there."""
        sockets = cls(port=port, now=now)
        sockets._sockets = {name: sock for name, sock in descriptors.items() if name in FAMILIES}
        return sockets

    def descriptors(self) -> dict[str, socket.socket]:
        """Return the open sockets by name, "udp4" and "udp6". They stay ours."""
        return dict(self._sockets)

    @property
    def has_its_port(self) -> bool:
        """Whether an open socket has the port that was wanted."""
        return any(sock.getsockname()[1] == self._port for sock in self._sockets.values())

    def read_with(self, receive: Passing, answers: Answers | None = None) -> None:
        """Read with this from now on: not all that arrives comes by here then, and of sessions at rest, which there are
        where checks are answered elsewhere, less.
        """
        if self.rests is None:
            self._reader = read_all(receive)
            self.rests = None if answers is None else Rests(answers, self.now)

    # Who uses them

    def acquire(self, agent: DataReceiver) -> None:
        """Begin to serve an agent; opens the sockets for the first one. Raises OSError if no family works."""
        if self._loop is None:
            if not self._sockets:
                self._sockets = _open_all(self.counters, self._port)
            self._loop, self._is_paused = asyncio.get_running_loop(), False
            for name in self._sockets:
                self._begin(name)
        self._users += 1
        self.table.add_agent(agent)
        self.rouse()

    def rouse(self) -> None:
        """Do not let checks gather for a while: a path is being sought, and each check of it is waited for."""
        for name in list(self._resting):
            self._lulls[name].note(0, self.now(), data=True)
            self._rest(name, is_on=False)

    def release(self, agent: DataReceiver) -> None:
        """Serve an agent no more; closes the sockets after the last one."""
        self.table.remove_agent(agent)
        self._users -= 1
        if self._users == 0:
            self.close()

    def base(self, host: str, session: StunReceiver) -> HostBase:
        """Return what to send from a local address with. Raises OSError if its family is not there."""
        sock = self._sockets.get(channel_of(host))
        if sock is None:
            raise OSError("no socket for this address family")
        return HostBase(self, host, sock.getsockname()[1], session)

    def pause(self) -> None:
        """Stop reading, for good: a successor reads from the same sockets now. Sending goes on."""
        self._is_paused = True
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()
        if self._loop is not None:
            for sock in self._sockets.values():
                self._loop.remove_reader(sock.fileno())

    def close(self) -> None:
        """Close both sockets; whoever has a duplicate keeps it. Idempotent; `acquire` would open others."""
        self.pause()
        self._loop = None
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._senders.clear()
        self.table.clear()
        if self.rests is not None:
            self.rests.close()

    # Sending

    def sender(self, name: str) -> Sender | None:
        """Return what sends on one of the sockets; None: there is no such socket, or nobody uses it any more."""
        return self._senders.get(name)

    def _begin(self, name: str) -> None:
        sock = self._sockets[name]
        # A refusal that an earlier datagram met, to whomever, is reported by the next call: read it and try again.
        icmp = UNREACHABLE | {errno.EMSGSIZE}
        sender = Sender(sock, self.counters, lambda e: e.errno in icmp and self._drain_errors(name), self.now)
        self._senders[name] = sender
        self._lulls[name] = Lull(self.now())
        if not prepare_trains(sock):
            self.counters[f"{name}_reads_no_trains"] += 1
        if not sender.is_segmenting:
            self.counters[f"{name}_sends_no_trains"] += 1
        self._watch(name)

    # Receiving

    def _watch(self, name: str) -> None:
        if self._loop is not None and not self._is_paused and name not in self._resting:
            self._loop.remove_reader(self._sockets[name].fileno())  # else libuv would not begin anew
            add_reader(self._loop, self._sockets[name].fileno(), "udp", self._read, name)

    def _read(self, name: str) -> None:
        began_at = self.now()
        rested_s = began_at - self._read_until
        until = began_at + min(max(BURST_S, rested_s), LONGEST_BURST_S)
        seen, brought = 0, Brought(0, data=False, more=True)
        while brought.more and not brought.data and self.now() < until:
            brought = self._read_burst(name, lonely=rested_s > LONELY_S and name not in self._resting)
            seen += brought.datagrams
        self._read_until = now = self.now()
        lull = self._lulls[name]
        lull.note(seen, now, data=brought.data)
        self._rest(name, is_on=lull.is_on)

    def _rest(self, name: str, *, is_on: bool) -> None:
        """Do not look at a socket for a moment, or again at once. Both rest until the same points of time, and those of
        the grid are among these: so there is one wake-up for all.
        """
        loop = self._loop
        if loop is None or name not in self._sockets:
            return
        timer = self._resting.pop(name, None)
        if timer is not None:
            timer.cancel()
        if is_on and not self._is_paused:
            if timer is None:
                loop.remove_reader(self._sockets[name].fileno())
            point = int(loop.time() / REST_S + 0.1) + 1  # a loop may wake a little before the point that it was told
            self._resting[name] = call_at(loop, point * REST_S, "a socket has rested", self._read, name)
        elif timer is not None:
            self._watch(name)

    def _read_burst(self, name: str, *, lonely: bool) -> Brought:
        """Read until the socket is empty or the buffer full. When it is lonely, a datagram that is no data is expected
        to be the only one.
        """
        sock = self._sockets.get(name)
        if sock is None:  # what the burst before brought about has closed it
            return Brought(0, data=False, more=False)
        try:
            return self._reader(sock, self.buffer, self._burst, lambda: self._drain_errors(name), lonely)
        finally:
            self._burst.deliver()  # else it would be given away later, when the buffer has been overwritten

    def _drain_errors(self, name: str) -> bool:
        """Read the error queue, and go on watching; True: there was something in the queue."""
        sock = self._sockets[name]
        for count in range(MAX_ERRORS):
            try:
                _, ancillary, _, destination = sock.recvmsg(0, ERROR_BYTES, MSG_ERRQUEUE)
            except OSError:
                self._watch(name)
                return count > 0
            error = reported(tuple(ancillary))
            if error is None or not destination:
                continue
            there: Address = (destination[0], destination[1])
            if error.errno in UNREACHABLE:
                self.counters["icmp_unreachable"] += 1
                self._tell_unreachable_soon(there, refused=error.errno == errno.ECONNREFUSED)
            elif error.errno == errno.EMSGSIZE:  # anybody can say so by ICMP: the path's MTU is measured inside
                self.counters["icmp_too_big"] += 1
        self._watch(name)
        return True

    def _tell_unreachable_soon(self, destination: Address, *, refused: bool) -> None:
        """Tell those whose peer it is, but not now: they answer by sending, and errors are read while sending."""
        if not self._unreachable and self._loop is not None:
            self._loop.call_soon(self._tell_unreachable)
        if len(self._unreachable) < MAX_ERRORS:
            self._unreachable[destination] = refused

    def _tell_unreachable(self) -> None:
        told, self._unreachable = self._unreachable, {}
        for destination, refused in told.items():
            for agent in self.table.agents_at(destination):
                agent.take_unreachable(destination, refused=refused)


def _open_all(counters: Counter[str], port: int) -> dict[str, socket.socket]:
    found: dict[str, socket.socket] = {}
    failure: OSError | None = None
    for name, family in FAMILIES.items():
        try:
            found[name] = _open(name, family, port, counters)
        except OSError as error:
            counters[f"{name}_not_opened"] += 1
            failure = error
    if not found and failure is not None:
        raise failure
    return found


def _open(name: str, family: socket.AddressFamily, port: int, counters: Counter[str]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        permit_fragments(sock)
        try:
            sock.bind((_WILDCARDS[name], port))
        except OSError:
            if not port:
                raise
            counters[f"{name}_port_taken"] += 1
            sock.bind((_WILDCARDS[name], 0))
    except BaseException:
        sock.close()
        raise
    return sock
