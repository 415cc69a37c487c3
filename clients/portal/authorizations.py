"""From a client's request to a connection.

A request is first put to a gateway (`Authorize`) and told to the client only once the gateway has confirmed
it, so that the client's first packets meet somebody who expects them. A gateway that leaves or is lost is
passed over for the next one; a client hears "offline" when nobody is left to ask, or when time is up.

Part of the portal machine.
"""

import random
import secrets
from dataclasses import dataclass

from exeunt.actors.portal.messages import AuthorizationFailed, FailureReason
from exeunt.actors.portal.timing import CONFIRM_LIMIT_S

from .choice import choose_gateway
from .connections import Connection, new_connection
from .outputs import Outputs
from .presence import Presence, Session
from .signalling import Signalling
from .wire import authorization_created, authorize

_NEVER_MET = "never_connected"
"""Why a connection is over that the client was never told of, if nobody had a better reason."""


@dataclass(slots=True, frozen=True)
class Pending:
    """A question to a gateway that is not answered yet."""

    ref: str
    client_id: str
    resource_id: str
    connection: Connection
    excluded_ids: frozenset[str]
    deadline: float
    expires_at: int | None


class Authorizations:
    """The questions that are not answered yet."""

    def __init__(
        self,
        signalling: Signalling,
        presence: Presence,
        outputs: Outputs,
        *,
        rng: random.Random,
        unix_offset_s: float,
        lifetime_s: float | None,
    ) -> None:
        self._signalling = signalling
        self._presence = presence
        self._outputs = outputs
        self._rng = rng
        self._unix_offset_s = unix_offset_s
        self._lifetime_s = lifetime_s
        self._pending: dict[str, Pending] = {}

    def request(self, client: Session, resource_id: str, excluded_ids: frozenset[str], now: float) -> None:
        """A client wants a resource.

        A question about it that pends already stands, unless the client has excluded that gateway since.
        """
        for pending in self._of_client(client.peer_id):
            if pending.resource_id == resource_id:
                if pending.connection.gateway_id not in excluded_ids:
                    return
                self._cancel(pending)
        gateway = self._forbids(client.peer_id, resource_id) or choose_gateway(
            client,
            resource_id,
            excluded_ids,
            directory=self._signalling.directory,
            presence=self._presence,
            connections=self._signalling.connections,
            rng=self._rng,
        )
        if isinstance(gateway, str):
            self._fail(client.peer_id, resource_id, gateway)
            return
        connection = self._connection_for(client.peer_id, gateway.peer_id, resource_id, now)
        self._ask(gateway, client, connection, resource_id, excluded_ids=excluded_ids, now=now)

    def confirm(self, gateway: Session, ref: str) -> None:
        """A gateway is ready. An answer nobody waits for is ignored: what it is about was revoked already."""
        pending = self._pending.get(ref)
        if pending is None or pending.connection.gateway_id != gateway.peer_id:
            return
        del self._pending[ref]
        client = self._presence.of(pending.client_id)
        assert client is not None, "a client's questions go with it"
        connection = pending.connection
        connection.resource_ids.add(pending.resource_id)
        connection.announced = True
        message = authorization_created(
            self._signalling.directory,
            gateway,
            connection,
            resource_id=pending.resource_id,
            expires_at=pending.expires_at,
        )
        self._outputs.send(client.id, message)
        self._outputs.tell(
            "authorized",
            "client",
            client.peer_id,
            f"{pending.resource_id} {gateway.peer_id}",
            connection_id=connection.id,
        )
        self._signalling.deliver_held(connection, client.peer_id)

    def client_gone(self, client: Session) -> None:
        """Nobody waits for the answers any more."""
        for pending in self._of_client(client.peer_id):
            self._cancel(pending, client.leaving_reason or _NEVER_MET)

    def pass_over(self, gateway_id: str, now: float) -> None:
        """A gateway will not answer what it was asked: ask others."""
        for pending in self._all():
            if pending.connection.gateway_id == gateway_id:
                self._cancel(pending)
                client = self._presence.of(pending.client_id)
                if client is not None:
                    self.request(client, pending.resource_id, pending.excluded_ids | {gateway_id}, now)

    def ask_again(self, connection: Connection, now: float) -> None:
        """The connection is over, and with it what was asked about it: ask about a new one."""
        for pending in self._all():
            if pending.connection is connection:
                self._cancel(pending)
                client = self._presence.of(pending.client_id)
                if client is not None:
                    self.request(client, pending.resource_id, pending.excluded_ids, now)

    def enforce(self) -> None:
        """The directory has changed: withdraw what is not allowed any more."""
        for pending in self._all():
            if pending.ref in self._pending and not self._signalling.allowed(
                pending.client_id, pending.connection.gateway_id, pending.resource_id
            ):
                self._cancel(pending, "access_revoked")
                failure = self._forbids(pending.client_id, pending.resource_id) or "offline"
                self._fail(pending.client_id, pending.resource_id, failure)

    def expire(self, now: float) -> None:
        """Give up on gateways that did not answer in time."""
        for pending in self._all():
            if now >= pending.deadline:
                self._cancel(pending)
                self._fail(pending.client_id, pending.resource_id, "offline")

    def next_deadline(self) -> float | None:
        """When to call `expire`."""
        return min((pending.deadline for pending in self._pending.values()), default=None)

    # Inside.

    def _all(self) -> tuple[Pending, ...]:
        return tuple(self._pending.values())

    def _of_client(self, client_id: str) -> tuple[Pending, ...]:
        return tuple(p for p in self._pending.values() if p.client_id == client_id)

    def _forbids(self, client_id: str, resource_id: str) -> FailureReason | None:
        directory = self._signalling.directory
        if resource_id not in directory.resources:
            return "not_found"
        return None if directory.may_use(client_id, resource_id) else "forbidden"

    def _fail(self, client_id: str, resource_id: str, reason: FailureReason) -> None:
        self._outputs.send_peer(client_id, AuthorizationFailed(resource_id=resource_id, reason=reason))

    def _cancel(self, pending: Pending, cause: str = _NEVER_MET) -> None:
        """Withdraw a question; of a connection that is over by it, the gateway hears the cause before it gives up the
        client's rights, or it would take the one for the cause of the other.
        """
        if self._pending.pop(pending.ref, None) is None:
            return
        connection = pending.connection
        is_over = not connection.resource_ids and all(p.connection is not connection for p in self._all())
        if is_over:
            self._signalling.withdraw(connection, cause)
        self._signalling.cancel(connection, pending.resource_id)

    def _connection_for(self, client_id: str, gateway_id: str, resource_id: str, now: float) -> Connection:
        connections = self._signalling.connections
        known = connections.between(client_id, gateway_id)
        # Whoever asks for what it should already have has lost the connection; and one whose secrets went
        # down with an earlier portal cannot be explained to the client again.
        if known is not None and known.secrets is not None and resource_id not in known.resource_ids:
            return known
        fresh = new_connection(client_id, gateway_id)
        if known is not None:
            connections.remove(known)
        self._signalling.add(fresh)
        if known is not None:
            self.ask_again(known, now)
        return fresh

    def _ask(
        self,
        gateway: Session,
        client: Session,
        connection: Connection,
        resource_id: str,
        *,
        excluded_ids: frozenset[str],
        now: float,
    ) -> None:
        ref = secrets.token_hex(8)
        lifetime_s = self._lifetime_s
        expires_at = None if lifetime_s is None else int(now + self._unix_offset_s + lifetime_s)
        self._pending[ref] = Pending(
            ref, client.peer_id, resource_id, connection, excluded_ids, now + CONFIRM_LIMIT_S, expires_at
        )
        message = authorize(
            self._signalling.directory,
            client,
            connection,
            ref=ref,
            resource_id=resource_id,
            expires_at=expires_at,
        )
        self._outputs.send(gateway.id, message)
