"""What the portal does for connections that exist: relays candidates, passes hints on, takes access back.

Part of the portal machine. How connections come about is `Authorizations`' affair.
"""

from exeunt.actors.portal.messages import (
    AccessRevoked,
    Error,
    IceCandidates,
    LiveConnection,
    PeerGone,
    RevokeAccess,
)

from .connections import Connection, Connections
from .directory import Directory
from .outputs import Outputs
from .presence import Presence, Session

UNATTENDED_LIMIT_S = 600.0
"""After both ends have been away this long, they are taken to have ended their connection between them."""


class Signalling:
    """The connections, and who must be told what about them."""

    def __init__(self, directory: Directory, presence: Presence, outputs: Outputs) -> None:
        self.directory = directory
        self.connections = Connections()
        self._presence = presence
        self._outputs = outputs

    def relay(self, sender: Session, message: IceCandidates) -> None:
        """Candidates go to the other end, now or when it can have them. Only the two ends may send any."""
        connection = self.connections.get(message.connection)
        recipient_id = None if connection is None else connection.other_end(sender.peer_id)
        if connection is None or recipient_id is None:
            self._outputs.send(sender.id, Error(code="unknown_connection", message=message.connection))
            return
        connection.hold(recipient_id, message)
        self.deliver_held(connection, recipient_id)

    def deliver_held(self, connection: Connection, recipient_id: str) -> None:
        """Send an end the candidates that wait for it, unless it still cannot have them."""
        recipient = self._presence.of(recipient_id)
        if recipient is None or (recipient_id == connection.client_id and not connection.announced):
            return
        message = connection.held.pop(recipient_id, None)
        if message is not None:
            self._outputs.send(recipient.id, message)

    def end(self, sender: Session, connection_id: str, cause: str) -> Connection | None:
        """One end saw the connection end. The other gets a hint, in case the goodbye was lost."""
        connection = self.connections.get(connection_id)
        if connection is None or connection.other_end(sender.peer_id) is None:
            return None
        self.connections.remove(connection)
        self._outputs.tell("ended", sender.kind, sender.peer_id, f"{connection_id} {cause}")
        self._hint(connection, sender.peer_id, cause)
        return connection

    def joined(self, session: Session) -> list[Connection]:
        """A peer is here (again), and claims the connections that are still alive on its side.

        What it does not claim is over, and is returned. What it claims is checked against what is allowed
        now, since it may have missed a revocation; and after a restart of the portal, gateways' claims are
        how connections become known again.
        """
        assert session.join is not None
        claims = {claim.connection for claim in session.join.connections}
        over = [
            connection
            for connection in self.connections.of(session.peer_id)
            if session.join.complete and connection.id not in claims
        ]
        for connection in over:
            self._hint(connection, session.peer_id, "restarted")
            self.connections.remove(connection)
        self.claim(session, session.join.connections)
        return over

    def claim(self, session: Session, connections: tuple[LiveConnection, ...]) -> None:
        """A peer says that these connections are alive; see `joined`."""
        for connection in connections:
            self._check(session, connection)

    def gone(self, session: Session, reason: str) -> None:
        """A peer's session is over. Its tunnels may well live on, unless it said goodbye."""
        for connection in self.connections.of(session.peer_id):
            self._hint(connection, session.peer_id, reason)
            if session.leaving:
                self.connections.remove(connection)

    def sweep(self, now: float) -> None:
        """Forget the connections of peers that have both been away for long."""
        for connection in self.connections:
            ends = (connection.client_id, connection.gateway_id)
            if connection.attended_at is None or any(self._presence.of(end) is not None for end in ends):
                connection.attended_at = now
            elif now - connection.attended_at > UNATTENDED_LIMIT_S:
                self.connections.remove(connection)

    def enforce(self) -> list[Connection]:
        """The directory has changed: take back what is not allowed any more. Which connections that ended."""
        over: list[Connection] = []
        for connection in self.connections:
            lost = [
                resource_id
                for resource_id in connection.resource_ids
                if not self.allowed(connection.client_id, connection.gateway_id, resource_id)
            ]
            over += self._revoke(connection, lost)
        return over

    def revoke_peer(self, peer_id: str) -> list[Connection]:
        """A peer has lost everything. Which connections that ended."""
        over: list[Connection] = []
        for connection in self.connections.of(peer_id):
            over += self._revoke(connection, list(connection.resource_ids))
        return over

    def cancel(self, connection: Connection, resource_id: str) -> None:
        """Have the gateway let the client use the resource no longer."""
        self._outputs.send_peer(
            connection.gateway_id,
            RevokeAccess(client_id=connection.client_id, resource_id=resource_id, connection=connection.id),
        )

    def allowed(self, client_id: str, gateway_id: str, resource_id: str) -> bool:
        """Whether this client may use this resource through this gateway."""
        directory = self.directory
        return directory.may_use(client_id, resource_id) and directory.may_serve(gateway_id, resource_id)

    # Inside.

    def _revoke(self, connection: Connection, resource_ids: list[str]) -> list[Connection]:
        for resource_id in sorted(resource_ids):
            self._revoke_one(connection, resource_id)
        if not resource_ids or connection.resource_ids:
            return []
        # Both ends close a connection that has no resource left, so its id is used up.
        self.connections.remove(connection)
        return [connection]

    def _revoke_one(self, connection: Connection, resource_id: str) -> None:
        connection.resource_ids.discard(resource_id)
        self.cancel(connection, resource_id)
        self._outputs.send_peer(connection.client_id, AccessRevoked(resource_id=resource_id, connection=connection.id))
        self._outputs.tell("access_revoked", "client", connection.client_id, f"{resource_id} {connection.id}")

    def _check(self, session: Session, claim: LiveConnection) -> None:
        by_gateway = session.kind == "gateway"
        client_id, gateway_id = (claim.peer_id, session.peer_id) if by_gateway else (session.peer_id, claim.peer_id)
        connection = self.connections.get(claim.connection)
        foreign = connection is not None and connection.other_end(session.peer_id) != claim.peer_id
        if connection is None and by_gateway:
            connection = Connection(claim.connection, client_id, gateway_id, secrets=None, announced=True)
        for resource_id in claim.resource_ids:
            if foreign or not self.allowed(client_id, gateway_id, resource_id):
                self._tell_revoked(session, claim.connection, client_id, resource_id)
            elif connection is not None and by_gateway:
                connection.resource_ids.add(resource_id)
                self.connections.add(connection)
        if connection is not None and not foreign:
            self.deliver_held(connection, session.peer_id)

    def _tell_revoked(self, session: Session, connection_id: str, client_id: str, resource_id: str) -> None:
        if session.kind == "client":
            message: AccessRevoked | RevokeAccess = AccessRevoked(resource_id=resource_id, connection=connection_id)
        else:
            message = RevokeAccess(client_id=client_id, resource_id=resource_id, connection=connection_id)
        self._outputs.send(session.id, message)

    def _hint(self, connection: Connection, about_id: str, reason: str) -> None:
        other_id = connection.other_end(about_id)
        if other_id is not None and (other_id != connection.client_id or connection.announced):
            self._outputs.send_peer(other_id, PeerGone(connection=connection.id, reason=reason))
