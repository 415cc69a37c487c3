"""A connected, non-blocking UDP socket on the event loop, without asyncio's datagram transport.

The transport queues without bound when the kernel's buffer is full, and reads one datagram per turn of the loop. For
packets of a tunnel a full buffer must mean a dropped packet, now: the flows inside have their own congestion control.
A wake-up reads one burst, then lets others run.
"""

import asyncio
import os
import socket
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, Self

from exeunt.runtime.wakeups import add_reader

from ..batch.choice import choose
from ..batch.contract import Receive
from .agent import Address
from .ancillary import ANCILLARY_BYTES, EMPTY, UNREACHABLE, arrival_of, prepare_trains
from .burst import MAX_DATAGRAM_BYTES, MAX_READS, give_all
from .candidate import ip_version
from .trains import Sender
from .whole import permit_fragments

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for in both directions; the kernel grants at most net.core.rmem_max and wmem_max."""


class Reader(Protocol):
    """Who takes what arrives."""

    def take(self, buffer: memoryview, at: int, size: int, segment: int, ecn: int) -> None:
        """Take a datagram, or, with a segment, a train of datagrams of that length, the last one maybe shorter."""

    def take_run(self, buffer: memoryview, head: bytes, spans: "array[int]", ecn: int) -> None:
        """Take datagrams whose first eight bytes these are, or one that is no data."""

    def deliver(self) -> None:
        """The burst is over, and the buffer will be overwritten."""


class UdpSocket:
    """Reads into a buffer and sends or drops.

    It also has the few methods of an asyncio transport that aioice's TURN client calls.
    """

    def __init__(
        self,
        sock: socket.socket,
        reader: Reader,
        buffer: memoryview,
        counters: Counter[str],
        *,
        on_closed: Callable[[], None] | None,
        on_refused: Callable[[], None] | None,
    ) -> None:
        self._sock = sock
        self._on_closed = on_closed
        self._on_refused = on_refused
        self._reader = reader
        self._buffer = buffer
        self._counters = counters
        self._is_closed = False
        self._receive = choose().receive
        prepare_trains(sock)
        self._sender = Sender(sock, counters, self._take_error)
        self._loop = asyncio.get_running_loop()
        add_reader(self._loop, sock.fileno(), "relay", self._read)

    @classmethod
    def open(
        cls,
        remote: Address,
        reader: Reader,
        buffer: memoryview,
        counters: Counter[str],
        *,
        on_closed: Callable[[], None] | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> Self:
        """Connect to a remote address. Raises OSError.

        `buffer` is read into; it has room for a train, and may be shared with others that read on the same loop.
        `on_closed` is called once, on the loop's next turn after `close`, as an asyncio transport would; `on_refused`
        whenever ICMP reports that nobody listens at the remote address. Anybody can say so.
        """
        family = socket.AF_INET if ip_version(remote[0]) == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            permit_fragments(sock)
            sock.connect(remote)
            return cls(sock, reader, buffer, counters, on_closed=on_closed, on_refused=on_refused)
        except BaseException:
            sock.close()
            raise

    def sendto(self, datagram: bytes | memoryview, _destination: Address | None = None) -> bool:
        """Send now or drop; tell which."""
        return not self._is_closed and self._sender.send(datagram, (), None)

    def send_train(self, train: memoryview, stride: int, ecn: int) -> int:
        """Send datagrams of `stride` bytes each, the last maybe shorter; return how many went."""
        return 0 if self._is_closed else self._sender.send_train(train, stride, (), None, ecn)

    def close(self) -> None:
        """Stop reading and close. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            if self._on_closed is not None:
                self._loop.call_soon(self._on_closed)

    def is_closing(self) -> bool:
        """As asyncio.BaseTransport has it."""
        return self._is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio.BaseTransport has it."""
        return self._sock if name == "socket" else default

    def _read(self) -> None:
        try:
            if self._receive is None:
                self._read_each()
            else:
                self._read_all(self._receive)
        finally:
            self._reader.deliver()

    def _read_each(self) -> None:
        buffer, at = self._buffer, 0
        for _ in range(MAX_READS):
            if self._is_closed or len(buffer) - at < MAX_DATAGRAM_BYTES:
                break
            try:
                size, ancillary, _, _ = self._sock.recvmsg_into((buffer[at:],), ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._receive_failed(error)
                break
            arrival = arrival_of(tuple(ancillary))
            self._reader.take(buffer, at, size, arrival.segment, arrival.ecn)
            at += size

    def _read_all(self, receive: Receive) -> None:
        """The same with one call."""
        _, _, error, runs = receive(self._sock.fileno(), self._buffer, 0, MAX_READS)

        def take(run: tuple[bytes, bytes, bytes, bytes]) -> None:
            head, places, mark_and_host, _ = run
            if not self._is_closed:
                self._reader.take_run(self._buffer, head, array("I", places), mark_and_host[0])

        give_all(runs, take)
        if error and error not in EMPTY and not self._is_closed:
            self._receive_failed(OSError(error, os.strerror(error)))

    def _receive_failed(self, error: OSError) -> None:
        """An ICMP error on a connected socket, delivered once. Forgeable, so it ends nothing."""
        self._counters["receive_failed"] += 1
        self._take_error(error)

    def _take_error(self, error: OSError) -> bool:
        """Go on watching: libuv stops when a descriptor reports an error, and only begins anew when asked to."""
        self._loop.remove_reader(self._sock.fileno())
        add_reader(self._loop, self._sock.fileno(), "relay", self._read)
        if self._on_refused is not None and error.errno in UNREACHABLE:
            self._on_refused()
        return True
