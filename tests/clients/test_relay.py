"""The relay on real sockets, used by aioice's TURN client; the same client against coturn, where there is one."""

import asyncio
import logging
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioice import stun
from aioice.turn import UDP_TRANSPORT, TurnTransport, create_turn_endpoint, make_integrity_key

from exeunt.actors.ice.ancillary import segmented
from exeunt.actors.turn import codec, credentials
from exeunt.clients.relay import Relay, RelayConfig, RelayStartError, serve, serve_until
from exeunt.clients.relay_sockets import Address, allow_sockets

SECRET = "a secret that two programs share"
LOOPBACK = ("127.0.0.1", 0)
INNER = "_TurnTransport__inner_protocol"


class Inbox(asyncio.DatagramProtocol):
    """Keeps what it receives, and where it was closed."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.received.put_nowait((data, addr[:2]))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def relay(**changes: Any) -> AsyncGenerator[Relay]:
    settings: dict[str, Any] = {"secret": SECRET, "listen": (LOOPBACK,), "allow_loopback_peers": True}
    running = await serve(RelayConfig(**settings | changes))
    try:
        yield running
    finally:
        running.close()


@asynccontextmanager
async def peer(host: str = "127.0.0.1") -> AsyncGenerator[tuple[asyncio.DatagramTransport, Inbox, Address]]:
    transport, inbox = await asyncio.get_running_loop().create_datagram_endpoint(Inbox, local_addr=(host, 0))
    try:
        yield transport, inbox, transport.get_extra_info("sockname")[:2]
    finally:
        transport.close()


async def turn_client(
    server: Address, identifier: str = "alice", secret: str = SECRET, lifetime_s: int = 600
) -> tuple[TurnTransport, Inbox]:
    username, password = credentials(secret, identifier, time.time(), 60)
    return await create_turn_endpoint(Inbox, server, username, password, lifetime=lifetime_s)


def inner_protocol(transport: TurnTransport) -> Any:
    """Answer the part of aioice's client that talks to the server, which has no public name."""
    return getattr(transport, INNER)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the loop is about to do."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def converse(server: Address, host: str = "127.0.0.1") -> tuple[TurnTransport, Inbox]:
    """Relay a datagram there and one back; what any TURN server must be able to do."""
    transport, inbox = await turn_client(server)
    relayed = transport.get_extra_info("sockname")
    async with peer(host) as (peer_transport, peer_inbox, address), asyncio.timeout(5):
        transport.sendto(b"there", address)
        data, source = await peer_inbox.received.get()
        assert (data, source) == (b"there", relayed)
        peer_transport.sendto(b"and back", source)
        assert await inbox.received.get() == (b"and back", address)
    return transport, inbox


async def test_a_turn_client_talks_through_the_relay_and_releases() -> None:
    async with relay() as running:
        transport, inbox = await converse(running.listening[0])
        assert running.allocations == 1
        transport.close()
        async with asyncio.timeout(5):
            await inbox.lost.wait()
        assert running.allocations == 0
        counters = running.counters
        assert counters["allocations"] == counters["relayed_to_peers"] == counters["relayed_to_clients"] == 1
        assert counters["unauthorized"] == 1, "the challenge"


async def test_a_train_goes_through_the_relay_both_ways() -> None:
    """In one piece where the kernel merges, as it does on loopback; for who takes none, in datagrams as they were."""
    sent = [bytes([number]) * 1000 for number in range(20)] + [b"the shorter end"]
    train, segment = b"".join(sent), (segmented(1000),)
    async with relay() as running, peer() as (transport, peer_inbox, address), asyncio.timeout(5):
        client, inbox = await turn_client(running.listening[0])
        client.sendto(b"bind", address)
        _, relayed = await peer_inbox.received.get()
        number = inner_protocol(client).peer_to_channel[address]
        framed = b"".join(codec.channel_data(number, each) for each in sent)
        with inner_protocol(client).transport.get_extra_info("socket").dup() as raw:
            raw.sendmsg([framed], (segmented(1004),), 0, running.listening[0])
        assert [(await peer_inbox.received.get())[0] for _ in sent] == sent
        with transport.get_extra_info("socket").dup() as raw:
            raw.sendmsg([train], segment, 0, relayed)
        assert [await inbox.received.get() for _ in sent] == [(each, address) for each in sent]
        counters = running.counters
        assert (counters["relayed_to_peers"], counters["relayed_to_clients"]) == (1 + len(sent), len(sent))
        assert counters["relayed_to_peers_bytes"] == len(b"bind") + len(train)
        client.close()


