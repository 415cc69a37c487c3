"""The allocations of a relay: found by client and by number, counted by user, ended in time.

The next expiry is kept as a lower bound: a refresh moves an allocation's own time and leaves the bound alone.
When the bound comes up and nothing is over yet, it is computed anew. That costs one look at every allocation
per wake-up, and nothing per datagram; a heap would grow with each refresh that a client cares to send.
"""

import random
from collections import Counter

from .allocation import Allocation
from .codec import Address
from .credentials import is_gateway
from .settings import Settings

PORT_DRAWS = 16  # random draws before the range is searched from end to end


class AllocationTable:
    """All allocations of one relay, pending ones included."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._by_client: dict[Address, Allocation] = {}
        self._by_identity: dict[int, Allocation] = {}
        self._of_user: Counter[str] = Counter()
        self._ports: set[tuple[int, int]] = set()
        self._next_expiry: float | None = None
        self._last_identity = 0

    def __len__(self) -> int:
        return len(self._by_identity)

    def of_client(self, client: Address) -> Allocation | None:
        """Answer the allocation of a client's address and port: with one UDP socket, the five-tuple."""
        return self._by_client.get(client)

    def of_identity(self, identity: int) -> Allocation | None:
        """Answer the allocation with this number."""
        return self._by_identity.get(identity)

    def identities(self) -> list[int]:
        """Answer the numbers of all allocations."""
        return list(self._by_identity)

    def has_room(self) -> bool:
        """Tell whether the relay may take one more."""
        return len(self._by_identity) < self._settings.max_allocations

    def has_room_for(self, identifier: str) -> bool:
        """Tell whether this user may have one more."""
        settings = self._settings
        most = settings.max_allocations_per_gateway if is_gateway(identifier) else settings.max_allocations_per_user
        return self._of_user[identifier] < most

    def draw_port(self, family: int, tried: frozenset[int] = frozenset()) -> int | None:
        """Choose a free port at random (RFC 8656 section 7.2); None when none is left."""
        lowest, highest = self._settings.min_port, self._settings.max_port
        for _ in range(PORT_DRAWS):
            port = self._rng.randint(lowest, highest)
            if port not in tried and (family, port) not in self._ports:
                return port
        free = (port for port in range(lowest, highest + 1) if port not in tried and (family, port) not in self._ports)
        return next(free, None)

    def next_identity(self) -> int:
        """Answer a number that no allocation of this relay ever had."""
        self._last_identity += 1
        return self._last_identity

    def add(self, allocation: Allocation) -> None:
        """Take in a new allocation."""
        self._by_client[allocation.client] = allocation
        self._by_identity[allocation.identity] = allocation
        self._of_user[allocation.identifier] += 1
        self._ports.add((allocation.family, allocation.port))
        self.expect(allocation)

    def change_port(self, allocation: Allocation, port: int) -> None:
        """Give an allocation that isn't open yet another port."""
        self._ports.discard((allocation.family, allocation.port))
        allocation.port = port
        self._ports.add((allocation.family, port))

    def expect(self, allocation: Allocation) -> None:
        """Have an allocation come up when it expires: after it was added, and when its time has moved."""
        if self._next_expiry is None or allocation.expires_at < self._next_expiry:
            self._next_expiry = allocation.expires_at

    def remove(self, allocation: Allocation) -> None:
        """Forget an allocation."""
        del self._by_client[allocation.client]
        del self._by_identity[allocation.identity]
        self._ports.discard((allocation.family, allocation.port))
        self._of_user[allocation.identifier] -= 1
        if not self._of_user[allocation.identifier]:
            del self._of_user[allocation.identifier]

    def next_expiry(self) -> float | None:
        """Answer a time before which no allocation expires."""
        return self._next_expiry if self._by_identity else None

    def expired(self, now: float) -> list[Allocation]:
        """Answer the allocations whose time is over; the caller removes them."""
        if self._next_expiry is None or now < self._next_expiry:
            return []
        living = (each.expires_at for each in self._by_identity.values() if each.expires_at > now)
        self._next_expiry = min(living, default=None)
        return [each for each in self._by_identity.values() if each.expires_at <= now]
