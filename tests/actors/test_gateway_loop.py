"""The gateway's event loop, among fakes: who is let in, to what, for how long, and that no right outlives itself."""

# pyright: reportPrivateUsage=false

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.stage import ICE, Stage, authorize, resource

from exeunt.actors.device.messages import SetOwner
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.expiries import Expired
from exeunt.actors.gateway_loop import CLIENT_NETWORKS, GatewayLoop
from exeunt.actors.messages import ConnectionEnded, DescribeSession, Disconnected, ResourcesUpdated, StopSession
from exeunt.actors.network.messages import AllowAccess, EnableForwarding, OpenDevice, RevokeAccessTo, SetRoutes
from exeunt.actors.peer.messages import AddCandidates, Close, Hint, RestartPath, SetServers, WillHeard
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import PortalClaim, PortalSaid
from exeunt.runtime import Message

WEB = resource(1, "10.0.0.0/24")
DB = resource(2, "10.0.1.0/24")
TWIN = resource(3, WEB.address)
CLIENT = "100.64.0.2"


@pytest.fixture
async def gateway(stage: Stage) -> GatewayLoop:
    loop: GatewayLoop = stage.start(GatewayLoop)
    await stage.join(WEB, DB, TWIN)
    return loop


def answered(stage: Stage) -> list[str]:
    return [one.ref for one in stage.link.said(portal.Authorized)]


def revoke(connection: str, resource_id: str) -> portal.RevokeAccess:
    return portal.RevokeAccess(client_id="cl-1", resource_id=resource_id, connection=connection)


# --- joining ---


async def test_a_join_makes_a_router_that_lets_nobody_through(stage: Stage, gateway: GatewayLoop) -> None:
    assert len(stage.network.told(OpenDevice)) == 1
    (forwarding,) = stage.network.told(EnableForwarding)
    assert (forwarding.sources, forwarding.masquerade) == (CLIENT_NETWORKS, True)
    assert stage.network.told(SetRoutes)[-1].networks == CLIENT_NETWORKS
    assert stage.network.firewall == set()
    assert stage.stream.events(ResourcesUpdated)[-1].resources == (WEB, DB, TWIN)
    assert stage.device.told(SetOwner)[-1] == SetOwner(str(gateway.ref))  # it forwards: any source will do


async def test_a_gateway_that_cannot_route_leaves(stage: Stage) -> None:
    loop = stage.start(GatewayLoop)
    stage.network.refuses = lambda message: isinstance(message, EnableForwarding)
    await stage.join(WEB)
    assert stage.stream.events(Disconnected)
    assert loop.exit_reason == "normal"


# --- letting in ---


async def test_a_client_is_let_in_before_the_portal_is_told(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    assert stage.network.firewall == {(CLIENT, WEB.address)}
    (peer,) = stage.peers
    assert (peer.config.side, peer.config.peer, peer.config.peer_id) == ("gateway", "name of cl-1", "cl-1")
    assert peer.config.networks == ("100.64.0.2/32",)
    assert answered(stage) == ["ask-c-1-r-1"]
    order = [type(message).__name__ for _, message in stage.log]
    assert order.index("AllowAccess") < order.index("StartChild") < len(order) - order[::-1].index("PortalSay") - 1
    assert stage.link.told(PortalClaim)[-1].connections == {"c-1": ("cl-1", ("r-1",))}


async def test_a_second_resource_joins_the_connection(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB))
    assert len(stage.peers) == 1
    assert stage.network.firewall == {(CLIENT, WEB.address), (CLIENT, DB.address)}
    assert answered(stage) == ["ask-c-1-r-1", "ask-c-1-r-2"]


async def test_only_addresses_of_the_resources_ip_version_are_let_through(stage: Stage, gateway: GatewayLoop) -> None:
    message = authorize("c-1", resource(5, "fd00::/64"))
    await stage.say(message)
    assert stage.network.firewall == set()
    assert answered(stage) == ["ask-c-1-r-5"]


async def test_a_firewall_that_refuses_lets_nobody_in(stage: Stage, gateway: GatewayLoop) -> None:
    stage.network.refuses = lambda message: isinstance(message, AllowAccess)
    await stage.say(authorize("c-1", WEB))
    assert stage.peers == []
    assert answered(stage) == []
    description = await stage.nodes["control"].local("event-loop").ask(DescribeSession())
    assert "firewall" in description.problems[0]
    stage.network.refuses = lambda _message: False
    await stage.say(authorize("c-1", WEB))
    assert answered(stage) == ["ask-c-1-r-1"]
    assert gateway.problems == {}


