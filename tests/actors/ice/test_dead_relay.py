"""The relay dies under a connection that has not left it yet, and with it the server that told us our addresses."""

import pytest
from tests.actors.ice.internet import Agent, Network, assert_same_pair, make_pair, start_both

from exeunt.actors.ice.agent import RelayLoss
from exeunt.actors.ice.candidate import Candidate, priority
from exeunt.actors.ice.choice import REPAIR_S
from exeunt.actors.ice.messages import PathBroken
from exeunt.actors.ice.reflexive import ReflexiveMemory

CLIENT, GATEWAY, RELAY, SERVER = "203.0.113.1", "203.0.113.2", "198.51.100.1", "192.0.2.1"
NOTICED_AFTER_S = 1.5
"""`relay.ROUND_REPETITIONS`, after ICMP said that nobody is there."""
DIRECT = {CLIENT, GATEWAY}


def on_the_relay(network: Network, *, of_gateway: bool = False) -> tuple[Agent, Agent]:
    """Both sides on the relay of one of them; from now on the direct path is open."""
    a, b = make_pair(network)
    a.add_host("10.1.0.1", "port", CLIENT)
    b.add_host("10.2.0.1", "port", GATEWAY)
    (b if of_gateway else a).add_relay(RELAY)
    loss, network.loss = network.loss, 0.0
    network.blocks = lambda source, destination: {source[0], destination[0]} == DIRECT
    start_both(a, b)
    network.run(1.9)
    assert a.legs == b.legs == 1
    network.loss = loss
    return a, b


def kill_relay(network: Network) -> None:
    del network.nats[RELAY]
    network.blocks = lambda source, _destination: source[0] == RELAY


def broken(agent: Agent) -> list[float]:
    return [when for when, event in agent.events if isinstance(event, PathBroken)]


@pytest.mark.parametrize("first_seed", range(0, 100, 25))
@pytest.mark.parametrize("of_gateway", [False, True])
@pytest.mark.parametrize("is_noticed", [True, False])
def test_the_path_moves_to_a_direct_pair(is_noticed: bool, of_gateway: bool, first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 25):
        network = Network(delay_s=0.02, jitter_s=0.02, loss=0.2, seed=seed)
        a, b = on_the_relay(network, of_gateway=of_gateway)
        kill_relay(network)
        died_at = network.now
        if is_noticed:
            network.run(NOTICED_AFTER_S)
            owner = b if of_gateway else a
            owner.machine.handle_base_lost(1, "relay_lost", network.now)
            owner.drain()
        network.run(6.5, lambda: a.legs == b.legs == 0)  # noqa: B023
        assert a.legs == b.legs == 0, f"seed {seed}"
        assert network.now - died_at < (3.0 if is_noticed else 6.5), f"seed {seed}"
        network.run(10.0)
        assert_same_pair(a, b)
        assert not a.lost(), f"seed {seed}"
        assert not b.lost(), f"seed {seed}"


@pytest.mark.parametrize(("given_up", "named"), [("relay_lost", "relay_lost"), ("relay_silent", "no_answer")])
def test_a_relay_that_was_only_silent_is_not_blamed(given_up: RelayLoss, named: str) -> None:
    network = Network(delay_s=0.02)
    a, _ = on_the_relay(network, of_gateway=False)
    network.cut = True
    network.run(NOTICED_AFTER_S)
    a.machine.handle_base_lost(1, given_up, network.now)
    network.run(20.0)
    ((_, lost),) = a.lost()
    assert lost.reason == named


@pytest.mark.parametrize("of_gateway", [False, True])
def test_a_path_that_is_not_repaired_soon_is_told_once(of_gateway: bool) -> None:
    network = Network(delay_s=0.02)
    a, b = on_the_relay(network, of_gateway=of_gateway)
    owner = b if of_gateway else a
    network.cut = True
    network.run(NOTICED_AFTER_S)
    owner.machine.handle_base_lost(1, "relay_lost", network.now)
    owner.drain()
    noticed_at = network.now
    network.run(5.0)
    assert broken(owner) == [pytest.approx(noticed_at + REPAIR_S, abs=0.001)]
    network.cut = False
    network.blocks = lambda _source, _destination: False
    network.run(3.0, lambda: a.legs == b.legs == 0)
    assert a.legs == b.legs == 0
    assert len(broken(a)) + len(broken(b)) == 1


@pytest.mark.parametrize("delay_s", [0.005, 0.05])
def test_a_path_that_is_repaired_at_once_is_not_called_broken(delay_s: float) -> None:
    network = Network(delay_s=delay_s)
    a, b = on_the_relay(network)
    network.blocks = lambda _source, _destination: False
    a.machine.handle_base_lost(1, "relay_lost", network.now)
    a.drain()
    network.run(10.0)
    assert a.legs == b.legs == 0
    assert broken(a) == broken(b) == []


def known_candidates(agent: Agent, memory: ReflexiveMemory) -> list[Candidate]:
    """What a session tells whose server does not answer: its bases, and what is remembered of them."""
    found: list[Candidate] = []
    for base_id, nat in agent.nats.items():
        found.append(Candidate("f", priority("host", 65535 - base_id), nat.private, "host"))
        for _, mapped in memory.of(nat.private[0]):
            found.append(Candidate("s", priority("srflx", 65535 - base_id), mapped, "srflx"))
    return found


@pytest.mark.parametrize("remembered", [True, False])
def test_a_restart_without_a_server_needs_what_is_remembered(remembered: bool) -> None:
    for seed in range(50):
        network = Network(delay_s=0.02, jitter_s=0.02, loss=0.2, seed=seed)
        a, b = make_pair(network)
        memories = ReflexiveMemory(), ReflexiveMemory()
        places = ("10.1.0.1", CLIENT), ("10.2.0.1", GATEWAY)
        for agent, memory, (host, public_host) in zip((a, b), memories, places, strict=True):
            nat = agent.add_host(host, "port", public_host)
            if remembered:
                memory.remember(host, SERVER, nat.out((SERVER, 3478)))
        for_a, for_b = known_candidates(b, memories[1]), known_candidates(a, memories[0])
        a.start(for_a)
        b.start(for_b)
        network.run(5.0)
        found = [agent.machine.selected is not None for agent in (a, b)]
        assert found == [remembered, remembered], f"seed {seed}"


def test_what_is_remembered_is_the_latest_and_bounded() -> None:
    memory = ReflexiveMemory()
    memory.remember("10.1.0.1", SERVER, (CLIENT, 1))
    memory.remember("10.1.0.1", SERVER, (CLIENT, 2))
    memory.remember("10.1.0.1", "192.0.2.2", (CLIENT, 3))
    assert memory.of("10.1.0.1") == [(SERVER, (CLIENT, 2)), ("192.0.2.2", (CLIENT, 3))]
    assert memory.of("10.1.0.2") == []
    for number in range(1000):
        memory.remember(f"10.2.0.{number}", SERVER, (CLIENT, number))
    assert memory.of("10.1.0.1") == memory.of("10.2.0.900") == []
    assert memory.of("10.2.0.999") == [(SERVER, (CLIENT, 999))]
