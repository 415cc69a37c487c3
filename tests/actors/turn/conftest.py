"""A relay's machine on a bench: a clock that stands still, ports that open at once, clients as short calls."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from aioice import stun
from aioice.stun import Class, Method

from exeunt.actors.turn import (
    AllocationClosed,
    AllocationOpened,
    RelayedPortChosen,
    Server,
    Settings,
    Transmit,
    codec,
    credentials,
)
from exeunt.actors.turn.codec import Address, Message
from exeunt.actors.turn.credentials import long_term_key, password_for

SECRET = "a secret that two programs share"
START_UNIX = 1_800_000_000.0
CLIENT = ("198.51.100.7", 40_000)
PEER = ("203.0.113.9", 5000)


class Bench:
    """The machine, what it said, and the clients' side of the conversation."""

    CLIENT = CLIENT
    PEER = PEER
    START_UNIX = START_UNIX

    def __init__(self, **changes: Any) -> None:
        settings: dict[str, Any] = {"secret": SECRET, "public_ipv4": "192.0.2.1"} | changes
        self.now = 1000.0
        self.server = Server(Settings(**settings), random.Random(7), bytes(32), self.now, START_UNIX)
        self.port_opens: Callable[[RelayedPortChosen], bool] = lambda _chosen: True
        self.chosen: list[RelayedPortChosen] = []
        self.opened: list[AllocationOpened] = []
        self.closed: list[AllocationClosed] = []
        self.nonces: dict[Address, bytes] = {}
        self._transactions = 0

    @staticmethod
    def error(message: Message) -> int | None:
        """Answer the error of a response; None for a success."""
        value = message.first(codec.ERROR_CODE)
        return None if value is None else int(stun.unpack_error_code(value)[0])

    # Time and datagrams

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        timeout = self.server.poll_timeout()
        if timeout is not None and timeout[0] <= self.now:
            self.server.handle_timeout(self.now)
            self.drain()

    def from_client(self, data: bytes, source: Address = CLIENT) -> list[Transmit]:
        self.server.handle_datagram(data, source, self.now)
        return self.drain()

    def from_peer(self, data: bytes, allocation: int, source: Address = PEER) -> list[Transmit]:
        self.server.handle_relayed(data, allocation, source, self.now)
        return self.drain()

    def drain(self) -> list[Transmit]:
        sent: list[Transmit] = []
        while True:
            while (transmit := self.server.poll_transmit()) is not None:
                sent.append(transmit)
            match self.server.poll_event():
                case None:
                    return sent
                case RelayedPortChosen() as chosen:
                    self.chosen.append(chosen)
                    answer = self.server.handle_port_opened
                    if not self.port_opens(chosen):
                        answer = self.server.handle_port_refused
                    answer(chosen.allocation, self.now)
                case AllocationOpened() as opened:
                    self.opened.append(opened)
                case AllocationClosed() as closed:
                    self.closed.append(closed)

    # Requests

    def transaction_id(self) -> bytes:
        self._transactions += 1
        return self._transactions.to_bytes(12)

    def username(self, identifier: str = "alice", lifetime_s: float = 3600) -> str:
        """Answer a user name that was issued when the bench was set up."""
        return credentials(SECRET, identifier, START_UNIX, lifetime_s)[0]

    def signed(
        self,
        method: Method,
        attributes: list[tuple[int, bytes]],
        source: Address = CLIENT,
        username: str | None = None,
        secret: str = SECRET,
    ) -> bytes:
        """Build a request with credentials; fetches a nonce by a first try, as clients do."""
        if source not in self.nonces:
            challenge = self.answer(codec.encode(Method.ALLOCATE, Class.REQUEST, bytes(12), []), source)
            self.nonces[source] = challenge.first(codec.NONCE) or b""
        username = username or self.username()
        password = password_for(secret, username)
        carried = [
            *attributes,
            (codec.USERNAME, username.encode()),
            (codec.REALM, b"exeunt"),
            (codec.NONCE, self.nonces[source]),
        ]
        key = long_term_key(username, "exeunt", password)
        return codec.encode(method, Class.REQUEST, self.transaction_id(), carried, key)

    def answer(self, data: bytes, source: Address = CLIENT) -> Message:
        """Send a request that must be answered with one datagram, to its sender."""
        (transmit,) = self.from_client(data, source)
        assert transmit.destination == source
        assert transmit.allocation is None
        return codec.parse(transmit.data)

    def request(self, method: Method, *attributes: tuple[int, bytes], **how: Any) -> Message:
        return self.answer(self.signed(method, list(attributes), **how), how.get("source", CLIENT))

    def allocate(self, *attributes: tuple[int, bytes], **how: Any) -> Message:
        return self.request(Method.ALLOCATE, UDP_TRANSPORT, *attributes, **how)

    def permit(self, *peers: Address, **how: Any) -> Message:
        """CreatePermission for peers; all XOR-ed with the transaction id that the request will have."""
        return self.request(Method.CREATE_PERMISSION, *(self.peer(each) for each in peers), **how)

    def bind(self, channel: int, peer: Address = PEER, **how: Any) -> Message:
        number = (codec.CHANNEL_NUMBER, channel.to_bytes(2) + bytes(2))
        return self.request(Method.CHANNEL_BIND, number, self.peer(peer), **how)

    def peer(self, address: Address) -> tuple[int, bytes]:
        """XOR-PEER-ADDRESS for the next request. The nonce must have been fetched."""
        return (codec.XOR_PEER_ADDRESS, codec.xor_address(address, (self._transactions + 1).to_bytes(12)))

    def send_indication(self, payload: bytes, peer: Address = PEER) -> bytes:
        attributes = [self.peer(peer), (codec.DATA, payload)]
        return codec.encode(Method.SEND, Class.INDICATION, self.transaction_id(), attributes)


UDP_TRANSPORT = (codec.REQUESTED_TRANSPORT, b"\x11\0\0\0")


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> type[Bench]:
    return Bench
