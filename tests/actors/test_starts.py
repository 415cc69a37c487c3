"""While a connection's actor is being started, as in a worker that is just being restarted, the event loop goes on:
what it hears meanwhile is true at once, and what the connection should have heard, it hears.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.actors.notes import Notes
from tests.actors.stage import PlayedPeer, Stage, authorize, created, resource
from tests.actors.test_control_succession import succeed
from tests.actors.test_gateway_loop import answered, revoke
from tests.actors.test_take_over import hand_over

from exeunt.actors import connections, event_loop
from exeunt.actors.client_loop import ClientLoop
from exeunt.actors.device.messages import DeviceReady
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.expiries import Expired
from exeunt.actors.gateway_loop import GatewayLoop
from exeunt.actors.messages import (
    ConnectionEnded,
    DescribeSession,
    PingPeer,
    Reset,
    StartAnswered,
    StopSession,
    TakeOverOverdue,
)
from exeunt.actors.peer.messages import AddCandidates, Close, Moved, SetNetworks, SetServers
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import PortalClaim
from exeunt.actors.portal.static import StaticPeer
from exeunt.runtime import Message, Refused
from exeunt.runtime.messages import StartChild

WEB = resource(1, "10.0.0.0/24")
DB = resource(2, "10.0.1.0/24")


@pytest.fixture
async def gateway(stage: Stage) -> GatewayLoop:
    loop: GatewayLoop = stage.start(GatewayLoop)
    await stage.join(WEB, DB)
    return loop


@pytest.fixture
async def client(stage: Stage) -> ClientLoop:
    loop: ClientLoop = stage.start(ClientLoop)
    await stage.join(WEB, DB)
    return loop


def causes(stage: Stage) -> list[tuple[str, Cause]]:
    return [(one.connection, one.cause) for one in stage.endings()]


def heard(peer: PlayedPeer) -> list[Message]:
    """What a connection was told."""
    return [message for who, message in peer.stage.log if who == peer.ref.address.name]


def closes(peer: PlayedPeer) -> list[str]:
    return [one.cause for one in peer.told(Close)]


# --- what else happens ---


@pytest.mark.parametrize("who", ["cl-1", "cl-2"])
async def test_a_death_is_recorded_while_somebody_waits_for_the_worker(
    stage: Stage, gateway: GatewayLoop, who: str
) -> None:
    """A client hears of the death by a last will, and may be back before our own supervisor's word is here."""
    await stage.say(authorize("c-1", WEB))
    stage.peers[0].mute = True  # it is dead, and nobody has said so
    stage.root.slow = True
    await stage.say(authorize("c-2", WEB, client=who))
    await stage.kill_worker("peers-1")
    (ending,) = stage.endings()
    assert (ending.connection, ending.cause, ending.initiated_by) == (
        "c-1",
        Cause.WORKER_CRASHED,
        Initiator.SUPERVISOR,
    )
    assert list(gateway.peers) == ["c-2"]
    assert answered(stage) == ["ask-c-1-r-1"]


