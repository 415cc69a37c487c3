"""The shared sockets on the real network stack: loopback, both families, ICMP, both event loops."""

import asyncio
import contextlib
import errno
import resource
import socket
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest
import uvloop
from tests.actors.ice.sides import Side, config_for, connect, new_credentials

from exeunt.actors.ice import Address, IceAgent, Path, one_by_one
from exeunt.actors.ice import sockets as shared
from exeunt.actors.ice.ancillary import IP_RECVERR, IPV6_RECVERR, SOL_UDP, UDP_GRO, reported
from exeunt.actors.ice.demultiplexer import MAX_OFFERS
from exeunt.actors.ice.sockets import Sockets

NEVER_FRAGMENT = 10, 2
"""IP_MTU_DISCOVER, IP_PMTUDISC_DO (ip(7))."""


class Listener:
    """An agent and a session: hears everything."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, bytes, Address]] = asyncio.Queue()
        self.batches: list[tuple[int, int]] = []
        """How many datagrams came at once, and with which ECN field."""
        self.unreachable: asyncio.Queue[tuple[Address, bool]] = asyncio.Queue()

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        self.heard.put_nowait((host, datagram, source))

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        self.batches.append((len(spans) // 2, ecn))
        one_by_one(lambda datagram: self.heard.put_nowait((host, datagram, source)))(buffer, spans, ecn)

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        self.unreachable.put_nowait((destination, refused))


async def within(waiting: Any, seconds: float = 2.0) -> Any:
    return await asyncio.wait_for(waiting, seconds)


def bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.77", "::1"])
async def test_what_a_base_sends_comes_from_its_address_and_answers_arrive_there(host: str) -> None:
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    base = sockets.base(host, listener)
    peer = bound("::1" if ":" in host else "127.0.0.1")
    there: Address = peer.getsockname()[:2]
    sockets.table.know(there, listener, proven=True)
    assert base.sendto(b"hello", there)
    loop = asyncio.get_running_loop()
    data, source = await within(loop.sock_recvfrom(peer, 100))
    assert (data, source[:2]) == (b"hello", base.address)
    await loop.sock_sendto(peer, b"answer", source)
    assert await within(listener.heard.get()) == (host, b"answer", there)
    sockets.release(listener)
    assert sockets.descriptors() == {}
    peer.close()


async def refused_and_then_heard() -> None:
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    base = sockets.base("127.0.0.1", listener)
    peer, gone = bound("127.0.0.1"), bound("127.0.0.1")
    there: Address = peer.getsockname()
    nowhere: Address = gone.getsockname()
    gone.close()
    for address in (there, nowhere):
        sockets.table.know(address, listener, proven=True)
    for _ in range(3):
        base.sendto(b"anybody?", nowhere)
        assert base.sendto(b"hello", there)  # the refusal of another datagram does not fail this one
        assert peer.recv(100) == b"hello"
        assert await within(listener.unreachable.get()) == (nowhere, True)
        await asyncio.sleep(0)
        peer.sendto(b"still there", base.address)
        assert (await within(listener.heard.get()))[1] == b"still there"
    assert sockets.counters["icmp_unreachable"] == 3
    sockets.release(listener)
    peer.close()


async def refused_while_nobody_sends() -> None:
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    base = sockets.base("127.0.0.1", listener)
    peer, gone = bound("127.0.0.1"), bound("127.0.0.1")
    nowhere: Address = gone.getsockname()
    gone.close()
    for address in (peer.getsockname(), nowhere):
        sockets.table.know(address, listener, proven=True)
    for _ in range(3):
        base.sendto(b"anybody?", nowhere)
        assert await within(listener.unreachable.get()) == (nowhere, True)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
        with pytest.raises(TimeoutError):
            await within(listener.heard.get(), 0.1)
        spent_s = resource.getrusage(resource.RUSAGE_THREAD).ru_utime - before
        assert spent_s < 0.05  # an error queue that is not emptied would wake us without end
        peer.sendto(b"still there", base.address)
        assert (await within(listener.heard.get()))[1] == b"still there"
    sockets.release(listener)
    peer.close()


@pytest.mark.parametrize("what", [refused_and_then_heard, refused_while_nobody_sends])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_icmp_hints_and_does_no_harm(what: Callable[[], Any], loop_factory: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(what())


async def test_without_ipv6_there_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shared._open  # pyright: ignore[reportPrivateUsage]

    def only_ipv4(name: str, family: socket.AddressFamily, port: int, counters: Counter[str]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        return real(name, family, port, counters)

    monkeypatch.setattr(shared, "_open", only_ipv4)
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    assert set(sockets.descriptors()) == {"udp4"}
    assert sockets.base("127.0.0.1", listener).address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="family"):
        sockets.base("::1", listener)
    sockets.release(listener)


async def test_sockets_have_the_port_that_is_wanted_each_time_that_they_are_opened() -> None:
    with bound("127.0.0.1") as probe:
        port = probe.getsockname()[1]
    sockets, listener = Sockets(port=port), Listener()
    for _ in range(2):
        sockets.acquire(listener)
        assert sockets.has_its_port
        assert sockets.base("127.0.0.1", listener).address[1] == port
        sockets.release(listener)


async def test_a_port_that_somebody_else_has_costs_nobody_else_anything() -> None:
    with bound("0.0.0.0") as there:
        port = there.getsockname()[1]
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as there6:
            there6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            there6.bind(("::", port))
            sockets, listener = Sockets(port=port), Listener()
            sockets.acquire(listener)
            assert not sockets.has_its_port
            assert sockets.base("127.0.0.1", listener).address[1] not in (0, port)
            assert sockets.counters["udp4_port_taken"] == sockets.counters["udp6_port_taken"] == 1
            sockets.release(listener)


async def test_other_sockets_can_take_over() -> None:
    first, listener = Sockets(), Listener()
    first.acquire(listener)
    port = first.base("127.0.0.1", listener).address[1]
    copies = {name: sock.dup() for name, sock in first.descriptors().items()}
    first.pause()
    second, other = Sockets.adopt(copies), Listener()
    second.acquire(other)
    assert second.base("127.0.0.1", other).address[1] == port
    peer = bound("127.0.0.1")
    second.table.know(peer.getsockname(), other, proven=True)
    first.release(listener)
    await asyncio.get_running_loop().sock_sendto(peer, b"to the successor", ("127.0.0.1", port))
    assert (await within(other.heard.get()))[1] == b"to the successor"
    second.release(other)
    peer.close()


def index(prefix: int) -> bytes:
    return b"\x04\x00\x00\x00" + (prefix << 8 | 1).to_bytes(4, "little") + bytes(24)


@pytest.mark.slow
async def test_a_hundred_connections_on_one_socket_each_side() -> None:
    sockets = Sockets(), Sockets()
    pairs: list[tuple[Side, Side]] = []
    for number in range(100):
        ours, theirs = new_credentials()
        a = Side(config_for(ours), sockets=sockets[0])
        b = Side(config_for(theirs, role="controlled"), sockets=sockets[1])
        a.peer, b.peer = b, a
        a.agent.claim_indices(number)
        b.agent.claim_indices(1000 + number)
        pairs.append((a, b))
    paths: list[tuple[Path, Path]] = await asyncio.gather(*(connect(a, b, 20.0) for a, b in pairs))
    assert len({path.local for path, _ in paths}) == len({path.local for _, path in paths}) == 1
    assert {len(side.descriptors()) for side in sockets} <= {1, 2}
    for number, (a, b) in enumerate(pairs):
        a.agent.send(index(1000 + number))
        b.agent.send(index(number))
    for number, (a, b) in enumerate(pairs):
        assert await within(b.datagrams.get()) == index(1000 + number)
        assert await within(a.datagrams.get()) == index(number)
    a, b = pairs[0]
    initiation = b"\x01\x00\x00\x00" + bytes(144)
    a.agent.send(initiation)  # all hundred share one address on each side: it is offered to a few of them
    waiting = [asyncio.ensure_future(side.datagrams.get()) for _, side in pairs]
    offered, others = await asyncio.wait(waiting, timeout=2.0, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    assert 1 <= len(offered) <= MAX_OFFERS
    await asyncio.gather(*(side.agent.close(1.0) for pair in pairs for side in pair))
    assert sockets[0].descriptors() == sockets[1].descriptors() == {}


@pytest.mark.slow
async def test_a_process_that_dies_is_probed_at_once_and_no_more_than_that() -> None:
    sockets, there = Sockets(), Sockets()
    ours, theirs = new_credentials()
    a = Side(config_for(ours), sockets=sockets)
    b = Side(config_for(theirs, role="controlled"), sockets=there)
    a.peer, b.peer = b, a
    await connect(a, b)
    await b.agent.close(1.0)
    assert there.descriptors() == {}
    for _ in range(3):
        a.agent.send(b"anybody?")
        await asyncio.sleep(0.05)
    refused = sockets.counters["icmp_unreachable"]
    assert 3 <= refused <= 12  # each refusal asks, and each question is refused, ten times a second at most
    assert a.losses.empty()
    await a.agent.close(1.0)


async def test_agents_come_and_go() -> None:
    sockets = Sockets()
    for _ in range(3):
        ours, _ = new_credentials()
        agent = IceAgent(config_for(ours), Side.silent(), sockets=sockets)
        await agent.gather()
        assert sockets.descriptors()
        await agent.close(1.0)
        assert sockets.descriptors() == {}


def data_to(prefix: int, *, count: int, length: int = 700) -> list[bytes]:
    return [(index(prefix) + bytes([number])).ljust(length, b"x") for number in range(count)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize("ecn", [0, 3])
async def test_a_train_arrives_whole_and_is_given_at_once(host: str, helps: bool, ecn: int) -> None:
    ours, theirs, listener, peer = Sockets(), Sockets(), Listener(), Listener()
    ours.acquire(listener)
    theirs.acquire(peer)
    theirs.table.claim(7, peer)
    if not helps:
        for name, sock in theirs.descriptors().items():
            sock.setsockopt(SOL_UDP, UDP_GRO, 0)
            sender = ours.sender(name)
            assert sender is not None
            sender.is_segmenting = False
    base, there = ours.base(host, listener), theirs.base(host, peer).address
    train = data_to(7, count=100)
    assert base.send_train(memoryview(b"".join(train)), 700, there, ecn) == 100
    for datagram in train:
        assert await within(peer.heard.get()) == (host, datagram, base.address)
    assert sum(count for count, _ in peer.batches) == 100
    assert {mark for _, mark in peer.batches} == {ecn}
    assert len(peer.batches) == 1  # 70 kB fit into one burst, however they came
    ours.release(listener)
    theirs.release(peer)
    assert base.send_train(memoryview(b"".join(train)), 700, there, ecn) == 0


@contextlib.contextmanager
def more_than_a_buffer(peer: Listener) -> Generator[list[bytes]]:
    """The peer's socket has so many datagrams, which are more than one burst."""
    ours, theirs, listener = Sockets(), Sockets(), Listener()
    ours.acquire(listener)
    theirs.acquire(peer)
    theirs.table.claim(7, peer)
    base, there = ours.base("127.0.0.1", listener), theirs.base("127.0.0.1", peer).address
    train = data_to(7, count=250, length=1400)
    trains = len(theirs.buffer) // (250 * 1400) + 1
    for _ in range(trains):
        assert base.send_train(memoryview(b"".join(train)), 1400, there, 0) == 250
    yield train * trains
    ours.release(listener)
    theirs.release(peer)


