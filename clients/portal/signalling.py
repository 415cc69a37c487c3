"""What the portal does for connections that exist: relays candidates, restarts ICE, passes hints on, takes access back.

A hint says how the portal knows (`PeerGone.kind`), and no more than that: a peer whose TCP connection the kernel closed
has probably died, but a proxy in between may have. The other end probes, and concludes.

Part of the portal machine. How connections come about is `Authorizations`' affair.
"""

from exeunt.actors.portal.messages import (
    AccessRevoked,
    ConnectionEnded,
    Error,
    GoneKind,
    IceCandidates,
    LastWill,
    LiveConnection,
    PeerGone,
    RestartIce,
    RevokeAccess,
)
from exeunt.actors.portal.timing import RESTART_INTERVAL_S, UNATTENDED_LIMIT_S

from .connections import Connection, Connections
from .counters import PortalCounters
from .directory import Directory
from .events import ClosedHow, ConnectionMade, EndReported
from .outputs import Outputs
from .presence import ANSWERS_OF_CONNECTION, Presence, Session

_LOST: dict[ClosedHow, tuple[str, GoneKind]] = {
    "reset": ("its link broke", "reset"),
    "closed": ("it closed its link", "silent"),
    "not_reading": ("it reads nothing", "silent"),
    "silent": ("it is silent", "silent"),
}
"""How a session was lost → what the other ends are told. Nothing when the portal stops: that is nobody's loss."""


