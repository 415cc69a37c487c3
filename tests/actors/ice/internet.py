"""A simulated internet for ICE machines: virtual time, NATs, relays, loss, reordering and cuts. No socket, no sleep."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from exeunt.actors.ice import Address, Credentials, Path, binding
from exeunt.actors.ice.candidate import Candidate, priority
from exeunt.actors.ice.check_list import Base
from exeunt.actors.ice.machine import IceMachine
from exeunt.actors.ice.messages import Event, PathLost, PathSelected
from exeunt.actors.ice.packing import Role

NatKind = Literal["open", "port", "symmetric"]
Receive = Callable[[bytes, Address], None]


@dataclass
class Nat:
    """Address translation and filtering in front of one private address."""

    kind: NatKind
    public_host: str
    inside: Receive
    private: Address
    ports: dict[Address | None, int] = field(default_factory=dict[Address | None, int])
    allowed: set[tuple[int, Address]] = field(default_factory=set[tuple[int, Address]])
    next_port: int = 20_000

    def out(self, destination: Address) -> Address:
        if self.kind == "open":
            return self.private
        key = destination if self.kind == "symmetric" else None
        if key not in self.ports:
            self.next_port += 1
            self.ports[key] = self.next_port
        port = self.ports[key]
        self.allowed.add((port, destination))
        return self.public_host, port

    def rebind(self) -> None:
        """Lose every mapping, as a NAT that restarted."""
        self.ports.clear()
        self.allowed.clear()

    def lets_in(self, port: int, source: Address) -> bool:
        return self.kind == "open" or (port, source) in self.allowed


class Network:
    """Delivers datagrams after a delay, through NATs, in virtual time."""

    def __init__(self, *, delay_s: float = 0.01, loss: float = 0.0, seed: int = 1, jitter_s: float = 0.0) -> None:
        self.now = 1000.0
        self.delay_s = delay_s
        self.loss = loss
        self.jitter_s = jitter_s
        """Each datagram is late by up to this much: later ones overtake it."""
        self.cut = False
        self.blocks: Callable[[Address, Address], bool] = lambda _source, _destination: False
        self.rng = random.Random(seed)
        self.nats: dict[str, Nat] = {}
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.agents: list[Agent] = []
        self.log: list[tuple[Address, Address, bytes]] = []
        """Source, destination and payload of what was sent."""

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay_s, next(self.order), do))

    def send(self, nat: Nat, payload: bytes, destination: Address) -> None:
        source = nat.out(destination)
        self.log.append((source, destination, payload))
        if self.cut or self.rng.random() < self.loss or self.blocks(source, destination):
            return
        self.later(self.delay_s + self.rng.uniform(0, self.jitter_s), lambda: self.arrive(source, destination, payload))

    def arrive(self, source: Address, destination: Address, payload: bytes) -> None:
        """Hand a datagram to whoever has the destination, if his NAT lets it in."""
        nat = self.nats.get(destination[0])
        if nat is not None and nat.lets_in(destination[1], source):
            nat.inside(payload, source)

    def run(self, duration_s: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + duration_s
        while not until():
            timeouts = [(t[0], a) for a in self.agents if (t := a.machine.poll_timeout()) is not None]
            due = min(timeouts, key=lambda t: t[0], default=None)
            when = min(due[0] if due else end, self.queue[0][0] if self.queue else end)
            if when >= end:
                self.now = end
                return
            self.now = max(self.now, when)
            if self.queue and self.queue[0][0] <= self.now:
                heapq.heappop(self.queue)[2]()
            elif due is not None:
                due[1].machine.handle_timeout(self.now)
                due[1].drain()


class Agent:
    """An ICE machine with addresses on the simulated network."""

    def __init__(self, network: Network, machine: IceMachine) -> None:
        self.network = network
        self.machine = machine
        self.nats: dict[int, Nat] = {}
        self.events: list[tuple[float, Event]] = []
        self.sent: Counter[Address] = Counter()
        self.heard: list[tuple[float, bytes]] = []
        network.agents.append(self)

    def add_host(self, host: str, nat: NatKind = "open", public_host: str = "") -> Nat:
        return self._add("host", host, nat, public_host or host)

    def add_relay(self, host: str) -> Nat:
        return self._add("relay", host, "open", host)

    def _add(self, kind: Literal["host", "relay"], host: str, nat_kind: NatKind, public_host: str) -> Nat:
        base_id = len(self.nats)
        address = (host, 5000 + base_id)
        nat = Nat(nat_kind, public_host, lambda data, source: self.receive(base_id, data, source), address)
        self.nats[base_id] = self.network.nats[public_host] = nat
        self.machine.handle_base(
            Base(base_id, Candidate("f", priority(kind, 65535 - base_id), address, kind)), self.network.now
        )
        self.drain()
        return nat

    def candidates(self) -> list[Candidate]:
        """What this agent would tell its peer: each base, and what a STUN server sees of a port-restricted NAT."""
        found: list[Candidate] = []
        for base_id, nat in self.nats.items():
            kind: Literal["host", "relay"] = (
                "relay" if nat.kind == "open" and nat.public_host.startswith("198.51") else "host"
            )
            found.append(Candidate("f", priority(kind, 65535 - base_id), nat.private, kind))
            if nat.kind != "open":
                mapped = nat.out(("192.0.2.1", 3478))
                self.machine.handle_reflexive(mapped)
                found.append(Candidate("s", priority("srflx", 65535 - base_id), mapped, "srflx"))
        return found

    def receive(self, base_id: int, data: bytes, source: Address) -> None:
        """Take STUN; anything else stands for a packet of the peer that was authenticated."""
        now, pair = self.network.now, self.machine.selected
        if binding.is_stun(data):
            self.machine.handle_datagram(base_id, data, source, now)
        elif pair is not None:
            self.heard.append((now, data))
            if (base_id, source) == (pair.base.id, pair.remote.address):
                self.machine.handle_alive(now)
            else:
                self.machine.handle_stray(base_id, source, now)
        self.drain()

    def say(self, data: bytes = b"data") -> None:
        """Send a packet of the layer above."""
        pair = self.machine.selected
        assert pair is not None
        self.machine.handle_sent(self.network.now)
        self.network.send(self.nats[pair.base.id], data, pair.remote.address)

    def chat(self, interval_s: float, until: float) -> None:
        """Send a packet in every interval, while there is a path."""
        if self.machine.selected is not None and self.network.now < until:
            self.say()
            self.network.later(interval_s, lambda: self.chat(interval_s, until))

    def drain(self) -> None:
        while (transmit := self.machine.poll_transmit()) is not None:
            self.sent[transmit.destination] += 1
            self.network.send(self.nats[transmit.base_id], transmit.payload, transmit.destination)
        while (event := self.machine.poll_event()) is not None:
            self.events.append((self.network.now, event))

    def start(self, remote: list[Candidate], *, end: bool = True) -> None:
        for candidate in remote:
            self.machine.handle_remote_candidate(candidate, self.network.now)
        self.machine.handle_local_end(self.network.now)
        if end:
            self.machine.handle_remote_end(self.network.now)
        self.machine.handle_start(self.network.now)
        self.drain()

    @property
    def ends(self) -> tuple[Address, Address] | None:
        """The selected pair as seen on the internet: our public address and the peer's."""
        pair = self.machine.selected
        if pair is None:
            return None
        return self.nats[pair.base.id].out(pair.remote.address), pair.remote.address

    @property
    def legs(self) -> int:
        assert self.machine.selected is not None
        return self.machine.selected.relay_legs

    def paths(self) -> list[Path]:
        """The paths that were announced."""
        return [event.path for _, event in self.events if isinstance(event, PathSelected)]

    def kinds(self) -> list[str]:
        """The kinds of the paths that were announced."""
        return [path.kind for path in self.paths()]

    def lost(self) -> list[tuple[float, PathLost]]:
        return [(when, event) for when, event in self.events if isinstance(event, PathLost)]