async def test_a_worker_that_is_lost_again_meanwhile_ends_what_was_to_start(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    stage.root.refuse = True
    await stage.go_on()
    assert causes(stage) == [("c-1", Cause.NEVER_CONNECTED)]
    assert [one.connection for one in stage.link.said(portal.ConnectionEnded)] == ["c-1"]
    assert (answered(stage), stage.network.firewall, gateway.peers) == ([], set(), {})


async def test_others_come_and_are_described_meanwhile(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    stage.root.slow = False
    await stage.say(authorize("c-2", WEB, client="cl-2", address="100.64.0.3"))
    assert answered(stage) == ["ask-c-2-r-1"]
    described: Any = await gateway.ref.ask(DescribeSession())
    assert [one.connection for one in described.peers] == ["c-2"]
    with pytest.raises(Refused, match="no connection"):
        await gateway.ref.ask(PingPeer("name of cl-1", 1.0))
    assert stage.link.told(PortalClaim)[-1].connections.keys() == {"c-2"}, "who is not there yet is not claimed"
    await stage.go_on()
    assert answered(stage) == ["ask-c-2-r-1", "ask-c-1-r-1"]
    assert stage.link.told(PortalClaim)[-1].connections.keys() == {"c-1", "c-2"}


# --- what concerns it ---


async def test_what_it_is_told_meanwhile_it_hears_in_order(stage: Stage, client: ClientLoop) -> None:
    stage.root.slow = True
    await stage.want("r-1")
    await stage.say(created("c-1", "r-1"))
    await stage.say(portal.IceCandidates(connection="c-1", candidates=("candidate:1",), end=True))
    relay = portal.Relay(id="relay-1", host="192.0.2.1", port=3478, username="u", password="p", expires_at=2**40)
    await stage.say(portal.RelaysChanged(relays=(relay,)))
    await stage.tell(Reset("the network has changed"))
    await stage.say(created("c-1", "r-2"))
    assert stage.peers == []
    await stage.go_on()
    (peer,) = stage.peers
    assert [type(one) for one in heard(peer)] == [AddCandidates, SetServers, Moved, SetNetworks]
    assert peer.told(SetNetworks)[-1].networks == ("10.0.0.0/24", "10.0.1.0/24")
    assert len(stage.root.told(StartChild)) == 1


async def test_who_is_announced_again_is_started_once_and_confirmed_for_all(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB))
    await stage.say(authorize("c-1", WEB))
    assert answered(stage) == []
    await stage.go_on()
    assert answered(stage) == ["ask-c-1-r-1", "ask-c-1-r-2", "ask-c-1-r-1"]
    assert (len(stage.peers), len(stage.root.told(StartChild))) == (1, 1)
    await stage.tell(StartAnswered("c-1"))
    assert len(answered(stage)) == 3, "once"


@pytest.mark.parametrize("expires", [False, True])
async def test_what_is_taken_away_meanwhile_is_not_confirmed(stage: Stage, gateway: GatewayLoop, expires: bool) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB, expires_at=int(time.time()) - 1))
    await stage.tell(Expired("c-1", "r-2"))
    assert stage.network.firewall == {("100.64.0.2", WEB.address)}
    if not expires:
        await stage.say(revoke("c-1", "r-1"))
    await stage.go_on()
    (peer,) = stage.peers
    assert answered(stage) == (["ask-c-1-r-1"] if expires else [])
    assert closes(peer) == ([] if expires else [Cause.ACCESS_REVOKED])
    assert peer.is_over is not expires
    assert (gateway.peers == {}) is not expires
    assert stage.endings() == [], "it wrote its ending itself"


