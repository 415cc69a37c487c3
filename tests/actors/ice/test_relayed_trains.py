"""Trains on whole paths: direct, through relays, and where the path changes under a train's header."""

import struct
from typing import Any

import pytest
from tests.actors.ice.sides import MakePair, assert_carries_trains, connect, turn

from exeunt.actors.ice.relay import CHANNEL_LASTS_S, MAX_WAITING

DATA = [b"\x04\x00\x00\x00" + bytes([number]) * 60 for number in range(20)]


def framed(channel: int) -> memoryview:
    return memoryview(b"".join(struct.pack("!HH", channel, len(datagram)) + datagram for datagram in DATA))


PLAIN = memoryview(b"".join(DATA))


async def test_directly(make_pair: MakePair) -> None:
    a, b = make_pair()
    assert a.agent.send_train(PLAIN, 64, len(PLAIN)) == 0
    assert a.agent.counters["send_without_path"] == len(DATA)
    await connect(a, b)
    assert a.agent.channel is None
    await assert_carries_trains(a, b)
    await a.agent.close(1.0)
    assert a.agent.send_train(PLAIN, 64, len(PLAIN)) == 0
    assert b.agent.send_train(PLAIN, 64, 0) == 0


async def test_through_a_relay_with_its_channel(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    assert a.agent.channel == 0x4000
    assert b.agent.channel is None
    await assert_carries_trains(a, b)
    assert b.agent.last_alive is not None


async def test_a_header_of_another_channel_or_none_is_made_right(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    for train, stride in ((framed(0x4001), 68), (PLAIN, 64)):
        assert a.agent.send_train(train, stride, len(train)) == len(DATA)
        assert [await b.datagrams.get() for _ in DATA] == DATA
    train = framed(0x4000)  # sealed for the relay that b, an instant ago, had
    assert b.agent.send_train(train, 68, len(train)) == len(DATA)
    assert [await a.datagrams.get() for _ in DATA] == DATA


async def test_while_no_channel_is_bound_some_wait(
    turn_server: Any, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    pair = a.agent._current._machine.selected  # pyright: ignore[reportPrivateUsage]
    assert pair is not None
    relay: Any = a.agent._current._gathering.channels[pair.base.id]  # pyright: ignore[reportPrivateUsage]
    now = relay._now
    monkeypatch.setattr(relay, "_now", lambda: now() + CHANNEL_LASTS_S)
    assert a.agent.channel is None
    assert a.agent.send_train(PLAIN, 64, len(PLAIN)) == MAX_WAITING
    assert a.agent.counters["relay_waiting_full"] == len(DATA) - MAX_WAITING
    assert [await b.datagrams.get() for _ in range(MAX_WAITING)] == DATA[:MAX_WAITING]
    assert a.agent.channel == 0x4000