A_USERNAME, A_PASSWORD = "aaaaaaaa", "a" * 24
B_USERNAME, B_PASSWORD = "bbbbbbbb", "b" * 24


def credentials_of_a() -> Credentials:
    return Credentials(
        local_username=A_USERNAME,
        local_password=A_PASSWORD,
        remote_username=B_USERNAME,
        remote_password=B_PASSWORD,
    )


def make_pair(network: Network, *, roles: tuple[bool, bool] = (True, False)) -> tuple[Agent, Agent]:
    ours = credentials_of_a()
    theirs = Credentials(
        local_username=B_USERNAME,
        local_password=B_PASSWORD,
        remote_username=A_USERNAME,
        remote_password=A_PASSWORD,
    )

    def make(credentials: Credentials, tie_breaker: int, *, controlling: bool) -> Agent:
        machine = IceMachine(
            role=Role(controlling, tie_breaker),
            credentials=credentials,
            consent_interval_s=3.6,
            lost_after_s=15.0,
            rng=random.Random(7),
            counters=Counter(),
        )
        return Agent(network, machine)

    return make(ours, 10, controlling=roles[0]), make(theirs, 20, controlling=roles[1])


def start_both(a: Agent, b: Agent, *, skew_s: float = 0.0) -> None:
    for_a, for_b = b.candidates(), a.candidates()
    a.start(for_a)
    a.network.run(skew_s)
    b.start(for_b)


def connected(*agents: Agent) -> Callable[[], bool]:
    return lambda: all(agent.machine.selected is not None for agent in agents)


def assert_same_pair(a: Agent, b: Agent) -> None:
    assert a.ends is not None
    assert b.ends is not None
    assert a.ends == (b.ends[1], b.ends[0])
