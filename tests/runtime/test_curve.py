"""Between machines: only those who are known get in, and strangers are counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime import troupe
from tests.runtime.conftest import until
from tests.runtime.troupe import Player, Relay, Said, Say

from exeunt.runtime.codec import Codec
from exeunt.runtime.curve import CurveKeys, Gatekeeper
from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.errors import AskTimeout, LocalError
from exeunt.runtime.host import stop_all
from exeunt.runtime.lifeline import REFUSED
from exeunt.runtime.messages import MESSAGES
from exeunt.runtime.node import Node
from exeunt.runtime.transport import Transport

CODEC = Codec([*MESSAGES, *troupe.MESSAGES])
ANY_PORT = "tcp://127.0.0.1:0"


class Host:
    """A node with a TCP port and keys."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.keys = CurveKeys.generate()
        self.node = Node("n", worker, codec=CODEC)
        self.frames: list[bytes] = []
        self.transport = Transport(ANY_PORT, on_frame=self.on_frame, loop=self.node.loop, codec=CODEC, keys=self.keys)
        self.node.transport = self.transport

    def on_frame(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.node.handle_frame(frame)

    def knows(self, other: "Host", public_key: str = "") -> None:
        self.transport.allow(other.worker, public_key or other.keys.public)
        self.node.worker_up(other.worker, other.transport.endpoint)


@pytest.fixture
async def hosts() -> AsyncIterator[Callable[[str], Host]]:
    started: list[Host] = []

    def start(worker: str) -> Host:
        started.append(Host(worker))
        return started[-1]

    yield start
    for host in started:
        await stop_all(host.node, "shutdown", each_s=0.1)
        host.transport.close()


async def test_those_who_know_each_other_talk(hosts: Callable[[str], Host]) -> None:
    a, b = hosts("a"), hosts("b")
    a.knows(b)
    b.knows(a)
    a.node.start(Player(), "p")
    b.node.start(Player(), "p")
    said: Said = await a.node.ref("n/b/p").ask(Relay("n/a/p", "there and back"))
    assert said.text == "there and back"
    assert (a.transport.refused_total, b.transport.refused_total) == (0, 0)
    assert a.transport.endpoint.startswith("tcp://127.0.0.1:")


async def test_a_stranger_with_keys_of_its_own_gets_nothing_through(hosts: Callable[[str], Host]) -> None:
    """It even knows our public key; but nobody here knows its."""
    a, stranger = hosts("a"), hosts("stranger")
    player = Player()
    a.node.start(player, "p")
    stranger.knows(a)
    stranger.node.ref("n/a/p").tell(Say("let me in"))
    with pytest.raises(AskTimeout):
        await stranger.node.ref("n/a/p").ask(Say("let me in"), timeout_s=0.3)
    await until(lambda: a.transport.refused_total >= 1)
    assert a.frames == []
    assert player.log == []


async def test_one_who_is_no_longer_known_does_not_come_back(hosts: Callable[[str], Host]) -> None:
    a, b = hosts("a"), hosts("b")
    a.knows(b)
    b.knows(a)
    a.node.start(Player(), "p")
    assert (await b.node.ref("n/a/p").ask(Say("x"))).text == "x"
    a.transport.disallow("b")
    heard = len(a.frames)
    b.node.worker_up("a", a.transport.endpoint)  # connects anew
    b.node.ref("n/a/p").tell(Say("me again"))
    await until(lambda: a.transport.refused_total >= 1)
    assert len(a.frames) == heard


async def test_an_impostor_of_the_server_is_not_spoken_to(hosts: Callable[[str], Host]) -> None:
    """Whoever took the other's address has not the other's key."""
    a, impostor = hosts("a"), hosts("impostor")
    impostor.transport.allow("a", a.keys.public)
    a.knows(impostor, CurveKeys.generate().public)
    a.node.ref("n/impostor/p").tell(Say("a secret"))
    await until(lambda: impostor.transport.refused_total >= 1)
    assert impostor.frames == []


@pytest.mark.parametrize("mechanism", ["null", "plain"])
async def test_a_stranger_without_curve_gets_nothing_through(hosts: Callable[[str], Host], mechanism: str) -> None:
    a = hosts("a")
    player = Player()
    a.node.start(player, "p")
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        if mechanism == "plain":
            stranger.setsockopt(zmq.PLAIN_USERNAME, b"root")
            stranger.setsockopt(zmq.PLAIN_PASSWORD, b"root")
        stranger.connect(a.transport.endpoint)
        envelope = Envelope(1, 1, 0, "n/x/y", "n/a/p", Kind.TELL, 0, Say("let me in"))
        stranger.send(CODEC.encode([CODEC.run(envelope)]))
        await until(lambda: a.transport.refused_total >= 1)
    assert (a.frames, player.log) == ([], [])


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 200, bytes(range(256)) * 20])
async def test_another_protocol_gets_nothing_through_and_disturbs_nobody(
    hosts: Callable[[str], Host], noise: bytes
) -> None:
    a, b = hosts("a"), hosts("b")
    a.knows(b)
    b.knows(a)
    a.node.start(Player(), "p")
    address, port = a.transport.endpoint.removeprefix("tcp://").split(":")
    _, writer = await asyncio.open_connection(address, int(port))
    writer.write(noise)
    await writer.drain()
    assert (await b.node.ref("n/a/p").ask(Say("x"))).text == "x"
    writer.close()
    assert len(a.frames) == 1


