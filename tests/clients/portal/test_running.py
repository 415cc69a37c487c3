"""The real thing: a portal on a loopback port, real websockets, two links, an administrator beside it."""

import asyncio
import contextlib
import json
import random
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from exeunt.actors.portal import Link, LinkDenied, LinkDown, LinkEvent, LinkJoined, LinkMessage, websocket_url
from exeunt.actors.portal.messages import (
    AccessRevoked,
    AuthorizationCreated,
    Authorize,
    Authorized,
    ConnectionEnded,
    Error,
    IceCandidates,
    Join,
    PeerGone,
    PeerKind,
    RequestAuthorization,
    RestartIce,
    RevokeAccess,
)
from exeunt.clients.portal import administration
from exeunt.clients.portal.app import PortalConfig, serve_until
from exeunt.clients.portal.rows import NewPeer
from exeunt.clients.portal.store import Store

from .conftest import UNIX

M = TypeVar("M")
pytestmark = pytest.mark.slow


class Portal:
    """A portal that can be stopped and started again on the same port."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.port = 0
        self.url = ""
        self.store = Store(database)
        made = administration.initialize(self.store, database, UNIX)
        self.client, self.gateway = made.client, made.gateway
        self.web = administration.add_resource(self.store, "web", "10.20.0.0/24", site=None)

    async def start(self) -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        config = PortalConfig(database=self.database, port=self.port)
        self._task = asyncio.create_task(serve_until(self._stop, config, ready.set_result))
        self.url = await ready
        self.port = int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        self._stop.set()
        await self._task


class Peer:
    """A link, and what it told."""

    def __init__(self, portal: Portal, kind: PeerKind, token: str) -> None:
        self.events: asyncio.Queue[LinkEvent] = asyncio.Queue()
        join = Join(name=kind, external_id="device", public_key=b"k" * 32, version="0.1.0")
        url = websocket_url(portal.url, kind)
        self.link = Link(url, token, join, on_event=self.events.put_nowait, rng=random.Random(1))

    async def event(self, kind: type[M]) -> M:
        async with asyncio.timeout(10):
            while not isinstance(event := await self.events.get(), kind):
                pass
        return event

    async def message(self, kind: type[M]) -> M:
        while not isinstance(message := (await self.event(LinkMessage)).message, kind):
            pass
        return message


@pytest.fixture
async def portal(tmp_path: Path) -> AsyncIterator[Portal]:
    made = Portal(tmp_path / "portal.db")
    await made.start()
    yield made
    await made.stop()
    made.store.close()


@contextlib.asynccontextmanager
async def joined(portal: Portal, kind: PeerKind, made: NewPeer) -> AsyncGenerator[Peer]:
    peer = Peer(portal, kind, made.token)
    peer.link.start()
    await peer.event(LinkJoined)
    try:
        yield peer
    finally:
        await peer.link.close()


async def introduce(portal: Portal, client: Peer, gateway: Peer) -> AuthorizationCreated:
    client.link.send(RequestAuthorization(resource_id=portal.web.id))
    asked = await gateway.message(Authorize)
    gateway.link.send(Authorized(ref=asked.ref))
    return await client.message(AuthorizationCreated)


async def test_two_peers_find_each_other_and_take_leave(portal: Portal) -> None:
    async with joined(portal, "gateway", portal.gateway) as gateway:
        async with joined(portal, "client", portal.client) as client:
            created = await introduce(portal, client, gateway)
            assert created.gateway_id == portal.gateway.id
            candidates = IceCandidates(connection=created.connection, candidates=("candidate:1",))
            client.link.send(candidates)
            assert await gateway.message(IceCandidates) == candidates
            assert await client.link.leave("signed_out")
            assert client.link.state == "left"
        assert await gateway.message(PeerGone) == PeerGone(
            connection=created.connection, reason="it left", kind="left", cause="signed_out"
        )
    kinds = [event.kind for event in portal.store.session_events()][::-1]
    assert kinds[:4] == ["signed_in", "signed_in", "authorized", "left"]


async def test_a_revoked_resource_is_taken_from_a_running_connection(portal: Portal) -> None:
    async with (
        joined(portal, "gateway", portal.gateway) as gateway,
        joined(portal, "client", portal.client) as client,
    ):
        created = await introduce(portal, client, gateway)
        loop = asyncio.get_running_loop()
        before = loop.time()
        administration.revoke(portal.store, "client-1:web", now_unix=UNIX)
        assert (await client.message(AccessRevoked)).connection == created.connection
        assert (await gateway.message(RevokeAccess)).connection == created.connection
        assert loop.time() - before < 1


async def test_a_revoked_token_ends_the_session_and_signs_nobody_in(portal: Portal) -> None:
    async with (
        joined(portal, "gateway", portal.gateway) as gateway,
        joined(portal, "client", portal.client) as client,
    ):
        created = await introduce(portal, client, gateway)
        administration.revoke(portal.store, "client-1", now_unix=UNIX)
        assert await client.event(LinkDenied) == LinkDenied("revoked", requires_sign_in=True)
        assert (await gateway.message(RevokeAccess)).connection == created.connection
    late = Peer(portal, "client", portal.client.token)
    late.link.start()
    assert (await late.event(LinkDenied)).requires_sign_in
    await late.link.close()


async def test_a_gateways_token_opens_no_clients_door(portal: Portal) -> None:
    for kind, token in (("client", portal.gateway.token), ("gateway", portal.client.token), ("client", "x")):
        peer = Peer(portal, kind, token)  # type: ignore[arg-type]
        peer.link.start()
        assert (await peer.event(LinkDenied)).requires_sign_in
        await peer.link.close()


async def test_a_token_works_the_moment_it_was_made(portal: Portal) -> None:
    made = administration.add_client(portal.store, "new", now_unix=UNIX)
    async with joined(portal, "client", made) as client:
        assert client.link.state == "joined"


async def test_links_survive_a_restart_of_the_portal(portal: Portal) -> None:
    async with joined(portal, "client", portal.client) as client:
        await portal.stop()
        down = await client.event(LinkDown)
        assert down.was_joined
        client.link.send(RestartIce(connection="not-known", reason="moved"))
        await portal.start()
        await client.event(LinkJoined)
        assert await client.message(Error) == Error(code="unknown_connection", message="not-known")


async def test_leaving_without_a_portal_takes_no_longer_than_allowed(portal: Portal) -> None:
    async with joined(portal, "client", portal.client) as client:
        await portal.stop()
        await client.event(LinkDown)
        assert not await client.link.leave("signed_out", 0.25)
        await portal.start()


async def test_a_socket_that_misbehaves_harms_nobody_else(portal: Portal) -> None:
    headers = {"Authorization": f"Bearer {portal.client.token}"}
    url = websocket_url(portal.url, "client")
    async with joined(portal, "gateway", portal.gateway) as gateway:
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            for frame in ("{", b"\x00\xff", "[" * 60_000, '{"type":"later"}'):
                await socket.send(frame)
                answer: Any = json.loads(await socket.recv())
                assert answer["type"] == "error"
            await socket.send("x" * 70_000)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        gateway.link.send(Authorized(ref="nothing"))
        assert gateway.link.state == "joined"
        async with joined(portal, "client", portal.client) as client:
            await introduce(portal, client, gateway)


async def test_the_handshake_says_what_it_wants(portal: Portal) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(websocket_url(portal.url, "client"), proxy=None)
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"


async def test_health(portal: Portal) -> None:
    def get() -> tuple[int, bytes]:
        with urllib.request.urlopen(f"{portal.url}/healthz", timeout=5) as answer:
            return answer.status, answer.read()

    assert await asyncio.to_thread(get) == (200, b'{"status":"ok"}')


async def test_an_end_asks_what_the_portal_knows(portal: Portal) -> None:
    async with (
        joined(portal, "gateway", portal.gateway) as gateway,
        joined(portal, "client", portal.client) as client,
    ):
        created = await introduce(portal, client, gateway)
        client.link.send(ConnectionEnded(connection=created.connection, cause="idle"))
        assert (await gateway.message(PeerGone)).kind == "ended"
        told, nothing = await asyncio.gather(
            gateway.link.evidence(created.connection, 5), gateway.link.evidence("never-was", 5)
        )
        assert told is not None
        assert [one.kind for one in told.observations] == ["authorized", "ended"]
        assert nothing is not None
        assert nothing.observations == ()
        await portal.stop()
        await client.event(LinkDown)
        assert await client.link.evidence(created.connection, 5) is None
        await portal.start()