async def test_who_comes_and_leaves_in_one_breath_leaves_no_allocation() -> None:
    """A connection that is given up while it asks for relays says so at once, without waiting for their answer."""
    loop = asyncio.get_running_loop()
    username, password = credentials(SECRET, "alice", time.time(), 60)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        async with relay() as running, asyncio.timeout(5):
            client.connect(running.listening[0])
            client.send(bytes(allocate()))
            challenge = stun.parse_message(await loop.sock_recv(client, 2048)).attributes
            for request in (
                allocate(),
                stun.Message(stun.Method.REFRESH, stun.Class.REQUEST, attributes={"LIFETIME": 0}),
            ):
                request.attributes |= {name: challenge[name] for name in ("NONCE", "REALM")} | {"USERNAME": username}
                request.add_message_integrity(make_integrity_key(username, challenge["REALM"], password))
                client.send(bytes(request))
            answers = [stun.parse_message(await loop.sock_recv(client, 2048)) for _ in range(2)]
            assert [one.message_class for one in answers] == [stun.Class.RESPONSE] * 2
            assert running.allocations == 0


def allocate() -> stun.Message:
    attributes = {"LIFETIME": 600, "REQUESTED-TRANSPORT": UDP_TRANSPORT}
    return stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST, attributes=attributes)


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
async def test_an_ipv6_client_gets_an_ipv6_relay() -> None:
    try:
        running = await serve(
            RelayConfig(secret=SECRET, listen=(("::1", 0),), allow_loopback_peers=True, min_port=40_000)
        )
    except RelayStartError:
        pytest.skip("this machine has no ::1")
    try:
        transport, inbox = await converse(running.listening[0], "::1")
        assert transport.get_extra_info("sockname")[0] == "::1"
        transport.close()
        await inbox.lost.wait()
    finally:
        running.close()


async def test_two_clients_talk_relay_to_relay() -> None:
    async with relay() as running:
        (alice, alice_inbox), (bob, bob_inbox) = [
            await turn_client(running.listening[0], name) for name in ("alice", "bob")
        ]
        async with asyncio.timeout(5):
            bob.sendto(b"", alice.get_extra_info("sockname"))  # binds bob's channel, so alice may answer
            await until(lambda: running.counters["relayed_to_peers"] == 1)
            alice.sendto(b"hello bob", bob.get_extra_info("sockname"))
            assert await bob_inbox.received.get() == (b"hello bob", alice.get_extra_info("sockname"))
            bob.sendto(b"hello alice", alice.get_extra_info("sockname"))
            while (await alice_inbox.received.get())[0] != b"hello alice":
                pass
        for transport, inbox in ((alice, alice_inbox), (bob, bob_inbox)):
            transport.close()
            await inbox.lost.wait()
        assert running.allocations == 0


@pytest.mark.slow
async def test_an_allocation_is_refreshed_and_expires_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "exeunt.clients.relay")
    async with relay(default_lifetime_s=2) as running:
        kept, kept_inbox = await turn_client(running.listening[0], "kept", lifetime_s=2)
        lost, lost_inbox = await turn_client(running.listening[0], "lost", lifetime_s=2)
        inner_protocol(lost).refresh_task.cancel()
        await until(lambda: running.allocations == 1)
        (record,) = [each for each in caplog.records if each.message == "A relay allocation was closed"]
        assert (record.__dict__["reason"], record.__dict__["identifier"]) == ("expired", "lost")
        assert running.counters["stale_nonces"] == 0
        for transport, inbox in ((kept, kept_inbox), (lost, lost_inbox)):
            transport.close()
            await inbox.lost.wait()
        assert running.allocations == 0


@pytest.mark.parametrize("username", ["1:alice", "alice"])
async def test_expired_and_wrong_credentials_are_refused(username: str) -> None:
    async with relay() as running:
        with pytest.raises(stun.TransactionFailed, match="401"):
            await create_turn_endpoint(Inbox, running.listening[0], username, "wrong")
        assert running.allocations == 0


