"""The machines on real sockets of this host, and what goes wrong there."""

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from aioice import stun

from exeunt.clients.check import rights, sockets
from exeunt.clients.check.latency import REPETITIONS, Latency
from exeunt.clients.check.measurement import measure
from exeunt.clients.check.path_mtu import PACKET_BYTES, PathMtuProbe
from exeunt.clients.check.portal import ask_portal, clock_of, parse_head
from exeunt.clients.check.questions import PATIENCE_S
from exeunt.clients.check.situation import Place, Situation
from exeunt.clients.relay import RelayConfig, serve

from .conftest import RTT_S, SERVER, Nat, Network
from .test_discovery import EI


@contextlib.asynccontextmanager
async def tcp_server(answer: Callable[[bytes], bytes]) -> AsyncGenerator[int]:
    """A server that answers what comes; nothing: it hangs up."""

    served = asyncio.Semaphore(0)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (data := await reader.read(4096)) and (answered := answer(data)):
                writer.write(answered)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass  # the client has seen enough
        finally:
            writer.close()
            served.release()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        async with asyncio.timeout(5):
            await served.acquire()
        await asyncio.sleep(0)


def stun_answer(data: bytes) -> bytes:
    request = stun.parse_message(data)
    attributes = {"XOR-MAPPED-ADDRESS": ("127.0.0.1", 1)}
    return bytes(stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id, attributes))


def http_answer(head: str) -> Callable[[bytes], bytes]:
    return lambda _: head.replace("\n", "\r\n").encode() + b"\r\n\r\n"


# STUN


async def test_a_relay_on_this_host_is_measured() -> None:
    relay = await serve(RelayConfig(secret="s", listen=(("127.0.0.1", 0),), other_listen=(("127.0.0.2", 0),)))
    try:
        host, port = relay.listening[0]
        measured = await measure(Situation(relays=(Place(host, port), Place(host, 1, "tcp"))))
    finally:
        relay.close()
    by_udp, by_tcp = measured.relays
    assert by_udp.rtt_ms is not None
    assert by_udp.rtt_ms < PATIENCE_S * 1000
    assert (by_tcp.rtt_ms, by_tcp.reason) == (None, "refused")
    assert [nat.name for nat in measured.nats] == ["open"]
    assert [mtu.packet_bytes for mtu in measured.path_mtus] == [1500]


async def test_stun_over_tcp_is_timed() -> None:
    async with tcp_server(stun_answer) as port:
        times = await sockets.stun_over_stream(("127.0.0.1", port), tls_name=None)
    assert times.connect_s > 0
    assert times.rtt_s > 0


def hang_up(_: bytes) -> bytes:
    return b""


def liar(data: bytes) -> bytes:
    """An attribute that is longer than the message."""
    return b"\1\1\0\4" + data[4:20] + b"\0\x20\0\xff"


@pytest.mark.parametrize("answer", [hang_up, http_answer("HTTP/1.1 400 Bad Request"), liar])
async def test_what_is_no_stun_server_is_told(answer: Callable[[bytes], bytes]) -> None:
    async with tcp_server(answer) as port:
        with pytest.raises(ConnectionError, match="no STUN server") as failed:
            await sockets.stun_over_stream(("127.0.0.1", port), tls_name=None)
    assert sockets.reason_of(failed.value) == "no STUN server answers there"


async def test_another_transactions_answer_is_none() -> None:
    other = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, b"x" * 12)
    async with tcp_server(lambda _: bytes(other)) as port:
        with pytest.raises(ConnectionError, match="something else"):
            await sockets.stun_over_stream(("127.0.0.1", port), tls_name=None)


async def test_a_server_without_tls_is_told() -> None:
    async with tcp_server(lambda _: b"plain text, no TLS at all") as port:
        with pytest.raises(ssl.SSLError) as failed:
            await sockets.stun_over_stream(("127.0.0.1", port), tls_name="localhost")
    assert sockets.reason_of(failed.value) == "TLS does not come about"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "refused"),
        (OSError(errno.ENETUNREACH, "x"), "network is unreachable"),
        (socket.gaierror(-2, "x"), "its name has no address"),
        (ssl.SSLError(1, "x"), "TLS does not come about"),
        (OSError("something"), "something"),
    ],
)
def test_reasons_are_short(error: BaseException, reason: str) -> None:
    assert sockets.reason_of(error) == reason


async def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(sockets, "RESOLVE_TIMEOUT_S", 0.05)

    def hang(*_args: object, **_more: object) -> list[object]:
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began_at = time.monotonic()
    with pytest.raises(TimeoutError):
        await sockets.resolve("relay.example", 3478)
    assert time.monotonic() - began_at < 5
    released.set()


