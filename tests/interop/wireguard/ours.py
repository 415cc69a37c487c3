"""Our end of a tunnel to somebody else's WireGuard: a `Tunnel`, a TUN device and a UDP socket on the test's loop.

It does what an owner of a tunnel has to: timers, and the peer's endpoint, which is wherever the last authentic datagram
came from (WireGuard paper, section 2.1).
"""

import asyncio
import contextlib
import itertools
import os
import random
import socket
from array import array
from collections import Counter, deque
from collections.abc import Callable

from exeunt.actors.batch import OUT_BYTES_EACH, TRAIN_BYTES, Kernel
from exeunt.actors.batch.choice import choose
from exeunt.actors.device.frames import FrameDevice, packets_of
from exeunt.actors.device.tun import open_tun
from exeunt.actors.network.links import Links
from exeunt.actors.wireguard import (
    CookieChecker,
    HandshakeCompleted,
    Limits,
    MessageType,
    PrefixedIndices,
    Tunnel,
    TunnelEvent,
    classify,
    pack_source,
)
from exeunt.actors.wireguard.testing import public_key
from exeunt.clients.lab import Namespace
from exeunt.clients.lab.devices import switch_on

OUR_KEY, THEIR_KEY = b"\x21" * 32, b"\x42" * 32
MTU = 1400
PATIENCE_S = 15.0
_BURST = 64
_ROOM_BYTES = 2048 + OUT_BYTES_EACH
_DEVICE = "tun0"


