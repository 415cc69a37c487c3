"""Asking STUN servers from which address they see us (RFC 8489 section 2, RFC 8445 section 5.1.1.2). Pure.

The answer is not authenticated: it is taken only from the server that was asked, with the 96-bit transaction id of the
question, and all that a forged one can do is make us offer an address that does not work.

What was answered is remembered for the sessions to come: a restart sends from the same sockets, so the NAT's mapping is
likely still the same one, and a server that has died meanwhile must not cost the direct path.
"""

from dataclasses import dataclass

import msgspec
from aioice import stun

from . import binding
from .agent import Address
from .candidate import ip_version
from .messages import Transmit

QUERY_INTERVALS_S = (0.25, 0.5, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses after each transmission."""
PROMPT_QUERIES = 4
"""After so many, in 2.75 s, nobody waits for the answer any more. It is asked for all the same: where a fifth of the
datagrams is lost each way, one question in sixty has no answer by then, and without it there is no direct path."""


MAX_REMEMBERED = 32
"""Local addresses times servers; more are a host that roams a lot, and the oldest are forgotten."""


class ReflexiveFound(msgspec.Struct, frozen=True):
    """A server sees the base `base_id` as `mapped`."""

    base_id: int
    server: Address
    mapped: Address
    rtt_ms: float


class ReflexiveMissed(msgspec.Struct, frozen=True):
    """A server did not answer in time, or not usefully. It may still be found later."""

    base_id: int
    server: Address


@dataclass(slots=True)
class _Query:
    base_id: int
    server: Address
    payload: bytes
    first_sent_at: float
    next_at: float
    sends: int = 0

    @property
    def is_late(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.sends > PROMPT_QUERIES


class ReflexiveQueries:
    """All questions of one session to STUN servers."""

    def __init__(self) -> None:
        self._queries: dict[bytes, _Query] = {}
        self._transmits: list[Transmit] = []  # an empty deque has 700 bytes
        self._events: list[ReflexiveFound | ReflexiveMissed] = []  # an empty deque has 700 bytes

    def __len__(self) -> int:
        """How many answers are waited for."""
        return sum(not query.is_late for query in self._queries.values())

    def handle_query(self, base_id: int, server: Address, now: float) -> None:
        """Ask one server from one base."""
        request = binding.query_request()
        query = _Query(base_id, server, bytes(request), now, now)
        self._queries[request.transaction_id] = query
        self._transmit(query, now)

    def handle_response(self, base_id: int, datagram: bytes, source: Address, now: float) -> bool:
        """Take a STUN datagram if it answers one of our questions; False: it is somebody else's."""
        query = self._queries.get(datagram[8:20])
        if query is None or datagram[0] == 0:
            return False
        message = binding.read(datagram)
        if message is None or (query.base_id, query.server) != (base_id, source):
            return True
        del self._queries[message.transaction_id]
        mapped = binding.attribute(message, "XOR-MAPPED-ADDRESS")
        if message.message_class is stun.Class.RESPONSE and _is_usable(mapped, query.server):
            self._events.append(ReflexiveFound(base_id, query.server, mapped, (now - query.first_sent_at) * 1000))
        else:
            self._events.append(ReflexiveMissed(base_id, query.server))
        return True

    def handle_timeout(self, now: float) -> None:
        """Ask again what is unanswered, say when it is late, give up what was asked often enough."""
        for transaction_id, query in list(self._queries.items()):
            if now < query.next_at:
                continue
            if query.sends == PROMPT_QUERIES:
                self._events.append(ReflexiveMissed(query.base_id, query.server))
            if query.sends < len(QUERY_INTERVALS_S):
                self._transmit(query, now)
            else:
                del self._queries[transaction_id]

    def poll_transmit(self) -> Transmit | None:
        """Return the next datagram to send."""
        return self._transmits.pop(0) if self._transmits else None

    def poll_event(self) -> ReflexiveFound | ReflexiveMissed | None:
        """Return the next fact."""
        return self._events.pop(0) if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """When `handle_timeout` wants to be called next, and why."""
        if not self._queries:
            return None
        return min(((query.next_at, "STUN server query") for query in self._queries.values()), default=None)

    def _transmit(self, query: _Query, now: float) -> None:
        query.next_at = now + QUERY_INTERVALS_S[query.sends]
        query.sends += 1
        self._transmits.append(Transmit(query.base_id, query.server, query.payload))


class ReflexiveMemory:
    """What servers last answered, by local host and server: of all sessions of one agent."""

    def __init__(self) -> None:
        self._mapped: dict[tuple[str, str], Address] = {}

    def remember(self, host: str, server: str, mapped: Address) -> None:
        """A server sees a local host so; what it answered before is void."""
        self._mapped.pop((host, server), None)  # what was answered last is last
        self._mapped[host, server] = mapped
        if len(self._mapped) > MAX_REMEMBERED:
            del self._mapped[next(iter(self._mapped))]

    def of(self, host: str) -> list[tuple[str, Address]]:
        """Return how a local host was seen, by which server."""
        return [(server, mapped) for (local, server), mapped in self._mapped.items() if local == host]


def _is_usable(mapped: Address | None, server: Address) -> bool:
    return mapped is not None and mapped[1] != 0 and ip_version(mapped[0]) == ip_version(server[0])
