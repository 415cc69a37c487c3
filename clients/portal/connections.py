"""The connections that the portal knows of: pairs of a client and a gateway.

The portal sees no traffic. It believes in a connection from the moment it hands it out until one end
reports its end, says goodbye, or joins again without claiming it.

ICE may be restarted (RFC 8445 section 2.4): both ends get new credentials under a number, the *generation*, and what
was trickled for an older one is worth nothing any more.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from exeunt.actors.portal.candidates import merged
from exeunt.actors.portal.messages import IceCandidates, IceCredentials, IceRestarted, Key, PeerGone

KEPT_OVER = 4096
"""Connections whose end is remembered, so that the second end's report still finds the first. Some 300 bytes each."""


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
    generation: int | None = 0
    """How often ICE was restarted; None for a connection that is older than this portal and was not restarted since."""
    restarted_at: float | None = None
    ends: dict[str, PeerGone] = field(default_factory=dict[str, PeerGone])
    """By recipient: how this connection ended, for an end that was not there to be told, or whose link broke before it
    had read it: one that claims the connection does not know."""
    told_end: set[str] = field(default_factory=set[str])
    """Which ends have reported its end."""
    told_will: set[str] = field(default_factory=set[str])
    """Whose last will has been passed on."""
    restarts_held: dict[str, IceRestarted] = field(default_factory=dict[str, IceRestarted])
    """By recipient: the newest credentials, for an end that is not present."""

    def other_end(self, peer_id: str) -> str | None:
        """The peer at the other end; None if `peer_id` is at neither."""
        return {self.client_id: self.gateway_id, self.gateway_id: self.client_id}.get(peer_id)

    def hold(self, recipient_id: str, message: IceCandidates) -> None:
        """Keep candidates until the recipient can have them, merged into one message."""
        self.held[recipient_id] = merged(self.held.get(recipient_id), message)

    def restart(self, now: float, now_unix: float) -> None:
        """New ICE credentials for both ends, held until they are delivered.

        An earlier portal may have restarted this connection too. Its number is not known here, but it is lower than
        the time: restarts are a second apart.
        """
        self.generation = int(now_unix) if self.generation is None else self.generation + 1
        self.restarted_at = now
        self.held.clear()
        client_ice, gateway_ice = _ice_credentials(), _ice_credentials()
        if self.secrets is not None:
            self.secrets = msgspec.structs.replace(self.secrets, client_ice=client_ice, gateway_ice=gateway_ice)
        for peer_id, local, remote in (
            (self.client_id, client_ice, gateway_ice),
            (self.gateway_id, gateway_ice, client_ice),
        ):
            self.restarts_held[peer_id] = IceRestarted(
                connection=self.id, generation=self.generation, local_ice=local, remote_ice=remote
            )


class Connections:
    """All connections, by id and by end."""

    def __init__(self) -> None:
        self._by_id: dict[str, Connection] = {}
        self._of_peer: dict[str, dict[str, Connection]] = {}
        self._over: OrderedDict[str, Connection] = OrderedDict()

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, connection_id: str) -> Connection | None:
        """A connection by its id."""
        return self._by_id.get(connection_id)

    def over(self, connection_id: str) -> Connection | None:
        """A connection that is over, if that was not long ago."""
        return self._over.get(connection_id)

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
        """Count a connection as over; not an error the second time."""
        if self._by_id.pop(connection.id, None) is not None:
            # Without its secrets. What was told and is to be told of its end stays shared with the original.
            self._over[connection.id] = replace(connection, secrets=None, held={}, restarts_held={})
            if len(self._over) > KEPT_OVER:
                self._over.popitem(last=False)
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
