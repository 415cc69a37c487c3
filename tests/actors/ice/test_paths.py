"""What the two machines of a connection agree on when the network is not kind: NATs that move, loss, reordering."""

import pytest
from tests.actors.ice.internet import (
    Agent,
    NatKind,
    Network,
    assert_same_pair,
    connected,
    credentials_of_a,
    make_pair,
    start_both,
)
from tests.actors.ice.reference import check_request

from exeunt.actors.ice import binding
from exeunt.actors.ice.candidate import Candidate, priority

CLIENT, GATEWAY = "203.0.113.1", "203.0.113.2"


def behind_nats(network: Network, kind_a: NatKind, kind_b: NatKind) -> tuple[Agent, Agent]:
    a, b = make_pair(network)
    a.add_host("10.1.0.1" if kind_a != "open" else CLIENT, kind_a, CLIENT)
    b.add_host("10.2.0.1" if kind_b != "open" else GATEWAY, kind_b, GATEWAY)
    return a, b


def healed_after(network: Network, a: Agent, b: Agent, since: float) -> float:
    """Until both sides hear each other again, in seconds."""
    first = max(min((when for when, _ in agent.heard if when > since), default=float("inf")) for agent in (a, b))
    return first - since


@pytest.mark.parametrize("speaks", ["client", "gateway", "both"])
@pytest.mark.parametrize("seed", range(5))
def test_a_client_whose_nat_moved_is_followed_in_two_seconds(speaks: str, seed: int) -> None:
    network = Network(delay_s=0.02, seed=seed)
    a, b = behind_nats(network, "port", "open")
    start_both(a, b)
    network.run(1.0)
    for name, agent in (("client", a), ("gateway", b)):
        agent.chat(0.2 if speaks in (name, "both") else 5.0, until=network.now + 60)
    network.run(10.0 + seed / 7)
    nat = network.nats[CLIENT]
    nat.rebind()
    moved_at = network.now
    a.heard.clear()
    b.heard.clear()
    network.run(2.0)
    b.say()
    a.say()
    network.run(0.1)
    assert healed_after(network, a, b, moved_at) < 2.1
    if speaks == "client":
        assert_same_pair(a, b)
    network.run(6.0)
    assert_same_pair(a, b)
    assert not a.lost()
    assert not b.lost()


def test_a_client_that_speaks_is_followed_in_a_round_trip_and_a_half() -> None:
    network = Network(delay_s=0.05)
    a, b = behind_nats(network, "port", "open")
    start_both(a, b)
    network.run(40.0)
    network.nats[CLIENT].rebind()
    moved_at = network.now
    a.say()
    network.run(0.21)  # there; a check back; and the client's, with USE-CANDIDATE, there again; its answer back
    b.say()
    network.run(0.06)
    assert [round(when - moved_at, 2) for when, _ in a.heard] == [0.26]
    assert_same_pair(a, b)


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_round_trip_of_600_ms_stays_up_for_ten_minutes(loss: float) -> None:
    network = Network(delay_s=0.3, loss=loss, seed=3)
    a, b = behind_nats(network, "port", "port")
    b.add_relay("198.51.100.2")
    start_both(a, b)
    network.run(6.0, connected(a, b))
    assert connected(a, b)()
    network.run(10.0)
    changes = len(a.paths()), len(b.paths())
    for idle_s, talk_s in ((100.0, 20.0), (200.0, 60.0), (200.0, 20.0)):
        network.run(idle_s)
        b.chat(0.5, until=network.now + talk_s)
        network.run(talk_s)
    assert not a.lost()
    assert not b.lost()
    assert (len(a.paths()), len(b.paths())) == changes
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 100, 25))
def test_where_a_direct_path_exists_it_is_taken_on_any_network(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 25):
        # Many datagrams overtake others, up to a fifth is lost, and the sides begin up to half a second apart.
        network = Network(delay_s=0.01, jitter_s=0.15, loss=0.02 * (seed % 11), seed=seed)
        a, b = behind_nats(network, "port", "port" if seed % 2 else "open")
        a.add_relay("198.51.100.1")
        if seed % 3:
            b.add_relay("198.51.100.2")
        start_both(a, b, skew_s=0.05 * (seed % 10))
        network.run(8.0)
        assert a.legs == b.legs == 0, f"seed {seed}"
        network.run(4.0)
        assert_same_pair(a, b)
        assert not a.lost(), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 100, 25))
def test_both_sides_end_on_the_same_pair_however_late_a_nomination_arrives(first_seed: int) -> None:
    for seed in range(first_seed, first_seed + 25):
        network = Network(delay_s=0.02, jitter_s=1.5 if seed % 2 else 0.4, loss=0.1, seed=seed)
        a, b = behind_nats(network, "port", "port")
        a.add_relay("198.51.100.1")
        b.add_relay("198.51.100.2")
        direct = {CLIENT, GATEWAY}
        network.blocks = lambda source, destination: {source[0], destination[0]} == direct  # noqa: B023
        start_both(a, b)
        network.run(6.0)
        network.blocks = lambda _source, _destination: False
        network.run(40.0)
        assert a.legs == b.legs == 0, f"seed {seed}"
        assert_same_pair(a, b)
        assert not a.lost(), f"seed {seed}"
        assert not b.lost(), f"seed {seed}"


def relayed_then_direct(network: Network) -> tuple[Agent, Agent]:
    """Two sides that used the relay of the first and have just moved to a direct pair."""
    a, b = behind_nats(network, "port", "port")
    a.add_relay("198.51.100.1")
    direct = {CLIENT, GATEWAY}
    network.blocks = lambda source, destination: {source[0], destination[0]} == direct
    start_both(a, b)
    network.run(2.0)
    assert a.legs == b.legs == 1
    network.blocks = lambda _source, _destination: False
    network.run(10.0, lambda: a.legs == b.legs == 0)
    assert a.legs == b.legs == 0
    return a, b