async def test_more_than_a_buffer_holds_comes_in_several_bursts() -> None:
    peer = Listener()
    with more_than_a_buffer(peer) as sent:
        for datagram in sent:
            assert (await within(peer.heard.get()))[1] == datagram
    assert len(peer.batches) > 1


async def test_the_loop_turns_between_two_buffers_of_data() -> None:
    loop = asyncio.get_running_loop()
    happened: list[str] = []

    class Watching(Listener):
        def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
            super().take_batch(host, buffer, spans, source, ecn)
            happened.append("burst")
            loop.call_soon(happened.append, "others")

    peer = Watching()
    with more_than_a_buffer(peer) as sent:
        for _ in sent:
            await within(peer.heard.get())
    assert happened[:3] == ["burst", "others", "burst"]


async def test_what_is_too_big_is_counted_and_costs_nothing_else() -> None:
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    sockets.descriptors()["udp4"].setsockopt(socket.IPPROTO_IP, *NEVER_FRAGMENT)
    base, peer = sockets.base("127.0.0.1", listener), bound("127.0.0.1")
    there: Address = peer.getsockname()
    assert not base.sendto(bytes(65_536), there)
    assert base.send_train(memoryview(bytes(65_536 + 100)), 65_536, there, 0) == 1
    assert sockets.counters["too_big"] == 2
    assert base.sendto(b"small enough", there)
    sockets.release(listener)
    peer.close()