async def test_a_connection_is_made_with_the_first_message(hosts: Callable[[str], Host]) -> None:
    """So it doesn't matter who of two is told of the other first."""
    a, b = hosts("a"), hosts("b")
    b.node.start(Player(), "p")
    a.knows(b)
    b.knows(a)
    assert (await a.node.ref("n/b/p").ask(Say("x"))).text == "x"
    assert (a.transport.refused_total, b.transport.refused_total) == (0, 0)


async def test_who_is_silenced_hears_no_more_and_is_still_watched(hosts: Callable[[str], Host]) -> None:
    a, b = hosts("a"), Host("b")
    lost: list[tuple[str, str]] = []
    watching = Transport(
        ANY_PORT,
        on_frame=a.on_frame,
        loop=a.node.loop,
        codec=CODEC,
        keys=(keys := CurveKeys.generate()),
        on_lost=lambda worker, how: lost.append((worker, how)),
    )
    b.transport.allow("w", keys.public)
    watching.connect("b", b.transport.endpoint, b.keys.public)
    greeting = Envelope(1, 1, 0, "n/w/x", "n/b/p", Kind.TELL, 0, Say("x"))
    assert watching.send("b", greeting)
    await until(lambda: len(b.frames) == 1)
    watching.silence("b")
    assert not watching.knows("b")
    assert not watching.send("b", greeting)
    b.transport.close()
    await until(lambda: lost)
    assert lost == [("b", REFUSED)]
    watching.close()


async def test_tcp_without_keys_is_refused(node: Node) -> None:
    with pytest.raises(LocalError, match="CURVE"):
        Transport(ANY_PORT, on_frame=node.handle_frame, loop=node.loop, codec=CODEC)


async def test_an_unknown_worker_is_not_connected_to(hosts: Callable[[str], Host]) -> None:
    a, b = hosts("a"), hosts("b")
    with pytest.raises(LocalError, match="allow it first"):
        a.node.worker_up("b", b.transport.endpoint)


async def test_an_address_that_is_taken_leaves_nothing_open(hosts: Callable[[str], Host]) -> None:
    a = hosts("a")
    with pytest.raises(zmq.ZMQError):
        Transport(
            a.transport.endpoint,
            on_frame=a.on_frame,
            loop=a.node.loop,
            codec=CODEC,
            keys=CurveKeys.generate(),
        )


def test_a_secret_is_not_shown() -> None:
    keys = CurveKeys.generate()
    assert keys.secret not in repr(keys)
    assert (len(keys.public), len(keys.secret)) == (40, 40)


@given(st.binary(max_size=60))
@settings(max_examples=10_000, deadline=None)
def test_whatever_is_asked_the_answer_is_no(noise: bytes) -> None:
    request = noise.split(b"\0")
    gatekeeper: Any = object.__new__(Gatekeeper)
    gatekeeper.allowed = {CurveKeys("a" * 40, "b" * 40).public}
    answer: list[bytes] = gatekeeper._decision(request)
    assert answer[2] == b"400"
    assert answer[0] == b"1.0"
    assert len(answer) == 6
