"""The two messages that introduce a client and a gateway to each other."""

from exeunt.actors.portal.messages import AuthorizationCreated, Authorize, Client

from .connections import Connection
from .directory import Directory
from .presence import Session


def authorize(
    directory: Directory,
    client: Session,
    connection: Connection,
    *,
    ref: str,
    resource_id: str,
    expires_at: int | None,
) -> Authorize:
    """For the gateway: whom to expect, on which connection, for what."""
    record = directory.peers[client.peer_id]
    assert client.join is not None
    assert connection.secrets is not None
    return Authorize(
        ref=ref,
        connection=connection.id,
        client=Client(
            id=record.id,
            name=record.name,
            public_key=client.join.public_key,
            address_ipv4=record.address_ipv4,
            address_ipv6=record.address_ipv6,
        ),
        resource=directory.wire_resource(resource_id),
        preshared_key=connection.secrets.preshared_key,
        local_ice=connection.secrets.gateway_ice,
        remote_ice=connection.secrets.client_ice,
        expires_at=expires_at,
    )


def authorization_created(
    directory: Directory,
    gateway: Session,
    connection: Connection,
    *,
    resource_id: str,
    expires_at: int | None,
) -> AuthorizationCreated:
    """For the client: which gateway expects it, and how to meet."""
    record = directory.peers[gateway.peer_id]
    assert gateway.join is not None
    assert connection.secrets is not None
    return AuthorizationCreated(
        connection=connection.id,
        resource_id=resource_id,
        gateway_id=record.id,
        gateway_name=record.name,
        gateway_public_key=gateway.join.public_key,
        gateway_address_ipv4=record.address_ipv4,
        gateway_address_ipv6=record.address_ipv6,
        preshared_key=connection.secrets.preshared_key,
        local_ice=connection.secrets.client_ice,
        remote_ice=connection.secrets.gateway_ice,
        expires_at=expires_at,
    )
