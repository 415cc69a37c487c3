"""What stands before the handshakes of a worker: a flood of initiations must not cost what as many handshakes would.

Initiations are taken only from addresses that a connection's peer has proven, or announced. But an address is easily
invented: whoever knows the gateway's public key and where a client is, as one on the way between them does, could have
it compute as fast as a line carries 148 bytes. So all connections of a worker that have the same key share a
`CookieChecker`, which sees all of that. What was found authentic is no load: clients that all come back at once are not
asked for a second round trip.

The address that a cookie proves is the one that the message came from, as this side sees it: the peer's, its NAT's, or
its relay's; through a relay of ours, what that says. The reply goes over the path in use, so it is sent only where that
leads there.
"""

from __future__ import annotations

from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..ice import Address, Path
from ..wireguard import Admitted, CookieChecker, Refused, pack_source
from .messages import PeerConfig

_RESOURCE = "gates"


class Arrivals(Protocol):
    """Of an agent: where what it gives away just now came from, and where its path leads."""

    @property
    def arrived_from(self) -> Address | None:
        """The source of the datagrams that are being given away; None: none are."""
        ...

    @property
    def path(self) -> Path | None:
        """The path in use."""
        ...


class PathGate:
    """The checker, as one connection over ICE asks it."""

    __slots__ = ("_agent", "_checker")

    def __init__(self, checker: CookieChecker, agent: Arrivals) -> None:
        self._checker = checker
        self._agent = agent

    def admit(self, datagram: bytes | memoryview, _source: bytes, now: float) -> Admitted | Refused:
        """Judge an initiation or a response that the agent is giving away."""
        source, path = self._agent.arrived_from, self._agent.path
        verdict = self._checker.admit(datagram, b"" if source is None else pack_source(*source), now)
        if isinstance(verdict, Refused) and (path is None or path.remote != source):
            return Refused(verdict.reason)
        return verdict

    def note_authentic(self, now: float) -> None:
        """What was admitted just now was the peer's, and new."""
        self._checker.note_authentic(now)


def gate_of(resources: dict[str, Any], config: PeerConfig, agent: Arrivals) -> PathGate | None:
    """Return what judges for a connection; None: it is a client's, with whom nobody begins. `resources` are the
    worker's.
    """
    if config.side == "client":
        return None
    private_key = config.private_key
    checkers: dict[bytes, CookieChecker] = resources.setdefault(_RESOURCE, {})
    if private_key not in checkers:
        public_key = X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
        checkers[private_key] = CookieChecker(public_key)
    return PathGate(checkers[private_key], agent)
