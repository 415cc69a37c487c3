"""A relayed address: one allocation at a TURN server (RFC 8656), with channels to the peers behind it.

aioice's TURN client does the protocol (allocate, credentials, refresh), on connections of ours (`relay_client`). Its
channels are replaced: aioice re-binds a channel after 500 s and lets every packet that is sent meanwhile wait and bind
again. A channel is bound by one request at a time here, some packets wait for the first one, none for the later ones,
and it is renewed well before the *permission* that came with it expires (300 s, RFC 8656 section 9), which a strict
server enforces.
"""

import asyncio
import contextlib
import os
import struct
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aioice import stun

from ..grid import Wake, meet, meet_late
from .agent import Address, IceServer, Route
from .channel_burst import CHANNEL_HEADER, is_channel_data
from .hosts import resolve
from .relay_client import Client, TcpClient, UdpClient, bid_farewell, connect_client, is_gone, leave_at_once

ALLOCATE_TIMEOUT_S = 10.0
"""TLS to a far relay takes five round trips; more than this and the session is over or connected otherwise."""
ALLOCATE_ROUND_TRIPS = 2
"""The first request is refused with the nonce that the second one needs (RFC 8489 section 9.2)."""
GIVE_BACK_S = 2.0
"""How long a server is told that what it may have allocated is not wanted, when its answer has not come."""
ALLOCATION_MISMATCH = 437
"""The server knows nothing of the allocation: it was restarted (RFC 8656 section 18.12)."""
KEEPALIVE_S = 25.0
"""Some NATs forget a mapping after 30 s."""
TRANSACTION_ID_BYTES = 12
_BINDING_REQUEST = struct.pack("!HHI", 0x0001, 0, 0x2112A442)
"""Without attributes (RFC 8489 section 5); the transaction id follows."""
GREETING_S = 0.5
"""After so long, and until others are looked after as well (`grid`), without an answer to what keeps the mapping, the
server is questioned."""
KEEPALIVE_ROUNDS, ROUND_REPETITIONS = 5, 1
"""Given up 7.5 s after the first question, or after one round, 1.5 s (0.5 s, then 1 s), if ICMP says that nobody is
there."""
FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x4FFF
"""RFC 8656 section 12."""
CHANNEL_LASTS_S = 295.0
"""A permission lasts 300 s (RFC 8656 section 9); the bind request took some of it."""
CHANNEL_RENEWED_AFTER_S = 240.0
BIND_AGAIN_AFTER_S = 1.0
MAX_WAITING = 16
"""Datagrams that wait for a channel to be bound: some checks and a handshake, not a flow."""


