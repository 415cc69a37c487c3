"""The four requests of TURN, once they are authentic: Allocate, Refresh, CreatePermission, ChannelBind.

Allocate is the only one that cannot be answered at once, since a port must be opened first. Until then it is
pending: the allocation exists (so that quotas hold), carries no data, and a repeated Allocate is not
answered.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aioice.stun import Method

from . import codec, replies
from .allocation import Allocation
from .authentication import Credential, Refusal, has_expired
from .codec import Address, Message, family_of
from .messages import AllocationClosed, AllocationOpened, CloseReason, Event, RelayedPortChosen
from .peers import PeerPolicy
from .replies import Failure, Reply
from .settings import Settings
from .table import AllocationTable

UDP = 17  # the protocol number in REQUESTED-TRANSPORT (RFC 8656 section 18.8)
FAMILIES = {0x01: 4, 0x02: 6}  # RFC 8656 section 18.9
PORT_ATTEMPTS = 8  # other programs may sit on ports of our range; eight of them in a row is no accident


@dataclass(frozen=True, slots=True)
class Request:
    """An authentic request."""

    message: Message
    data: bytes
    """As it came: by these bytes a repetition is recognised."""
    source: Address
    sender: Credential


@dataclass(slots=True)
class _Pending:
    request: Request
    lifetime_s: int
    tried: frozenset[int]


class Requests:
    """Carries out requests on the table of allocations."""

    def __init__(self, settings: Settings, table: AllocationTable, policy: PeerPolicy, events: deque[Event]) -> None:
        self._settings = settings
        self._table = table
        self._policy = policy
        self._events = events
        self._pending: dict[int, _Pending] = {}
        self._carry_out: dict[Method, Callable[[Request, Allocation, float], Reply | Failure]] = {
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._channel_bind,
        }

    def knows(self, method: Method) -> bool:
        """Tell whether this is a request of TURN."""
        return method is Method.ALLOCATE or method in self._carry_out

    def handle(self, request: Request, now: float, now_unix: float) -> Reply | Failure | Refusal | None:
        """Carry out a request; None while the answer must wait. Raises `MalformedError`."""
        allocation = self._table.of_client(request.source)
        if allocation is None and has_expired(request.sender.username, now_unix):
            return Refusal.UNAUTHORIZED
        if request.message.method is Method.ALLOCATE:
            return self._allocate(request, allocation, now)
        if allocation is None or not allocation.is_open:
            return replies.ALLOCATION_MISMATCH
        if allocation.username != request.sender.username:
            return replies.WRONG_CREDENTIALS
        return self._carry_out[request.message.method](request, allocation, now)

    # Allocate (RFC 8656 section 7.2)

    def _allocate(self, request: Request, existing: Allocation | None, now: float) -> Failure | None:
        if existing is not None:
            pending = self._pending.get(existing.identity)
            is_repeated = pending is not None and pending.request.data == request.data
            return None if is_repeated else replies.ALLOCATION_MISMATCH
        transport = request.message.number(codec.REQUESTED_TRANSPORT)
        if transport is None:
            return replies.BAD_REQUEST
        if transport >> 24 != UDP:
            return replies.TRANSPORT_NOT_SUPPORTED
        family = self._family_for(request.message)
        if family is None:
            return replies.FAMILY_NOT_SUPPORTED
        if not self._table.has_room_for(request.sender.identifier):
            return replies.QUOTA_REACHED
        port = self._table.draw_port(family)
        if port is None or not self._table.has_room():
            return replies.NO_CAPACITY
        self._open(request, family, port, now)
        return None

    def _family_for(self, message: Message) -> int | None:
        """Answer the family to relay, or None when we don't have it: without a wish IPv4, if there is any."""
        available = [
            family
            for family, address in ((4, self._settings.public_ipv4), (6, self._settings.public_ipv6))
            if address is not None
        ]
        wish = message.number(codec.REQUESTED_ADDRESS_FAMILY)
        if wish is None:
            return available[0]
        family = FAMILIES.get(wish >> 24)
        return family if family in available else None

    def _open(self, request: Request, family: int, port: int, now: float) -> None:
        lifetime_s = self._granted_lifetime_s(request.message.number(codec.LIFETIME))
        allocation = Allocation(
            identity=self._table.next_identity(),
            client=request.source,
            username=request.sender.username,
            identifier=request.sender.identifier,
            family=family,
            port=port,
            opened_at=now,
            expires_at=now + lifetime_s,
        )
        self._table.add(allocation)
        self._pending[allocation.identity] = _Pending(request, lifetime_s, frozenset())
        self._events.append(RelayedPortChosen(allocation.identity, family, port))

    def port_opened(self, identity: int) -> tuple[Request, Reply] | None:
        """Complete a pending Allocate; answers what its client must be told now, if it still waits."""
        pending = self._pending.pop(identity, None)
        allocation = self._table.of_identity(identity)
        if pending is None or allocation is None:
            return None
        allocation.is_open = True
        public = self._settings.public_ipv4 if allocation.family == 4 else self._settings.public_ipv6
        assert public is not None, "a family is only granted where there is an address for it"
        transaction_id = pending.request.message.transaction_id
        self._events.append(AllocationOpened(identity, allocation.identifier, pending.lifetime_s))
        reply = Reply(
            [
                (codec.XOR_RELAYED_ADDRESS, codec.xor_address((public, allocation.port), transaction_id)),
                (codec.LIFETIME, pending.lifetime_s.to_bytes(4)),
                (codec.XOR_MAPPED_ADDRESS, codec.xor_address(allocation.client, transaction_id)),
            ]
        )
        return pending.request, reply

    def port_refused(self, identity: int, now: float) -> tuple[Request, Failure] | None:
        """Try another port for a pending Allocate, or give it up."""
        pending = self._pending.get(identity)
        allocation = self._table.of_identity(identity)
        if pending is None or allocation is None:
            return None
        pending.tried |= {allocation.port}
        port = self._table.draw_port(allocation.family, pending.tried)
        if port is not None and len(pending.tried) < PORT_ATTEMPTS:
            self._table.change_port(allocation, port)
            self._events.append(RelayedPortChosen(identity, allocation.family, port))
            return None
        self.close(allocation, CloseReason.NO_PORT, now)
        return pending.request, replies.NO_CAPACITY

    def _granted_lifetime_s(self, wish_s: int | None) -> int:
        """Answer the lifetime to grant: no shorter than the default, no longer than the highest."""
        default_s = self._settings.default_lifetime_s
        return max(default_s, min(wish_s or default_s, self._settings.max_lifetime_s))

    # Requests about an allocation

    def _refresh(self, request: Request, allocation: Allocation, now: float) -> Reply | Failure:
        """RFC 8656 section 8.2."""
        family = request.message.number(codec.REQUESTED_ADDRESS_FAMILY)
        if family is not None and FAMILIES.get(family >> 24) != allocation.family:
            return replies.FAMILY_MISMATCH
        wish_s = request.message.number(codec.LIFETIME)
        if wish_s == 0:
            self.close(allocation, CloseReason.RELEASED, now)
            return Reply([(codec.LIFETIME, bytes(4))])
        lifetime_s = self._granted_lifetime_s(wish_s)
        allocation.expires_at = now + lifetime_s
        self._table.expect(allocation)
        return Reply([(codec.LIFETIME, lifetime_s.to_bytes(4))])

    def _create_permission(self, request: Request, allocation: Allocation, now: float) -> Reply | Failure:
        """RFC 8656 section 10.2: all the peers named, or none."""
        hosts = [host for host, _port in request.message.addresses(codec.XOR_PEER_ADDRESS)]
        if not hosts:
            return replies.BAD_REQUEST
        if any(family_of(host) != allocation.family for host in hosts):
            return replies.FAMILY_MISMATCH
        if not all(self._policy.permits_host(host) for host in hosts):
            return replies.FORBIDDEN
        if not allocation.permit(hosts, now, self._settings.max_permissions):
            return replies.NO_CAPACITY
        return Reply()

    def _channel_bind(self, request: Request, allocation: Allocation, now: float) -> Reply | Failure:
        """RFC 8656 section 12.2."""
        number = request.message.number(codec.CHANNEL_NUMBER)
        peers = request.message.addresses(codec.XOR_PEER_ADDRESS)
        if number is None or not peers:
            return replies.BAD_REQUEST
        channel, peer = number >> 16, peers[0]
        if family_of(peer[0]) != allocation.family:
            return replies.FAMILY_MISMATCH
        if not self._policy.permits(peer):
            return replies.FORBIDDEN
        if not allocation.may_bind(channel, peer, now):
            return replies.BAD_REQUEST
        if not allocation.bind(channel, peer, now, self._settings.max_permissions):
            return replies.NO_CAPACITY
        return Reply()

    def close(self, allocation: Allocation, reason: CloseReason, now: float) -> None:
        """End an allocation, whatever state it is in."""
        self._pending.pop(allocation.identity, None)
        self._table.remove(allocation)
        self._events.append(
            AllocationClosed(
                allocation=allocation.identity,
                identifier=allocation.identifier,
                reason=reason,
                duration_s=now - allocation.opened_at,
                rx_bytes=allocation.rx_bytes,
                tx_bytes=allocation.tx_bytes,
            )
        )
