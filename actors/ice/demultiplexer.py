"""Whose is a datagram? One socket serves all connections of a process, so the content says it, not the address. Pure.

    STUN request     USERNAME begins with the receiver's fragment              a session
    STUN response    the transaction id of a request that was sent             a session
    WireGuard        the receiver index; its upper 24 bits are the connection's   an agent
    initiation       has no index: the address that it comes from              agents, a few at most
                     from an address that is proven for nobody                 also who listens, if somebody does
    anything else    for agents without indices, by address                    agents, a few at most

An address is *proven* for an agent when the peer has authenticated itself from there, and *expected* when the peer has
only told it as a candidate. An initiation goes to agents for which its source is proven, and only if there is none, to
those that expect it; who gets one that is not its own finds that it does not decrypt. Everything is bounded.
"""

from array import array
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from .agent import Address

ANSWER_WINDOW_S = 16.0
"""A little more than a session itself remembers its requests (`transactions.ANSWER_WINDOW_S`)."""
MAX_TRANSACTIONS = 65_536
MAX_ADDRESSES = 128
"""For each agent; the oldest is forgotten."""
MAX_OFFERS = 64
"""To so many agents is one datagram without an index offered."""
_USERNAME = 0x0006
_INITIATION, _RESPONSE, _COOKIE, _DATA = 1, 2, 3, 4
_INITIATION_BYTES = 148


class StunReceiver(Protocol):
    """A session: what takes STUN."""

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        """Take a STUN datagram that was sent to the local address `host`."""


class DataReceiver(Protocol):
    """An agent: what takes everything else."""

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Take datagrams that are not STUN and were sent to the local address `host`.

        They lie at `spans` ('I': offset, length, offset, length…) in a buffer that is overwritten after the call, and
        may be during it. `ecn` is the ECN field of their outer headers.
        """

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Somebody on the way says that a destination cannot be reached; refused: it can, and nobody listens there."""


@dataclass(slots=True)
class _Registration:
    prefixes: tuple[bytes, ...] = ()
    addresses: dict[Address, None] = field(default_factory=dict[Address, None])
    """The one that was told last is last."""