class _Inbox(asyncio.DatagramProtocol):
    """What aioice's client delivers to."""

    def __init__(self, on_datagram: Callable[[bytes, Address], None], on_lost: Callable[[], None]) -> None:
        self._on_datagram = on_datagram
        self._on_lost = on_lost

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._on_datagram(data, (addr[0], addr[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()


@dataclass(slots=True)
class _Channel:
    number: int
    renew_at: float = 0.0
    expires_at: float = 0.0
    binding: asyncio.Task[None] | None = None
    bind_again_at: float = 0.0
    waiting: deque[bytes] = field(default_factory=deque[bytes])


class Relay:
    """One allocation. Made by `allocate`, ended by `release` or, if there is no time, by `abandon`."""

    def __init__(self, client: Client, counters: Counter[str], now: Callable[[], float]) -> None:
        self._client = client
        self._counters = counters
        self._now = now
        self._channels: dict[Address, _Channel] = {}
        self._is_kept = self._is_released = False
        self._is_refused = False
        self._heard_at = now()
        self._on_doubted: Callable[[], None] = lambda: None
        self._questioning: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: Wake | None = None
        self._greeted_at = 0.0
        self._greeting = b""
        self.is_silent = False
        """It was given up since it did not answer, and nobody has said that it is not there."""
        self.rtt_ms = 0.0
        """Round trip to the server in ms, as the allocation took it."""

    @classmethod
    async def allocate(
        cls,
        server: IceServer,
        *,
        on_datagram: Callable[[bytes, Address], None],
        on_datagrams: Callable[[memoryview, "array[int]", Address, int], None],
        on_lost: Callable[[], None],
        on_doubted: Callable[[], None],
        counters: Counter[str],
        now: Callable[[], float],
        buffer: memoryview,
    ) -> "Relay":
        """Ask a server for a relayed address. Raises OSError, TimeoutError or aioice's TransactionError.

        `on_datagram` gets STUN, and what came outside of channels, and the peer that it came from; `on_datagrams` gets
        data of a burst: a buffer (`buffer`, into which it may be read), the spans, the peer, and their ECN field.
        `on_lost` is called once if the allocation ends by itself, `on_doubted` when ICMP says that nobody is there,
        which is being looked into. Cancelled, it gives back what the server may have allocated; cancelled again, it
        does not wait for that.
        """
        async with asyncio.timeout(ALLOCATE_TIMEOUT_S) as limit:
            address = (await resolve(server.host, server.port))[0]
            client = await connect_client(server, address, counters, buffer)
            relay = cls(client, counters, now)
            allocated = False
            # Nobody answers on a connection that is gone.
            client.on_gone = lambda: limit.reschedule(asyncio.get_running_loop().time())
            if isinstance(client, UdpClient):
                client.on_refused = relay._take_refusal
            try:
                asked_at = now()
                await client.connect()
                relay.rtt_ms = (now() - asked_at) / ALLOCATE_ROUND_TRIPS * 1000
                allocated = True
            finally:
                client.on_gone = None
                if not allocated:
                    await relay.give_back()
        if is_gone(client):
            raise ConnectionError("the TURN server closed the connection")
        relay._on_doubted = on_doubted

        def received(data: bytes, source: Address) -> None:
            relay._heard_at = now()
            on_datagram(data, source)

        def received_burst(data: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
            relay._heard_at = now()
            on_datagrams(data, spans, source, ecn)

        def answered(message: bytes) -> None:
            if message[8:20] == relay._greeting:
                relay._heard_at = now()
            else:
                client.datagram_received(message, address)

        client.burst.on_data, client.burst.on_message = received_burst, answered
        client.receiver = _Inbox(received, lambda: None if relay._is_released else on_lost())
        relay._is_kept = True
        if relay._is_refused:
            relay.question()
        else:
            relay._sleep()
        return relay

    @property
    def address(self) -> Address:
        """The relayed address, at the server."""
        address = self._client.relayed_address
        assert address is not None
        return address

    @property
    def mapped_address(self) -> Address:
        """Our address as the server sees it."""
        address = self._client.mapped_address
        assert address is not None
        return address

    def sendto(self, datagram: bytes | memoryview, destination: Address) -> bool:
        """Send to a peer through the relay, now or, for a few, when its channel is bound; or drop, and say so."""
        channel = self._ready_channel(destination)
        if channel is None:
            return False
        if self._now() < channel.expires_at:
            return self._client.send_now(CHANNEL_HEADER.pack(channel.number, len(datagram)) + datagram)
        if len(channel.waiting) >= MAX_WAITING:
            self._counters["relay_waiting_full"] += 1
            return False
        channel.waiting.append(bytes(datagram))
        return True

    def channel(self, destination: Address) -> int | None:
        """Return the channel to a peer; None: none is bound, and a train has no headers."""
        channel = self._channels.get(destination)
        return None if channel is None or self._now() >= channel.expires_at else channel.number

    def send_train(self, train: memoryview, stride: int, destination: Address, ecn: int) -> int:
        """Send datagrams of `stride` bytes each, the last maybe shorter, with or without headers of a channel of ours;
        return how many went.
        """
        channel = self._ready_channel(destination)
        if channel is None:
            return 0
        is_framed = is_channel_data(train[0])
        is_bound = self._now() < channel.expires_at
        if is_bound and is_framed and CHANNEL_HEADER.unpack_from(train)[0] == channel.number:
            return self._client.send_train(train, stride, ecn)
        skip = CHANNEL_HEADER.size if is_framed else 0
        return sum(self.sendto(train[at + skip : at + stride], destination) for at in range(0, len(train), stride))

    def _ready_channel(self, destination: Address) -> _Channel | None:
        """Return the channel to a peer, and see that it is bound or will be; None (counted): nothing can be sent."""
        if self._is_released or is_gone(self._client):
            return None
        channel = self._channel_to(destination)
        if channel is None:
            self._counters["relay_channels_exhausted"] += 1
            return None
        now = self._now()
        if now >= channel.renew_at and channel.binding is None and now >= channel.bind_again_at:
            channel.binding = asyncio.create_task(self._bind(channel, destination))
        return channel

    def route(self, name: str, destination: Address) -> Route | None:
        """Say how somebody else could send to a peer through this relay; None: it cannot be done."""
        channel = self._channels.get(destination)
        if channel is None or self.descriptor() is None:
            return None
        padded = isinstance(self._client, TcpClient)
        return Route(name, None, None, struct.pack("!H", channel.number), "relay", padded)

    def descriptor(self) -> int | None:
        """Return the descriptor of the connection to the relay; None: it is closed, or TLS, whose state is ours."""
        transport = self._client.transport
        if self._is_released or is_gone(self._client) or transport.get_extra_info("sslcontext") is not None:
            return None
        descriptor: int = transport.get_extra_info("socket").fileno()
        return descriptor

    def ask(self, request: bytes, destination: Address) -> None:
        """Send a STUN message; an answer arrives here and nowhere else."""
        self.sendto(request, destination)

    async def release(self) -> None:
        """Delete the allocation at the server (RFC 8656 section 7: a Refresh with lifetime 0) and close.

        Waits for the answer, for up to a minute if the server is dead; cancel it to close at once.
        """
        self._is_released = True
        self._stop_tasks()
        await bid_farewell(self._client)

    async def give_back(self) -> None:
        """Release what the server may have allocated, though its answer has not come: that may have been lost.

        Before the server has given us the nonce that an Allocate needs, it has allocated nothing: then close at once.
        """
        if self._client.integrity_key is None:
            self.abandon()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S):
                await self.release()

    def abandon(self) -> None:
        """Say that the allocation is not used any more, and close; a server that did not hear it waits for its end."""
        self._is_released = True
        self._stop_tasks()
        leave_at_once(self._client)

    def _stop_tasks(self) -> None:
        if self._questioning is not None:
            self._questioning.cancel()
        self._stop_timer()
        for channel in self._channels.values():
            if channel.binding is not None:
                channel.binding.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _channel_to(self, peer: Address) -> _Channel | None:
        channel = self._channels.get(peer)
        if channel is None:
            number = FIRST_CHANNEL + len(self._channels)
            if number > LAST_CHANNEL:
                return None
            channel = self._channels[peer] = _Channel(number)
            # The client looks here for what it receives. The server sends nothing before it has bound the channel.
            self._client.channel_to_peer[number] = peer
            self._client.peer_to_channel[peer] = number
        return channel

    async def _bind(self, channel: _Channel, peer: Address) -> None:
        started_at = self._now()
        try:
            await self._client.channel_bind(channel.number, peer)
        except (stun.TransactionError, OSError) as error:
            self._counters["relay_bind_failed"] += 1
            if isinstance(error, stun.TransactionFailed) and error.response.error_code == ALLOCATION_MISMATCH:
                self._lose()
            channel.bind_again_at = self._now() + BIND_AGAIN_AFTER_S
            channel.waiting.clear()
        else:
            channel.expires_at = started_at + CHANNEL_LASTS_S
            channel.renew_at = started_at + CHANNEL_RENEWED_AFTER_S
            while channel.waiting:
                datagram = channel.waiting.popleft()
                self._client.send_now(CHANNEL_HEADER.pack(channel.number, len(datagram)) + datagram)
        finally:
            channel.binding = None

    # Whether the server is there

    def question(self) -> None:
        """The peer is not heard any more: see whether that is because the server is not there."""
        if (
            self._is_kept and not self._is_released and self._questioning is None
        ):  # a task that only waited would have 2 kB
            self._stop_timer()
            self._questioning = asyncio.create_task(self._find_out())

    def _take_refusal(self) -> None:
        self._is_refused = True
        self.question()

    async def _find_out(self) -> None:
        """Find out whether the server has died: at once, if somebody says so."""
        if await self._is_there():
            self._is_refused, self._questioning = False, None
            self._sleep()
            return
        self.is_silent = not self._is_refused
        self._counters["relay_silent" if self.is_silent else "relay_refused"] += 1
        self._lose()

    def _sleep(self) -> None:
        """Until it is time to keep the NAT's mapping."""
        self._timer, _ = meet(self._loop, KEEPALIVE_S, "relay keepalive", self._greet)

    def _greet(self) -> None:
        """Ask the server how it sees us, the cheap way: most relays are idle, and a gateway has thousands."""
        self._greeted_at = self._now()
        self._greeting = os.urandom(TRANSACTION_ID_BYTES)
        self._client.send_now(_BINDING_REQUEST + self._greeting)
        self._timer = meet_late(self._loop, GREETING_S, "relay answer", self._look)

    def _look(self) -> None:
        if self._heard_at >= self._greeted_at:
            self._sleep()
        else:
            self.question()

    async def _is_there(self) -> bool:
        asked_at = self._now()
        is_told = False
        for _ in range(KEEPALIVE_ROUNDS):
            if self._is_refused and not is_told:
                is_told = True
                self._on_doubted()
            if await self._answers() or self._heard_at >= asked_at:
                return True
            if self._is_refused:
                break
        return False

    async def _answers(self) -> bool:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        transaction = stun.Transaction(request, self._client.server, self._client, retransmissions=ROUND_REPETITIONS)
        self._client.transactions[request.transaction_id] = transaction
        try:
            await transaction.run()
        except stun.TransactionTimeout:
            return False
        except stun.TransactionError:
            return True  # an error is an answer
        finally:
            del self._client.transactions[request.transaction_id]
        return True

    def _lose(self) -> None:
        """Give the allocation up; closing the transport tells whoever waits for that."""
        if self._client.refresh_task is not None:
            self._client.refresh_task.cancel()
        self._client.transport.close()