async def test_loopback_peers_are_refused_unless_allowed() -> None:
    async with relay(allow_loopback_peers=False) as running:
        transport, inbox = await turn_client(running.listening[0])
        transport.sendto(b"x", ("127.0.0.1", 9))
        await until(lambda: bool(inbox.errors))
        assert "403" in str(inbox.errors[0])
        transport.close()
        await inbox.lost.wait()


async def test_a_datagram_that_cannot_be_sent_is_counted_and_the_allocation_lives() -> None:
    async with relay() as running:
        transport, inbox = await turn_client(running.listening[0])
        # The relayed socket is bound to 127.0.0.1: from there no other network can be reached.
        transport.sendto(b"x", ("203.0.113.9", 9))
        await until(lambda: any(name.startswith("error_") for name in running.counters))
        async with peer() as (_, peer_inbox, address), asyncio.timeout(5):
            transport.sendto(b"still here", address)
            assert (await peer_inbox.received.get())[0] == b"still here"
        transport.close()
        await inbox.lost.wait()


async def test_a_port_in_use_is_not_fatal() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind(LOOPBACK)
        taken = occupant.getsockname()[1]
        async with relay(min_port=taken, max_port=taken) as running:
            with pytest.raises(stun.TransactionFailed, match="508"):
                await turn_client(running.listening[0])
            assert running.counters["error_EADDRINUSE"] == 1
            assert running.allocations == 0


async def test_closing_closes_every_socket_and_may_be_repeated() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with relay() as running:
        transport, inbox = await turn_client(running.listening[0])
        inner_protocol(transport).transport.abort()
        running.close()
        running.close()
        await until(inbox.lost.is_set)
        transport.close()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": (("192.0.2.77", 0),)},  # not ours
        {"listen": (LOOPBACK, LOOPBACK)},
        {"secret": ""},
        {"realm": "r" * 33},
        {"public_ipv4": "relay.example"},
        {"public_ipv4": "::1"},
        {"min_port": 10, "max_port": 9},
        {"denied_peers": ("10.0.0.0/99",)},
        {"other_listen": (("127.0.0.1", 0),)},  # the same host
        {"other_listen": (("0.0.0.0", 0),)},
        {"other_listen": (("127.0.0.2", 0), ("127.0.0.3", 0))},
        {"other_listen": (("::1", 0),)},  # it doesn't listen on IPv6 at all
        {"other_listen": (("127.0.0.2", 0),), "public_ipv4": "192.0.2.1", "other_public_ipv4": "192.0.2.1"},
    ],
)
async def test_what_cannot_work_does_not_start(changes: dict[str, Any]) -> None:
    with pytest.raises(RelayStartError):
        async with relay(**changes):
            pass


async def test_another_address_answers_for_the_first() -> None:
    """NAT behaviour discovery on real sockets: the answer leaves from the address that it was asked to leave from."""
    async with relay(other_listen=(("127.0.0.2", 0),)) as running:
        server, (other,) = running.listening[0], running.other_listening
        assert other[0] == "127.0.0.2"
        assert other[1] != server[1]
        async with peer("0.0.0.0") as (transport, inbox, _), asyncio.timeout(5):
            for flags, source in [(0, server), (2, (server[0], other[1])), (4, (other[0], server[1])), (6, other)]:
                request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"CHANGE-REQUEST": flags})
                transport.sendto(bytes(request), server)
                data, address = await inbox.received.get()
                assert address == source
                told = stun.parse_message(data).attributes
                assert (told["RESPONSE-ORIGIN"], told["OTHER-ADDRESS"]) == (source, other)
        assert running.counters["changed_origins"] == 3


async def test_another_address_is_told_as_clients_see_it() -> None:
    public = {"public_ipv4": "192.0.2.1", "other_public_ipv4": "192.0.2.2"}
    async with relay(other_listen=(("127.0.0.2", 0),), **public) as running:
        async with peer() as (transport, inbox, _), asyncio.timeout(5):
            transport.sendto(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)), running.listening[0])
            told = stun.parse_message((await inbox.received.get())[0]).attributes
        assert (told["RESPONSE-ORIGIN"][0], told["OTHER-ADDRESS"][0]) == ("192.0.2.1", "192.0.2.2")


