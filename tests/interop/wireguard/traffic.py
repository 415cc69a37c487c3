"""Real traffic between two namespaces: echoes and TCP streams, on the test's loop."""

import asyncio
import hashlib
import socket
import struct

from exeunt.clients.lab import Namespace

PATIENCE_S = 20.0
_CHUNK_BYTES = 64 * 1024


async def echo(place: Namespace, address: str, payload: bytes = b"are you there?") -> None:
    """Have `place` ping an address once and get the payload back. Fails after `PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    six = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, answer = (128, 129) if six else (8, 0)  # RFC 4443 section 4; RFC 792
    with place.run(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as sock:
        sock.setblocking(False)
        sock.connect((address, 0))
        message = struct.pack(">BBHHH", request, 0, 0, 7, 1) + payload
        if not six:  # for IPv6 the kernel does it (RFC 3542 section 3.1)
            message = message[:2] + struct.pack(">H", _checksum(message)) + message[4:]
        sock.send(message)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                received = await loop.sock_recv(sock, 65_535)
                icmp = received if six else received[(received[0] & 15) * 4 :]
                if icmp[0] == answer and icmp[8:] == payload:
                    return


async def open_stream(near: Namespace, far: Namespace, address: str) -> tuple[socket.socket, socket.socket]:
    """Connect from `near` to an address of `far` by TCP; return both ends."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with far.run(lambda: socket.socket(family)) as listener:
        listener.setblocking(False)
        listener.bind((address, 0))
        listener.listen()
        ours = near.run(lambda: socket.socket(family))
        ours.setblocking(False)
        try:
            async with asyncio.timeout(PATIENCE_S):
                _, (theirs, _) = await asyncio.gather(
                    loop.sock_connect(ours, listener.getsockname()), loop.sock_accept(listener)
                )
        except BaseException:
            ours.close()
            raise
    return ours, theirs


async def carry(sender: socket.socket, receiver: socket.socket, size: int, seed: str = "") -> None:
    """Send so many bytes and have the same arrive. Fails after `PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    data = hashlib.shake_128(f"{seed}{size}".encode()).digest(size)
    digest = hashlib.sha256()

    async def receive() -> None:
        left = size
        while left:
            chunk = await loop.sock_recv(receiver, min(left, _CHUNK_BYTES))
            assert chunk, "the stream ended early"
            digest.update(chunk)
            left -= len(chunk)

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(loop.sock_sendall(sender, data), receive())
    assert digest.digest() == hashlib.sha256(data).digest()


async def both_ways(near: Namespace, far: Namespace, address: str, size: int) -> None:
    """Connect to an address of `far` and have so many bytes go each way."""
    ours, theirs = await open_stream(near, far, address)
    with ours, theirs:
        await carry(ours, theirs, size, "there")
        await carry(theirs, ours, size, "back")


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 2}H", padded)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
