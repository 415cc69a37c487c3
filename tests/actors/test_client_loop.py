"""The client's event loop, among fakes: from a packet to a connection, and every way back."""

# pyright: reportPrivateUsage=false

import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.actors.stage import PlayedPeer, Stage, created, resource

from exeunt.actors import client_loop, connections, event_loop
from exeunt.actors.client_loop import ClientLoop
from exeunt.actors.device.messages import DeviceReady, Intent, SetOwner, SetResources
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.expiries import Expired
from exeunt.actors.messages import (
    AllGatewaysOffline,
    ConnectionEnded,
    ConnectionEstablished,
    DescribeSession,
    Disconnected,
    GatewayVersionMismatch,
    IgnoreAddresses,
    KnownRelay,
    PingPeer,
    Reset,
    ResourcesUpdated,
    SessionDescription,
    SetDns,
    SetInternetResource,
    StopSession,
    TunInterfaceUpdated,
)
from exeunt.actors.network.messages import OpenDevice, SetRoutes
from exeunt.actors.peer.messages import (
    AddCandidates,
    Close,
    Hint,
    Moved,
    Pong,
    PortalDoubted,
    SetNetworks,
)
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import (
    PortalClaim,
    PortalLeave,
    PortalLinkStarted,
    PortalReset,
    PortalSaid,
    PortalSay,
)
from exeunt.actors.timing import (
    AUTHORIZE_S,
    EXCLUDE_GATEWAY_S,
    EXPIRY_PATIENCE_S,
    PORTAL_DOUBT_SPACING_S,
    RESTART_ANSWER_S,
)
from exeunt.runtime import Refused

WEB = resource(1, "10.0.0.0/24")
DB = resource(2, "10.0.1.0/24")
INTERNET = resource(9, "0.0.0.0/0")


