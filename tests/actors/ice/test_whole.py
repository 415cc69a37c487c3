"""What may be fragmented on its way and what may not, over a router with a link that is too narrow."""

import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from exeunt.actors.ice.agent import Route
from exeunt.actors.ice.trains import Sender
from exeunt.actors.ice.whole import permit_fragments, send_whole
from exeunt.clients.lab import Namespace
from exeunt.clients.lab.cabling import connect
from exeunt.clients.lab.namespace import Route as LabRoute

LINK_MTU = 1300
FITTING, TOO_LONG = LINK_MTU - 28, LINK_MTU - 27
HERE, THERE = "10.1.0.1", "10.2.0.1"

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets, each in a namespace of its own, and a router between them that says by ICMP what is too long."""
    with Namespace("here") as here, Namespace("router") as router, Namespace("there") as there:
        connect(here, "eth0", router, "wide", mtu=1500)
        connect(router, "narrow", there, "eth0", mtu=LINK_MTU)
        here.configure(addresses={"eth0": [f"{HERE}/24"]}, routes=[LabRoute("0.0.0.0/0", "eth0", via="10.1.0.2")])
        router.configure(
            addresses={"wide": ["10.1.0.2/24"], "narrow": ["10.2.0.2/24"]}, sysctls={"ipv4/ip_forward": "1"}
        )
        there.configure(addresses={"eth0": [f"{THERE}/24"]}, routes=[LabRoute("0.0.0.0/0", "eth0", via="10.2.0.2")])
        with here.run(lambda: bound(HERE)) as ours, there.run(lambda: bound(THERE)) as theirs:
            permit_fragments(ours)
            yield ours, theirs


def bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(5.0)
    return sock


class Way:
    """A path over one socket; the kernel may report of each datagram what became of an earlier one."""

    def __init__(self, sock: socket.socket, destination: tuple[str, int], *, is_there: bool = True) -> None:
        self.counters: Counter[str] = Counter()
        self.errors: list[int | None] = []
        self._sock, self._destination, self._is_there = sock, destination, is_there
        self._sender = Sender(sock, self.counters, self._take_error)

    def send(self, datagram: bytes | memoryview) -> None:
        self._sender.send(datagram, (), self._destination)

    def route(self) -> Route | None:
        return Route("udp4", self._destination, HERE, b"", "direct") if self._is_there else None

    def channel_descriptor(self, channel: str) -> int | None:
        assert channel == "udp4"
        return self._sock.fileno()

    def _take_error(self, error: OSError) -> bool:
        self.errors.append(error.errno)
        return True


def test_what_is_too_long_for_a_link_arrives_unless_it_measures_the_path(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    way = Way(ours, theirs.getsockname())
    for _ in range(2):  # what ICMP has said of the first changes nothing
        way.send(b"a" * TOO_LONG)
        send_whole(way, b"b" * TOO_LONG)
        send_whole(way, b"c" * FITTING)
        way.send(b"d" * TOO_LONG)
        assert [theirs.recv(2000)[:1] for _ in range(3)] == [b"a", b"c", b"d"]
    assert not way.counters
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(2000)


def test_trains_are_cut_up_as_well(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    sender = Sender(ours, Counter(), lambda _error: True)
    assert (
        sender.send_train(memoryview(b"".join(bytes([n]) * 1400 for n in range(3))), 1400, (), theirs.getsockname())
        == 3
    )
    assert [theirs.recv(2000) for _ in range(3)] == [bytes([n]) * 1400 for n in range(3)]


def test_without_a_path_nothing_happens(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    send_whole(Way(ours, theirs.getsockname(), is_there=False), b"a")
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(2000)


def test_what_is_no_socket_is_left_alone() -> None:
    reading, writing = os.pipe()

    class Nowhere(Way):
        def channel_descriptor(self, channel: str) -> int | None:
            return reading

    with bound("127.0.0.1") as sock:
        send_whole(Nowhere(sock, sock.getsockname()), b"a")
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(10)
    os.close(reading)
    os.close(writing)