async def test_one_that_is_replaced_meanwhile_closes_as_soon_as_it_is_there(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-2", WEB))
    await stage.say(authorize("c-1", DB))
    await stage.go_on("c-2", "c-1")
    second, first = stage.peers
    assert (closes(first), closes(second)) == ([Cause.REPLACED], [])
    assert answered(stage) == ["ask-c-2-r-1"]
    assert list(gateway.peers) == ["c-2"]
    assert stage.network.firewall == {("100.64.0.2", WEB.address)}


@pytest.mark.parametrize("gateways", [("gw-1", "gw-2"), ("gw-1", "gw-1")])
@pytest.mark.parametrize("order", [("c-1", "c-2"), ("c-2", "c-1")])
async def test_whoever_is_there_first_the_one_that_came_last_stays(
    stage: Stage, client: ClientLoop, order: tuple[str, str], gateways: tuple[str, str]
) -> None:
    stage.root.slow = True
    for connection, its_gateway in zip(("c-1", "c-2"), gateways, strict=True):
        await stage.want("r-1")
        await stage.say(created(connection, "r-1", gateway=its_gateway))
    await stage.go_on(*order)
    assert list(client.peers) == ["c-2"]
    by_id = {peer.config.connection: peer for peer in stage.peers}
    assert (closes(by_id["c-1"]), closes(by_id["c-2"])) == ([Cause.REPLACED], [])


async def test_an_older_one_is_kept_until_the_newer_one_is_there(stage: Stage, client: ClientLoop) -> None:
    await stage.want("r-1")
    await stage.say(created("c-1", "r-1", gateway="gw-1"))
    stage.root.slow = True
    await stage.say(created("c-2", "r-1", gateway="gw-2"))
    assert closes(stage.peers[0]) == []
    stage.root.refuse = True
    await stage.go_on()
    assert list(client.peers) == ["c-1"]
    assert closes(stage.peers[0]) == []


async def test_one_that_ends_before_its_start_was_heard_of_is_forgotten(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.late = True
    await stage.say(authorize("c-1", WEB))
    (peer,) = stage.peers
    peer.connect()
    peer.end(Cause.NEVER_CONNECTED)
    await stage.settle()
    assert (gateway.peers, stage.root.waiting) == ({}, {}), "nobody waits for the answer any more"
    assert (answered(stage), stage.network.firewall) == ([], set())
    assert gateway.state == "running"


# --- leaving ---


async def test_who_leaves_waits_for_what_is_being_started_and_closes_it(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    await stage.tell(StopSession("shutting_down"))
    assert gateway.state == "running"
    await stage.go_on()
    (peer,) = stage.peers
    assert (closes(peer), peer.is_over) == (["shutting_down"], True)
    assert gateway.exit_reason == "normal"
    assert (answered(stage), stage.endings()) == ([], [])
    assert [one.ending.cause for one in stage.stream.events(ConnectionEnded)] == [Cause.SHUTTING_DOWN]


@pytest.mark.parametrize("refuse", [False, True])
async def test_who_leaves_records_once_what_was_never_started(
    stage: Stage, gateway: GatewayLoop, monkeypatch: pytest.MonkeyPatch, refuse: bool
) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    if not refuse:
        monkeypatch.setattr(connections, "PEER_CLOSE_S", 0.0)
    await stage.tell(StopSession("shutting_down"))
    if refuse:
        stage.root.refuse = True
        await stage.go_on()
    assert causes(stage) == [("c-1", Cause.NEVER_CONNECTED)]
    assert gateway.exit_reason == "normal"
    await stage.settle()
    assert (stage.root.waiting, stage.peers) == ({}, []), "the supervisor was told that nobody waits"


async def test_a_supervisor_that_ends_us_is_no_reason_to_forget_it(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    gateway.ref.stop("shutdown")
    await stage.settle()
    await stage.go_on()
    assert closes(stage.peers[0]) == [Cause.SHUTTING_DOWN]
    assert gateway.state == "exited"


async def test_who_crashes_has_nobody_started_any_more(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    await stage.tell(StopSession("no cause of anything"))
    assert gateway.exit_reason == "crashed"
    assert (stage.root.waiting, stage.peers) == ({}, [])


# --- succession ---


async def test_the_control_worker_is_restarted_while_somebody_starts(stage: Stage, gateway: GatewayLoop) -> None:
    notes = stage.nodes["control"].deposits = Notes()
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    gateway.ref.stop("hand_over")
    await stage.settle()
    assert gateway.state == "stopping"
    await stage.go_on()
    assert answered(stage) == ["ask-c-1-r-1"]
    successor = await succeed(stage, notes, GatewayLoop)
    assert (successor.peers["c-1"].state, stage.endings()) == ("connecting", [])
    await stage.kill_worker("peers-1")
    assert causes(stage) == [("c-1", Cause.WORKER_CRASHED)], "it watches"


async def test_the_control_worker_does_not_wait_for_ever(
    stage: Stage, gateway: GatewayLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = stage.nodes["control"].deposits = Notes()
    monkeypatch.setattr(event_loop, "PEER_CLOSE_S", 0.0)
    stage.root.slow = True
    await stage.say(authorize("c-1", WEB))
    successor = await succeed(stage, notes, GatewayLoop)
    assert causes(stage) == [("c-1", Cause.NEVER_CONNECTED)]
    assert (successor.peers, stage.root.waiting, stage.network.firewall) == ({}, {}, set())
    assert successor.was_ended("c-1")


async def test_a_successor_that_starts_slowly_hears_what_was_said_and_is_not_overdue(
    stage: Stage, client: ClientLoop
) -> None:
    await stage.want("r-1")
    await stage.say(created("c-1", "r-1"))
    peer = stage.peers[0]
    await hand_over(stage, peer)
    stage.root.slow = True
    await stage.tell(DeviceReady("peers-1"))
    await stage.tell(DeviceReady("peers-1"))
    await stage.tell(TakeOverOverdue("c-1"))
    assert (len(stage.root.told(StartChild)), stage.endings()) == (2, [])
    assert "c-1" in stage.link.told(PortalClaim)[-1].connections
    await stage.say(portal.AccessRevoked(connection="c-1", resource_id="r-1"))
    await stage.go_on()
    assert [type(one) for one in heard(stage.peers[-1])][-1] is Close
    assert client.peers == {}


# --- static peers ---


async def test_a_static_peer_that_is_not_wanted_any_more_closes_when_it_is_there(stage: Stage) -> None:
    loop: GatewayLoop = stage.start(GatewayLoop, listen_port=51820, listen_key=b"\x22" * 32)
    router = StaticPeer(
        id="client-1",
        name="router",
        public_key=b"\x01" * 32,
        preshared_key=b"p" * 32,
        address_ipv4="100.64.0.11",
        address_ipv6="",
        resource_ids=("r-1",),
    )
    stage.root.slow = True
    await stage.join(WEB, static_peers=(router,))
    await stage.say(portal.StaticPeersChanged(static_peers=(router,)))
    assert len(stage.root.told(StartChild)) == 1, "it is under way"
    await stage.say(portal.StaticPeersChanged(static_peers=()))
    assert stage.network.firewall == set()
    await stage.say(portal.StaticPeersChanged(static_peers=(router,)))
    first, second = stage.root.waiting
    stage.root.waiting[second].set_result(None)
    await stage.settle()
    stage.root.refuse = True
    stage.root.waiting[first].set_result(None)
    await stage.settle()
    assert [record.state for record in loop.peers.values()] == ["connecting"]
    assert (stage.endings(), loop.problems) == ([], {})
    assert stage.network.firewall == {("100.64.0.11", WEB.address)}