async def test_it_serves_until_it_is_told_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "exeunt.clients.relay")
    stop = asyncio.Event()
    await serve_until(stop, RelayConfig(secret=SECRET, listen=(LOOPBACK,)), stop.set)
    assert [record.message for record in caplog.records] == ["Relay is ready", "Relay has left"]


def test_a_relay_may_open_a_socket_for_each_allocation() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert allow_sockets(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
        assert allow_sockets(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        if before[1] != resource.RLIM_INFINITY:
            assert allow_sockets(before[1] + 1) == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# coturn, the relay of production, serves the same client with the same credentials


@asynccontextmanager
async def coturn(directory: Path) -> AsyncGenerator[Address]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(LOOPBACK)
        port = probe.getsockname()[1]
    arguments = [
        *("--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=exeunt", "--no-cli", "--no-tls"),
        *("--no-dtls", "--allow-loopback-peers", f"--pidfile={directory}/pid", f"--userdb={directory}/db"),
        *("--log-file=stdout", "--simple-log", "-n"),
    ]
    program = shutil.which("turnserver")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield ("127.0.0.1", port)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn's turnserver is not installed")
async def test_coturn_accepts_our_credentials_too(tmp_path: Path) -> None:
    async with coturn(tmp_path) as server:
        # aioice repeats its request until coturn listens; a refused port is no error to it.
        async with asyncio.timeout(20):
            transport, inbox = await converse(server)
        transport.close()
        async with asyncio.timeout(5):
            await inbox.lost.wait()
        with pytest.raises(stun.TransactionFailed, match="401"):
            await turn_client(server, secret="another secret")


# exeunt relay run


def test_the_command_runs_until_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exeunt.clients import program
    from exeunt.clients.commands import relay_run
    from exeunt.clients.notify import notify

    monkeypatch.setenv("EXEUNT_RELAY_SECRET", SECRET)
    monkeypatch.setenv("EXEUNT_HOME", str(tmp_path / "home"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))

        def ready(state: str) -> bool:
            told = notify(state)
            if state == "READY=1":
                os.kill(os.getpid(), signal.SIGTERM)
            return told

        monkeypatch.setattr(program, "notify", ready)
        assert relay_run.run(listen="127.0.0.1:0") == 0
        assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    assert "EXEUNT_RELAY_SECRET" not in os.environ


def test_the_secret_is_found_and_removed_from_the_environment(tmp_path: Path) -> None:
    from exeunt.clients.commands.relay_run import read_secret
    from exeunt.clients.output import Failure

    file = tmp_path / "exeunt.relay-secret"
    file.write_text("the secret in the file\nsecond line\n")
    environ = {"EXEUNT_RELAY_SECRET": "the secret in the environment "}
    assert read_secret(file, environ) == "the secret in the file"
    assert environ == {}
    environ = {"EXEUNT_RELAY_SECRET": "the secret in the environment "}
    assert read_secret(None, environ) == "the secret in the environment"
    assert read_secret(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "the secret in the file"
    for secret_file, variables in [
        (None, {}),
        (None, {"EXEUNT_RELAY_SECRET": "short"}),
        (tmp_path / "missing", {}),
    ]:
        with pytest.raises(Failure) as failed:
            read_secret(secret_file, variables)
        assert failed.value.exit_code == 7


@pytest.mark.parametrize(
    ("text", "address"), [("0.0.0.0:3478", ("0.0.0.0", 3478)), ("[::]:1", ("::", 1)), ("::1:2", ("::1", 2))]
)
def test_listening_addresses_are_read(text: str, address: Address) -> None:
    from exeunt.clients.commands.relay_run import parse_listen

    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["", "3478", "host:1", "0.0.0.0", "0.0.0.0:", "0.0.0.0:65536", "0.0.0.0:-1"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    from exeunt.clients.commands.relay_run import parse_listen
    from exeunt.clients.output import Failure

    with pytest.raises(Failure) as failed:
        parse_listen(text)
    assert failed.value.exit_code == 2
