"""aioice's TURN client (RFC 8656) on connections of ours: what is sent on them is sent now or dropped.

- data from channels is taken in bursts (`channel_burst`), and sent in trains;
- a full buffer drops instead of queueing without bound, over UDP as over TCP;
- a malformed message from the server is counted instead of raised;
- nothing is written to a connection that is gone: aioice's transactions repeat themselves by timers, and a closed
  transport of uvloop raises;
- a *farewell*, a Refresh with lifetime 0 (RFC 8656 section 7), is repeated within the short time that leaving has.
"""

import asyncio
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from typing import cast

from aioice import stun, turn

from exeunt.runtime.wakeups import Wakeups, wakeups_of

from .agent import Address, IceServer
from .channel_burst import CHANNEL_HEADER, ChannelBurst, is_channel_data
from .udp import UdpSocket

STUN_HEADER_BYTES = 20
MAX_TCP_BUFFER_BYTES = 64 * 1024
"""More would only be delay: at 10 Mbit/s this is 50 ms."""
FAREWELL_PAUSES_S = (0.06, 0.05, 0.05, 0.05, 0.05)
"""Between repetitions of a farewell over UDP; aioice would wait 500 ms, when everybody has left. With a fifth of all
datagrams lost, six of them within 300 ms leave one allocation in 15,000 behind."""


class UdpClient(turn.TurnClientUdpProtocol):
    """aioice's client over a socket of ours."""

    counters: Counter[str]
    burst: ChannelBurst
    is_lost = False
    on_gone: Callable[[], None] | None = None
    """Called once the connection is gone."""
    on_refused: Callable[[], None] | None = None
    """Called when somebody says that the server is not there."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self.is_lost = True
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()

    def take_refusal(self) -> None:
        """ICMP says that nobody listens at the server's port."""
        if self.on_refused is not None:
            self.on_refused()

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        """Take what the server sent; count what cannot be read."""
        try:
            super().datagram_received(data, addr)
        except (ValueError, struct.error, IndexError, KeyError, TypeError):
            self.counters["malformed_turn"] += 1

    def send_now(self, data: bytes) -> bool:
        """Send a framed message, or drop it; tell which."""
        return self._socket.sendto(data)

    def send_train(self, train: memoryview, stride: int, ecn: int) -> int:
        """Send framed messages of `stride` bytes each, the last maybe shorter; return how many went."""
        return self._socket.send_train(train, stride, ecn)

    @property
    def _socket(self) -> UdpSocket:
        return cast("UdpSocket", self.transport)


