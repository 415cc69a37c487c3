"""Who is here, who is gone, and what is alive all the same."""

from exeunt.actors.portal.messages import (
    AuthorizationCreated,
    Authorize,
    ClaimConnections,
    ConnectionEnded,
    Disconnect,
    Error,
    Heartbeat,
    HeartbeatReply,
    IceCandidates,
    Leaving,
    Left,
    LiveConnection,
    PeerGone,
    RelaysChanged,
    RequestAuthorization,
    ResourcesChanged,
    RevokeAccess,
)
from exeunt.actors.turn.credentials import gateway_identifier
from exeunt.clients.portal import administration

from .conftest import Rig


def test_a_join_is_answered_with_the_whole_state(rig: Rig) -> None:
    administration.add_relay(rig.admin, "192.0.2.1:3478", "a shared secret of ours")
    rig.reload()
    joined = rig.peer(rig.client_made).join()
    assert (joined.peer_id, joined.name, joined.site) == (rig.client_made.id, "client-1", "")
    assert joined.address_ipv4 == rig.client_made.address_ipv4
    assert [(r.name, r.type, r.address, r.site) for r in joined.resources] == [("web", "cidr", "10.20.0.0/24", "main")]
    (relay,) = joined.relays
    assert relay.username == f"{relay.expires_at}:{rig.client_made.id}"
    assert relay.expires_at == 1_800_000_000 + 24 * 3600
    joined = rig.peer(rig.gateway_made).join()
    assert joined.site == "main"
    (relay,) = joined.relays
    assert relay.username == f"{relay.expires_at}:{gateway_identifier(rig.gateway_made.id)}"


