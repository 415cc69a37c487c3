"""A gateway's event loop and its static peers, among fakes: whom it serves, with what, and that no right outlives its
revocation.
"""

# pyright: reportPrivateUsage=false

from typing import Any

import msgspec
import pytest
from tests.actors.stage import PlayedPeer, Stage, authorize, resource

from exeunt.actors import static_peers
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.gateway_loop import GatewayLoop
from exeunt.actors.messages import ConnectionEnded, ConnectionEstablished, DescribeSession, StaticPeersDue
from exeunt.actors.network.messages import AllowAccess, RevokeAccessTo
from exeunt.actors.peer.messages import Close, PeerConnected, SetServers
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import PortalClaim, PortalJoined
from exeunt.actors.portal.static import StaticPeer
from exeunt.runtime import Backoff

WEB = resource(1, "10.0.0.0/24")
DB = resource(2, "10.0.1.0/24")
KEY = b"\x22" * 32


def router(*resources: portal.Resource, number: int = 1, **changes: Any) -> StaticPeer:
    fields: dict[str, Any] = {
        "id": f"client-{number}",
        "name": f"router {number}",
        "public_key": bytes([number]) * 32,
        "preshared_key": b"p" * 32,
        "address_ipv4": f"100.64.0.{number + 10}",
        "address_ipv6": f"fd65:7865:756e::{number}",
        "resource_ids": tuple(one.id for one in resources),
    }
    return StaticPeer(**{**fields, **changes})


@pytest.fixture
async def gateway(stage: Stage) -> GatewayLoop:
    loop: GatewayLoop = stage.start(GatewayLoop, listen_port=51820, listen_key=KEY)
    await stage.join(WEB, DB)
    return loop


async def changed(stage: Stage, *peers: StaticPeer) -> None:
    await stage.say(portal.StaticPeersChanged(static_peers=peers))


def closed(stage: Stage) -> list[Close]:
    return [message for who, message in stage.log if who.startswith("peer-static-") and isinstance(message, Close)]


async def problems(stage: Stage) -> tuple[str, ...]:
    answer = await stage.nodes["control"].local("event-loop").ask(DescribeSession())
    return tuple(answer.problems)


def spec_of(peer: PlayedPeer) -> dict[str, Any]:
    return peer.args


async def test_who_is_listed_at_the_join_is_served(stage: Stage) -> None:
    stage.start(GatewayLoop, listen_port=51820, listen_key=KEY)
    await stage.join(WEB, DB, static_peers=(router(WEB, endpoint="192.0.2.7:9", persistent_keepalive_s=25),))
    (peer,) = stage.peers
    config = spec_of(peer)
    assert stage.network.firewall == {("100.64.0.11", WEB.address)}
    assert (config["private_key"], config["peer_public_key"], config["preshared_key"]) == (
        KEY,
        b"\x01" * 32,
        b"p" * 32,
    )
    assert set(config["networks"]) == {"100.64.0.11/32", "fd65:7865:756e::1/128"}
    assert (config["endpoint"], config["persistent_keepalive_s"]) == ("192.0.2.7:9", 25)
    assert peer.ref.address.worker == "peers-1"
    order = [type(message).__name__ for _, message in stage.log]
    assert order.index("AllowAccess") < order.index("StartChild")


async def test_who_is_removed_has_lost_everything(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB, DB), router(WEB, number=2))
    assert len(stage.peers) == 2
    await changed(stage, router(WEB, number=2))
    assert stage.network.firewall == {("100.64.0.12", WEB.address)}
    (order,) = closed(stage)
    assert (order.cause, order.initiated_by) == (Cause.ACCESS_REVOKED, Initiator.PORTAL)
    assert [one.peer for one in gateway.peers.values()] == ["router 2"]
    assert [one.ending.peer for one in stage.stream.events(ConnectionEnded)] == ["router 1"]


async def test_a_list_that_says_the_same_changes_nothing(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB))
    before = len(stage.log)
    await changed(stage, router(WEB))
    assert [message for _, message in stage.log[before:]] == []


async def test_resources_come_and_go_while_the_connection_stays(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB))
    await changed(stage, router(WEB, DB))
    assert stage.network.firewall == {("100.64.0.11", WEB.address), ("100.64.0.11", DB.address)}
    await changed(stage, router(DB))
    assert stage.network.firewall == {("100.64.0.11", DB.address)}
    assert (len(stage.peers), closed(stage)) == (1, [])
    await stage.say(portal.ResourcesChanged(resources=(WEB,)))
    assert stage.network.firewall == set()
    assert len(closed(stage)) == 1, "who may use nothing is served no more"
    await stage.say(portal.ResourcesChanged(resources=(WEB, DB)))
    assert stage.network.firewall == {("100.64.0.11", DB.address)}
    assert len(stage.peers) == 2


