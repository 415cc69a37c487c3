"""From a request to a connection, and which gateway it is with."""

import pytest

from exeunt.actors.portal.messages import (
    AuthorizationCreated,
    AuthorizationFailed,
    Authorize,
    Authorized,
    ConnectionEnded,
    Error,
    IceCandidates,
    Leaving,
    Left,
    PeerGone,
    RequestAuthorization,
    RevokeAccess,
)
from exeunt.clients.portal import administration

from .conftest import Rig


def test_the_client_hears_of_a_gateway_only_once_it_has_confirmed(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made, b"c" * 32), rig.peer(rig.gateway_made, b"g" * 32)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    assert client.take_all() == []
    asked = gateway.take(Authorize)
    assert (asked.client.public_key, asked.resource.address) == (b"c" * 32, "10.20.0.0/24")
    gateway.say(Authorized(ref=asked.ref))
    created = client.take(AuthorizationCreated)
    assert (created.connection, created.gateway_public_key) == (asked.connection, b"g" * 32)
    assert created.preshared_key == asked.preshared_key
    assert (created.local_ice, created.remote_ice) == (asked.remote_ice, asked.local_ice)
    assert len(created.local_ice.username) >= 8
    assert len(created.local_ice.password) >= 24
    assert created.gateway_address_ipv4 == rig.gateway_made.address_ipv4


def test_secrets_are_never_used_twice(rig: Rig) -> None:
    gateway = rig.peer(rig.gateway_made)
    gateway.join()
    clients = [rig.peer(rig.add_client(f"c{number}")) for number in range(5)]
    for client in clients:
        client.join()
    made = [rig.connect(client, gateway) for client in clients]
    assert len({m.preshared_key for m in made}) == 5
    assert len({m.connection for m in made}) == 5
    assert len({ice.password for m in made for ice in (m.local_ice, m.remote_ice)}) == 10


def test_a_second_resource_behind_the_same_gateway_shares_the_connection(rig: Rig) -> None:
    mail = administration.add_resource(rig.admin, "mail", "10.21.0.0/24", site=None)
    rig.add_gateway("gateway-2")
    gateways = [rig.peer(made) for made in (rig.gateway_made, rig.add_gateway("gateway-3"))]
    client = rig.peer(rig.client_made)
    gateways[0].join()
    client.join()
    first = rig.connect(client, gateways[0])
    gateways[1].join()
    second = rig.connect(client, gateways[0], mail.id)
    assert second.connection == first.connection
    assert second.preshared_key == first.preshared_key


def test_asking_for_what_one_has_makes_a_new_connection(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    assert rig.connect(client, gateway).connection != rig.connect(client, gateway).connection


def test_an_ended_connection_is_not_handed_out_again(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    first = rig.connect(client, gateway)
    gateway.say(ConnectionEnded(connection=first.connection, cause="idle"))
    assert client.take(PeerGone) == PeerGone(connection=first.connection, reason="idle", kind="ended", cause="idle")
    assert rig.connect(client, gateway).connection != first.connection


@pytest.mark.parametrize("known", [True, False])
def test_what_is_not_there_and_what_is_not_allowed(rig: Rig, known: bool) -> None:
    rig.revoke(f"{rig.client_made.name}:web")
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id if known else "resource-0"))
    assert client.take(AuthorizationFailed).reason == ("forbidden" if known else "not_found")
    assert gateway.take_all() == []