def test_heartbeats_are_answered_and_keep_a_peer(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.join()
    for ref in range(10):
        rig.run_until(rig.now + 30)
        client.say(Heartbeat(ref=ref))
        assert client.take(HeartbeatReply).ref == ref
    assert client.closed is None
    rig.run_until(rig.now + 36.9)
    assert client.closed is None
    rig.run_until(rig.now + 1.5)
    assert client.closed is not None
    assert rig.machine.poll_timeout() is None


def test_who_signs_in_but_does_not_join_is_sent_away(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.open()
    rig.run_until(rig.now + 12)
    assert client.closed is not None


def test_joining_twice_is_refused(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.join()
    client.raw('{"type":"join","name":"n","external_id":"e","version":"1","public_key":"%s="}' % ("A" * 43))
    assert client.take(Error).code == "not_allowed"


def test_a_peer_that_comes_back_replaces_itself(rig: Rig) -> None:
    old, new, gateway = rig.peer(rig.client_made), rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    old.join()
    new.join()
    assert old.take(Disconnect) == Disconnect(reason="replaced")
    assert old.closed is not None
    old.lose()
    gateway.join()
    assert rig.connect(new, gateway).resource_id == rig.web.id


def test_a_loss_is_hinted_to_the_other_ends_only(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    bystander = rig.peer(rig.add_client("bystander"))
    for peer in (client, gateway, bystander):
        peer.join()
    connection = rig.connect(client, gateway).connection
    bystander.take_all()
    client.lose()
    assert gateway.take(PeerGone) == PeerGone(connection=connection, reason="its link broke", kind="reset")
    assert bystander.take_all() == []
    assert [fact.kind for fact in rig.facts if fact.peer_id == client.id] == [
        "signed_in",
        "authorized",
        "lost",
    ]


def test_a_goodbye_is_no_loss(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.join()
    client.say(Leaving(reason="signed_out"))
    client.take(Left)
    client.lose()
    assert [fact.kind for fact in rig.facts] == ["signed_in", "left"]


def test_a_connection_outlives_a_lost_link(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    client.lose()
    gateway.say(IceCandidates(connection=connection, candidates=("late",)))
    again = rig.peer(rig.client_made)
    again.join(LiveConnection(connection=connection, peer_id=gateway.id, resource_ids=(rig.web.id,)))
    assert again.take(IceCandidates).candidates == ("late",)
    mail = administration.add_resource(rig.admin, "mail", "10.21.0.0/24", site=None)
    rig.reload()
    assert rig.connect(again, gateway, mail.id).connection == connection


def test_a_connection_that_is_not_claimed_is_over(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    rig.peer(rig.client_made).join()
    assert gateway.take(PeerGone) == PeerGone(
        connection=connection, reason="it came back without the connection", kind="reset"
    )


def test_what_is_claimed_later_is_not_over(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    gateway.lose()
    client.take_all()
    claim = LiveConnection(connection=connection, peer_id=client.id, resource_ids=(rig.web.id, "gone"))
    again = rig.peer(rig.gateway_made)
    again.join(complete=False)
    again.say(ClaimConnections(connections=(claim,)))
    assert client.take_all() == []
    assert again.take_all() == [RevokeAccess(client_id=client.id, resource_id="gone", connection=connection)]


def test_after_a_restart_gateways_tell_the_portal_what_is_alive(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    rig.restart()
    claim = LiveConnection(connection=connection, peer_id=client.id, resource_ids=(rig.web.id,))
    again = rig.peer(rig.gateway_made)
    again.join(claim)
    assert again.take_all() == []
    rig.revoke(client.made.name)
    assert again.take(RevokeAccess) == RevokeAccess(client_id=client.id, resource_id=rig.web.id, connection=connection)


def test_a_gateway_learns_what_was_revoked_while_it_was_away(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    gateway.lose()
    rig.revoke(f"{client.made.name}:web")
    again = rig.peer(rig.gateway_made)
    again.join(LiveConnection(connection=connection, peer_id=client.id, resource_ids=(rig.web.id,)))
    assert again.take(RevokeAccess).connection == connection


def test_nobody_can_claim_somebody_elses_connection(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    thief = rig.peer(rig.add_gateway("thief"))
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    thief.join(LiveConnection(connection=connection, peer_id=client.id, resource_ids=(rig.web.id,)))
    assert thief.take(RevokeAccess).connection == connection
    client.say(IceCandidates(connection=connection, candidates=("private",)))
    assert gateway.take(IceCandidates).candidates == ("private",)
    assert thief.take_all() == []


def test_connections_that_nobody_attends_are_forgotten(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    bystander = rig.peer(rig.add_client("bystander"))
    for peer in (gateway, client, bystander):
        peer.join()
    connection = rig.connect(client, gateway).connection
    client.lose()
    gateway.lose()
    for ref in range(30):
        rig.run_until(rig.now + 30)
        bystander.say(Heartbeat(ref=ref))
    again = rig.peer(rig.client_made)
    again.join(LiveConnection(connection=connection, peer_id=gateway.id, resource_ids=(rig.web.id,)))
    again.say(IceCandidates(connection=connection, candidates=("x",)))
    assert again.take(Error).code == "unknown_connection"


def test_new_resources_and_relays_are_told_to_those_they_concern(rig: Rig) -> None:
    elsewhere = administration.add_site(rig.admin, "elsewhere").name
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    far = rig.peer(rig.add_gateway("far", elsewhere))
    for peer in (client, gateway, far):
        peer.join()
    administration.add_resource(rig.admin, "far", "10.30.0.0/24", site=elsewhere)
    rig.reload()
    assert [r.name for r in client.take(ResourcesChanged).resources] == ["far", "web"]
    assert [r.name for r in far.take(ResourcesChanged).resources] == ["far"]
    assert gateway.take_all() == []
    administration.add_relay(rig.admin, "[2001:db8::1]:3478", "a shared secret of ours")
    rig.reload()
    assert [(r.host, r.port) for r in gateway.take(RelaysChanged).relays] == [("2001:db8::1", 3478)]


def test_relay_credentials_are_renewed_before_they_expire(rig: Rig) -> None:
    administration.add_relay(rig.admin, "192.0.2.1:3478", "a shared secret of ours")
    rig.reload()
    gateway = rig.peer(rig.gateway_made)
    before = gateway.join().relays[0].expires_at
    for ref in range(12 * 120 + 2):
        rig.now += 30
        rig.machine.handle_timeout(rig.now)
        rig.drain()
        gateway.say(Heartbeat(ref=ref))
    after = gateway.take(RelaysChanged).relays[0].expires_at
    assert before - 12 * 3600 < after - 12 * 3600 <= before + 60


def test_a_flood_is_dropped_and_answered_once(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.join()
    for _ in range(2000):
        client.raw("{")
    errors = [message for message in client.take_all() if isinstance(message, Error)]
    assert len(errors) == 1000
    assert errors[-1].code == "rate_limited"
    assert rig.machine.counters.rate_limited > 900
    rig.run_until(rig.now + 1)
    client.say(Heartbeat(ref=1))
    assert client.take(HeartbeatReply).ref == 1


def test_what_the_portal_asks_of_a_gateway_is_no_flood(rig: Rig) -> None:
    """Five hundred clients come within a second; the gateway says of each what it says of anybody."""
    gateway = rig.peer(rig.gateway_made)
    gateway.join()
    for number in range(500):
        client = rig.peer(rig.add_client(f"c{number}"))
        client.join()
        created = rig.connect(client, gateway)
        for candidate in "abcdef":
            gateway.say(IceCandidates(connection=created.connection, candidates=(candidate,)))
        gateway.say(ConnectionEnded(connection=created.connection, cause="idle"))
    assert rig.machine.counters.rate_limited == 0
    assert not any(isinstance(message, Error) for message in gateway.take_all())


def test_what_nobody_asked_a_gateway_for_is_a_flood(rig: Rig) -> None:
    gateway = rig.peer(rig.gateway_made)
    gateway.join()
    for ref in range(2000):
        gateway.say(Heartbeat(ref=ref))
    assert rig.machine.counters.rate_limited > 900


def test_a_client_earns_nothing_by_asking(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    for _ in range(500):
        rig.connect(client, gateway)
    for ref in range(1000):
        client.say(Heartbeat(ref=ref))
    assert rig.machine.counters.rate_limited > 400


def test_a_client_that_is_gone_is_not_introduced(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = gateway.take(Authorize)
    client.lose()
    assert gateway.take(RevokeAccess).connection == asked.connection
    assert not any(isinstance(message, AuthorizationCreated) for message in client.take_all())