async def test_a_connection_that_cannot_be_started_leaves_no_hole_in_the_firewall(
    stage: Stage, gateway: GatewayLoop
) -> None:
    stage.root.refuse = True
    await stage.say(authorize("c-1", WEB))
    assert stage.network.firewall == set()
    assert answered(stage) == []
    assert [ending.cause for ending in stage.endings()] == [Cause.NEVER_CONNECTED]
    assert [one.connection for one in stage.link.said(portal.ConnectionEnded)] == ["c-1"]


async def test_an_ended_connection_does_not_come_back(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    stage.peers[0].end(Cause.SIGNED_OUT)
    await stage.settle()
    await stage.say(authorize("c-1", WEB))
    assert len(stage.peers) == 1
    assert stage.network.firewall == set()


@pytest.mark.parametrize(
    ("address", "client"), [("nonsense", CLIENT), (WEB.address, "nonsense"), ("10.0.0.1/8", CLIENT)]
)
async def test_a_senseless_authorisation_is_ignored(
    stage: Stage, gateway: GatewayLoop, address: str, client: str
) -> None:
    await stage.say(authorize("c-1", resource(1, address), address=client))
    assert gateway.state == "running"
    assert stage.peers == []
    assert answered(stage) == []


# --- taking away ---


async def test_what_is_revoked_is_closed_and_the_last_ends_the_connection(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB))
    await stage.say(revoke("c-1", "r-1"))
    assert stage.network.firewall == {(CLIENT, DB.address)}
    assert stage.peers[0].told(Close) == []
    await stage.say(revoke("c-1", "r-2"))
    assert stage.network.firewall == set()
    assert [(one.cause, one.initiated_by) for one in stage.peers[0].told(Close)] == [("access_revoked", "portal")]
    assert stage.stream.events(ConnectionEnded)[0].ending.cause == Cause.ACCESS_REVOKED


async def test_what_is_revoked_after_the_resource_was_deleted_is_closed_too(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB))
    await stage.say(portal.ResourcesChanged(resources=(DB,)))
    await stage.say(revoke("c-1", "r-1"))
    assert stage.network.firewall == {(CLIENT, DB.address)}