def test_a_copy_of_an_old_nomination_changes_nothing() -> None:
    network = Network(delay_s=0.03)
    a, b = relayed_then_direct(network)
    old = [one for one in network.log if one[0][0] == "198.51.100.1" and binding.is_stun(one[2]) and not one[2][0]]
    assert len(old) > 2
    for source, destination, payload in old:
        network.arrive(source, destination, payload)
    assert a.legs == b.legs == 0
    network.run(0.2)
    assert a.kinds() == b.kinds() == ["relay", "direct"]


def test_a_nomination_that_arrives_after_a_newer_one_is_put_right() -> None:
    network = Network(delay_s=0.03)
    a, b = relayed_then_direct(network)
    [relay] = [nat for nat in a.nats.values() if nat.public_host == "198.51.100.1"]
    destination = next(destination for source, destination, _ in network.log if source == relay.private)
    request = check_request(credentials_of_a(), a.machine.role, nominate=True)
    network.arrive(relay.private, destination, bytes(request))
    assert (a.legs, b.legs) == (0, 1)
    network.run(1.5)
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)


@pytest.mark.parametrize("opens_after_s", [1.0, 2.5, 4.0])
def test_a_relayed_path_gives_way_to_a_direct_one_within_five_seconds(opens_after_s: float) -> None:
    network = Network(delay_s=0.03)
    a, b = behind_nats(network, "port", "port")
    a.add_relay("198.51.100.1")
    direct = {CLIENT, GATEWAY}
    network.blocks = lambda source, destination: {source[0], destination[0]} == direct
    start_both(a, b)
    network.run(opens_after_s + 1.2)
    assert a.legs == b.legs == 1
    network.blocks = lambda _source, _destination: False
    network.run(5.0)
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)
    assert a.kinds() == b.kinds() == ["relay", "direct"]


def test_the_nearer_of_two_relays_is_used() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_relay("198.51.100.1")
    a.add_relay("198.51.100.9")
    b.add_host(GATEWAY)
    start_both(a, b)
    network.run(3.0)
    assert a.machine.selected is not None
    assert a.machine.selected.base.id == 0
    assert_same_pair(a, b)


def test_a_withdrawn_candidate_is_left_while_it_still_carries() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host(CLIENT)
    b.add_relay("198.51.100.1")
    b.add_relay("198.51.100.9")
    start_both(a, b)
    network.run(3.0)
    assert a.machine.selected is not None
    taken = a.machine.selected.remote
    b.machine.handle_base_leaving(0, network.now)
    b.drain()
    a.machine.handle_remote_withdrawn(taken, network.now)
    assert a.machine.selected is not None
    assert a.machine.selected.remote == taken  # until the other one is agreed on
    a.drain()
    network.run(0.2)
    assert a.machine.selected.remote.address[0] == "198.51.100.9"
    assert_same_pair(a, b)
    assert [pair for pair in a.machine.pairs if pair.remote == taken] == []
    a.machine.handle_remote_withdrawn(Candidate("f", priority("host"), ("192.0.2.77", 7), "host"), network.now)
    network.run(60.0)
    assert_same_pair(a, b)


def relayed_while_blocked(network: Network) -> tuple[Agent, Agent]:
    """Both sides on a relay for minutes, since nothing goes directly; then it would."""
    a, b = behind_nats(network, "open", "open")
    a.add_relay("198.51.100.1")
    network.blocks = lambda source, destination: {source[0], destination[0]} == {CLIENT, GATEWAY}
    start_both(a, b)
    network.run(300.0)
    assert a.legs == b.legs == 1
    network.blocks = lambda _source, _destination: False
    return a, b


@pytest.mark.parametrize("news", ["hint", "urgent hint", "candidate", "base"])
@pytest.mark.parametrize("who", ["client", "gateway"])
def test_news_have_a_direct_path_tried_at_once(news: str, who: str) -> None:
    network = Network(delay_s=0.02)
    a, b = relayed_while_blocked(network)
    agent = a if who == "client" else b
    if news == "candidate":
        agent.machine.handle_remote_candidate(Candidate("f", 1, ("198.51.100.77", 9), "srflx"), network.now)
    elif news == "base":
        agent.add_host("10.9.9.9")
    else:
        agent.machine.handle_hint(network.now, urgent=news != "hint")
    agent.drain()
    network.run(1.5, lambda: a.legs == b.legs == 0)
    assert a.legs == b.legs == 0
    assert_same_pair(a, b)


def test_without_news_a_direct_path_is_found_in_half_a_minute() -> None:
    network = Network(delay_s=0.02)
    a, b = relayed_while_blocked(network)
    network.run(31.0, lambda: a.legs == b.legs == 0)
    assert a.legs == b.legs == 0


def test_hints_do_not_make_checks_a_flood() -> None:
    network = Network(delay_s=0.02)
    a, b = relayed_while_blocked(network)
    network.blocks = lambda source, destination: {source[0], destination[0]} == {CLIENT, GATEWAY}
    network.log.clear()
    for _ in range(200):
        a.machine.handle_hint(network.now)
        a.drain()
        network.run(0.1)
    direct = [payload for source, to, payload in network.log if (source[0], to[0]) == (CLIENT, GATEWAY)]
    assert 7 <= len(direct) <= 2 * 20
    assert b.legs == 1
