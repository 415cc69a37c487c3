"""A STUN and TURN server without sockets or clock (RFC 8489, RFC 8656), over UDP on both sides.

    datagram from a client ─► handle_datagram ──┬─► poll_transmit (to a client, or to a peer)
    datagram from a peer   ─► handle_relayed  ──┤
    a port opened or not   ─► handle_port_…   ──┼─► poll_event    (a port to open; allocations opened, closed)
    time                   ─► handle_timeout  ──┴─► poll_timeout  (when, why)

Everything that comes in is hostile until it is authentic: malformed messages are counted and dropped,
requests are answered with the protocol's errors, and nothing is remembered for anybody who has not shown a
credential.
"""

import random
from collections import deque

from aioice.stun import Class, Method

from . import codec, discovery, replies
from .allocation import Allocation
from .answers import RecentAnswers
from .authentication import Authenticator, Refusal
from .codec import Address, MalformedError, Message, family_of
from .counters import Counters
from .discovery import Listener
from .messages import CloseReason, Event, Transmit
from .nonces import NonceIssuer
from .peers import PeerPolicy
from .replies import Failure, Reply
from .requests import Request, Requests
from .settings import Settings
from .table import AllocationTable

# A Data indication adds at most 72 bytes to its payload, and a UDP datagram over IPv4 holds 65,507.
MAX_RELAYED_BYTES = 65_507 - 72