class Signalling:
    """The connections, and who must be told what about them."""

    def __init__(self, directory: Directory, presence: Presence, outputs: Outputs, counters: PortalCounters) -> None:
        self.directory = directory
        self.connections = Connections()
        self._presence = presence
        self._outputs = outputs
        self._counters = counters

    def add(self, connection: Connection) -> None:
        """Know of a connection from now on."""
        if self.connections.get(connection.id) is None:
            self._outputs.note(ConnectionMade(connection.id, connection.client_id, connection.gateway_id))
        self.connections.add(connection)

    def relay(self, sender: Session, message: IceCandidates) -> None:
        """Candidates go to the other end, now or when it can have them. Only the two ends may send any."""
        connection = self.connections.get(message.connection)
        recipient_id = None if connection is None else connection.other_end(sender.peer_id)
        if connection is None or recipient_id is None:
            self._outputs.send(sender.id, Error(code="unknown_connection", message=message.connection))
            return
        if connection.generation not in (None, message.generation):
            self._counters.stale_candidates += 1
            return
        connection.hold(recipient_id, message)
        self.deliver_held(connection, recipient_id)

    def deliver_held(self, connection: Connection, recipient_id: str) -> None:
        """Send an end the candidates that wait for it, unless it still cannot have them."""
        recipient = self._presence.of(recipient_id)
        if recipient is None or (recipient_id == connection.client_id and not connection.announced):
            return
        for held in (connection.restarts_held, connection.held):
            message = held.pop(recipient_id, None)
            if message is not None:
                self._outputs.send(recipient.id, message)

    def restart(self, sender: Session, message: RestartIce, now: float, now_unix: float) -> None:
        """An end wants to find paths anew: new ICE credentials for both, now or when they are here."""
        connection = self.connections.get(message.connection)
        if connection is None or connection.other_end(sender.peer_id) is None or not connection.announced:
            self._outputs.send(sender.id, Error(code="unknown_connection", message=message.connection))
            return
        if connection.restarted_at is not None and now - connection.restarted_at < RESTART_INTERVAL_S:
            return
        connection.restart(now, now_unix)
        self._counters.ice_restarts += 1
        self._outputs.tell("ice_restarted", sender.kind, sender.peer_id, message.reason, connection_id=connection.id)
        for peer_id in (connection.client_id, connection.gateway_id):
            self.deliver_held(connection, peer_id)

    def end(self, sender: Session, message: ConnectionEnded) -> Connection | None:
        """One end saw the connection end. The other is told, unless it said so itself: the goodbye may be lost.

        Returns the connection if it was not over before.
        """
        # Even of a connection that is not known here any more: the record may know it.
        self._outputs.note(EndReported(message.connection, sender.peer_id, message.cause, message.report))
        live = self.connections.get(message.connection)
        connection = live or self.connections.over(message.connection)
        other_id = None if connection is None else connection.other_end(sender.peer_id)
        if connection is None or other_id is None or sender.peer_id in connection.told_end:
            return None
        connection.told_end.add(sender.peer_id)
        self._outputs.tell("ended", sender.kind, sender.peer_id, message.cause, connection_id=connection.id)
        if live is not None:
            self.connections.remove(live)
        if other_id not in connection.told_end:
            self._hint(connection, sender.peer_id, message.cause, "ended", message.cause)
        return live

    def pass_on(self, sender: Session, message: LastWill) -> None:
        """What an end left to be said goes to the other one, if that is here: once, and as it is. The connection may
        have been reported as ended a moment ago.
        """
        connection = self.connections.get(message.connection) or self.connections.over(message.connection)
        other_id = None if connection is None else connection.other_end(sender.peer_id)
        if connection is None or other_id is None or not connection.announced:
            self._outputs.send(sender.id, Error(code="unknown_connection", message=message.connection))
        elif sender.peer_id not in connection.told_will:
            connection.told_will.add(sender.peer_id)
            self._counters.last_wills += 1
            self._outputs.tell("last_will", sender.kind, sender.peer_id, connection_id=connection.id)
            self._outputs.send_peer(other_id, message)

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
            # If it did not die, the report of the end follows; the other end is probing until then.
            self._hint(connection, session.peer_id, "it came back without the connection", "reset")
            self.connections.remove(connection)
        self.claim(session, session.join.connections)
        return over

    def claim(self, session: Session, connections: tuple[LiveConnection, ...]) -> None:
        """A peer says that these connections are alive; see `joined`."""
        session.earn(ANSWERS_OF_CONNECTION * len(connections))
        for connection in connections:
            self._check(session, connection)

    def gone(self, session: Session, how: ClosedHow) -> None:
        """A peer's session is over. Its tunnels may well live on, unless it said goodbye."""
        for connection in self.connections.of(session.peer_id):
            if session.leaving:
                self._hint(connection, session.peer_id, "it left", "left", session.leaving_reason)
                self.connections.remove(connection)
            elif how in _LOST:
                self._hint(connection, session.peer_id, *_LOST[how])

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

    def withdraw(self, connection: Connection, cause: str) -> None:
        """A connection is over before the client knew of it: tell the gateway, which has been waiting."""
        self._hint(connection, connection.client_id, "the client does not come", "ended", cause)
        self.connections.remove(connection)

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
        self._outputs.tell("access_revoked", "client", connection.client_id, resource_id, connection_id=connection.id)

    def _check(self, session: Session, claim: LiveConnection) -> None:
        by_gateway = session.kind == "gateway"
        client_id, gateway_id = (claim.peer_id, session.peer_id) if by_gateway else (session.peer_id, claim.peer_id)
        connection = self.connections.get(claim.connection)
        over = self.connections.over(claim.connection) if connection is None else None
        end = over.ends.get(session.peer_id) if over is not None else None
        if end is not None:
            self._outputs.send(session.id, end)
            return
        foreign = connection is not None and connection.other_end(session.peer_id) != claim.peer_id
        if connection is None and by_gateway:
            connection = Connection(
                claim.connection, client_id, gateway_id, secrets=None, announced=True, generation=None
            )
        for resource_id in claim.resource_ids:
            if foreign or not self.allowed(client_id, gateway_id, resource_id):
                self._tell_revoked(session, claim.connection, client_id, resource_id)
            elif connection is not None and by_gateway:
                connection.resource_ids.add(resource_id)
                self.add(connection)
        if connection is not None and not foreign:
            self.deliver_held(connection, session.peer_id)

    def _tell_revoked(self, session: Session, connection_id: str, client_id: str, resource_id: str) -> None:
        if session.kind == "client":
            message: AccessRevoked | RevokeAccess = AccessRevoked(resource_id=resource_id, connection=connection_id)
        else:
            message = RevokeAccess(client_id=client_id, resource_id=resource_id, connection=connection_id)
        self._outputs.send(session.id, message)

    def _hint(self, connection: Connection, about_id: str, reason: str, kind: GoneKind, cause: str = "") -> None:
        other_id = connection.other_end(about_id)
        if other_id is None or (other_id == connection.client_id and not connection.announced):
            return
        hint = PeerGone(connection=connection.id, reason=reason, kind=kind, cause=cause)
        self._outputs.send_peer(other_id, hint)
        if kind in ("ended", "left"):
            connection.ends[other_id] = hint  # these stay true; the others mean "now"
