"""How a link really ends: processes that are killed, programs that close, a portal that stops.

The peers are processes of their own, with the same link as the product has; what the portal concludes from the end of
their websockets is what this is about, and so nothing here is simulated.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exeunt.actors.portal import LinkDown, LinkMessage
from exeunt.actors.portal.messages import AuthorizationCreated, PeerGone, RequestAuthorization
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store

from .test_running import Peer, Portal, introduce, joined

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, random, signal, sys
from exeunt.actors.portal import Link, LinkJoined, LinkMessage, websocket_url
from exeunt.actors.portal.messages import Authorize, Authorized, Join

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    def on_event(event):
        if isinstance(event, LinkJoined):
            print("joined", flush=True)
        elif isinstance(event, LinkMessage) and isinstance(event.message, Authorize):
            link.send(Authorized(ref=event.message.ref))
    join = Join(name="gateway", external_id="device", public_key=b"k" * 32, version="0.1.0")
    link = Link(websocket_url(sys.argv[1], "gateway"), sys.argv[2], join, on_event=on_event, rng=random.Random(1))
    link.start()
    await stop.wait()
    await link.close()

asyncio.run(main())
"""


class Gateway:
    """A gateway's link in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def end(self, number: int) -> float:
        """Send a signal; the moment at which that was done."""
        at = time.monotonic()
        self.process.send_signal(number)
        await self.process.wait()
        return at


@pytest.fixture
async def portal(tmp_path: Path) -> AsyncIterator[Portal]:
    made = Portal(tmp_path / "portal.db")
    await made.start()
    yield made
    await made.stop()
    made.store.close()


@pytest.fixture
async def gateway(portal: Portal) -> AsyncIterator[Gateway]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        portal.url,
        portal.gateway.token,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"joined\n"
    yield Gateway(process)
    if process.returncode is None:
        process.kill()
    await process.wait()


async def connected(portal: Portal, client: Peer) -> str:
    client.link.send(RequestAuthorization(resource_id=portal.web.id))
    return (await client.message(AuthorizationCreated)).connection


async def test_a_killed_process_is_a_reset_link_at_once(portal: Portal, gateway: Gateway) -> None:
    async with joined(portal, "client", portal.client) as client:
        connection = await connected(portal, client)
        killed_at = await gateway.end(signal.SIGKILL)
        hint = await client.message(PeerGone)
        assert time.monotonic() - killed_at < 0.5
        assert (hint.connection, hint.kind) == (connection, "reset")


async def test_a_killed_process_that_had_not_read_all_is_a_reset_link_too(portal: Portal, gateway: Gateway) -> None:
    async with joined(portal, "client", portal.client) as client:
        await connected(portal, client)
        gateway.process.send_signal(signal.SIGSTOP)
        # What it is sent now stays unread, so the kernel answers its death with RST instead of FIN.
        for number in range(3):
            administration.add_resource(portal.store, f"more-{number}", f"10.3{number}.0.0/24", site=None)
            await asyncio.wait_for(client.events.get(), 5)
        await gateway.end(signal.SIGKILL)
        assert (await client.message(PeerGone)).kind == "reset"


async def test_a_program_that_closes_its_link_has_not_died(portal: Portal, gateway: Gateway) -> None:
    async with joined(portal, "client", portal.client) as client:
        await connected(portal, client)
        await gateway.end(signal.SIGTERM)
        assert (await client.message(PeerGone)).kind == "silent"
    assert gateway.process.returncode == 0


async def test_a_cancelled_link_closes_with_a_close_frame(portal: Portal) -> None:
    async with joined(portal, "client", portal.client) as client:
        async with joined(portal, "gateway", portal.gateway) as gateway:
            await introduce(portal, client, gateway)
            gateway.link.reset()
            # The new link claims nothing, and that is told. The old one may be gone before it or not.
            reasons = [(await client.message(PeerGone)).reason]
            while reasons[-1] != "it came back without the connection":
                reasons.append((await client.message(PeerGone)).reason)
            assert "its link broke" not in reasons
        kinds = [(event.kind, event.detail) for event in portal.store.session_events()]
        assert ("lost", "reset") not in kinds


async def test_a_portal_that_stops_tells_nobody_that_somebody_died(portal: Portal, tmp_path: Path) -> None:
    async with (
        joined(portal, "gateway", portal.gateway) as gateway,
        joined(portal, "client", portal.client) as client,
    ):
        await introduce(portal, client, gateway)
        await portal.stop()
        for peer in (client, gateway):
            assert (await peer.event(LinkDown)).was_joined
        told = [peer.events.get_nowait() for peer in (client, gateway) for _ in range(peer.events.qsize())]
        assert not [event for event in told if isinstance(event, LinkMessage) and isinstance(event.message, PeerGone)]
        store = Store(tmp_path / "portal.db")
        assert {event.kind for event in store.session_events()} == {"signed_in", "authorized"}
        assert store.present() == []
        store.close()
        await portal.start()