class Ours:
    """Pumps packets between its device and its socket. Make it on a running loop; close it there."""

    def __init__(
        self,
        place: Namespace,
        *,
        initiator: bool,
        inner: tuple[str, ...],
        outer: str,
        endpoint: tuple[str, int] | None = None,
        preshared_key: bytes = bytes(32),
        persistent_keepalive_s: float | None = None,
        limits: Limits | None = None,
        gate: CookieChecker | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        """With a kernel, frames are sealed and bursts opened at once; without, packets go one by one."""
        self._loop = asyncio.get_running_loop()
        self._place = place
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.endpoint = endpoint
        """Where the peer is; None until it has been heard."""
        self.events: list[TunnelEvent] = []
        self.came: Counter[MessageType | None] = Counter()
        """Datagrams that arrived, by what they seem to be."""
        self.merged = 0
        """Frames that stood for several packets."""
        self.sent: deque[bytes] = deque(maxlen=_BURST)
        """The latest datagrams that we sent to the peer."""
        self.tunnel = Tunnel(
            private_key=OUR_KEY,
            peer_public_key=public_key(THEIR_KEY),
            preshared_key=preshared_key,
            initiator=initiator,
            allocate_index=PrefixedIndices(0x4711),
            rng=random.Random(1),
            persistent_keepalive_s=persistent_keepalive_s,
            limits=limits,
            gate=gate,
            kernel=choose if kernel is None else lambda: kernel,
        )
        self._batched = kernel is not None
        self._device = place.run(lambda: open_tun(_DEVICE, mtu=MTU, offloads=self._batched))
        self._frames = FrameDevice(self._device)
        self._train, self._out = memoryview(bytearray(TRAIN_BYTES)), memoryview(bytearray(_BURST * _ROOM_BYTES))
        place.run(lambda: _switch_on(inner))
        self._socket = self._open(outer, 0)
        self._loop.add_reader(self._device, self._from_device)
        self._loop.add_reader(self._socket, self._from_network)

    @property
    def address(self) -> tuple[str, int]:
        """Where our socket is."""
        host, port = self._socket.getsockname()
        return host, port

    @property
    def handshakes(self) -> list[HandshakeCompleted]:
        """Those that were completed."""
        return [event for event in self.events if isinstance(event, HandshakeCompleted)]

    def connect(self) -> None:
        """Begin a handshake."""
        self.tunnel.connect(self._loop.time())
        self._drain()

    def move(self, outer: str) -> None:
        """Go on at another address and port. The peer is not told."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._socket = self._open(outer, 0)
        self._loop.add_reader(self._socket, self._from_network)

    def send(self, datagram: bytes) -> None:
        """Send a datagram as it is to the peer."""
        if self.endpoint is not None:
            self._socket.sendto(datagram, self.endpoint)
            self.sent.append(datagram)

    async def until(self, what: str, test: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever something has happened. Fails after `PATIENCE_S`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not test():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not so after {PATIENCE_S} s; {self.describe()}") from None

    def describe(self) -> str:
        """Say what has happened, for who has to find out why not."""
        drops = {reason: count for reason, count in self.tunnel.drops.items() if count}
        return f"events {self.events}, came {dict(self.came)}, drops {drops}"

    def close(self) -> None:
        """Let go of device, socket and timer. Idempotent."""
        if self._device < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._device)
        self._loop.remove_reader(self._socket)
        os.close(self._device)
        self._device = -1
        self._socket.close()

    def _open(self, host: str, port: int) -> socket.socket:
        sock = self._place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.bind((host, port))
        return sock

    def _from_device(self) -> None:
        try:
            spans = self._frames.read()
        except BlockingIOError:
            return
        for start, size in zip(spans[::2], spans[1::2], strict=True):
            frame = self._frames.buffer[start : start + size]
            sealed = self.tunnel.seal_frame(frame, self._train, self._loop.time()) if self._batched else None
            if sealed is None:
                self._send_packets(packets_of(frame))
            else:
                for at in range(0, sealed.total, sealed.stride or 1):
                    self.send(bytes(self._train[at : min(at + sealed.stride, sealed.total)]))
        self._drain()

    def _send_packets(self, packets: list[bytes]) -> None:
        for packet in packets:
            datagram = self.tunnel.encapsulate(packet, self._loop.time())
            if datagram is not None:
                self.send(datagram)

    def _from_network(self) -> None:
        """Take a burst; those of one source are opened together, if there is a kernel."""
        arrived: list[tuple[bytes, tuple[str, int]]] = []
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while len(arrived) < _BURST:
                arrived.append(self._socket.recvfrom(2048))
        self.came.update(classify(datagram) for datagram, _ in arrived)
        for source, burst in itertools.groupby(arrived, key=lambda one: one[1]):
            before = self.tunnel.rx_bytes
            datagrams = [datagram for datagram, _ in burst]
            if self._batched:
                self._open_burst(datagrams)
            else:
                self._open_each(datagrams, source)
            if self.tunnel.rx_bytes != before:
                self.endpoint = source
            self._drain(source)

    def _open_burst(self, datagrams: list[bytes]) -> None:
        spans, buffer = array("I"), bytearray()
        for datagram in datagrams:
            spans.extend((len(buffer), len(datagram)))
            buffer += datagram
        for start, end, packets in self.tunnel.handle_datagrams(
            memoryview(buffer), spans, self._out, self._loop.time(), coalesce=self._frames.merges
        ):
            self.merged += packets > 1
            self._frames.write(self._out[start:end], packets)

    def _open_each(self, datagrams: list[bytes], source: tuple[str, int]) -> None:
        for datagram in datagrams:
            packet = self.tunnel.handle_datagram(datagram, self._loop.time(), pack_source(*source))
            if packet is not None:
                os.write(self._device, packet)

    def _on_timer(self) -> None:
        self._timer = None
        self.tunnel.handle_timeout(self._loop.time())
        self._drain()

    def _drain(self, source: tuple[str, int] | None = None) -> None:
        while (datagram := self.tunnel.poll_transmit()) is not None:
            if source is not None and classify(datagram) is MessageType.COOKIE_REPLY:
                self._socket.sendto(datagram, source)  # it is not known whether that is the peer
            else:
                self.send(datagram)
        while (event := self.tunnel.poll_event()) is not None:
            self.events.append(event)
        self._set_timer()
        self._news.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (wake := self.tunnel.poll_timeout()) is not None:
            self._timer = self._loop.call_at(wake[0], self._on_timer)


def _switch_on(addresses: tuple[str, ...]) -> None:
    with Links() as links:
        switch_on(links, _DEVICE, addresses)