@pytest.mark.parametrize("origin", [1, 2, 3])
def test_the_error_queue_tells_how_much_a_path_takes(origin: int) -> None:
    entry = struct.pack("=IBBBBII", errno.EMSGSIZE, origin, 3, 4, 0, 1400, 0)
    assert reported(((socket.IPPROTO_IP, IP_RECVERR, entry),)) == (errno.EMSGSIZE, 1400)


def test_of_other_errors_only_what_icmp_says_counts() -> None:
    for origin, expected in ((0, None), (1, None), (2, (errno.ECONNREFUSED, 0)), (4, None)):
        entry = struct.pack("=IBBBBII", errno.ECONNREFUSED, origin, 3, 3, 0, 77, 0)
        assert reported(((socket.IPPROTO_IPV6, IPV6_RECVERR, entry),)) == expected


STUN = b"\x01\x01\x00\x00\x21\x12\xa4\x42"


async def test_a_lone_check_is_read_alone_and_what_comes_with_it_at_once() -> None:
    sockets, listener = Sockets(), Listener()
    sockets.acquire(listener)
    sockets.table.claim(7, listener)
    peer, address = bound("127.0.0.1"), sockets.base("127.0.0.1", listener).address
    answers = [STUN + bytes([number]) * 12 for number in range(5)]
    for answer in answers:
        sockets.table.expect_answer(answer[8:20], listener, sockets.now())
    for datagram in (*answers, *data_to(7, count=3)):
        peer.sendto(datagram, address)
    heard = [(await within(listener.heard.get()))[1] for _ in range(8)]
    assert heard == [*answers, *data_to(7, count=3)]
    sockets.release(listener)
    peer.close()