def test_without_a_gateway_the_answer_is_offline(rig: Rig) -> None:
    elsewhere = administration.add_site(rig.admin, "elsewhere")
    gateway, client = rig.peer(rig.add_gateway("far", elsewhere.name)), rig.peer(rig.client_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    assert client.take(AuthorizationFailed).reason == "offline"


def test_versions_that_do_not_match_are_told_apart_from_being_offline(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join(version="0.2.0")
    client.join(version="0.1.7")
    client.say(RequestAuthorization(resource_id=rig.web.id))
    assert client.take(AuthorizationFailed).reason == "version_mismatch"


def test_a_gateway_that_does_not_answer_in_15_s_is_offline(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = gateway.take(Authorize)
    rig.run_until(rig.now + 14.9)
    assert client.take_all() == []
    rig.run_until(rig.now + 0.2)
    assert client.take(AuthorizationFailed).reason == "offline"
    assert gateway.take(RevokeAccess).connection == asked.connection
    gateway.say(Authorized(ref=asked.ref))
    assert client.take_all() == []


@pytest.mark.parametrize(
    ("said", "cause"), [("signed_out", "signed_out"), (None, "never_connected")], ids=["leaves", "is lost"]
)
def test_a_gateway_hears_why_a_client_does_not_come_before_it_hears_that_it_may_not(
    rig: Rig, said: str | None, cause: str
) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = gateway.take(Authorize)
    if said is None:
        client.lose("silent")
    else:
        client.say(Leaving(reason=said))
    *_, gone, revoked = gateway.take_all()
    assert isinstance(gone, PeerGone)
    assert (gone.connection, gone.kind, gone.cause) == (asked.connection, "ended", cause)
    assert revoked == RevokeAccess(client_id=client.id, resource_id=asked.resource.id, connection=asked.connection)


def test_a_client_that_leaves_as_it_is_authorized_is_told_of_as_having_left(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    made = rig.connect(client, gateway)
    client.say(Leaving(reason="signed_out"))
    client.lose("closed")
    gone = gateway.take(PeerGone)
    assert (gone.connection, gone.kind, gone.cause) == (made.connection, "left", "signed_out")


def test_only_the_gateway_that_was_asked_can_confirm(rig: Rig) -> None:
    other = rig.peer(rig.add_gateway("gateway-2"))
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    other.join()
    other.say(Authorized(ref=gateway.take(Authorize).ref))
    assert client.take_all() == []


def test_asking_twice_asks_the_gateway_once(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    for _ in range(3):
        client.say(RequestAuthorization(resource_id=rig.web.id))
    assert len(gateway.take_all()) == 1


def test_clients_are_spread_over_gateways(rig: Rig) -> None:
    gateways = [rig.peer(rig.gateway_made), rig.peer(rig.add_gateway("gateway-2"))]
    for gateway in gateways:
        gateway.join()
    for number in range(6):
        client = rig.peer(rig.add_client(f"c{number}"))
        client.join()
        client.say(RequestAuthorization(resource_id=rig.web.id))
    assert [len([m for m in g.take_all() if isinstance(m, Authorize)]) for g in gateways] == [3, 3]


def test_excluded_gateways_are_not_chosen(rig: Rig) -> None:
    gateways = [rig.peer(rig.gateway_made), rig.peer(rig.add_gateway("gateway-2"))]
    client = rig.peer(rig.client_made)
    for peer in (*gateways, client):
        peer.join()
    for excluded, chosen in (gateways, gateways[::-1]):
        client.say(RequestAuthorization(resource_id=rig.web.id, excluded_gateway_ids=(excluded.id,)))
        chosen.take(Authorize)
    client.say(RequestAuthorization(resource_id=rig.web.id, excluded_gateway_ids=tuple(g.id for g in gateways)))
    assert client.take(AuthorizationFailed).reason == "offline"


def test_a_leaving_gateway_is_never_chosen_again(rig: Rig) -> None:
    leaving, staying = rig.peer(rig.gateway_made), rig.peer(rig.add_gateway("gateway-2"))
    client = rig.peer(rig.client_made)
    for peer in (leaving, client):
        peer.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = leaving.take(Authorize)
    staying.join()
    leaving.say(Leaving(reason="shutting_down"))
    # What it was asked before is put to the other one; by the time it is told `Left`, that has happened.
    assert isinstance(leaving.take_all()[-1], Left)
    staying.take(Authorize)
    leaving.say(Authorized(ref=asked.ref))
    assert client.take_all() == []
    for number in range(20):
        other = rig.peer(rig.add_client(f"c{number}"))
        other.join()
        other.say(RequestAuthorization(resource_id=rig.web.id))
    assert not any(isinstance(message, Authorize) for message in leaving.take_all())


def test_a_lost_gateways_questions_go_to_the_next(rig: Rig) -> None:
    first, second = rig.peer(rig.gateway_made), rig.peer(rig.add_gateway("gateway-2"))
    client = rig.peer(rig.client_made)
    first.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    second.join()
    first.lose()
    second.say(Authorized(ref=second.take(Authorize).ref))
    assert client.take(AuthorizationCreated).gateway_id == second.id


def test_candidates_are_relayed_both_ways_and_to_nobody_else(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    stranger = rig.peer(rig.add_client("stranger"))
    for peer in (client, gateway, stranger):
        peer.join()
    connection = rig.connect(client, gateway).connection
    for sender, recipient in ((client, gateway), (gateway, client)):
        message = IceCandidates(connection=connection, candidates=("candidate:1",), end=True)
        sender.say(message)
        assert recipient.take(IceCandidates) == message
    stranger.take_all()
    stranger.say(IceCandidates(connection=connection, candidates=("candidate:2",)))
    assert stranger.take(Error).code == "unknown_connection"
    assert client.take_all() == gateway.take_all() == []


def test_a_gateways_early_candidates_follow_the_authorization(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = gateway.take(Authorize)
    for candidate in ("one", "two"):
        gateway.say(IceCandidates(connection=asked.connection, candidates=(candidate,)))
    assert client.take_all() == []
    gateway.say(Authorized(ref=asked.ref))
    created, candidates = client.take_all()
    assert isinstance(created, AuthorizationCreated)
    assert candidates == IceCandidates(connection=asked.connection, candidates=("one", "two"))


def test_peers_may_only_say_what_is_theirs_to_say(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    client.open()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    assert client.take(Error).code == "not_joined"
    gateway.join()
    gateway.say(RequestAuthorization(resource_id=rig.web.id))
    assert gateway.take(Error).code == "not_allowed"
    assert rig.machine.counters.refused_messages == 2
