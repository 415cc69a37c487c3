"""Sockets for the machines: a UDP socket that asks until its machine is done, and STUN over TCP and TLS."""

import asyncio
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from aioice.stun import COOKIE, Class, Method

from exeunt.actors.turn import codec
from exeunt.actors.turn.codec import Address, MalformedError

from ..relay_sockets import address_of, family_of
from .latency import REPETITIONS
from .questions import Questions, Transmit

MAX_DATAGRAM_BYTES: Final = 2048
RESOLVE_TIMEOUT_S: Final = 1.2

# linux/in.h, linux/in6.h. PROBE: Don't Fragment is set, and what the kernel believes of the path is left aside.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3


class Machine(Protocol):
    """Asks questions until it is done."""

    questions: Questions

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        ...

    def handle_start(self, now: float) -> None:
        """Begin."""
        ...

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Go on without what has not come."""
        ...


def udp_socket(server: Address, *, dont_fragment: bool = False) -> tuple[socket.socket, Address]:
    """Open an unconnected socket, and answer by which of our addresses it reaches a server. Raises OSError."""
    family = family_of(server[0])
    with socket.socket(family, socket.SOCK_DGRAM) as route:
        route.connect(server)  # nothing is sent: only the routing table is asked
        host = address_of(route)[0]
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        if dont_fragment and family == socket.AF_INET:
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        elif dont_fragment:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        opened.bind((host, 0))
    except BaseException:
        opened.close()
        raise
    return opened, (host, address_of(opened)[1])


async def converse(sock: socket.socket, machine: Machine) -> str | None:
    """Run a machine on a socket until it is done; answer why nothing could be sent, if so."""
    loop = asyncio.get_running_loop()
    refusal: str | None = None
    machine.handle_start(time.monotonic())
    while not machine.is_done:
        while (transmit := machine.questions.poll_transmit()) is not None:
            refusal = _send(sock, transmit) or refusal
        timeout = machine.questions.poll_timeout()
        if timeout is None:
            break
        try:
            async with asyncio.timeout(max(0.0, timeout[0] - time.monotonic())):
                data, source = await loop.sock_recvfrom(sock, MAX_DATAGRAM_BYTES)
        except TimeoutError:
            machine.handle_timeout(time.monotonic())
        except OSError as error:  # an ICMP error that the kernel kept for us: the question is asked again anyway
            refusal = reason_of(error)
        else:
            machine.handle_datagram(data, (source[0], source[1]), time.monotonic())
    return refusal


def _send(sock: socket.socket, transmit: Transmit) -> str | None:
    try:
        sock.sendto(transmit.payload, transmit.destination)
    except OSError as error:
        return reason_of(error)
    return None


class StreamTimes(NamedTuple):
    """How long it took, in seconds."""

    connect_s: float
    rtt_s: float


async def stun_over_stream(address: Address, *, tls_name: str | None) -> StreamTimes:
    """Connect, ask a few times, and take the least time (RFC 8489 section 6.2.2: the messages frame themselves).

    Args:
        address: whom.
        tls_name: whose certificate to expect; None: no TLS.

    Raises:
        OSError: it can't be reached, or the certificate is not good (ssl.SSLError).
        ConnectionError: what answered is no STUN server.
    """
    began_at = time.monotonic()
    context = None if tls_name is None else ssl.create_default_context()
    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=tls_name)
    try:
        connect_s = time.monotonic() - began_at
        return StreamTimes(connect_s, min([await _ask(reader, writer) for _ in range(REPETITIONS)]))
    except (MalformedError, asyncio.IncompleteReadError) as error:
        raise ConnectionError("no STUN server answers there") from error
    finally:
        writer.transport.abort()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    asked_at, transaction_id = time.monotonic(), os.urandom(12)
    writer.write(codec.encode(Method.BINDING, Class.REQUEST, transaction_id, []))
    header = await reader.readexactly(codec.HEADER_BYTES)
    kind, length, cookie = struct.unpack_from("!HHI", header)
    if kind & 0xC000 or cookie != COOKIE:
        raise ConnectionError("no STUN server answers there")
    body = await reader.readexactly(min(length, MAX_DATAGRAM_BYTES))
    if codec.parse(header + body).transaction_id != transaction_id:
        raise ConnectionError("it answers something else")
    return time.monotonic() - asked_at


async def resolve(host: str, port: int) -> list[Address]:
    """Look up a name, the first address of each family. Raises OSError, also when it takes too long.

    On a thread that nobody waits for: a resolver that has no server to ask blocks for ten seconds and more.
    """
    found = await _on_a_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM), RESOLVE_TIMEOUT_S)
    first: dict[int, Address] = {}
    for family, _, _, _, sockaddr in found:
        first.setdefault(family, (str(sockaddr[0]), port))
    return list(first.values())


async def _on_a_thread(call: Callable[[], Any], timeout_s: float) -> Any:
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(value)
        else:
            outcome.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = call()
        except (OSError, UnicodeError) as error:
            failure = error if isinstance(error, OSError) else OSError("the name is not well-formed")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, name="check-resolve", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await outcome


def reason_of(error: BaseException) -> str:
    """Say in a few words why something could not be reached."""
    match error:
        case TimeoutError():
            return "no answer"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not good: {error.verify_message}"
        case ssl.SSLError():
            return "TLS does not come about"
        case socket.gaierror():
            return "its name has no address"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionError() if error.errno is None:
            return str(error)
        case OSError() if error.errno is not None:
            return os.strerror(error.errno).lower()
        case _:
            return str(error) or type(error).__name__
