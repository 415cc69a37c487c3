"""The connection to a relay: taking leave of it, and what becomes of what is written when it is gone."""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st
from tests.actors.ice.sides import MakePair, connect, turn

from exeunt.actors.ice import IceServer, one_by_one
from exeunt.actors.ice import relay as relay_module
from exeunt.actors.ice.burst import BUFFER_BYTES
from exeunt.actors.ice.channel_burst import ChannelBurst
from exeunt.actors.ice.relay import Relay
from exeunt.actors.ice.relay_client import MAX_TCP_BUFFER_BYTES, TcpClient

LEAVING_S = 0.3
"""What a connection that ends gives its relays (`exeunt.actors.timing.RELEASE_S`)."""


async def allocate(server: IceServer, on_lost: Callable[[], None] = lambda: None) -> Relay:
    return await Relay.allocate(
        server,
        on_datagram=lambda _data, _source: None,
        on_datagrams=lambda _buffer, _spans, _source, _ecn: None,
        on_lost=on_lost,
        on_doubted=lambda: None,
        counters=Counter(),
        now=time.monotonic,
        buffer=memoryview(bytearray(BUFFER_BYTES)),
    )


async def freed(turn_server: Any) -> None:
    async with asyncio.timeout(2.0):
        while turn_server.allocations:  # noqa: ASYNC110 - another socket's server
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", [0, 1, 5])
async def test_leaving_is_said_again_until_it_is_heard(lost: int, turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    turn_server.loses = lost
    await a.agent.close(LEAVING_S)
    assert turn_server.allocations == {}
    assert a.agent.counters["relay_not_released"] == 0


async def test_a_server_that_is_gone_delays_nobody(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    turn_server.is_mute = True
    began = time.monotonic()
    await a.agent.close(LEAVING_S)
    assert time.monotonic() - began < LEAVING_S + 0.5
    assert a.agent.counters["relay_not_released"] == 1


async def test_who_has_no_time_says_it_once(turn_server: Any) -> None:
    relay = await allocate(turn(turn_server.address))
    relay.abandon()
    await freed(turn_server)
    assert turn_server.requests[-1] == ("REFRESH", 0)


async def allocated(turn_server: Any) -> None:
    async with asyncio.timeout(2.0):
        while not turn_server.allocations:  # noqa: ASYNC110 - another socket's server
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("lost", [0, 1, 4])
async def test_an_allocation_whose_answer_was_lost_is_given_back(lost: int, turn_server: Any) -> None:
    turn_server.is_tacit, turn_server.loses = True, lost
    asking = asyncio.create_task(allocate(turn(turn_server.address)))
    await allocated(turn_server)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert turn_server.allocations == {}


@pytest.mark.parametrize("lost", [0, 4])
async def test_whoever_leaves_while_a_relay_is_asked_gives_back_what_it_gave(
    lost: int, turn_server: Any, make_pair: MakePair
) -> None:
    turn_server.is_tacit, turn_server.loses = True, lost
    a, _ = make_pair(for_a={"servers": (turn(turn_server.address),)})
    gathering = asyncio.create_task(a.agent.gather())
    await allocated(turn_server)
    await a.agent.close(LEAVING_S)
    await gathering
    assert turn_server.allocations == {}
    assert a.agent.counters["relay_not_released"] == 0


async def test_a_server_off_the_list_that_was_asked_gets_back_what_it_gave(
    turn_server: Any, make_pair: MakePair
) -> None:
    turn_server.is_tacit, turn_server.loses = True, 2
    a, _ = make_pair(for_a={"servers": (turn(turn_server.address),)})
    gathering = asyncio.create_task(a.agent.gather())
    await allocated(turn_server)
    a.agent.set_servers(())
    await a.agent.close(LEAVING_S)
    await gathering
    assert turn_server.allocations == {}


async def test_a_server_that_never_answered_delays_nobody(turn_server: Any, make_pair: MakePair) -> None:
    turn_server.is_mute = True
    a, _ = make_pair(for_a={"servers": (turn(turn_server.address),)})
    gathering = asyncio.create_task(a.agent.gather())
    await asyncio.sleep(0)
    began = time.monotonic()
    await a.agent.close(LEAVING_S)
    await gathering
    assert time.monotonic() - began < LEAVING_S


async def test_a_connection_that_the_server_closes_ends_the_question_at_once() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        began = time.monotonic()
        with pytest.raises((OSError, TimeoutError)):
            await allocate(IceServer("turn", host, port, "tcp", "exeunt", "secret"))
        assert time.monotonic() - began < 2.0
    assert unhandled == []


class ClosedTransport:
    """A transport that is closed, and says so or not; uvloop's raises when it is written to."""

    def __init__(self, *, is_told: bool) -> None:
        self._is_told = is_told

    def is_closing(self) -> bool:
        return self._is_told

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, _data: bytes) -> None:
        raise RuntimeError("the handler is closed")


class OpenTransport(ClosedTransport):
    """A transport that keeps what is written, and says how full it is."""

    def __init__(self) -> None:
        super().__init__(is_told=False)
        self.written = b""
        self.buffered = 0

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def write(self, data: bytes) -> None:
        self.written += data


def stream_client(delivered: list[bytes], messages: list[bytes]) -> tuple[TcpClient, OpenTransport]:
    client = TcpClient(("192.0.2.1", 443), username="u", password="p", lifetime=600, channel_refresh_time=500)
    client.counters = Counter()
    client.burst = ChannelBurst({0x4000: ("192.0.2.7", 7)}, messages.append, client.counters)
    client.burst.on_data = lambda buffer, spans, _source, ecn: one_by_one(delivered.append)(buffer, spans, ecn)
    transport = OpenTransport()
    client.connection_made(cast("asyncio.BaseTransport", transport))
    return client, transport


def framed(payload: bytes) -> bytes:
    return struct.pack("!HH", 0x4000, len(payload)) + payload


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_a_stream_is_cut_into_messages_however_it_arrives(payloads: list[bytes], chunk: int) -> None:
    delivered: list[bytes] = []
    messages: list[bytes] = []
    client, _ = stream_client(delivered, messages)
    request = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
    stream = b"".join(framed(payload) + bytes(-len(payload) % 4) + request for payload in payloads)
    for at in range(0, len(stream), chunk):
        client.data_received(stream[at : at + chunk])
    assert delivered == payloads
    assert messages == [request] * len(payloads)


@pytest.mark.parametrize(("length", "last"), [(60, 32), (60, 33), (61, 32), (61, 61)])
def test_a_train_in_a_stream_is_padded_where_it_has_to_be(length: int, last: int) -> None:
    client, transport = stream_client([], [])
    payloads = [bytes([number]) * length for number in range(9)] + [bytes(last)]
    train = memoryview(b"".join(framed(payload) for payload in payloads))
    assert client.send_train(train, 4 + length, 0) == 10
    received: list[bytes] = []
    stream_client(received, [])[0].data_received(transport.written)
    assert received == payloads
    transport.buffered = MAX_TCP_BUFFER_BYTES + 1
    assert client.send_train(train, 4 + length, 0) == 0
    assert client.counters["send_buffer_full"] == 10


@pytest.mark.parametrize("is_told", [True, False])
def test_nothing_is_written_to_a_connection_that_is_gone(is_told: bool) -> None:
    client = TcpClient(("192.0.2.1", 443), username="u", password="p", lifetime=600, channel_refresh_time=500)
    client.counters = Counter()
    gone: list[str] = []
    client.on_gone = lambda: gone.append("gone")
    client.connection_made(cast("asyncio.BaseTransport", ClosedTransport(is_told=is_told)))
    if not is_told:
        client.connection_lost(None)
        assert gone == ["gone"]
    client.send_now(b"data")
    client.send_stun(stun.Message(stun.Method.BINDING, stun.Class.REQUEST), ("192.0.2.1", 443))


async def test_an_idle_allocation_greets_its_server_and_doubts_it_without_an_answer(
    turn_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(relay_module, "GREETING_S", 0.05)
    monkeypatch.setattr(relay_module, "KEEPALIVE_ROUNDS", 1)
    monkeypatch.setattr(relay_module, "ROUND_REPETITIONS", 0)
    lost = asyncio.Event()
    relay = await allocate(turn(turn_server.address), lost.set)
    async with asyncio.timeout(2.0):
        while turn_server.requests.count(("BINDING", -1)) < 3:  # noqa: ASYNC110 - another socket's server
            await asyncio.sleep(0.005)
    assert not lost.is_set()
    turn_server.is_unseeing = True
    async with asyncio.timeout(5.0):
        await lost.wait()
    assert relay.is_silent
    relay.abandon()
