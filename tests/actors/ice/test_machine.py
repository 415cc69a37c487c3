"""The ICE machine on a simulated internet: virtual time, NATs, relays, loss and cuts. No socket, no sleep."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pytest

from exeunt.actors.ice import Address, Credentials, binding
from exeunt.actors.ice.candidate import Candidate, priority
from exeunt.actors.ice.check_list import PAIR_TRANSITIONS, Base, PairState
from exeunt.actors.ice.machine import IceMachine
from exeunt.actors.ice.messages import ChecksFailed, Event, PathLost, PathSelected

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

    def __init__(self, *, delay_s: float = 0.01, loss: float = 0.0, seed: int = 1) -> None:
        self.now = 1000.0
        self.delay_s = delay_s
        self.loss = loss
        self.cut = False
        self.blocks: Callable[[Address, Address], bool] = lambda _source, _destination: False
        self.rng = random.Random(seed)
        self.nats: dict[str, Nat] = {}
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.agents: list[Agent] = []

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + delay_s, next(self.order), do))

    def send(self, nat: Nat, payload: bytes, destination: Address) -> None:
        source = nat.out(destination)
        if self.cut or self.rng.random() < self.loss or self.blocks(source, destination):
            return
        self.later(self.delay_s, lambda: self._arrive(source, destination, payload))

    def _arrive(self, source: Address, destination: Address, payload: bytes) -> None:
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
        message = binding.read(data)
        assert message is not None
        self.machine.handle_message(base_id, message, source, self.network.now)
        self.drain()

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

    def lost(self) -> list[tuple[float, PathLost]]:
        return [(when, event) for when, event in self.events if isinstance(event, PathLost)]


A_USERNAME, A_PASSWORD = "aaaaaaaa", "a" * 24
B_USERNAME, B_PASSWORD = "bbbbbbbb", "b" * 24


def make_pair(network: Network, *, roles: tuple[bool, bool] = (True, False)) -> tuple[Agent, Agent]:
    ours = Credentials(
        local_username=A_USERNAME,
        local_password=A_PASSWORD,
        remote_username=B_USERNAME,
        remote_password=B_PASSWORD,
    )
    theirs = Credentials(
        local_username=B_USERNAME,
        local_password=B_PASSWORD,
        remote_username=A_USERNAME,
        remote_password=A_PASSWORD,
    )

    def make(credentials: Credentials, tie_breaker: int, *, controlling: bool) -> Agent:
        machine = IceMachine(
            role=binding.Role(controlling, tie_breaker),
            credentials=credentials,
            consent_interval_s=2.0,
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


def test_two_open_hosts_take_one_check_and_one_nomination() -> None:
    network = Network(delay_s=0.01)
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(1.0, connected(a, b))
    assert network.now - 1000.0 < 0.05
    network.run(1.0)
    assert_same_pair(a, b)
    [(_, event)] = a.events
    assert isinstance(event, PathSelected)
    assert event.path.kind == "direct"
    assert (event.path.local_type, event.path.remote_type) == ("host", "host")
    assert event.path.rtt_ms == pytest.approx(20, abs=1)


@pytest.mark.parametrize(
    ("kind_a", "kind_b", "legs"),
    [
        ("open", "open", 0),
        ("open", "port", 0),
        ("port", "open", 0),
        ("port", "port", 0),
        ("open", "symmetric", 0),
        ("symmetric", "open", 0),
        ("port", "symmetric", 1),
        ("symmetric", "port", 1),
        ("symmetric", "symmetric", 1),
    ],
)
@pytest.mark.parametrize("skew_s", [0.0, 0.15])
def test_nat_matrix_direct_where_possible_else_one_relay_leg(
    kind_a: NatKind, kind_b: NatKind, legs: int, skew_s: float
) -> None:
    network = Network(delay_s=0.015)
    a, b = make_pair(network)
    a.add_host("10.1.0.1" if kind_a != "open" else "203.0.113.1", kind_a, "203.0.113.1")
    b.add_host("10.2.0.1" if kind_b != "open" else "203.0.113.2", kind_b, "203.0.113.2")
    a.add_relay("198.51.100.1")
    b.add_relay("198.51.100.2")
    start_both(a, b, skew_s=skew_s)
    network.run(3.0, connected(a, b))
    assert connected(a, b)()
    network.run(8.0)
    assert a.legs == b.legs == legs
    assert_same_pair(a, b)
    assert not a.lost()
    assert not b.lost()


def test_without_a_relay_symmetric_nats_fail_only_after_the_end_of_candidates() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("10.1.0.1", "symmetric", "203.0.113.1")
    b.add_host("10.2.0.1", "symmetric", "203.0.113.2")
    for_a, for_b = b.candidates(), a.candidates()
    a.start(for_a, end=False)
    b.start(for_b, end=False)
    network.run(30.0)
    assert a.events == b.events == []
    a.machine.handle_remote_end(network.now)
    a.drain()
    assert [event for _, event in a.events] == [ChecksFailed("checks_failed")]


def test_candidates_may_come_while_checking() -> None:
    network = Network()
    a, b = make_pair(network)
    a.start([], end=False)
    b.start([], end=False)
    network.run(20.0)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    for candidate in b.candidates():
        a.machine.handle_remote_candidate(candidate, network.now)
    a.drain()
    network.run(1.0, connected(a, b))  # b learns of a by a's checks alone
    assert_same_pair(a, b)
    assert b.machine.selected is not None
    assert b.machine.selected.path.remote_type == "prflx"
    for candidate in a.candidates():
        b.machine.handle_remote_candidate(candidate, network.now)
    b.drain()
    assert [e.path.remote_type for _, e in b.events if isinstance(e, PathSelected)] == ["prflx", "host"]


def test_silence_is_reported_once_after_fifteen_seconds_on_both_sides() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(60.0)
    assert not a.lost()
    network.cut = True
    cut_at = network.now
    network.run(40.0)
    for agent in (a, b):
        [(when, lost)] = agent.lost()
        assert lost.reason == "no_answer"
        assert lost.last_seen_s_ago == pytest.approx(15.0, abs=0.01)
        assert 12.4 < when - cut_at <= 15.1
        assert agent.machine.poll_timeout() is None


def test_authenticated_traffic_alone_keeps_a_path() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(1.0)
    network.cut = True
    for _ in range(40):
        network.run(1.0)
        a.machine.handle_alive(network.now)
    assert not a.lost()
    assert b.lost()
    network.run(16.0)
    assert a.lost()


@pytest.mark.parametrize("outage_s", [3.0, 9.0, 12.0])
def test_an_outage_shorter_than_the_limit_is_survived(outage_s: float) -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(10.0)
    network.cut = True
    network.run(outage_s)
    network.cut = False
    network.run(30.0)
    assert not a.lost()
    assert not b.lost()
    assert_same_pair(a, b)
    assert len(a.events) == len(b.events) == 1


def test_a_round_trip_of_600_ms_is_slow_but_not_dead() -> None:
    network = Network(delay_s=0.3)
    a, b = make_pair(network)
    a.add_host("203.0.113.1", "port", "203.0.113.1")
    b.add_host("203.0.113.2", "port", "203.0.113.2")
    start_both(a, b)
    network.run(5.0, connected(a, b))
    assert network.now - 1000.0 < 2.5
    network.run(120.0)
    assert not a.lost()
    assert not b.lost()
    assert_same_pair(a, b)


@pytest.mark.parametrize("seed", range(10))
def test_twenty_percent_loss_connects_and_stays(seed: int) -> None:
    network = Network(loss=0.2, seed=seed, delay_s=0.02)
    a, b = make_pair(network)
    a.add_host("10.1.0.1", "port", "203.0.113.1")
    b.add_host("10.2.0.1", "port", "203.0.113.2")
    a.add_relay("198.51.100.1")
    start_both(a, b)
    network.run(5.0, connected(a, b))
    assert connected(a, b)()
    network.run(300.0)
    assert not a.lost()
    assert not b.lost()
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_nat_that_forgets_its_mapping_is_followed(who: str) -> None:
    network = Network()
    a, b = make_pair(network)
    nat_a = a.add_host("10.1.0.1", "port" if who == "a" else "open", "203.0.113.1" if who == "a" else "10.1.0.1")
    nat_b = b.add_host("10.2.0.1", "port" if who == "b" else "open", "203.0.113.2" if who == "b" else "10.2.0.1")
    start_both(a, b)
    network.run(5.0)
    assert_same_pair(a, b)
    (nat_a if who == "a" else nat_b).rebind()
    network.run(12.0)
    assert not a.lost()
    assert not b.lost()
    assert_same_pair(a, b)


def test_from_the_relay_to_a_direct_path_when_one_opens() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    a.add_relay("198.51.100.1")
    network.blocks = lambda source, destination: {source[0], destination[0]} == {"203.0.113.1", "203.0.113.2"}
    start_both(a, b)
    network.run(8.0)
    assert a.legs == b.legs == 1
    network.blocks = lambda _source, _destination: False
    network.run(16.0)
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)
    assert [event.path.kind for _, event in a.events if isinstance(event, PathSelected)] == ["relay", "direct"]
    network.cut = True
    network.run(7.0)
    network.cut = False
    network.run(10.0)
    for agent in (a, b):  # an old nomination of the relay does not come back when its pair answers again
        kinds = [event.path.kind for _, event in agent.events if isinstance(event, PathSelected)]
        assert kinds == ["relay", "direct"]


def test_from_a_dead_direct_path_to_the_relay() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    a.add_relay("198.51.100.1")
    start_both(a, b)
    network.run(8.0)
    assert a.legs == b.legs == 0
    network.blocks = lambda source, destination: {source[0], destination[0]} == {"203.0.113.1", "203.0.113.2"}
    network.run(12.0)
    assert a.legs == b.legs == 1
    assert_same_pair(a, b)
    network.run(30.0)
    assert not a.lost()
    assert not b.lost()


def test_a_relay_that_ends_takes_the_path_with_it_only_if_nothing_is_left() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_relay("198.51.100.1")
    a.add_relay("198.51.100.9")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(3.0)
    assert a.machine.selected is not None
    first = a.machine.selected.base.id
    a.machine.handle_base_lost(first, network.now)
    a.drain()
    network.run(3.0)
    assert a.machine.selected.base.id == 1 - first
    assert_same_pair(a, b)
    a.machine.handle_base_lost(1 - first, network.now)
    a.drain()
    assert [lost.reason for _, lost in a.lost()] == ["relay_lost"]


@pytest.mark.parametrize("roles", [(True, True), (False, False)])
def test_a_role_conflict_is_settled(roles: tuple[bool, bool]) -> None:
    network = Network()
    a, b = make_pair(network, roles=roles)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(3.0)
    assert a.machine.is_controlling != b.machine.is_controlling
    assert b.machine.is_controlling  # the larger tie-breaker
    assert_same_pair(a, b)


def test_a_peer_cannot_grow_our_lists_without_bound() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(2.0)
    credentials = Credentials(
        local_username=B_USERNAME,
        local_password=B_PASSWORD,
        remote_username=A_USERNAME,
        remote_password=A_PASSWORD,
    )
    role = binding.Role(controlling=False, tie_breaker=20)
    for port in range(1, 500):
        request = binding.check_request(credentials, role, nominate=False)
        a.machine.handle_message(0, request, ("203.0.113.7", port), network.now)
        a.machine.handle_remote_candidate(Candidate("f", 1, ("203.0.113.8", port), "srflx"), network.now)
    a.drain()
    assert len(a.machine.pairs) <= 100
    assert len({pair.remote.address for pair in a.machine.pairs}) <= 64
    network.run(30.0)
    assert not a.lost()
    assert_same_pair(a, b)


def test_strangers_get_errors_and_change_nothing() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    stranger = Credentials(
        local_username="xxxx", local_password="x" * 22, remote_username=A_USERNAME, remote_password="y" * 22
    )
    request = binding.check_request(stranger, binding.Role(controlling=True, tie_breaker=1), nominate=True)
    a.machine.handle_message(0, request, ("203.0.113.66", 1), network.now)
    answer = a.machine.poll_transmit()
    assert answer is not None
    message = binding.read(answer.payload)
    assert message is not None
    assert message.error_code == 401
    assert a.machine.pairs == []


def test_every_pair_state_that_can_be_reached_has_an_exit() -> None:
    reachable = {PairState.WAITING}
    while True:
        more = {after for state in reachable for after in PAIR_TRANSITIONS[state].values()} | reachable
        if more == reachable:
            break
        reachable = more
    assert reachable == set(PairState)
    for state in reachable:
        assert set(PAIR_TRANSITIONS[state].values()) - {state}
