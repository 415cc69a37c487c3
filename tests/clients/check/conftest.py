"""A network in memory: our relay's own machine with two addresses, a NAT of any kind, and a clock that is turned."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from exeunt.actors.turn import Listener, Origins, Server, Settings
from exeunt.actors.turn.codec import Address
from exeunt.clients.check.discovery import Dependence
from exeunt.clients.check.questions import Questions

SERVER, OTHER = ("192.0.2.1", 3478), ("192.0.2.2", 3479)
LOCAL = ("10.1.0.2", 40_000)
PUBLIC_HOST = "198.51.100.2"
RTT_S = 0.03


class Machine(Protocol):
    """What the network can drive."""

    questions: Questions

    @property
    def is_done(self) -> bool: ...
    def handle_start(self, now: float) -> None: ...
    def handle_datagram(self, data: bytes, source: Address, now: float) -> None: ...
    def handle_timeout(self, now: float) -> None: ...


def part_of(remote: Address, dependence: Dependence) -> tuple[object, ...]:
    """What of the remote end a mapping or a filter looks at."""
    return {
        Dependence.ENDPOINT_INDEPENDENT: (),
        Dependence.ADDRESS_DEPENDENT: (remote[0],),
        Dependence.ADDRESS_AND_PORT_DEPENDENT: remote,
    }[dependence]


@dataclass
class Nat:
    """RFC 4787's NAT. With `translates` false it is a firewall, which only filters."""

    mapping: Dependence
    filtering: Dependence
    translates: bool = True
    _mapped: dict[tuple[object, ...], Address] = field(default_factory=dict[tuple[object, ...], Address])
    _let_in: set[tuple[Address, tuple[object, ...]]] = field(default_factory=set[tuple[Address, tuple[object, ...]]])
    _ports: Iterable[int] = field(default_factory=lambda: count(50_001))

    def outwards(self, remote: Address) -> Address:
        """What the client's datagram to `remote` comes from; it opens the filter."""
        key = part_of(remote, self.mapping)
        if key not in self._mapped:
            self._mapped[key] = (PUBLIC_HOST, next(iter(self._ports))) if self.translates else LOCAL
        outside = self._mapped[key]
        self._let_in.add((outside, part_of(remote, self.filtering)))
        return outside

    def lets_in(self, remote: Address, outside: Address) -> bool:
        return (outside, part_of(remote, self.filtering)) in self._let_in


@dataclass
class Network:
    """Between one client and one relay."""

    nat: Nat
    origins: tuple[Origins, ...] = (Origins(SERVER, OTHER),)
    dead: frozenset[Address] = frozenset()
    """Addresses of the relay that nothing goes to or comes from."""
    is_lost: Callable[[], bool] = lambda: False
    carries: Callable[[bytes], bool] = lambda _payload: True
    """Whether a datagram is not too long."""
    now: float = 100.0
    """In seconds."""
    sent: list[Address] = field(default_factory=list[Address])

    def __post_init__(self) -> None:
        settings = Settings(secret="a secret", public_ipv4=SERVER[0], origins=self.origins)
        self.relay = Server(settings, random.Random(1), bytes(32), self.now, 1.8e9)
        corners = self.origins[0] if self.origins else Origins(SERVER, OTHER)
        self._listeners = {corners.address(each): each for each in (Listener if self.origins else [Listener.PRIMARY])}
        self._address_of = {listener: address for address, listener in self._listeners.items()}

    def run(self, machine: Machine) -> float:
        """Until the machine is done; answer how long that took."""
        began_at = self.now
        machine.handle_start(self.now)
        on_the_way: list[tuple[float, bytes, Address]] = []
        while not machine.is_done:
            while (transmit := machine.questions.poll_transmit()) is not None:
                self.sent.append(transmit.destination)
                on_the_way += self._answers(transmit.payload, transmit.destination)
            on_the_way.sort(key=lambda each: each[0])
            timeout = machine.questions.poll_timeout()
            assert timeout is not None, "a machine that isn't done waits for something"
            if on_the_way and on_the_way[0][0] <= timeout[0]:
                self.now, data, source = on_the_way.pop(0)
                machine.handle_datagram(data, source, self.now)
            else:
                self.now = timeout[0]
                machine.handle_timeout(self.now)
        return self.now - began_at

    def _answers(self, data: bytes, destination: Address) -> list[tuple[float, bytes, Address]]:
        outside = self.nat.outwards(destination)
        if destination not in self._listeners or destination in self.dead or self.is_lost() or not self.carries(data):
            return []
        self.relay.handle_datagram(data, outside, self.now, self._listeners[destination])
        came: list[tuple[float, bytes, Address]] = []
        while (transmit := self.relay.poll_transmit()) is not None:
            assert transmit.destination == outside
            source = self._address_of[transmit.listener]
            if source not in self.dead and self.nat.lets_in(source, outside) and not self.is_lost():
                came.append((self.now + RTT_S, transmit.data, source))
        return came