async def test_in_a_lull_checks_gather_and_data_ends_it() -> None:
    sockets, listener = Sockets(now=lambda: 100.0), Listener()  # no second passes, at whose end it would be judged
    sockets.acquire(listener)
    sockets.table.claim(7, listener)
    peer, address = bound("127.0.0.1"), sockets.base("127.0.0.1", listener).address
    lull = sockets._lulls["udp4"]  # pyright: ignore[reportPrivateUsage]
    answers = [STUN + bytes([number]) * 12 for number in range(6)]
    for answer in answers:
        sockets.table.expect_answer(answer[8:20], listener, sockets.now())
    lull.is_on = True
    for answer in answers:
        peer.sendto(answer, address)
        assert (await within(listener.heard.get()))[1] == answer
        assert "udp4" in sockets._resting  # pyright: ignore[reportPrivateUsage]
        assert lull.is_on
    keepalive = data_to(7, count=1)[0][:32]
    peer.sendto(keepalive, address)
    assert (await within(listener.heard.get()))[1] == keepalive
    assert lull.is_on
    for datagram in data_to(7, count=2):
        peer.sendto(datagram, address)
        assert (await within(listener.heard.get()))[1] == datagram
        await asyncio.sleep(0)
        assert not sockets._resting  # pyright: ignore[reportPrivateUsage]
    lull.is_on = True
    peer.sendto(answers[1], address)
    await within(listener.heard.get())
    assert sockets._resting  # pyright: ignore[reportPrivateUsage]
    newcomer = Listener()
    sockets.acquire(newcomer)
    assert not sockets._resting, "who comes finds a path soon"  # pyright: ignore[reportPrivateUsage]
    assert not lull.is_on
    sockets.release(newcomer)
    lull.is_on = True
    peer.sendto(answers[0], address)
    await within(listener.heard.get())
    sockets.pause()
    assert not sockets._resting  # pyright: ignore[reportPrivateUsage]
    peer.sendto(answers[1], address)
    with pytest.raises(TimeoutError):
        await within(listener.heard.get(), 0.05)
    sockets.release(listener)
    peer.close()
