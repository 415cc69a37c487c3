"""The control worker is restarted: its actors' successors know what they knew, or do not begin."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from tests.actors.notes import Notes
from tests.actors.stage import PlayedPeer, Stage, authorize, created, resource
from tests.actors.test_client_loop import WEB, connected

from exeunt.actors.client_loop import ClientLoop
from exeunt.actors.endings import Cause
from exeunt.actors.event_loop import EventLoop
from exeunt.actors.expiries import Expired
from exeunt.actors.gateway_loop import GatewayLoop
from exeunt.actors.legacy import ClientLegacy, GatewayLegacy
from exeunt.actors.messages import (
    ConnectionEstablished,
    DescribeSession,
    EverybodyAsked,
    SetDns,
    StopSession,
    TakeOverOverdue,
    TunInterfaceUpdated,
)
from exeunt.actors.network.messages import AllowAccess, EnableForwarding, OpenDevice, RevokeAccessTo
from exeunt.actors.peer.messages import Close, SetServers
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import PortalClaim
from exeunt.actors.session_actor import SessionActor
from exeunt.runtime.messages import StartChild

DB = resource(2, "10.0.1.0/24")
NAME = "event-loop"


@pytest.fixture
def notes(stage: Stage) -> Notes:
    found = stage.nodes["control"].deposits = Notes()
    return found


async def succeed(stage: Stage, notes: Notes, kind: type[EventLoop], **changes: Any) -> Any:
    """The event loop hands over, and its successor begins."""
    before = stage.loop
    before.ref.stop("hand_over")
    await stage.settle()
    assert before.state == "exited"
    notes.succeeds = True
    loop = stage.start(kind, **changes)
    await stage.settle()
    return loop


async def client(stage: Stage) -> PlayedPeer:
    peer = await connected(stage, WEB)
    peer.connect()
    await stage.settle()
    return peer


async def gateway(stage: Stage, **changes: Any) -> PlayedPeer:
    stage.start(GatewayLoop)
    await stage.join(WEB, DB)
    await stage.say(authorize("c-1", WEB, **changes))
    (peer,) = stage.peers
    peer.connect()
    await stage.settle()
    return peer


# --- both sides ---


async def test_nobody_is_told_and_the_same_connections_are_claimed(stage: Stage, notes: Notes) -> None:
    peer = await client(stage)
    claim, log = stage.link.told(PortalClaim)[-1], len(stage.log)
    loop = await succeed(stage, notes, ClientLoop)
    assert stage.log[log:] == [("portal-link", claim)]
    assert stage.endings() == []
    assert notes.taken_keys == [NAME]
    described = await loop.ref.ask(DescribeSession())
    assert (described.session, described.resource_states) == ("connected", {"r-1": "connected"})
    assert [one.connection for one in described.peers] == [peer.config.connection]


async def test_the_successor_watches_the_connections(stage: Stage, notes: Notes) -> None:
    await client(stage)
    await succeed(stage, notes, ClientLoop)
    await stage.kill_worker("peers-1")
    (ending,) = stage.endings()
    assert (ending.cause, ending.evidence) == (Cause.WORKER_CRASHED, {"actor": "worker_died"})


async def test_a_connection_that_comes_up_meanwhile_is_announced_once(stage: Stage, notes: Notes) -> None:
    peer = await client(stage)
    before = len(stage.stream.events(ConnectionEstablished))
    await succeed(stage, notes, ClientLoop)
    peer.connect()
    await stage.settle()
    assert len(stage.stream.events(ConnectionEstablished)) == before


async def test_the_next_join_sets_nothing_up_anew(stage: Stage, notes: Notes) -> None:
    await gateway(stage)
    await succeed(stage, notes, GatewayLoop)
    relay = portal.Relay(id="relay-1", host="192.0.2.1", port=3478, username="u", password="p", expires_at=2**40)
    await stage.join(WEB, DB, relays=(relay,))
    assert len(stage.network.told(OpenDevice)) == len(stage.network.told(EnableForwarding)) == 1
    (servers,) = stage.peers[0].told(SetServers)
    assert [(one.host, one.username) for one in servers.servers] == [("192.0.2.1", "u")]


async def test_a_session_that_leaves_goes_on_leaving(stage: Stage, notes: Notes) -> None:
    """What came too late for the old one goes along: the news that everybody was asked."""
    peer = await client(stage)
    peer.mute = True
    loop = stage.loop
    loop.session = "leaving"
    successor = await succeed(stage, notes, ClientLoop)
    assert successor.state == "running"
    await stage.tell(EverybodyAsked("signed_out", "us"))
    assert successor.exit_reason == "normal"
    (ending,) = stage.endings()
    assert (ending.cause, ending.acknowledged) == (Cause.SIGNED_OUT, False)


async def test_a_connection_that_was_just_handed_over_is_still_waited_for(stage: Stage, notes: Notes) -> None:
    peer = await client(stage)
    peer.ref.stop("hand_over")
    await stage.settle()
    await succeed(stage, notes, ClientLoop)
    assert stage.endings() == []
    await stage.tell(TakeOverOverdue(peer.config.connection))
    (ending,) = stage.endings()
    assert "not_taken_over" in ending.evidence


async def test_one_that_was_told_to_close_is_not_told_again_and_does_not_come_back(stage: Stage, notes: Notes) -> None:
    peer = await client(stage)
    connection = peer.config.connection
    peer.end(Cause.NETWORK_LOST)
    await stage.settle()
    loop = await succeed(stage, notes, ClientLoop)
    assert loop.was_ended(connection)
    started = len(stage.root.told(StartChild))
    await stage.say(created(connection, "r-1"))
    assert len(stage.root.told(StartChild)) == started


@pytest.mark.parametrize("left", [None, b"\xc1nonsense", b"\x80"])
async def test_without_what_its_predecessor_knew_it_does_not_begin(
    stage: Stage, notes: Notes, left: bytes | None
) -> None:
    await client(stage)
    stage.loop.ref.stop("hand_over")
    await stage.settle()
    notes.left.clear()
    if left is not None:
        notes.bequeath(NAME, left)
    notes.succeeds = True
    stage.link.answers = False
    loop = stage.start(ClientLoop)
    await stage.settle()
    assert (loop.state, loop.exit_reason) == ("exited", "crashed")


async def test_where_nobody_keeps_anything_a_stop_is_a_stop(stage: Stage) -> None:
    peer = await client(stage)
    stage.loop.ref.stop("hand_over")
    await stage.settle()
    assert [one.cause for one in peer.told(Close)] == [Cause.SHUTTING_DOWN]


async def test_no_secret_of_it_is_ever_printed(stage: Stage, notes: Notes) -> None:
    await client(stage)
    stage.loop.ref.stop("hand_over")
    await stage.settle()
    document = notes.left[NAME].document
    left = msgspec.msgpack.decode(document, type=ClientLegacy)
    assert left.peers[0].spec is not None
    assert repr(left) == "ClientLegacy()"


# --- a client's ---


async def test_a_client_still_wants_what_it_wanted(stage: Stage, notes: Notes) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB, DB)
    await stage.tell(SetDns(("10.0.0.53",)))
    await stage.want("r-1")
    await stage.say(portal.AuthorizationFailed(resource_id="r-2", reason="offline"))
    loop = await succeed(stage, notes, ClientLoop)
    assert loop.resource_state("r-2") == "offline"
    asked = len(stage.link.said(portal.RequestAuthorization))
    await stage.want("r-1")
    assert len(stage.link.said(portal.RequestAuthorization)) == asked, "it has been asked for"
    await stage.join(WEB, DB)
    assert stage.link.said(portal.RequestAuthorization)[asked:] == [portal.RequestAuthorization(resource_id="r-1")]
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.dns == ("10.0.0.53",)


# --- a gateway's ---


async def test_a_gateway_knows_for_whose_sake_the_firewall_is_open(stage: Stage, notes: Notes) -> None:
    peer = await gateway(stage)
    await stage.say(authorize("c-1", DB))
    before = set(stage.network.firewall)
    await succeed(stage, notes, GatewayLoop)
    assert stage.network.firewall == before
    assert len(stage.network.told(AllowAccess)) == 2
    await stage.say(portal.RevokeAccess(client_id="cl-1", resource_id="r-2", connection="c-1"))
    assert stage.network.firewall == {("100.64.0.2", WEB.address)}
    assert peer.told(Close) == []
    await stage.say(portal.RevokeAccess(client_id="cl-1", resource_id="r-1", connection="c-1"))
    assert stage.network.firewall == set()
    assert [one.cause for one in peer.told(Close)] == [Cause.ACCESS_REVOKED]


async def test_a_gateway_closes_behind_who_leaves(stage: Stage, notes: Notes) -> None:
    peer = await gateway(stage)
    await succeed(stage, notes, GatewayLoop)
    peer.end(Cause.SIGNED_OUT)
    await stage.settle()
    assert stage.network.firewall == set()
    assert len(stage.network.told(RevokeAccessTo)) == 1
    assert [one.cause for one in stage.link.said(portal.ConnectionEnded)] == [Cause.SIGNED_OUT]


async def test_an_authorisation_that_expires_still_does(stage: Stage, notes: Notes) -> None:
    expires_at = int(time.time()) + 3600
    peer = await gateway(stage, expires_at=expires_at)
    loop = await succeed(stage, notes, GatewayLoop)
    assert len(loop._expiries.timers()) == 1
    await stage.tell(Expired("c-1", "r-1"))
    assert peer.told(Close) == [], "its time has not come"
    assert [(one.connection, one.expires_at) for one in loop._expiries.known()] == [("c-1", expires_at)]


async def test_a_document_of_the_other_side_makes_no_sense(stage: Stage, notes: Notes) -> None:
    await gateway(stage)
    stage.loop.ref.stop("hand_over")
    await stage.settle()
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(notes.left[NAME].document, type=ClientLegacy)
    assert msgspec.msgpack.decode(notes.left[NAME].document, type=GatewayLegacy).granted


# --- the front door ---


@pytest.mark.parametrize("leaving", [False, True])
async def test_the_front_door_remembers_that_somebody_leaves(stage: Stage, notes: Notes, leaving: bool) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    control = stage.nodes["control"]
    door = SessionActor(f"{control.prefix}{NAME}")
    control.start(door, "session")
    await stage.settle()
    door._leaving = leaving
    door.ref.stop("hand_over")
    await stage.settle()
    notes.succeeds = True
    control.start(SessionActor(f"{control.prefix}{NAME}"), "session")
    control.local("session").tell(StopSession("signed_out"))
    await stage.settle()
    assert (stage.loop.state == "exited") is not leaving, "the first stop counts"


async def test_a_front_door_to_which_nothing_was_left_begins_anew(stage: Stage, notes: Notes) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    control = stage.nodes["control"]
    notes.succeeds = True
    notes.bequeath("session", b"\xc1")
    door = SessionActor(f"{control.prefix}{NAME}")
    control.start(door, "session")
    await stage.settle()
    assert door.state == "running"
    assert notes.taken_keys == ["session"]