async def test_if_the_firewall_does_not_close_the_connection_does(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB, DB))
    stage.network.refuses = lambda message: isinstance(message, RevokeAccessTo)
    await changed(stage, router(WEB))
    assert len(closed(stage)) == 1


async def test_whom_the_firewall_does_not_let_through_is_not_started_and_tried_again(
    stage: Stage, gateway: GatewayLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_peers, "AGAIN", Backoff(first_s=0.0, eager=False, jitter=0))
    stage.network.refuses = lambda message: isinstance(message, AllowAccess)
    await changed(stage, router(WEB))
    assert stage.peers == []
    assert any("A WireGuard peer is not served" in one for one in await problems(stage))
    stage.network.refuses = lambda _message: False
    await stage.tell(StaticPeersDue())
    assert len(stage.peers) == 1
    assert await problems(stage) == ()


async def test_one_that_cannot_be_started_is_a_problem_and_no_ending(stage: Stage, gateway: GatewayLoop) -> None:
    stage.root.refuse = True
    await changed(stage, router(WEB))
    assert await problems(stage) == ("A WireGuard peer is not served: not today.",)
    assert (stage.network.firewall, stage.endings(), gateway.peers) == (set(), [], {})
    stage.root.refuse = False
    await stage.tell(StaticPeersDue())
    assert stage.peers == [], "not before its time has come"
    await changed(stage)
    assert await problems(stage) == ()


async def test_one_that_has_died_is_started_again(
    stage: Stage, gateway: GatewayLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_peers, "AGAIN", Backoff(first_s=0.0, eager=False, jitter=0))
    await changed(stage, router(WEB))
    (first,) = stage.peers
    first.ref.stop("killed")
    await stage.settle()
    await stage.tell(StaticPeersDue())
    assert len(stage.peers) == 2
    assert [one.cause for one in stage.endings()] == [Cause.WORKER_CRASHED]
    assert stage.network.firewall == {("100.64.0.11", WEB.address)}
    (record,) = gateway.peers.values()
    assert record.connection != stage.endings()[0].connection, "what has ended does not come back to life"


async def test_the_portal_hears_nothing_of_their_connections(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await changed(stage, router(WEB))
    assert stage.link.told(PortalClaim)[-1].connections == {"c-1": ("cl-1", ("r-1",))}
    await changed(stage)
    assert stage.link.said(portal.ConnectionEnded) == []
    await stage.say(portal.RelaysChanged(relays=()))
    assert not [message for _, message in stage.log if isinstance(message, SetServers)]


async def test_a_join_after_the_link_was_lost_is_compared_too(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB), router(WEB, number=2))
    assert gateway.joined is not None
    joined = msgspec.structs.replace(gateway.joined, static_peers=(router(WEB), router(DB, number=3)))
    await stage.tell(PortalJoined(joined, join=1))
    assert sorted(one.peer for one in gateway.peers.values()) == ["router 1", "router 3"]
    assert len(closed(stage)) == 1


async def test_without_a_port_nobody_is_served_and_people_are_told(stage: Stage) -> None:
    stage.start(GatewayLoop)
    await stage.join(WEB, static_peers=(router(WEB), router(WEB, number=2)))
    assert (stage.peers, stage.network.firewall) == ([], set())
    (problem,) = await problems(stage)
    assert problem.startswith("2 WireGuard peers are to be served here")
    assert "exeunt gateway run --listen" in problem
    await changed(stage)
    assert await problems(stage) == ()


async def test_what_makes_no_sense_costs_only_itself(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB, address_ipv4="nonsense"), router(WEB, number=2), router(number=3))
    assert [one.peer for one in gateway.peers.values()] == ["router 2"]


async def test_people_see_it_come(stage: Stage, gateway: GatewayLoop) -> None:
    await changed(stage, router(WEB))
    (record,) = gateway.peers.values()
    await stage.tell(PeerConnected(record.connection, "wireguard", 1.0))
    assert stage.stream.events(ConnectionEstablished) == [
        ConnectionEstablished(record.connection, "router 1", "wireguard")
    ]