async def test_two_resources_on_one_network_are_counted(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", TWIN))
    await stage.say(revoke("c-1", "r-1"))
    assert stage.network.firewall == {(CLIENT, WEB.address)}, "the twin is still allowed"
    await stage.say(revoke("c-1", "r-3"))
    assert stage.network.firewall == set()


async def test_a_firewall_that_will_not_close_costs_the_connection(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-1", DB))
    stage.network.refuses = lambda message: isinstance(message, RevokeAccessTo)
    await stage.say(revoke("c-1", "r-1"))
    assert [one.cause for one in stage.peers[0].told(Close)] == ["access_revoked"]


async def test_revoking_what_is_not_there_does_no_harm(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(revoke("c-1", "r-77"))
    await stage.say(revoke("c-77", "r-1"))
    assert stage.network.firewall == {(CLIENT, WEB.address)}
    assert stage.network.told(RevokeAccessTo) == []


async def test_the_firewall_is_closed_behind_a_client_however_it_ends(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-2", WEB, client="cl-2", address="100.64.0.3"))
    stage.peers[0].end(Cause.NETWORK_LOST, Initiator.NETWORK)
    await stage.settle()
    assert stage.network.firewall == {("100.64.0.3", WEB.address)}
    await stage.kill_worker("peers-1")
    assert stage.network.firewall == set()
    assert gateway.peers == {}


async def test_a_clients_new_connection_replaces_its_old_one(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(authorize("c-2", WEB))
    old, new = stage.peers
    assert [(one.cause, one.evidence) for one in old.told(Close)] == [("replaced", {"replaced_by": "c-2"})]
    assert not new.is_over
    assert stage.network.firewall == {(CLIENT, WEB.address)}, "the new one still has the right"
    await stage.say(revoke("c-2", "r-1"))
    assert stage.network.firewall == set()


async def test_what_closes_gains_nothing(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    stage.peers[0].mute = True
    await stage.say(revoke("c-1", "r-1"))
    await stage.say(authorize("c-1", DB))
    assert stage.network.firewall == set()
    assert answered(stage) == ["ask-c-1-r-1"]


# --- expiry ---


async def test_an_authorisation_that_is_over_is_taken_away(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", DB))
    await stage.say(authorize("c-1", WEB, expires_at=int(time.time()) - 1))
    while stage.network.firewall != {(CLIENT, DB.address)}:
        await stage.settle()
    await stage.say(authorize("c-1", DB, expires_at=0))
    while not stage.peers[0].told(Close):
        await stage.settle()
    assert [(one.cause, one.initiated_by) for one in stage.peers[0].told(Close)] == [("access_expired", "portal")]
    assert len(gateway._expiries) == 0


@pytest.mark.parametrize(
    "expires_at",
    [10**400, 2**63, 10**18, int(time.time()) + 10**6],
    ids=["10**400", "2**63", "10**18", "in eleven days"],
)
async def test_an_expiry_far_away_is_looked_at_again(stage: Stage, gateway: GatewayLoop, expires_at: int) -> None:
    # A number that large does not cross a worker; the portal link, however, lives in this one.
    await stage.say(authorize("c-1", WEB, expires_at=expires_at))
    assert answered(stage) == ["ask-c-1-r-1"]
    await stage.tell(Expired("c-1", "r-1"))  # as after a day
    assert stage.network.firewall == {(CLIENT, WEB.address)}
    (timer,) = gateway._expiries.timers()
    assert not timer.cancelled()


@pytest.mark.parametrize("later", [None, 10**12])
async def test_a_prolonged_authorisation_does_not_end_at_the_old_time(
    stage: Stage, gateway: GatewayLoop, later: int | None
) -> None:
    await stage.say(authorize("c-1", WEB, expires_at=int(time.time()) + 1000))
    (old,) = gateway._expiries.timers()
    await stage.say(authorize("c-1", WEB, expires_at=later))
    assert old.cancelled()
    await stage.tell(Expired("c-1", "r-1"))  # was in the mailbox already
    assert stage.network.firewall == {(CLIENT, WEB.address)}


async def test_no_timer_outlives_its_connection_or_the_loop(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB, expires_at=10**12))
    await stage.say(authorize("c-2", WEB, client="cl-2", address="100.64.0.3", expires_at=10**12))
    first, second = gateway._expiries.timers()
    stage.peers[0].end(Cause.SIGNED_OUT)
    await stage.settle()
    assert first.cancelled()
    assert not second.cancelled()
    await stage.tell(StopSession("shutting_down"))
    assert second.cancelled()


# --- what the portal says of peers and paths ---


async def test_what_the_portal_says_of_a_client_that_is_gone_reaches_its_connection(
    stage: Stage, gateway: GatewayLoop
) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(portal.PeerGone(connection="c-1", reason="its link broke", kind="reset"))
    await stage.say(portal.PeerGone(connection="c-1", reason="it left", kind="left", cause="signed_out"))
    await stage.say(portal.PeerGone(connection="c-2", reason="it left", kind="left"))
    assert stage.peers[0].told(Hint) == [Hint("its link broke", "reset"), Hint("it left", "left", "signed_out")]
    assert gateway.peers.keys() == {"c-1"}


async def test_what_a_client_finds_of_its_paths_reaches_the_connection_with_its_generation(
    stage: Stage, gateway: GatewayLoop
) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.say(portal.IceRestarted(connection="c-1", generation=2, local_ice=ICE, remote_ice=ICE))
    await stage.say(portal.IceCandidates(connection="c-1", candidates=("a",), end=True, generation=2, withdrawn=("b",)))
    (restart,) = stage.peers[0].told(RestartPath)
    assert (restart.generation, restart.local_username, restart.remote_password) == (2, ICE.username, ICE.password)
    assert stage.peers[0].told(AddCandidates) == [AddCandidates(("a",), True, 2, ("b",))]
    await stage.say(portal.LastWill(connection="c-1", datagram=bytes(64)))
    await stage.say(portal.LastWill(connection="c-unknown", datagram=bytes(64)))
    assert stage.peers[0].told(WillHeard) == [WillHeard(bytes(64))]


async def test_relays_that_change_reach_those_who_live(stage: Stage, gateway: GatewayLoop) -> None:
    relay = portal.Relay(id="relay-1", host="192.0.2.5", port=3478, username="u", password="p", expires_at=10**10)
    await stage.say(authorize("c-1", WEB))
    await stage.say(portal.RelaysChanged(relays=(relay,)))
    await stage.say(portal.RelaysChanged(relays=(relay,)))
    await stage.join(WEB, relays=(relay,))
    (told,) = stage.peers[0].told(SetServers)
    assert [server.host for server in told.servers] == ["192.0.2.5"]
    await stage.join(WEB, relays=())
    assert stage.peers[0].told(SetServers)[-1].servers == ()


async def test_an_upgrade_is_told_in_words(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.tell(StopSession("shutting_down", text="upgrade"))
    (closed,) = stage.peers[0].told(Close)
    assert (closed.cause, closed.text) == ("shutting_down", "upgrade")


# --- the portal goes and comes; leaving ---


async def test_a_lost_link_costs_no_connection(stage: Stage, gateway: GatewayLoop) -> None:
    await stage.say(authorize("c-1", WEB))
    await stage.lose_link()
    await stage.join(WEB, DB)
    assert stage.peers[0].told(Close) == []
    assert stage.network.firewall == {(CLIENT, WEB.address)}
    assert len(stage.network.told(EnableForwarding)) == 1


async def test_a_gateway_that_leaves_tells_its_clients_and_lets_nobody_else_in(
    stage: Stage, gateway: GatewayLoop
) -> None:
    await stage.say(authorize("c-1", WEB))
    control = stage.nodes["control"].local("event-loop")
    control.tell(StopSession("shutting_down"))
    control.tell(PortalSaid(authorize("c-2", WEB, client="cl-2")))
    await stage.settle()
    assert [one.cause for one in stage.peers[0].told(Close)] == ["shutting_down"]
    assert len(stage.peers) == 1
    assert stage.network.told(RevokeAccessTo) == [], "the firewall goes as a whole"
    assert gateway.exit_reason == "normal"


# --- whatever the portal says ---

CONNECTIONS = st.sampled_from(["c-1", "c-2", "c-3"])
CLIENTS = st.sampled_from([("cl-1", "100.64.0.2"), ("cl-2", "100.64.0.3"), ("cl-3", "")])
RESOURCES = st.sampled_from(
    [WEB, DB, TWIN, resource(4, "nonsense"), resource(5, "fd00::/64"), resource(6, "0.0.0.0/0")]
)
EXPIRIES = st.sampled_from([None, 0, 2**63 - 1])


def authorize_any(
    connection: str, client: tuple[str, str], to: portal.Resource, expires_at: int | None
) -> portal.Authorize:
    return authorize(connection, to, client=client[0], address=client[1], expires_at=expires_at)


def refuse_to_allow(message: Message) -> bool:
    return isinstance(message, AllowAccess)


def refuse_nothing(_message: Message) -> bool:
    return False


SCRIPT = st.lists(
    st.one_of(
        st.builds(authorize_any, CONNECTIONS, CLIENTS, RESOURCES, EXPIRIES),
        st.builds(revoke, CONNECTIONS, st.sampled_from(["r-1", "r-2", "r-3", "r-9"])),
        st.builds(Expired, CONNECTIONS, st.sampled_from(["r-1", "r-2"])),
        st.sampled_from(["end", "refuse", "agree", "slow", "fast", "go on", "fail"]),
    ),
    min_size=5,
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(SCRIPT)
async def test_the_firewall_is_open_for_the_living_and_nobody_else(
    tmp_path_factory: pytest.TempPathFactory, script: list[Any]
) -> None:
    stage = Stage(tmp_path_factory.getbasetemp())
    loop: GatewayLoop = stage.start(GatewayLoop)
    await stage.join(WEB, DB, TWIN)
    for line in script:
        if line == "end" and stage.peers:
            stage.peers[-1].end(Cause.SIGNED_OUT)
        elif line in {"slow", "fast"}:
            stage.root.slow = line == "slow"
        elif line in {"go on", "fail"}:
            stage.root.refuse = line == "fail"
            await stage.go_on(*[one.removeprefix("peer-") for one in stage.root.waiting][-1:])
            stage.root.refuse = False
        elif isinstance(line, str):
            stage.network.refuses = refuse_to_allow if line == "refuse" else refuse_nothing
        else:
            await stage.tell(line if isinstance(line, Expired) else PortalSaid(line))
    await stage.settle()
    assert loop.state == "running"
    by_id = {one.id: one.address for one in (WEB, DB, TWIN, resource(6, "0.0.0.0/0"))}
    owed = {
        (network.split("/")[0], by_id[resource_id])
        for record in loop.peers.values()
        for resource_id in record.resource_ids & by_id.keys()
        for network in record.networks
    }
    assert stage.network.firewall == owed
    assert len({record.peer_id for record in loop.living()}) == len(loop.living())
    await stage.close()
