"""What is taken away is taken away at once, on both sides."""

from exeunt.actors.portal.messages import (
    AccessRevoked,
    AuthorizationFailed,
    Authorize,
    Disconnect,
    RequestAuthorization,
    ResourcesChanged,
    RevokeAccess,
)
from exeunt.clients.portal import administration

from .conftest import UNIX, Rig


def test_revoking_a_client_ends_its_session_and_all_its_connections(rig: Rig) -> None:
    client, bystander = rig.peer(rig.client_made), rig.peer(rig.add_client("bystander"))
    gateway = rig.peer(rig.gateway_made)
    for peer in (gateway, client, bystander):
        peer.join()
    connection = rig.connect(client, gateway).connection
    rig.connect(bystander, gateway)
    bystander.take_all()
    rig.revoke(client.made.name)
    assert client.take(Disconnect) == Disconnect(reason="revoked", requires_sign_in=True)
    assert client.closed is not None
    assert gateway.take_all() == [RevokeAccess(client_id=client.id, resource_id=rig.web.id, connection=connection)]
    assert bystander.take_all() == []
    assert rig.store.authenticate(client.made.token) is None


def test_revoking_one_token_ends_what_was_signed_in_with_it(rig: Rig) -> None:
    spare = administration.renew_token(rig.admin, rig.client_made.name, now_unix=UNIX)
    rig.reload()
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    rig.connect(client, gateway)
    rig.revoke(client.made.token.partition(".")[2].partition("_")[0])
    assert client.take(Disconnect).requires_sign_in
    gateway.take(RevokeAccess)
    rig.peer(spare).join()


def test_revoking_a_resource_reaches_both_sides_and_leaves_the_rest(rig: Rig) -> None:
    mail = administration.add_resource(rig.admin, "mail", "10.21.0.0/24", site=None)
    rig.reload()
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    assert rig.connect(client, gateway, mail.id).connection == connection
    rig.revoke(f"{client.made.name}:web")
    assert client.take(AccessRevoked) == AccessRevoked(resource_id=rig.web.id, connection=connection)
    assert gateway.take(RevokeAccess).resource_id == rig.web.id
    assert [r.name for r in client.take(ResourcesChanged).resources] == ["mail"]
    assert gateway.take_all() == client.take_all() == []
    client.say(RequestAuthorization(resource_id=rig.web.id))
    assert client.take(AuthorizationFailed).reason == "forbidden"
    administration.set_policy(rig.admin, client.made.name, "web", allowed=True)
    rig.reload()
    assert rig.connect(client, gateway).connection == connection


def test_a_connection_without_resources_is_over(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    rig.revoke(f"{client.made.name}:web")
    administration.set_policy(rig.admin, client.made.name, "web", allowed=True)
    rig.reload()
    gateway.take_all()
    assert rig.connect(client, gateway).connection != connection


def test_removing_a_resource_revokes_it(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    rig.connect(client, gateway)
    administration.remove_resource(rig.admin, "web")
    rig.reload()
    assert client.take(AccessRevoked).resource_id == rig.web.id
    assert gateway.take(RevokeAccess).resource_id == rig.web.id


def test_revoking_a_gateway_sends_its_clients_elsewhere(rig: Rig) -> None:
    gateway, client = rig.peer(rig.gateway_made), rig.peer(rig.client_made)
    gateway.join()
    client.join()
    connection = rig.connect(client, gateway).connection
    other = rig.peer(rig.add_gateway("gateway-2"))
    other.join()
    rig.revoke(gateway.made.name)
    assert gateway.take(Disconnect).requires_sign_in
    assert client.take(AccessRevoked).connection == connection
    assert rig.connect(client, other).gateway_id == other.id


def test_a_question_about_what_was_revoked_meanwhile_is_withdrawn(rig: Rig) -> None:
    client, gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
    gateway.join()
    client.join()
    client.say(RequestAuthorization(resource_id=rig.web.id))
    asked = gateway.take(Authorize)
    rig.revoke(f"{client.made.name}:web")
    assert client.take(AuthorizationFailed).reason == "forbidden"
    assert gateway.take(RevokeAccess).connection == asked.connection


def test_a_token_that_is_revoked_during_the_sign_in_opens_nothing(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    identity = rig.store.authenticate(client.made.token)
    assert identity is not None
    rig.revoke(client.made.name)
    rig.peers[client.session] = client
    rig.machine.handle_opened(client.session, identity, rig.now)
    rig.drain()
    assert client.take(Disconnect).requires_sign_in
    assert rig.machine.poll_timeout() is None
