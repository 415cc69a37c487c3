"""The connections that the portal knows of: pairs of a client and a gateway.

The portal sees no traffic. It believes in a connection from the moment it hands it out until one end
reports its end, says goodbye, or joins again without claiming it.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from exeunt.actors.portal.messages import MAX_CANDIDATES, IceCandidates, IceCredentials, Key


class ConnectionSecrets(msgspec.Struct, frozen=True):
    """What the two ends need to find and to trust each other."""

    preshared_key: Key
    client_ice: IceCredentials
    gateway_ice: IceCredentials

    def __repr__(self) -> str:
        return "ConnectionSecrets(…)"


@dataclass(slots=True)
class Connection:
    """One connection."""

    id: str
    client_id: str
    gateway_id: str
    secrets: ConnectionSecrets | None
    """None for one that a gateway told us about after a restart of the portal."""
    resource_ids: set[str] = field(default_factory=set[str])
    """What the gateway has confirmed."""
    attended_at: float | None = None
    """When at least one end was last seen present."""
    announced: bool = False
    """Whether the client knows of it."""
    held: dict[str, IceCandidates] = field(default_factory=dict[str, IceCandidates])
    """By recipient: candidates for an end that is not present, or does not know of the connection yet."""

    def other_end(self, peer_id: str) -> str | None:
        """The peer at the other end; None if `peer_id` is at neither."""
        return {self.client_id: self.gateway_id, self.gateway_id: self.client_id}.get(peer_id)

    def hold(self, recipient_id: str, message: IceCandidates) -> None:
        """Keep candidates until the recipient can have them, merged into one message."""
        before = self.held.get(recipient_id)
        if before is not None:
            union = tuple(dict.fromkeys(before.candidates + message.candidates))[:MAX_CANDIDATES]
            message = msgspec.structs.replace(message, candidates=union, end=before.end or message.end)
        self.held[recipient_id] = message


class Connections:
    """All connections, by id and by end."""

    def __init__(self) -> None:
        self._by_id: dict[str, Connection] = {}
        self._of_peer: dict[str, dict[str, Connection]] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, connection_id: str) -> Connection | None:
        """A connection by its id."""
        return self._by_id.get(connection_id)

    def of(self, peer_id: str) -> tuple[Connection, ...]:
        """A peer's connections, as either end."""
        return tuple(self._of_peer.get(peer_id, {}).values())

    def count_of(self, peer_id: str) -> int:
        """How many connections a peer has."""
        return len(self._of_peer.get(peer_id, {}))

    def between(self, client_id: str, gateway_id: str) -> Connection | None:
        """The connection of a pair."""
        return next((c for c in self.of(client_id) if c.gateway_id == gateway_id), None)

    def add(self, connection: Connection) -> None:
        """Know of a connection from now on."""
        self._by_id[connection.id] = connection
        for peer_id in (connection.client_id, connection.gateway_id):
            self._of_peer.setdefault(peer_id, {})[connection.id] = connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection; not an error the second time."""
        self._by_id.pop(connection.id, None)
        for peer_id in (connection.client_id, connection.gateway_id):
            mine = self._of_peer.get(peer_id, {})
            mine.pop(connection.id, None)
            if not mine:
                self._of_peer.pop(peer_id, None)


def new_connection(client_id: str, gateway_id: str) -> Connection:
    """A connection with an id, a preshared key and ICE credentials that never existed before.

    48 bits of id are enough to be unique among the living; it is not a secret. ICE asks for at least 24 bits in the
    ufrag and 128 in the password (RFC 8445 section 5.3).
    """
    return Connection(
        id=secrets.token_hex(6),
        client_id=client_id,
        gateway_id=gateway_id,
        secrets=ConnectionSecrets(secrets.token_bytes(32), _ice_credentials(), _ice_credentials()),
    )


def _ice_credentials() -> IceCredentials:
    return IceCredentials(username=secrets.token_hex(4), password=secrets.token_hex(16))