class Server:
    """The server's machine. After each input, drain `poll_transmit` and `poll_event`, then `poll_timeout`.

    Args:
        settings: how it behaves.
        rng: chooses the relayed ports.
        nonce_key: signs nonces; 32 bytes from the operating system.
        now: the present in seconds, monotonic, as in every input.
        now_unix: the same moment in seconds since 1970, since credentials carry calendar time.
    """

    def __init__(self, settings: Settings, rng: random.Random, nonce_key: bytes, now: float, now_unix: float) -> None:
        self.counters = Counters()
        self._settings = settings
        self._rng = rng
        self._nonces = NonceIssuer(nonce_key, settings.nonce_lifetime_s)
        self._authenticator = Authenticator(settings.secret, settings.realm, self._nonces)
        self._policy = PeerPolicy(settings)
        self._table = AllocationTable(settings, rng)
        self._answers = RecentAnswers()
        self._transmits: deque[Transmit] = deque()
        self._events: deque[Event] = deque()
        self._unix_at_zero = now_unix - now
        self._origins = {each.family: each for each in settings.origins}
        self._requests = Requests(settings, self._table, self._policy, self._events)

    @property
    def allocations(self) -> int:
        """How many allocations there are, pending ones included."""
        return len(self._table)

    @property
    def has_events(self) -> bool:
        """Whether `poll_event` has something to say."""
        return bool(self._events)

    # Inputs

    def handle_datagram(self, data: bytes, source: Address, now: float, listener: Listener = Listener.PRIMARY) -> None:
        """Take a datagram that a client sent from ``source`` to a listening port."""
        self.counters.rx_client_datagrams += 1
        try:
            if listener is not Listener.PRIMARY:
                self._handle_elsewhere(codec.parse(data), source, listener)
            elif codec.is_channel_data(data):
                self._relay_channel_data(data, source, now)
            else:
                self._handle_message(codec.parse(data), data, source, now)
        except MalformedError:
            self.counters.malformed += 1

    def handle_relayed(self, data: bytes, allocation: int, source: Address, now: float) -> None:
        """Take a datagram that a peer sent from ``source`` to an allocation's port."""
        self.counters.rx_peer_datagrams += 1
        owner = self._table.of_identity(allocation)
        if owner is None or not owner.is_permitted(source[0], now):
            self.counters.not_permitted += 1
            return
        if len(data) > MAX_RELAYED_BYTES:
            self.counters.oversized += 1
            return
        channel = owner.channel_of(source, now)
        framed = codec.channel_data(channel, data) if channel else self._data_indication(data, source)
        owner.rx_bytes += len(data)
        self.counters.relayed_to_clients += 1
        self.counters.relayed_to_clients_bytes += len(data)
        self._transmits.append(Transmit(framed, owner.client, None))

    def handle_port_opened(self, allocation: int, now: float) -> None:
        """Take note that the port of `RelayedPortChosen` is open: the client gets its answer."""
        answered = self._requests.port_opened(allocation)
        if answered is not None:
            self.counters.allocations += 1
            self._answer(*answered, now)

    def handle_port_refused(self, allocation: int, now: float) -> None:
        """Take note that the port could not be opened: another one is tried, or the client is told 508."""
        answered = self._requests.port_refused(allocation, now)
        if answered is not None:
            self._answer(*answered, now)

    def handle_timeout(self, now: float) -> None:
        """End the allocations whose time is over."""
        for allocation in self._table.expired(now):
            self._requests.close(allocation, CloseReason.EXPIRED, now)

    def handle_clock(self, now: float, now_unix: float) -> None:
        """Take the calendar time, which may have been set since the last time."""
        self._unix_at_zero = now_unix - now

    def handle_close(self, now: float) -> None:
        """End every allocation: the relay leaves. TURN has no message that would tell the clients."""
        for identity in self._table.identities():
            if (allocation := self._table.of_identity(identity)) is not None:
                self._requests.close(allocation, CloseReason.SERVER_LEFT, now)

    # Outputs

    def poll_transmit(self) -> Transmit | None:
        """Answer the next datagram to send."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> Event | None:
        """Answer the next event. Drain the transmits first: an `AllocationClosed` closes a socket."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Answer when `handle_timeout` is due, and why."""
        when = self._table.next_expiry()
        return None if when is None else (when, "an allocation expires")

    # Data

    def _relay_channel_data(self, data: bytes, source: Address, now: float) -> None:
        channel, payload = codec.parse_channel_data(data)
        owner = self._table.of_client(source)
        peer = owner.peer_of(channel, now) if owner is not None else None
        if owner is None or peer is None:
            self.counters.no_allocation += 1
            return
        self._to_peer(owner, peer, payload, now)

    def _relay_send_indication(self, message: Message, source: Address, now: float) -> None:
        """RFC 8656 section 11.2: not authenticated, the five-tuple and a permission suffice."""
        owner = self._table.of_client(source)
        if owner is None or not owner.is_open:
            self.counters.no_allocation += 1
            return
        peers, payload = message.addresses(codec.XOR_PEER_ADDRESS), message.first(codec.DATA)
        if not peers or payload is None or message.unknown_required():
            raise MalformedError("A Send indication names a peer and carries data.")
        self._to_peer(owner, peers[0], payload, now)

    def _to_peer(self, owner: Allocation, peer: Address, payload: bytes, now: float) -> None:
        if not owner.is_permitted(peer[0], now) or not self._policy.permits_port(peer):
            self.counters.not_permitted += 1
            return
        owner.tx_bytes += len(payload)
        self.counters.relayed_to_peers += 1
        self.counters.relayed_to_peers_bytes += len(payload)
        self._transmits.append(Transmit(payload, peer, owner.identity))

    def _data_indication(self, payload: bytes, peer: Address) -> bytes:
        transaction_id = self._rng.randbytes(12)
        attributes = [
            (codec.XOR_PEER_ADDRESS, codec.xor_address(peer, transaction_id)),
            (codec.DATA, payload),
        ]
        return codec.encode(Method.DATA, Class.INDICATION, transaction_id, attributes)

    # Messages

    def _handle_message(self, message: Message, data: bytes, source: Address, now: float) -> None:
        if message.kind is Class.INDICATION and message.method is Method.SEND:
            self._relay_send_indication(message, source, now)
        elif message.kind is Class.REQUEST and message.method is Method.BINDING:
            self._answer_binding(message, source, Listener.PRIMARY)
        elif message.kind is Class.REQUEST and self._requests.knows(message.method):
            self._handle_request(message, data, source, now)
        else:
            self.counters.ignored += 1

    def _handle_elsewhere(self, message: Message, source: Address, listener: Listener) -> None:
        """The other addresses exist for NAT behaviour discovery: they answer Binding requests, and nothing else."""
        if message.kind is Class.REQUEST and message.method is Method.BINDING:
            self._answer_binding(message, source, listener)
        else:
            self.counters.ignored += 1

    def _answer_binding(self, message: Message, source: Address, listener: Listener) -> None:
        origins = self._origins.get(family_of(source[0]))
        # Without another address there is nothing to change to: RFC 5780 section 6.1 wants 420 then.
        understood = () if origins is None else (codec.CHANGE_REQUEST,)
        if unknown := message.unknown_required(*understood):
            self._send(message, source, replies.unknown_attributes(unknown), None, listener)
            return
        answering = discovery.answering(listener, message)
        self.counters.bindings += 1
        self.counters.changed_origins += answering is not listener
        carried = [(codec.XOR_MAPPED_ADDRESS, codec.xor_address(source, message.transaction_id))]
        if origins is not None:
            carried += origins.attributes(listener, answering)
        self._send(message, source, Reply(carried), None, answering)

    def _handle_request(self, message: Message, data: bytes, source: Address, now: float) -> None:
        kept = self._answers.recall(source, data, now)
        if kept is not None:
            self.counters.repeated += 1
            self._transmits.append(Transmit(kept, source, None))
            return
        sender = self._authenticator.check(message, source, now)
        if isinstance(sender, Refusal):
            self._refuse(message, source, sender, now)
            return
        request = Request(message, data, source, sender)
        outcome = self._outcome(request, now)
        if isinstance(outcome, Refusal):
            self._refuse(message, source, outcome, now)
        elif outcome is not None:
            self._answer(request, outcome, now)

    def _outcome(self, request: Request, now: float) -> Reply | Failure | Refusal | None:
        if unknown := request.message.unknown_required():  # only once authentic: RFC 8489 section 6.3
            return replies.unknown_attributes(unknown)
        try:
            return self._requests.handle(request, now, now + self._unix_at_zero)
        except MalformedError:
            return replies.BAD_REQUEST

    def _refuse(self, message: Message, source: Address, refusal: Refusal, now: float) -> None:
        if refusal is Refusal.BAD_REQUEST:
            self._send(message, source, replies.BAD_REQUEST, None)
            return
        challenge = [
            (codec.REALM, self._settings.realm.encode()),
            (codec.NONCE, self._nonces.issue(source, now)),
        ]
        if refusal is Refusal.STALE_NONCE:
            self.counters.stale_nonces += 1
            failure = Failure(438, "Stale Nonce", challenge)
        else:
            self.counters.unauthorized += 1
            failure = Failure(401, "Unauthorized", challenge)
        self._send(message, source, failure, None)

    def _answer(self, request: Request, outcome: Reply | Failure, now: float) -> None:
        sent = self._send(request.message, request.source, outcome, request.sender.key)
        self._answers.keep(request.source, request.data, sent, now)

    def _send(
        self,
        message: Message,
        source: Address,
        outcome: Reply | Failure,
        key: bytes | None,
        listener: Listener = Listener.PRIMARY,
    ) -> bytes:
        attributes = outcome.attributes()
        kind = Class.ERROR if isinstance(outcome, Failure) else Class.RESPONSE
        if isinstance(outcome, Failure) and outcome.code not in (401, 438):
            self.counters.refused += 1
        # Errors told to strangers go without SOFTWARE: they must stay small (see MAX_REALM_BYTES).
        if self._settings.software and (kind is Class.RESPONSE or key is not None):
            attributes.append((codec.SOFTWARE, self._settings.software.encode()))
        data = codec.encode(message.method, kind, message.transaction_id, attributes, key)
        self._transmits.append(Transmit(data, source, None, listener))
        return data
