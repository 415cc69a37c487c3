"""A non-blocking UDP socket on the event loop, without asyncio's datagram transport.

The transport queues without bound when the kernel's buffer is full, and reads one datagram per turn of the loop. For
packets of a tunnel a full buffer must mean a dropped packet, now: the flows inside have their own congestion control.
Reading goes on for a burst per wake-up, then lets others run.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from .agent import Address
from .ancillary import UNREACHABLE
from .candidate import ip_version

BUFFER_BYTES = 4 * 1024 * 1024
"""Asked for in both directions; the kernel grants at most net.core.rmem_max and wmem_max."""
BURST = 64
MAX_DATAGRAM_BYTES = 65535


class UdpSocket:
    """Reads into a callback and sends or drops.

    It also has the few methods of an asyncio transport that aioice's TURN client calls.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_datagram: Callable[[bytes, Address], None],
        counters: Counter[str],
        on_closed: Callable[[], None] | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self._sock = sock
        self._on_closed = on_closed
        self._on_refused = on_refused
        self._on_datagram = on_datagram
        self._counters = counters
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    @classmethod
    def open(
        cls,
        on_datagram: Callable[[bytes, Address], None],
        counters: Counter[str],
        *,
        local: Address | None = None,
        remote: Address | None = None,
        on_closed: Callable[[], None] | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> Self:
        """Bind to a local address (port 0: any), or connect to a remote one. Raises OSError.

        `on_closed` is called once, on the loop's next turn after `close`, as an asyncio transport would; `on_refused`
        whenever ICMP reports that nobody listens at the remote address. Anybody can say so.
        """
        address = local or remote
        assert address is not None
        family = socket.AF_INET if ip_version(address[0]) == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            if local is not None:
                sock.bind(local)
            if remote is not None:
                sock.connect(remote)
            return cls(sock, on_datagram, counters, on_closed, on_refused)
        except BaseException:
            sock.close()
            raise

    @property
    def address(self) -> Address:
        """The local address."""
        host, port = self._sock.getsockname()[:2]
        return host, port

    def sendto(self, datagram: bytes | memoryview, destination: Address | None = None) -> bool:
        """Send now or drop; tell which. The destination is None only on a connected socket."""
        if self._is_closed:
            return False
        try:
            self._send(datagram, destination)
        except (BlockingIOError, InterruptedError):
            self._counters["send_buffer_full"] += 1
            return False
        except OSError as error:
            # No route, too long, or what ICMP reported of an earlier datagram: then this one was not sent. Try again.
            self._take_error(error)
            try:
                self._send(datagram, destination)
            except OSError:
                self._counters["send_failed"] += 1
                return False
        return True

    def _send(self, datagram: bytes | memoryview, destination: Address | None) -> None:
        if destination is None:
            self._sock.send(datagram)
        else:
            self._sock.sendto(datagram, destination)

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
        for _ in range(BURST):
            try:
                datagram, source = self._sock.recvfrom(MAX_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # An ICMP error on a connected socket, delivered once. Forgeable, so it ends nothing.
                self._counters["receive_failed"] += 1
                self._take_error(error)
                return
            self._on_datagram(datagram, (source[0], source[1]))
            if self._is_closed:
                return

    def _take_error(self, error: OSError) -> None:
        """Go on watching: libuv stops when a descriptor reports an error, and only begins anew when asked to."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.add_reader(self._sock.fileno(), self._read)
        if self._on_refused is not None and error.errno in UNREACHABLE:
            self._on_refused()
