"""The places where a datagram enters, fed with anything: an agent's socket, and the relay client's."""

import asyncio
import random
import struct
import time
from array import array
from collections import Counter

import pytest
from aioice import stun, turn
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.ice.reference import check_request, success

from exeunt.actors.ice import Address, Credentials, IceConfig, binding, one_by_one
from exeunt.actors.ice.candidate import parse_candidate
from exeunt.actors.ice.channel_burst import ChannelBurst
from exeunt.actors.ice.connection import IceConnection
from exeunt.actors.ice.packing import Role
from exeunt.actors.ice.reflexive import ReflexiveMemory
from exeunt.actors.ice.relay_client import UdpClient
from exeunt.actors.ice.reports import SessionCallbacks
from exeunt.actors.ice.sockets import Sockets

OURS = Credentials(local_username="aaaa", local_password="a" * 22, remote_username="bbbb", remote_password="b" * 22)
THEIRS = Credentials(local_username="bbbb", local_password="b" * 22, remote_username="aaaa", remote_password="a" * 22)
REAL = [
    bytes(check_request(THEIRS, Role(controlling=True, tie_breaker=9), nominate=True)),
    success(bytes(12), ("192.0.2.1", 5), OURS),
    binding.failure(binding.query_request(), binding.ROLE_CONFLICT, OURS),
    b"\x40\x00\x00\x04data",
    bytes(
        stun.Message(
            stun.Method.DATA,
            stun.Class.INDICATION,
            attributes={"XOR-PEER-ADDRESS": ("192.0.2.7", 7), "DATA": b"data"},
        )
    ),
]


HEADERS = (b"\x00\x01", b"\x01\x01", b"\x01\x11", b"\x00\x17", b"\x00\x03", b"\x3f\xff")


def make_datagram(kind: int, script: bytes) -> bytes:
    """Noise, noise behind a true STUN header, or a real message spoiled as the script says.

    One byte string is a cheap thing for hypothesis to draw and to shrink; 10,000 structured ones are not.
    """
    if kind == 0:
        return script
    if kind <= len(HEADERS):
        body = script[12:] if len(script) % 3 else script[12:][: len(script[12:]) // 4 * 4]
        length = len(body) if len(script) % 7 else 9
        return HEADERS[kind - 1] + length.to_bytes(2, "big") + binding.MAGIC_COOKIE + script[:12] + body
    message = bytearray(REAL[(kind - len(HEADERS) - 1) % len(REAL)])
    for position, value in zip(script[1::2], script[2::2], strict=False):
        message[position % len(message)] ^= value
    if kind > len(HEADERS) + len(REAL) and len(message) >= binding.HEADER_LENGTH + 8:
        # A true checksum at the end, so that what was spoiled is looked at and not only the checksum.
        checksum = stun.message_fingerprint(bytes(message[:-8]))
        message[-8:] = struct.pack("!HHI", 0x8028, 4, checksum)
    return bytes(message[: script[0]] if script and script[0] % 8 == 0 else message)


DATAGRAMS = st.builds(make_datagram, st.integers(0, len(HEADERS) + 2 * len(REAL)), st.binary(max_size=48))


class Unheard:
    """An agent for the shared sockets, so that they are open."""

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Nobody sends data to it."""

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Nor says that it cannot be reached."""


def make_session(
    sockets: Sockets, received: list[bytes], candidates: list[str], *, ours: bool
) -> tuple[IceConnection, Counter[str]]:
    credentials = OURS if ours else THEIRS
    callbacks = SessionCallbacks(
        on_candidate=lambda line, _generation: candidates.append(line),
        on_withdrawn=lambda _line, _generation: None,
        on_batch=lambda _base, buffer, spans, _source, ecn: one_by_one(received.append)(buffer, spans, ecn),
        on_proven=lambda _: None,
        on_path=lambda _session, _: None,
        on_quiet=lambda _session: None,
        on_broken=lambda _session, _: None,
        on_lost=lambda _session, _: None,
    )
    config = IceConfig(
        role="controlled" if ours else "controlling",
        local_username=credentials.local_username,
        local_password=credentials.local_password,
        remote_username=credentials.remote_username,
        remote_password=credentials.remote_password,
        host_filter=lambda host: host == "127.0.0.1",
        lost_after_s=300.0,  # the loop stands still while the session is fed
    )
    counters: Counter[str] = Counter()
    rng = random.Random(1)
    session = IceConnection(
        config,
        credentials,
        callbacks,
        sockets,
        generation=0,
        memory=ReflexiveMemory(),
        counters=counters,
        now=time.monotonic,
        rng=rng,
    )
    return session, counters


def make_relay_client(delivered: list[bytes]) -> UdpClient:
    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            delivered.append(data)

    client = UdpClient(
        ("127.0.0.1", 3478),
        username="u",
        password="p",
        lifetime=turn.DEFAULT_ALLOCATION_LIFETIME,
        channel_refresh_time=turn.DEFAULT_CHANNEL_REFRESH_TIME,
    )
    client.counters = Counter()
    client.burst = ChannelBurst(
        client.channel_to_peer, lambda m: client.datagram_received(m, client.server), client.counters
    )
    client.burst.on_data = lambda buffer, spans, _source, ecn: one_by_one(delivered.append)(buffer, spans, ecn)
    client.receiver = Receiver()
    client.channel_to_peer[0x4000] = ("192.0.2.7", 7)
    client.peer_to_channel["192.0.2.7", 7] = 0x4000
    return client


@pytest.mark.slow
async def test_whatever_arrives_nothing_is_raised() -> None:
    received: list[bytes] = []
    relayed: list[bytes] = []
    candidates: list[str] = []
    sockets, agent = Sockets(), Unheard()
    sockets.acquire(agent)
    session, counters = make_session(sockets, received, [], ours=True)
    peer, _ = make_session(sockets, [], candidates, ours=False)
    client = make_relay_client(relayed)
    await asyncio.gather(session.gather(), peer.gather())
    session.add_remote_candidate(parse_candidate(candidates[0]))
    await asyncio.gather(session.connect(5.0), peer.connect(5.0))

    @settings(max_examples=10_000, deadline=None)
    @given(data=DATAGRAMS, port=st.integers(1, 65535))
    def feed(data: bytes, port: int) -> None:
        before = len(received)
        session.take_datagram(0, data, ("127.0.0.66", port))
        assert (len(received) > before) == (not binding.is_stun(data))
        client.burst.take(memoryview(bytearray(data)), 0, len(data), 0, 0)
        client.burst.deliver()

    try:
        feed()
        assert session.path is not None
    finally:
        await asyncio.gather(session.close(1.0), peer.close(1.0))
        sockets.release(agent)
    assert counters["malformed_stun"] > 100
    assert counters["request_refused_401"] > 10
    assert counters["response_unknown"] > 100
    assert client.counters["malformed_turn"] > 0
    assert b"data" in relayed
