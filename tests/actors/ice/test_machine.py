"""The ICE machine on a simulated internet: which path it finds, keeps, moves to and gives up."""

import pytest
from tests.actors.ice.internet import (
    A_PASSWORD,
    A_USERNAME,
    B_PASSWORD,
    B_USERNAME,
    NatKind,
    Network,
    assert_same_pair,
    connected,
    make_pair,
    start_both,
)
from tests.actors.ice.reference import check_request

from exeunt.actors.ice import Credentials, binding
from exeunt.actors.ice.candidate import Candidate
from exeunt.actors.ice.check_list import PAIR_TRANSITIONS, PairState
from exeunt.actors.ice.messages import ChecksFailed
from exeunt.actors.ice.packing import Role


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
    [path] = a.paths()
    assert path.kind == "direct"
    assert (path.local_type, path.remote_type) == ("host", "host")
    assert path.rtt_ms == pytest.approx(20, abs=1)


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
    assert [path.remote_type for path in b.paths()] == ["prflx", "host"]


@pytest.mark.parametrize("moment_s", [0.0, 0.9, 1.7, 2.6, 3.5])
def test_silence_is_reported_once_after_fifteen_seconds_on_both_sides(moment_s: float) -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(60.0 + moment_s)
    assert not a.lost()
    network.cut = True
    cut_at = network.now
    network.run(40.0)
    for agent in (a, b):
        [(when, lost)] = agent.lost()
        assert lost.reason == "no_answer"
        assert 15.0 <= lost.last_seen_s_ago <= 16.9
        assert 13.0 <= when - cut_at <= 17.0
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
    assert len(a.paths()) == len(b.paths()) == 1


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
    assert a.kinds() == ["relay", "direct"]
    network.cut = True
    network.run(7.0)
    network.cut = False
    network.run(10.0)
    for agent in (a, b):  # an old nomination of the relay does not come back when its pair answers again
        assert agent.kinds() == ["relay", "direct"]


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
    a.machine.handle_base_lost(first, "relay_lost", network.now)
    a.drain()
    network.run(3.0)
    assert a.machine.selected.base.id == 1 - first
    assert_same_pair(a, b)
    a.machine.handle_base_lost(1 - first, "relay_lost", network.now)
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
    role = Role(controlling=False, tie_breaker=20)
    for port in range(1, 500):
        request = check_request(credentials, role, nominate=False)
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
    request = check_request(stranger, Role(controlling=True, tie_breaker=1), nominate=True)
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