class TcpClient(turn.TurnClientTcpProtocol):
    """aioice's client over TCP or TLS, with a bounded send buffer."""

    counters: Counter[str]
    burst: ChannelBurst
    wakeups = Wakeups()
    _unread = bytearray()
    is_lost = False
    on_gone: Callable[[], None] | None = None
    """Called once the connection is gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.is_lost = True
        super().connection_lost(exc)
        if self.on_gone is not None:
            self.on_gone()

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        """Take what the server sent; count what cannot be read."""
        try:
            super().datagram_received(data, addr)
        except (ValueError, struct.error, IndexError, KeyError, TypeError):
            self.counters["malformed_turn"] += 1

    def data_received(self, data: bytes) -> None:
        """Cut what arrived into messages; the beginning of another one waits for its end."""
        self.wakeups.count("relay")
        stream, at = self._unread + data, 0
        view = memoryview(stream)
        while (end := at + _length_of(stream, at)) <= len(stream):
            self.burst.take(view, at, end - at, 0, 0)
            at = end
        self._unread = stream[at:]
        self.burst.deliver()

    def send_now(self, data: bytes | memoryview) -> bool:
        """Send a framed message, or drop it; tell which."""
        if self.transport.get_write_buffer_size() > MAX_TCP_BUFFER_BYTES:
            self.counters["send_buffer_full"] += 1
            return False
        self._send(bytes(data))
        return True

    def send_train(self, train: memoryview, stride: int, _ecn: int) -> int:
        """Send framed messages of `stride` bytes each, the last maybe shorter; return how many went.

        In a stream each is padded to a multiple of 4 bytes (RFC 8656 section 12.5): where they are that long already,
        they are written at once.
        """
        total = len(train)
        if (stride | total) % 4 == 0:
            datagrams = -(-total // stride)
            if self.send_now(train):
                return datagrams
            self.counters["send_buffer_full"] += datagrams - 1
            return 0
        return sum(self.send_now(train[at : at + stride]) for at in range(0, total, stride))

    def _send(self, data: bytes) -> None:
        if not is_gone(self):
            super()._send(data)


Client = UdpClient | TcpClient


def _length_of(stream: bytearray, at: int) -> int:
    """Return the length of the message that begins here, with its padding; large if its header is not here yet."""
    if len(stream) - at < CHANNEL_HEADER.size:
        return CHANNEL_HEADER.size
    length: int = CHANNEL_HEADER.unpack_from(stream, at)[1]
    return length + -length % 4 + (CHANNEL_HEADER.size if is_channel_data(stream[at]) else STUN_HEADER_BYTES)


def is_gone(client: Client) -> bool:
    """Whether nothing can be sent any more. A TLS transport does not say that it is closing once it is closed."""
    return client.is_lost or client.transport.is_closing()


async def bid_farewell(client: Client) -> None:
    """Have the server forget the allocation, and close.

    Waits for the answer, for up to a minute if the server is dead; cancel it to close at once.
    """
    if client.refresh_task is not None:
        client.refresh_task.cancel()
    request = _farewell()
    asking = asyncio.create_task(client.request_with_retry(request))
    try:
        for pause_s in FAREWELL_PAUSES_S if isinstance(client, UdpClient) else ():
            await asyncio.wait({asking}, timeout=pause_s)
            if asking.done():
                break
            client.send_now(bytes(request))  # as it is now: a new nonce makes it another one
        if not is_gone(client):
            await asyncio.wait({asking})
    finally:
        asking.cancel()
        client.transport.close()
        await asyncio.gather(asking, return_exceptions=True)


def leave_at_once(client: Client) -> None:
    """Close; what there may be of an allocation is taken leave of without waiting for an answer."""
    if client.refresh_task is not None:
        client.refresh_task.cancel()
    key, realm, nonce = client.integrity_key, client.realm, client.nonce
    if key is not None and realm is not None and nonce is not None and not is_gone(client):
        request = _farewell()
        request.attributes.update({"USERNAME": client.username, "NONCE": nonce, "REALM": realm})
        request.add_message_integrity(key)
        client.send_now(bytes(request))
    client.transport.close()


def _farewell() -> stun.Message:
    return stun.Message(stun.Method.REFRESH, stun.Class.REQUEST, attributes={"LIFETIME": 0})


async def connect_client(
    server: IceServer, address: Address, counters: Counter[str], buffer: memoryview
) -> UdpClient | TcpClient:
    """Open a connection to a server and aioice's client on it, which may read into the buffer. Raises OSError."""
    client_class = UdpClient if server.transport == "udp" else TcpClient
    client = client_class(
        address,
        username=server.username,
        password=server.password,
        lifetime=turn.DEFAULT_ALLOCATION_LIFETIME,
        channel_refresh_time=turn.DEFAULT_CHANNEL_REFRESH_TIME,
    )
    client.counters = counters
    client.burst = ChannelBurst(client.channel_to_peer, lambda m: client.datagram_received(m, address), counters)
    if isinstance(client, UdpClient):
        sock = UdpSocket.open(
            address,
            client.burst,
            buffer,
            counters,
            on_closed=lambda: client.connection_lost(None),
            on_refused=client.take_refusal,
        )
        # aioice calls sendto, close and is_closing of it, nothing else.
        client.connection_made(cast("asyncio.BaseTransport", sock))
        return client
    context = ssl.create_default_context() if server.transport == "tls" else None
    loop = asyncio.get_running_loop()
    client.wakeups = wakeups_of(loop)
    await loop.create_connection(
        lambda: client, *address, ssl=context, server_hostname=server.host if context else None
    )
    return client