class Demultiplexer:
    """The tables."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._sessions: dict[bytes, StunReceiver] = {}
        self._transactions: OrderedDict[bytes, tuple[StunReceiver, float]] = OrderedDict()
        self._prefixes: dict[bytes, DataReceiver] = {}
        self._registrations: dict[DataReceiver, _Registration] = {}
        self._known: dict[Address, dict[DataReceiver, bool]] = {}
        """Who knows an address; True: proven."""
        self._listener: DataReceiver | None = None

    def clear(self) -> None:
        """Forget everybody."""
        for table in (self._sessions, self._transactions, self._prefixes, self._registrations, self._known):
            table.clear()
        self._listener = None

    # Who there is

    def add_session(self, fragment: str, session: StunReceiver) -> None:
        """Requests for this fragment are the session's. Raises ValueError if the fragment is taken."""
        if self._sessions.setdefault(fragment.encode(), session) is not session:
            raise ValueError("this username fragment is in use")

    def remove_session(self, fragment: str, session: StunReceiver) -> None:
        """No more requests for a session; answers still reach it for a while. Idempotent."""
        if self._sessions.get(fragment.encode()) is session:
            del self._sessions[fragment.encode()]

    def add_agent(self, agent: DataReceiver) -> None:
        """Begin with an agent; it knows no address yet."""
        self._registrations[agent] = _Registration()

    def remove_agent(self, agent: DataReceiver) -> None:
        """Nothing more for an agent; idempotent."""
        if self._listener is agent:
            self._listener = None
        registration = self._registrations.pop(agent, None)
        if registration is None:
            return
        for prefix in registration.prefixes:
            self._prefixes.pop(prefix, None)
        for address in registration.addresses:
            self._forget(address, agent)

    def listen(self, agent: DataReceiver) -> None:
        """Initiations from addresses that are proven for nobody go to this agent, too."""
        self._listener = agent

    def claim(self, prefix: int, agent: DataReceiver) -> None:
        """WireGuard's indices with these upper 24 bits are the agent's. Raises ValueError if they are another's."""
        key = prefix.to_bytes(3, "little")
        if self._prefixes.setdefault(key, agent) is not agent:
            raise ValueError("this index prefix is in use")
        registration = self._registrations[agent]
        if key not in registration.prefixes:
            registration.prefixes += (key,)

    def expect_answer(self, transaction_id: bytes, session: StunReceiver, now: float) -> None:
        """A session sent a request."""
        self._transactions[transaction_id] = (session, now)
        self._transactions.move_to_end(transaction_id)
        while self._transactions:
            oldest, (_, sent_at) = next(iter(self._transactions.items()))
            if len(self._transactions) <= MAX_TRANSACTIONS and now - sent_at <= ANSWER_WINDOW_S:
                return
            del self._transactions[oldest]

    def know(self, address: Address, agent: DataReceiver, *, proven: bool) -> None:
        """The agent's peer may send from an address, or (proven) has done so."""
        addresses = self._registrations[agent].addresses
        receivers = self._known.setdefault(address, {})
        receivers[agent] = proven or receivers.get(agent, False)
        addresses.pop(address, None)
        addresses[address] = None
        if len(addresses) > MAX_ADDRESSES:
            oldest = next(iter(addresses))
            del addresses[oldest]
            self._forget(oldest, agent)

    def _forget(self, address: Address, agent: DataReceiver) -> None:
        receivers = self._known.get(address, {})
        receivers.pop(agent, None)
        if not receivers:
            self._known.pop(address, None)

    # Whose a datagram is

    def session_for(self, datagram: bytes) -> StunReceiver | None:
        """Return who takes a STUN datagram; None (counted): nobody."""
        if datagram[0] == 1:  # a success or an error response (RFC 8489 section 5)
            found = self._transactions.get(datagram[8:20])
            if found is not None:
                return found[0]
            self._counters["answer_for_nobody"] += 1
            return None
        session = self._sessions.get(receiver_fragment(datagram))
        if session is None:
            self._counters["request_for_nobody"] += 1
        return session

    def owner_of(self, prefix: bytes) -> DataReceiver | None:
        """Return whose the WireGuard indices are that have these upper 24 bits (little-endian)."""
        return self._prefixes.get(prefix)

    def agents_for(self, datagram: bytes, source: Address) -> tuple[DataReceiver, ...]:
        """Return who takes a datagram that is not STUN; empty (counted): nobody."""
        kind = datagram[0] if datagram else 0
        owner = self._prefixes.get(datagram[9:12] if kind == _RESPONSE else datagram[5:8])
        if owner is not None and kind in (_DATA, _RESPONSE, _COOKIE):
            return (owner,)
        initiation = kind == _INITIATION and len(datagram) == _INITIATION_BYTES
        fitting = [
            (agent, proven)
            for agent, proven in self._known.get(source, {}).items()
            if initiation or not self._registrations[agent].prefixes
        ]
        chosen = [agent for agent, proven in fitting if proven]
        if not chosen:
            listeners = [self._listener] if initiation and self._listener is not None else []
            chosen = [*listeners, *(agent for agent, _ in fitting)]
        if not chosen:
            self._counters["initiation_for_nobody" if initiation else "data_for_nobody"] += 1
        elif len(chosen) > MAX_OFFERS:
            self._counters["offers_over_limit"] += 1
        return tuple(chosen[:MAX_OFFERS])

    def agents_at(self, destination: Address) -> tuple[DataReceiver, ...]:
        """Return whose peer an address may be."""
        return tuple(self._known.get(destination, ()))


def receiver_fragment(datagram: bytes) -> bytes:
    """Return the part of USERNAME before the colon; empty: there is none, or the attributes make no sense."""
    at, end = 20, len(datagram)
    while at + 4 <= end:
        length = int.from_bytes(datagram[at + 2 : at + 4], "big")
        if int.from_bytes(datagram[at : at + 2], "big") == _USERNAME:
            return datagram[at + 4 : min(at + 4 + length, end)].partition(b":")[0]
        at += 4 + length + -length % 4
    return b""