async def test_a_name_that_cannot_be_one_is_told() -> None:
    with pytest.raises(OSError, match="not well-formed"):
        await sockets.resolve("a" * 64 + ".example", 3478)


# Path MTU


@pytest.mark.parametrize("limit_bytes", [*PACKET_BYTES, 1300, 2000])
def test_the_longest_packet_that_is_answered_counts(limit_bytes: int) -> None:
    probe = PathMtuProbe(SERVER)
    network = Network(Nat(EI, EI), carries=lambda payload: len(payload) + 28 <= limit_bytes)
    network.run(probe)
    assert probe.packet_bytes == max(each for each in PACKET_BYTES if each <= limit_bytes)


def test_the_least_round_trip_counts() -> None:
    latency = Latency(SERVER)
    network = Network(Nat(EI, EI), origins=())
    assert network.run(latency) == pytest.approx(REPETITIONS * RTT_S)
    assert latency.rtt_s == pytest.approx(RTT_S)
    assert network.sent == [SERVER] * REPETITIONS


def test_who_does_not_answer_is_asked_once_only() -> None:
    latency = Latency(SERVER)
    network = Network(Nat(EI, EI), dead=frozenset({SERVER}))
    assert network.run(latency) == pytest.approx(PATIENCE_S)
    assert latency.rtt_s is None


def test_no_answer_is_no_mtu() -> None:
    probe = PathMtuProbe(SERVER)
    Network(Nat(EI, EI), dead=frozenset({SERVER})).run(probe)
    assert probe.packet_bytes is None


# The portal


async def test_a_portal_is_asked_for_its_health_and_the_time() -> None:
    head = "HTTP/1.1 200 OK\nDate: Thu, 01 Jan 2026 00:00:00 GMT\nContent-Length: 0"
    async with tcp_server(http_answer(head)) as port:
        reach, clock = await ask_portal(f"ws://127.0.0.1:{port}")
    assert reach.reason is None
    assert reach.answer_ms is not None
    assert clock is not None
    assert clock.offset_ms > 0


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("HTTP/1.1 503 Service Unavailable", "it answers 503"),
        ("SSH-2.0-OpenSSH_9.2", "it does not speak HTTP"),
        ("HTTP/1.1 abc", "it does not speak HTTP"),
        ("HTTP/1.1 200 OK\nX: " + "x" * 70_000, "it does not speak HTTP"),
    ],
)
async def test_what_is_no_healthy_portal_is_told(head: str, reason: str) -> None:
    async with tcp_server(http_answer(head)) as port:
        reach, clock = await ask_portal(f"http://127.0.0.1:{port}")
    assert (reach.reason, clock) == (reason, None)


async def test_a_portal_that_is_not_there_is_told() -> None:
    assert (await ask_portal("ws://127.0.0.1:1"))[0].reason == "refused"
    assert (await ask_portal("ws://127.0.0.1:99999"))[0].reason == "its address is not well-formed"


def test_a_date_is_compared_within_its_error() -> None:
    now = 1_767_225_600.0  # 2026-01-01
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    clock = clock_of(date, now + 1.0, 0.0)
    assert clock is not None
    assert (clock.offset_ms, clock.error_ms) == (0.0, 1000.0)
    ahead = clock_of(date, now + 61.0, 0.2)
    assert ahead is not None
    assert ahead.offset_ms == pytest.approx(60_100.0)
    assert ahead.error_ms == pytest.approx(1100.0)
    for nonsense in ("", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 999999 00:00:00 GMT"):
        assert clock_of(nonsense, now, 0.1) is None


def test_a_head_is_read_and_nothing_else() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\ndate: now\r\n\r\n").date == "now"
    with pytest.raises(ValueError, match="HTTP"):
        parse_head(b"220 smtp.example\r\n\r\n")


# Rights


def test_a_capability_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(rights, "STATUS", status)
    status.write_text("Name:\tpython\nCapEff:\t0000000000001000\n")
    assert rights.examine_rights().net_admin is None
    status.write_text("CapEff:\t0000000000000fff\n")
    assert rights.examine_rights().net_admin == "this user lacks CAP_NET_ADMIN"
    status.unlink()
    assert "can't be read" in (rights.examine_rights().net_admin or "")


def test_a_missing_device_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "TUN_NODE", str(tmp_path / "tun"))
    assert "No such file" in (rights.examine_rights().tun or "")