class Clock:
    """Plays the time module for the loop."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(client_loop, "time", clock)
    monkeypatch.setattr(event_loop, "time", clock)
    return clock


async def connected(stage: Stage, *resources: portal.Resource, connection: str = "c-1") -> PlayedPeer:
    """A client with a connection that carries the first resource."""
    stage.start(ClientLoop)
    await stage.join(*resources)
    await stage.want(resources[0].id)
    await stage.say(created(connection, resources[0].id))
    stage.peers[-1].connect()
    await stage.settle()
    return stage.peers[-1]


def requests(stage: Stage) -> list[tuple[str, tuple[str, ...]]]:
    said = stage.link.said(portal.RequestAuthorization)
    return [(one.resource_id, one.excluded_gateway_ids) for one in said]


async def describe(stage: Stage) -> SessionDescription:
    answer: SessionDescription = await stage.nodes["control"].local("event-loop").ask(DescribeSession())
    return answer


# --- joining ---


async def test_a_join_sets_up_the_host_and_tells_the_user(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB, DB, resource(3, "example.org", "dns"))
    (opened,) = stage.network.told(OpenDevice)
    assert opened.addresses == ("100.64.0.1/32", "fd65:7865:756e::1/128")
    assert stage.network.told(SetRoutes)[-1].networks == ("10.0.0.0/24", "10.0.1.0/24")
    assert stage.device.told(SetResources)[-1].resources == {"10.0.0.0/24": "r-1", "10.0.1.0/24": "r-2"}
    assert stage.stream.events(ResourcesUpdated)[-1].resources == (WEB, DB), "the unknown type is skipped"
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.routes == ("10.0.0.0/24", "10.0.1.0/24")
    assert (await describe(stage)).session == "connected"


async def test_the_relays_are_told_without_their_credentials(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    relay = portal.Relay(
        id="l-1", transport="udp", host="192.0.2.1", port=3478, username="u", password="secret", expires_at=2**31
    )
    await stage.say(portal.RelaysChanged(relays=(relay,)))
    assert (await describe(stage)).relays == (KnownRelay("192.0.2.1", 3478, "udp"),)


async def test_a_host_that_cannot_be_set_up_ends_the_session(stage: Stage) -> None:
    loop = stage.start(ClientLoop)
    stage.network.refuses = lambda message: isinstance(message, OpenDevice)
    await stage.join(WEB)
    assert "could not be set up" in stage.stream.events(Disconnected)[0].reason
    assert loop.state == "exited"
    assert loop.exit_reason == "normal"


async def test_an_embedded_client_opens_no_device(stage: Stage) -> None:
    stage.start(ClientLoop, manages_device=False)
    await stage.join(WEB)
    assert stage.network.told(OpenDevice) == []
    assert stage.network.told(SetRoutes) == []
    assert stage.stream.events(TunInterfaceUpdated)


async def test_refused_routes_are_a_problem_not_an_end(stage: Stage) -> None:
    stage.start(ClientLoop)
    stage.network.refused_routes = {"10.0.0.0/24": "exists"}
    await stage.join(WEB)
    assert "10.0.0.0/24: exists" in (await describe(stage)).problems[0]


async def test_what_the_portal_gets_wrong_costs_that_resource_only(stage: Stage) -> None:
    loop = stage.start(ClientLoop)
    bad = [resource(number, text) for number, text in enumerate(["", "10.0.0.1/8", "x", "1.2.3.4/99", "::/129"], 20)]
    await stage.join(*bad, WEB)
    assert loop.state == "running"
    assert stage.stream.events(ResourcesUpdated)[-1].resources == (WEB,)
    await stage.say(portal.ResourcesChanged(resources=(*bad, WEB, DB)))
    assert stage.network.told(SetRoutes)[-1].networks == ("10.0.0.0/24", "10.0.1.0/24")


async def test_networks_are_canonical(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(resource(1, "FD00:0:0::/64"), resource(2, "fd00::/64"))
    assert stage.network.told(SetRoutes)[-1].networks == ("fd00::/64",)


# --- from a packet to a connection ---


async def test_a_packet_asks_once(stage: Stage, clock: Clock) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    for _ in range(5):
        await stage.want("r-1")
    assert requests(stage) == [("r-1", ())]
    clock.now += AUTHORIZE_S
    await stage.want("r-1")
    assert len(requests(stage)) == 2, "nobody answered"


async def test_packets_for_nothing_we_know_ask_for_nothing(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    await stage.want("r-77")
    assert requests(stage) == []


async def test_an_authorization_starts_a_connection(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    config = peer.config
    assert (config.connection, config.peer, config.peer_id, config.side) == ("c-1", "name of gw-1", "gw-1", "client")
    assert config.networks == ("10.0.0.0/24",)
    assert config.private_key == b"\x11" * 32
    assert config.excluded_hosts == ("100.64.0.1", "fd65:7865:756e::1")
    assert stage.stream.events(ConnectionEstablished)[0].connection == "c-1"
    assert (await describe(stage)).resource_states == {"r-1": "connected", "r-2": "idle"}
    assert stage.link.told(PortalClaim)[-1].connections == {"c-1": ("gw-1", ("r-1",))}
    await stage.want("r-1")
    assert len(requests(stage)) == 1


async def test_a_second_resource_of_the_same_gateway_shares_the_connection(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    await stage.want("r-2")
    await stage.say(created("c-1", "r-2"))
    assert stage.peers == [peer]
    assert peer.told(SetNetworks)[-1].networks == ("10.0.0.0/24", "10.0.1.0/24")
    assert (await describe(stage)).resource_states == {"r-1": "connected", "r-2": "connected"}


async def test_candidates_reach_their_connection(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.say(portal.IceCandidates(connection="c-1", candidates=("candidate:1",), end=True))
    await stage.say(portal.IceCandidates(connection="c-unknown", candidates=("candidate:2",)))
    assert peer.told(AddCandidates) == [AddCandidates(("candidate:1",), True)]


async def test_a_connection_that_cannot_be_started_is_recorded_and_forgotten_by_the_portal(stage: Stage) -> None:
    loop = stage.start(ClientLoop)
    await stage.join(WEB)
    stage.root.refuse = True
    await stage.want("r-1")
    await stage.say(created("c-1", "r-1"))
    (ending,) = stage.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.NEVER_CONNECTED, Initiator.US)
    assert "not today" in ending.evidence["not_started"]
    assert [one.connection for one in stage.link.said(portal.ConnectionEnded)] == ["c-1"]
    assert loop.peers == {}
    stage.root.refuse = False
    await stage.want("r-1")
    assert requests(stage)[-1] == ("r-1", ()), "it was not the gateway's fault"


async def test_a_connection_that_has_ended_does_not_come_back_to_life(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.end(Cause.IDLE)
    await stage.settle()
    await stage.want("r-1")
    await stage.say(created("c-1", "r-1"))
    assert stage.peers == [peer]
    assert stage.link.said(portal.ConnectionEnded)[-1] == portal.ConnectionEnded(connection="c-1", cause="replaced")
    assert len(requests(stage)) == 3, "asked for anew"


async def test_an_answer_that_nobody_waits_for_any_more_starts_nothing(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB, DB)
    await stage.want("r-1")
    await stage.say(portal.ResourcesChanged(resources=(DB,)))
    await stage.say(created("c-1", "r-1"))
    assert stage.peers == []
    assert [one.connection for one in stage.link.said(portal.ConnectionEnded)] == ["c-1"]


async def test_a_connection_that_started_after_all_is_closed(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    loop: Any = stage.nodes["control"].actors["event-loop"]
    loop.peers.clear()  # as if its start had been given up on
    peer.connect()
    await stage.settle()
    assert peer.is_over


# --- refusals ---


@pytest.mark.parametrize(
    ("reason", "event"), [("offline", AllGatewaysOffline("r-1")), ("version_mismatch", GatewayVersionMismatch("r-1"))]
)
async def test_a_refusal_is_an_event_and_a_problem(stage: Stage, reason: portal.FailureReason, event: Any) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    await stage.want("r-1")
    await stage.say(portal.AuthorizationFailed(resource_id="r-1", reason=reason))
    assert event in stage.stream.all
    description = await describe(stage)
    assert "resource 1" in description.problems[0]
    assert description.resource_states["r-1"] == ("offline" if reason == "offline" else "idle")
    await stage.want("r-1")
    assert len(requests(stage)) == 2
    await stage.say(created("c-1", "r-1"))
    assert (await describe(stage)).problems == ()


@pytest.mark.parametrize("reason", ["not_found", "forbidden", "offline"])
async def test_a_refusal_of_an_unknown_resource_does_no_harm(stage: Stage, reason: portal.FailureReason) -> None:
    loop = stage.start(ClientLoop)
    await stage.join(WEB)
    await stage.say(portal.AuthorizationFailed(resource_id="r-77", reason=reason))
    assert loop.state == "running"


async def test_complaints_about_a_resource_go_with_it(stage: Stage) -> None:
    loop = stage.start(ClientLoop)
    await stage.join(WEB, DB)
    await stage.want("r-1")
    await stage.say(portal.AuthorizationFailed(resource_id="r-1", reason="offline"))
    await stage.say(portal.ResourcesChanged(resources=(DB,)))
    assert loop.problems == {}
    await stage.say(portal.ResourcesChanged(resources=(WEB, DB)))
    assert (await describe(stage)).resource_states["r-1"] == "idle"


# --- connections end ---


async def test_a_gateway_that_shuts_down_is_left_out_and_another_one_asked_for_at_once(
    stage: Stage, clock: Clock
) -> None:
    peer = await connected(stage, WEB)
    peer.end(Cause.SHUTTING_DOWN)
    await stage.settle()
    assert requests(stage)[1:] == [("r-1", ("gw-1",))]
    assert stage.stream.events(ConnectionEnded)[0].ending.cause == Cause.SHUTTING_DOWN
    assert stage.link.told(PortalClaim)[-1].connections == {}
    await stage.say(created("c-2", "r-1", "gw-2"))
    stage.peers[-1].end(Cause.IDLE)
    clock.now += EXCLUDE_GATEWAY_S
    await stage.settle()
    await stage.want("r-1")
    assert requests(stage)[-1] == ("r-1", ()), "that is over after a while"


async def test_gateways_are_excluded_as_many_as_the_portal_takes(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    await stage.want("r-1")
    for number in range(80):
        await stage.say(created(f"c-{number}", "r-1", f"gw-{number}"))
        stage.peers[-1].end(Cause.SHUTTING_DOWN)
        await stage.settle()
    excluded = requests(stage)[-1][1]
    assert len(excluded) == 64
    assert excluded[-1] == "gw-79"
    msgspec.convert(msgspec.to_builtins(stage.link.said(portal.RequestAuthorization)[-1]), portal.RequestAuthorization)


async def test_the_only_gateway_is_forgiven(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.end(Cause.NETWORK_LOST, Initiator.NETWORK)
    await stage.settle()
    assert len(requests(stage)) == 1, "a lost network is not asked through at once"
    await stage.want("r-1")
    assert requests(stage)[-1] == ("r-1", ("gw-1",))
    await stage.say(portal.AuthorizationFailed(resource_id="r-1", reason="offline"))
    assert requests(stage)[-1] == ("r-1", ())
    assert stage.stream.events(AllGatewaysOffline) == []
    await stage.say(portal.AuthorizationFailed(resource_id="r-1", reason="offline"))
    assert len(requests(stage)) == 3
    assert stage.stream.events(AllGatewaysOffline) == [AllGatewaysOffline("r-1")]


async def test_a_peers_actor_that_crashes_is_recorded_once(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.ref.tell(PortalReset())  # what makes this fake raise
    await stage.settle()
    (ending,) = stage.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert ending.evidence == {"actor": "crashed", "error": "RuntimeError: on purpose"}
    assert [event.ending for event in stage.stream.events(ConnectionEnded)] == [ending]
    assert requests(stage)[-1] == ("r-1", ("gw-1",))


async def test_a_worker_that_dies_ends_each_of_its_connections_once(stage: Stage) -> None:
    await connected(stage, WEB, DB)
    await stage.want("r-2")
    await stage.say(created("c-2", "r-2", "gw-2"))
    await stage.kill_worker("peers-1")
    assert sorted(ending.connection for ending in stage.endings()) == ["c-1", "c-2"]
    assert {ending.cause for ending in stage.endings()} == {Cause.WORKER_CRASHED}
    assert len(stage.stream.events(ConnectionEnded)) == 2


async def test_a_hint_of_the_portal_only_probes(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.say(portal.PeerGone(connection="c-1", reason="timeout"))
    await stage.say(portal.PeerGone(connection="c-77", reason="timeout"))
    assert len(peer.told(Hint)) == 1
    assert not peer.is_over


async def test_a_connection_that_the_portal_does_not_know_is_probed(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.say(portal.Error(code="unknown_connection", message="c-1"))
    await stage.say(portal.Error(code="malformed", message="c-1"))
    assert [(one.kind, one.cause) for one in peer.told(Hint)] == [("ended", "network_lost")]
    assert not peer.is_over


# --- rights change ---


async def test_a_revoked_resource_narrows_the_connection_and_the_last_one_ends_it(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    await stage.say(created("c-1", "r-2"))
    await stage.say(portal.AccessRevoked(resource_id="r-1", connection="c-1"))
    assert peer.told(SetNetworks)[-1].networks == ("10.0.1.0/24",)
    assert peer.told(Close) == []
    await stage.say(portal.AccessRevoked(resource_id="r-2", connection="c-1"))
    assert [(one.cause, one.initiated_by) for one in peer.told(Close)] == [("access_revoked", "portal")]
    assert stage.stream.events(ConnectionEnded)[0].ending.cause == Cause.ACCESS_REVOKED
    assert (await describe(stage)).resource_states == {"r-1": "idle", "r-2": "idle"}


async def test_revocations_of_what_we_do_not_have_do_no_harm(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.say(portal.AccessRevoked(resource_id="r-77", connection="c-1"))
    await stage.say(portal.AccessRevoked(resource_id="r-1", connection="c-77"))
    assert peer.told(Close) == []


async def test_a_peer_that_does_not_hear_its_goodbye_holds_nobody_up(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    peer.mute = True
    await stage.say(portal.AccessRevoked(resource_id="r-1", connection="c-1"))
    await stage.want("r-2")
    assert requests(stage)[-1] == ("r-2", ())
    await stage.say(created("c-1", "r-2"))
    assert stage.link.said(portal.ConnectionEnded)[-1].connection == "c-1", "what is closing gains nothing"


async def test_a_new_resource_list_routes_and_narrows(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    await stage.say(created("c-1", "r-2"))
    moved = resource(2, "10.9.0.0/24")
    await stage.say(portal.ResourcesChanged(resources=(moved,)))
    assert peer.told(SetNetworks)[-1].networks == ("10.9.0.0/24",)
    assert stage.network.told(SetRoutes)[-1].networks == ("10.9.0.0/24",)
    assert stage.stream.events(ResourcesUpdated)[-1].resources == (moved,)
    await stage.say(portal.ResourcesChanged(resources=()))
    assert [(one.cause, one.initiated_by) for one in peer.told(Close)] == [("access_revoked", "portal")]


async def test_the_newest_connection_to_a_gateway_replaces_the_older(stage: Stage) -> None:
    old = await connected(stage, WEB, DB)
    await stage.say(created("c-1", "r-2"))
    await stage.say(created("c-2", "r-1"))
    assert [(one.cause, one.evidence) for one in old.told(Close)] == [("replaced", {"replaced_by": "c-2"})]
    assert requests(stage)[-1] == ("r-2", ()), "what only the older one carried is wanted still"
    new = stage.peers[-1]
    assert new.told(SetNetworks)[-1].networks == ("10.0.0.0/24",), "said again, after the older one let go of it"


async def test_one_network_that_two_resources_share_survives_the_end_of_one(stage: Stage) -> None:
    twin = resource(2, WEB.address)
    old = await connected(stage, WEB, twin)
    await stage.want("r-2")
    await stage.say(created("c-2", "r-2", "gw-2"))
    new = stage.peers[-1]
    new.end(Cause.IDLE)
    await stage.settle()
    assert old.told(SetNetworks)[-1].networks == (WEB.address,)


# --- commands ---


async def test_the_internet_resource_is_used_when_told(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB, INTERNET)
    assert stage.network.told(SetRoutes)[-1].networks == ("10.0.0.0/24",)
    await stage.want("r-9")
    assert requests(stage) == []
    await stage.tell(SetInternetResource(True))
    # Our own datagrams must not be led into the tunnel: here only the app's system could keep them out.
    assert stage.network.told(SetRoutes)[-1].networks == ("10.0.0.0/24",)
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.routes == ("0.0.0.0/0", "10.0.0.0/24")
    await stage.want("r-9")
    await stage.say(created("c-1", "r-9"))
    await stage.tell(SetInternetResource(False))
    assert stage.network.told(SetRoutes)[-1].networks == ("10.0.0.0/24",)
    assert [(one.cause, one.initiated_by) for one in stage.peers[0].told(Close)] == [("idle", "us")]
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.routes == ("10.0.0.0/24",)
    before = len(stage.network.told(SetRoutes))
    await stage.tell(SetInternetResource(False))
    assert len(stage.network.told(SetRoutes)) == before


async def test_dns_servers_are_part_of_the_interface(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.tell(SetDns(("9.9.9.9",)))
    assert stage.stream.events(TunInterfaceUpdated) == []
    await stage.join(WEB)
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.dns == ("9.9.9.9",)


async def test_a_reset_checks_every_path_and_the_portal(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.tell(Reset("wifi"))
    assert len(stage.link.told(PortalReset)) == 1
    assert peer.told(Moved) == [Moved("wifi")]


async def test_a_host_in_another_network_has_paths_found_anew(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    stage.watcher.notice("addresses changed: 1 came, 1 went")
    await stage.settle()
    assert len(stage.link.told(PortalReset)) == 1
    assert peer.told(Moved) == [Moved("addresses changed: 1 came, 1 went")]
    stage.link.answers = False
    await stage.tell(StopSession("signed_out"))
    assert len(peer.told(Moved)) == 1


async def test_a_portal_that_answers_no_connection_is_connected_to_anew(stage: Stage, clock: Clock) -> None:
    peer = await connected(stage, WEB)
    peer.tell_owner(PortalDoubted("c-1"))
    await stage.settle()
    assert stage.link.told(PortalReset) == [], "what is not answered yet was asked of the link before this one"
    clock.now += RESTART_ANSWER_S
    for _ in range(3):
        peer.tell_owner(PortalDoubted("c-1"))
        await stage.settle()
    assert len(stage.link.told(PortalReset)) == 1, "it has its chance"
    clock.now += PORTAL_DOUBT_SPACING_S
    peer.tell_owner(PortalDoubted("c-1"))
    await stage.settle()
    assert len(stage.link.told(PortalReset)) == 2
    clock.now += PORTAL_DOUBT_SPACING_S
    await stage.lose_link()
    peer.tell_owner(PortalDoubted("c-1"))
    await stage.settle()
    assert len(stage.link.told(PortalReset)) == 2, "it is being tried already"


async def test_the_watcher_knows_which_addresses_are_the_tunnels_own(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB)
    assert stage.watcher.told(IgnoreAddresses) == [IgnoreAddresses(("100.64.0.1", "fd65:7865:756e::1"))]


async def test_an_ending_is_reported_to_the_portal_in_full(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.end(Cause.SHUTTING_DOWN)
    await stage.settle()
    (said,) = stage.link.said(portal.ConnectionEnded)
    assert said.report is not None
    assert (said.cause, said.report.cause, said.report.initiated_by) == ("shutting_down", "shutting_down", "peer")


async def test_access_that_expires_is_ended_here_too_if_the_gateway_says_nothing(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    loop: ClientLoop = stage.loop
    message = created("c-1", "r-1")
    await stage.say(msgspec.structs.replace(message, expires_at=int(time.time()) + 1000))
    (timer,) = loop._expiries.timers()
    assert timer.when() - stage.nodes["control"].loop.time() == pytest.approx(1000 + EXPIRY_PATIENCE_S, abs=2)
    await stage.tell(Expired("c-1", "r-1"))
    assert peer.told(Close) == [], "it was prolonged, or the clock was set"
    await stage.say(msgspec.structs.replace(message, expires_at=int(time.time() - EXPIRY_PATIENCE_S) - 1))
    while not peer.told(Close):
        await stage.settle()
    assert [(one.cause, one.initiated_by) for one in peer.told(Close)] == [("access_expired", "portal")]
    assert loop._expiries.timers() == []


async def test_a_ping_names_a_peer_in_three_ways(stage: Stage) -> None:
    await connected(stage, WEB)
    loop = stage.nodes["control"].local("event-loop")
    for name in ("name of gw-1", "gw-1", "c-1"):
        assert await loop.ask(PingPeer(name)) == Pong(12.5, "direct")
    with pytest.raises(Refused, match="no connection"):
        await loop.ask(PingPeer("gw-77"))


# --- the portal goes and comes ---


async def test_a_lost_link_costs_no_connection(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await stage.lose_link()
    description = await describe(stage)
    assert "portal" in description.problems[0]
    assert description.session == "connected"
    await stage.join(WEB)
    assert (await describe(stage)).problems == ()
    assert not peer.is_over
    assert peer.told(Close) == []
    assert len(stage.network.told(OpenDevice)) == 1


async def test_what_was_asked_before_the_link_was_lost_is_asked_again(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.join(WEB, DB)
    await stage.want("r-1")
    await stage.lose_link()
    await stage.join(WEB, DB)
    assert requests(stage) == [("r-1", ()), ("r-1", ())]
    joins = [one.join for one in stage.link.told(PortalSay) if isinstance(one.message, portal.RequestAuthorization)]
    assert joins == [1, 2], "the link drops what was made before the latest join was known of"


async def test_rights_lost_while_the_link_was_down_are_lost_at_the_join(stage: Stage) -> None:
    peer = await connected(stage, WEB, DB)
    await stage.lose_link()
    await stage.join(DB)
    assert [one.cause for one in peer.told(Close)] == ["access_revoked"]


@pytest.mark.parametrize(("requires_sign_in", "cause"), [(True, "access_revoked"), (False, "portal_denied")])
async def test_a_portal_that_will_not_have_us_ends_it(stage: Stage, requires_sign_in: bool, cause: str) -> None:
    peer = await connected(stage, WEB)
    await stage.deny(requires_sign_in=requires_sign_in)
    assert stage.stream.events(Disconnected) == [Disconnected("your token has expired", requires_sign_in)]
    assert [(one.cause, one.initiated_by) for one in peer.told(Close)] == [(cause, "portal")]
    assert "event-loop" not in stage.nodes["control"].actors


async def test_a_portal_that_will_not_have_us_from_the_start(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.deny(requires_sign_in=True)
    assert stage.stream.events(Disconnected)[0].requires_sign_in
    assert stage.link.told(PortalLeave)[0].reason == "portal_denied"
    assert "event-loop" not in stage.nodes["control"].actors


# --- leaving ---


async def test_leaving_tells_the_portal_first_then_every_peer(stage: Stage) -> None:
    await connected(stage, WEB, DB)
    await stage.want("r-2")
    await stage.say(created("c-2", "r-2", "gw-2"))
    loop = stage.nodes["control"].actors["event-loop"]
    stage.log.clear()
    await stage.tell(StopSession("signed_out"))
    order = [type(message).__name__ for _, message in stage.log if isinstance(message, (PortalLeave, Close))]
    assert order == ["PortalLeave", "Close", "Close"]
    assert stage.link.told(PortalLeave)[0].reason == "signed_out"
    assert {event.ending.cause for event in stage.stream.events(ConnectionEnded)} == {Cause.SIGNED_OUT}
    assert (loop.state, loop.exit_reason) == ("exited", "normal")
    assert requests(stage) == [], "nobody is asked for in a leave"


async def test_a_portal_that_is_down_does_not_hold_a_leave_up(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    stage.link.answers = False
    await stage.tell(StopSession("shutting_down"))
    assert peer.is_over
    assert "event-loop" not in stage.nodes["control"].actors


async def test_the_first_cause_of_a_leave_stands(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    control = stage.nodes["control"].local("event-loop")
    control.tell(StopSession("signed_out"))
    control.tell(StopSession("shutting_down"))
    await stage.settle()
    assert [one.cause for one in peer.told(Close)] == ["signed_out"]


async def test_what_the_portal_says_during_a_leave_starts_nothing(stage: Stage) -> None:
    await connected(stage, WEB, DB)
    control = stage.nodes["control"].local("event-loop")
    control.tell(StopSession("signed_out"))
    await stage.say(created("c-2", "r-2", "gw-2"))
    assert len(stage.peers) == 1


async def test_a_supervisors_stop_takes_the_same_road(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    stage.nodes["control"].stop_actor("demo/control/event-loop", "supervisor_died")
    await stage.settle()
    assert [(one.cause, one.initiated_by) for one in peer.told(Close)] == [("supervisor_died", "supervisor")]
    assert stage.link.told(PortalLeave)[0].reason == "supervisor_died"


async def test_a_peer_that_does_not_answer_is_recorded_unacknowledged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await connected(stage, WEB)
    peer.mute = True
    monkeypatch.setattr(connections, "PEER_CLOSE_S", 0.03)
    loop = stage.nodes["control"].actors["event-loop"]
    stage.nodes["control"].local("event-loop").tell(StopSession("signed_out"))
    await loop.until_ended()
    (ending,) = stage.endings()
    assert (ending.cause, ending.acknowledged) == (Cause.SIGNED_OUT, False)
    assert ending.evidence == {"actor": "did not answer"}


async def test_a_peer_that_answers_too_late_has_recorded_its_ending_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await connected(stage, WEB)
    peer.late = True
    monkeypatch.setattr(connections, "PEER_CLOSE_S", 0.03)
    loop = stage.nodes["control"].actors["event-loop"]
    stage.nodes["control"].local("event-loop").tell(StopSession("signed_out"))
    await loop.until_ended()
    assert stage.endings() == []
    (told,) = stage.stream.events(ConnectionEnded)
    assert told.ending.acknowledged is True


async def test_many_that_end_at_once_are_one_claim(stage: Stage) -> None:
    first = await connected(stage, WEB, DB)
    await stage.want(DB.id)
    await stage.say(created("c-2", DB.id, gateway="gw-2"))
    second = stage.peers[-1]
    before = len(stage.link.told(PortalClaim))
    first.end(Cause.SHUTTING_DOWN)
    second.end(Cause.SHUTTING_DOWN)
    await stage.settle()
    assert [claim.connections for claim in stage.link.told(PortalClaim)[before:]] == [{}]


async def test_a_portal_link_that_begins_anew_is_told_what_to_claim(stage: Stage) -> None:
    await connected(stage, WEB, DB)
    before = len(stage.link.told(PortalClaim))
    await stage.tell(PortalLinkStarted())
    assert [claim.connections for claim in stage.link.told(PortalClaim)[before:]] == [{"c-1": ("gw-1", ("r-1",))}]


async def test_a_worker_that_dies_during_the_leave_is_recorded_once(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.mute = True
    loop = stage.nodes["control"].actors["event-loop"]
    stage.nodes["control"].local("event-loop").tell(StopSession("signed_out"))
    while not peer.told(Close):
        await stage.settle()
    await stage.kill_worker("peers-1")
    assert loop.state == "exited"
    (ending,) = stage.endings()
    assert (ending.cause, ending.evidence) == (Cause.WORKER_CRASHED, {"actor": "worker_died"})
    assert len(stage.stream.events(ConnectionEnded)) == 1


async def test_a_peer_that_ends_by_itself_during_the_leave_is_not_recorded_again(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    peer.end(Cause.SHUTTING_DOWN)  # the word, and the end of its actor, are under way when we begin
    stage.nodes["control"].local("event-loop").tell(StopSession("signed_out"))
    await stage.settle()
    assert stage.endings() == []
    assert [event.ending.cause for event in stage.stream.events(ConnectionEnded)] == [Cause.SHUTTING_DOWN]


async def test_a_device_actor_that_was_restarted_gets_everything_again(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    stage.log.clear()
    stage.nodes["peers-1"].ref("demo/control/event-loop").tell(DeviceReady("peers-1"))
    await stage.settle()
    assert [one.addresses for one in stage.network.told(OpenDevice)] == [("100.64.0.1/32", "fd65:7865:756e::1/128")]
    assert stage.device.told(SetOwner)[-1] == SetOwner("demo/control/event-loop", ("100.64.0.1", "fd65:7865:756e::1"))
    assert stage.device.told(SetResources)[-1].resources == {"10.0.0.0/24": "r-1"}
    assert peer.told(SetNetworks)[-1].networks == ("10.0.0.0/24",)


async def test_before_the_first_join_a_device_actor_waits(stage: Stage) -> None:
    stage.start(ClientLoop)
    await stage.tell(DeviceReady("peers-1"))
    assert stage.network.told(OpenDevice) == []


async def test_a_device_that_cannot_be_handed_over_again_ends_the_session(stage: Stage) -> None:
    await connected(stage, WEB)
    stage.network.refuses = lambda message: isinstance(message, OpenDevice)
    stage.device.restart()
    await stage.settle()
    assert "device is gone" in stage.stream.events(Disconnected)[0].reason
    assert "event-loop" not in stage.nodes["control"].actors


async def test_a_lost_device_ends_the_session(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    stage.device.lose()
    await stage.settle()
    assert "device is gone" in stage.stream.events(Disconnected)[0].reason
    assert [one.cause for one in peer.told(Close)] == ["device_lost"]
    assert "event-loop" not in stage.nodes["control"].actors


async def test_a_loop_that_crashes_tells_the_portal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = stage.start(ClientLoop)
    await stage.join(WEB)

    def broken(_actor: Any, _message: Any) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setitem(loop.lifecycle.table(), Intent, broken)
    await stage.want("r-1")
    assert loop.exit_reason == "crashed"
    assert stage.link.told(PortalLeave)[0].reason == "crashed"


# --- whatever the portal says ---

IDS = st.sampled_from(["r-1", "r-2", "r-77", "c-1", "c-2", "gw-1"])
ADDRESSES = st.sampled_from(["10.0.0.0/24", "0.0.0.0/0", "::/0", "10.0.0.1/8", "", "nonsense", "fd00::/64"])


def any_resource(resource_id: str, address: str) -> portal.Resource:
    return portal.Resource(id=resource_id, name="n", address=address, site="s")


RESOURCES = st.lists(st.builds(any_resource, IDS, ADDRESSES), max_size=4).map(tuple)
REASONS = st.sampled_from(["not_found", "offline", "forbidden", "version_mismatch"])


def some_candidates(connection: str) -> portal.IceCandidates:
    return portal.IceCandidates(connection=connection, candidates=("x",))


MESSAGES: st.SearchStrategy[portal.FromPortal] = st.one_of(
    st.builds(created, IDS, IDS, IDS),
    st.builds(portal.AuthorizationFailed, resource_id=IDS, reason=REASONS),
    st.builds(portal.AccessRevoked, resource_id=IDS, connection=IDS),
    st.builds(portal.ResourcesChanged, resources=RESOURCES),
    st.builds(portal.PeerGone, connection=IDS, reason=st.just("")),
    st.builds(some_candidates, IDS),
    st.builds(portal.RevokeAccess, client_id=IDS, resource_id=IDS, connection=IDS),
    st.just(portal.Error(code="x")),
    st.just(portal.Left()),
)


@pytest.mark.slow
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.one_of(MESSAGES, IDS), min_size=5, max_size=60))
async def test_nothing_that_the_portal_says_ends_the_loop(
    tmp_path_factory: pytest.TempPathFactory, script: list[portal.FromPortal | str]
) -> None:
    stage = Stage(tmp_path_factory.getbasetemp())
    loop = stage.start(ClientLoop)
    await stage.join(WEB, INTERNET)
    for line in script:
        if isinstance(line, str):
            stage.device.want(line)
        else:
            stage.nodes["control"].local("event-loop").tell(PortalSaid(line))
    await stage.settle()
    assert loop.state == "running"
    carried = [one for record in loop.living() for one in record.resource_ids]
    assert len(carried) == len(set(carried)), "a resource has one carrier"
    assert all(record.resource_ids for record in loop.living())
    await stage.close()
