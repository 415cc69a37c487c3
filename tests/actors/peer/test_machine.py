"""One connection: connecting, carrying, and above all ending. Two machines, an in-memory wire, a fake clock."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.peer.pair import ConnectionPair, other, reachable_from

from exeunt.actors.device.waiting import WAITING_PACKETS
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.control_packet import (
    REASON_CODES,
    Goodbye,
    GoodbyeAcknowledged,
    Probe,
    ProbeReply,
    encode_control,
)
from exeunt.actors.peer.states import TRANSITIONS, State
from exeunt.actors.timing import (
    GOODBYE_DEADLINE_S,
    GOODBYE_LATEST_S,
    GOODBYE_PATIENCE_S,
    GOODBYE_REPEAT_S,
    GOODBYE_WORK_S,
    HANDSHAKE_S,
    LINGER_LEAVING_S,
    LINGER_S,
)
from exeunt.actors.wireguard.testing import SIDES, Side, ipv4_packet

RTT_MS = 20.0


@pytest.fixture
def pair() -> ConnectionPair:
    """Connected, over 20 ms."""
    pair = ConnectionPair(rtt_ms=RTT_MS)
    pair.connect()
    return pair


# --- many goodbyes at once ---


def test_where_many_say_goodbye_at_once_each_has_more_time_and_repeats_it_less_often() -> None:
    pairs = [ConnectionPair(rtt_ms=RTT_MS) for _ in range(3)]
    farewells = pairs[0].gateway.farewells
    for one in pairs:
        one.connect()
        one.gateway.farewells = farewells
        one.lost = lambda side, _datagram: side == "client"
    for _ in range(497):
        farewells.begin()
    for one in pairs:
        one.close("gateway")
    assert farewells.repeat_s == pytest.approx(500 * GOODBYE_WORK_S)
    for one in pairs:
        one.advance(GOODBYE_LATEST_S - 0.01)
        assert one.endings("gateway") == []
        one.advance(0.02)
        ended = one.ending("gateway")
        assert 8 <= ended.evidence["goodbyes_sent"] <= 10
        assert ended.acknowledged is False
    for _ in range(497):
        farewells.end()
    assert (farewells.repeat_s, farewells.patience_s) == (GOODBYE_REPEAT_S, GOODBYE_DEADLINE_S)


def test_the_first_of_many_goodbyes_has_as_much_time_as_the_last() -> None:
    first, last = (ConnectionPair(rtt_ms=RTT_MS) for _ in range(2))
    for one in (first, last):
        one.connect()
        one.gateway.farewells = first.gateway.farewells
        one.lost = lambda side, _datagram: side == "client"
    first.close("gateway")
    for _ in range(300):
        first.gateway.farewells.begin()
    first.advance(GOODBYE_DEADLINE_S + 300 * GOODBYE_PATIENCE_S - 0.01)
    assert first.endings("gateway") == []
    first.advance(0.02)
    assert first.ending("gateway").acknowledged is False


# --- connecting ---


def test_a_path_becomes_a_connection(pair: ConnectionPair) -> None:
    assert [connection.state for connection in pair.connections.values()] == ["established"] * 2
    assert len(pair.connected("client")) == len(pair.connected("gateway")) == 1
    assert pair.connected("client")[0].handshake_rtt_ms == pytest.approx(RTT_MS)


def test_packets_flow_both_ways(pair: ConnectionPair) -> None:
    pair.send("client", ipv4_packet(fill=1))
    pair.send("gateway", ipv4_packet(fill=2))
    pair.advance(0.1)
    assert pair.packets == {"gateway": [ipv4_packet(fill=1)], "client": [ipv4_packet(fill=2)]}


@pytest.mark.parametrize("side", SIDES)
def test_packets_wait_for_the_path(side: Side) -> None:
    pair = ConnectionPair()
    packets = [ipv4_packet(fill=number) for number in range(5)]
    for packet in packets:
        pair.send(side, packet)
    assert pair.carried == []
    pair.connect()
    assert pair.packets[other(side)] == packets


def test_packets_wait_for_the_handshake() -> None:
    pair = ConnectionPair()
    pair.gateway.handle_path(RTT_MS, pair.now)
    pair.client.handle_path(RTT_MS, pair.now)
    pair.send("client", ipv4_packet(fill=3))
    pair.advance(0.1)
    assert pair.packets["gateway"] == [ipv4_packet(fill=3)]


def test_the_oldest_waiting_packets_go_first() -> None:
    pair = ConnectionPair()
    packets = [ipv4_packet(size=64 + number) for number in range(WAITING_PACKETS + 7)]
    for packet in packets:
        pair.send("client", packet)
    pair.connect()
    assert pair.packets["gateway"] == packets[7:]


def test_another_path_changes_nothing_else(pair: ConnectionPair) -> None:
    before = len(pair.carried)
    pair.client.handle_path(5.0, pair.now)
    pair.settle()
    assert len(pair.carried) == before
    assert len(pair.connected("client")) == 1


# --- leaving ---


def test_a_sign_out_is_acknowledged_within_a_round_trip(pair: ConnectionPair) -> None:
    pair.close("client")
    pair.advance(RTT_MS / 1000)
    ours, theirs = pair.ending("client"), pair.ending("gateway")
    assert (ours.cause, ours.initiated_by, ours.acknowledged) == (Cause.SIGNED_OUT, Initiator.US, True)
    assert ours.evidence["goodbyes_sent"] == 1
    assert ours.evidence["acknowledged_ms"] == pytest.approx(RTT_MS)
    assert (theirs.cause, theirs.initiated_by, theirs.acknowledged) == (Cause.SIGNED_OUT, Initiator.PEER, True)
    assert theirs.detection_ms == pytest.approx(RTT_MS / 2)
    assert pair.client.state == "ended"
    assert pair.gateway.state == "lingering"


def test_a_repeated_goodbye_says_how_long_the_news_took(pair: ConnectionPair) -> None:
    said = len(pair.carried)
    pair.lost = lambda _side, _datagram: len(pair.carried) <= said + 3
    pair.close("client")
    pair.advance(1)
    repetitions_ms = 3 * GOODBYE_REPEAT_S * 1000
    assert pair.ending("gateway").detection_ms == pytest.approx(repetitions_ms + RTT_MS / 2, abs=1.5)
    assert pair.ending("client").evidence["goodbyes_sent"] == 4


@pytest.mark.slow
def test_of_200_sign_outs_with_a_fifth_lost_each_way_199_are_acknowledged() -> None:
    acknowledged = heard = 0
    for seed in range(200):
        pair = ConnectionPair(rtt_ms=30.0, seed=seed)
        pair.connect()
        pair.loss = 0.2
        pair.close("client")
        pair.advance(GOODBYE_DEADLINE_S + LINGER_S)
        acknowledged += pair.ending("client").acknowledged is True
        heard += bool(pair.endings("gateway"))
    assert acknowledged >= 199
    assert heard >= 199


def test_goodbyes_that_cross_end_both_sides_as_each_meant(pair: ConnectionPair) -> None:
    pair.close("client", Cause.SIGNED_OUT)
    pair.close("gateway", Cause.SHUTTING_DOWN)
    pair.advance(RTT_MS / 1000 + 0.001)
    assert (pair.ending("client").cause, pair.ending("client").acknowledged) == (Cause.SIGNED_OUT, True)
    assert (pair.ending("gateway").cause, pair.ending("gateway").acknowledged) == (Cause.SHUTTING_DOWN, True)
    pair.advance(LINGER_S)
    assert pair.client.state == pair.gateway.state == "ended"


def test_a_plain_goodbye_of_another_data_plane_is_understood(pair: ConnectionPair) -> None:
    header = bytes([0x60, 0, 0, 0, 0, 8, 255, 0]) + bytes(32)
    plain = header + bytes([2]) + bytes(7)
    assert len(plain) == 48
    before = len(pair.carried)
    pair.inject("client", plain)
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by, ended.acknowledged) == (Cause.SHUTTING_DOWN, Initiator.PEER, True)
    assert ended.evidence == {"told": "goodbye without a reason"}
    assert ended.detection_ms == pytest.approx(RTT_MS / 2)
    assert len(pair.carried) == before, "it asks for no acknowledgement"


def test_a_lost_acknowledgement_is_said_again_while_lingering(pair: ConnectionPair) -> None:
    lost: list[bytes] = []

    def lose_three(side: Side, datagram: bytes) -> bool:
        if side == "gateway" and len(lost) < 3:
            lost.append(datagram)
            return True
        return False

    pair.lost = lose_three
    pair.close("client")
    pair.advance(GOODBYE_DEADLINE_S)
    assert len(lost) == 3
    assert pair.ending("client").acknowledged is True
    assert len(pair.endings("gateway")) == 1
    pair.advance(LINGER_S)
    assert pair.gateway.state == "ended"


def test_whoever_leaves_lingers_only_shortly_since_it_was_told(pair: ConnectionPair) -> None:
    pair.close("client")
    pair.advance(RTT_MS / 1000)
    pair.gateway.handle_leaving(pair.now)
    seen: list[State] = []
    for seconds in (LINGER_LEAVING_S - RTT_MS / 1000, RTT_MS / 1000):
        pair.advance(seconds)
        seen.append(pair.gateway.state)
    assert seen == ["lingering", "ended"]


def test_whoever_was_told_a_while_ago_leaves_at_once(pair: ConnectionPair) -> None:
    pair.close("client")
    pair.advance(RTT_MS / 1000 + LINGER_LEAVING_S)
    pair.gateway.handle_leaving(pair.now)
    assert pair.gateway.state == "ended"


def test_a_goodbye_that_nobody_answers_ends_at_its_deadline(pair: ConnectionPair) -> None:
    pair.lost = lambda side, _datagram: side == "client"
    pair.close("client")
    pair.advance(GOODBYE_DEADLINE_S - 0.001)
    assert pair.endings("client") == []
    pair.advance(0.002)
    ended = pair.ending("client")
    assert (ended.cause, ended.acknowledged) == (Cause.SIGNED_OUT, False)
    assert ended.evidence["goodbyes_sent"] == pytest.approx(GOODBYE_DEADLINE_S / GOODBYE_REPEAT_S, abs=1)
    assert pair.client.state == "ended"
    assert pair.client.poll_timeout() is None


def test_on_a_slow_path_a_goodbye_is_acknowledged_all_the_same() -> None:
    pair = ConnectionPair(rtt_ms=400.0)
    pair.connect()
    pair.close("client")
    pair.advance(GOODBYE_DEADLINE_S)
    assert pair.ending("client").evidence["acknowledged_ms"] == pytest.approx(400)
    assert pair.ending("gateway").detection_ms == pytest.approx(200)
    assert len(pair.endings("gateway")) == 1, "of all the repetitions under way"


def test_closing_twice_is_closing_once(pair: ConnectionPair) -> None:
    pair.close("client", Cause.SIGNED_OUT)
    pair.close("client", Cause.SHUTTING_DOWN)
    pair.advance(1)
    pair.close("client", Cause.IDLE)
    assert pair.ending("client").cause == Cause.SIGNED_OUT
    assert pair.ending("gateway").cause == Cause.SIGNED_OUT


def test_the_network_may_be_lost_while_closing(pair: ConnectionPair) -> None:
    pair.lost = lambda _side, _datagram: True
    pair.close("client")
    pair.client.handle_lost(Cause.NETWORK_LOST, {"ice": "consent"}, 15.0, pair.now)
    pair.settle()
    assert (pair.ending("client").cause, pair.ending("client").acknowledged) == (Cause.SIGNED_OUT, False)
    assert pair.client.state == "ended"


def test_a_cut_network_is_called_that(pair: ConnectionPair) -> None:
    pair.gateway.handle_lost(Cause.NETWORK_LOST, {"ice": "consent"}, 15.02, pair.now)
    pair.settle()
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by, ended.acknowledged) == (Cause.NETWORK_LOST, Initiator.NETWORK, None)
    assert ended.detection_ms == pytest.approx(15_020)


def test_after_the_end_nothing_comes_out(pair: ConnectionPair) -> None:
    pair.close("client")
    pair.advance(5)
    before = len(pair.carried)
    last = pair.carried[-1][1]
    pair.send("client", ipv4_packet())
    pair.deliver("client", last)
    pair.client.handle_path(1.0, pair.now)
    pair.client.handle_timeout(pair.now + 1000)
    assert not pair.client.handle_ping(1, pair.now)
    pair.settle()
    assert len(pair.carried) == before


# --- never connected ---


def test_without_a_path_it_never_connected() -> None:
    pair = ConnectionPair()
    pair.client.handle_failed({"ice": "checks_failed"}, pair.now)
    pair.settle()
    ended = pair.ending("client")
    assert (ended.cause, ended.initiated_by) == (Cause.NEVER_CONNECTED, Initiator.NETWORK)
    assert ended.detection_ms is None
    assert ended.acknowledged is None


@pytest.mark.parametrize(("path_of", "reason"), [("client", "no handshake"), ("gateway", "did not complete")])
def test_a_path_on_which_nobody_answers_ends_as_never_connected(path_of: Side, reason: str) -> None:
    pair = ConnectionPair()
    pair.lost = lambda _side, _datagram: True
    pair.connections[path_of].handle_path(RTT_MS, pair.now)
    pair.settle()
    pair.advance(HANDSHAKE_S - 0.1)
    assert pair.endings(path_of) == []
    pair.advance(0.2)
    assert pair.ending(path_of).cause == Cause.NEVER_CONNECTED
    assert reason in pair.ending(path_of).evidence["reason"]


def test_a_path_lost_before_the_handshake_is_never_connected_too() -> None:
    pair = ConnectionPair()
    pair.lost = lambda _side, _datagram: True
    pair.client.handle_path(RTT_MS, pair.now)
    pair.client.handle_lost(Cause.NETWORK_LOST, {}, 3.0, pair.now + 3)
    pair.settle()
    assert pair.ending("client").cause == Cause.NEVER_CONNECTED


def test_closing_before_there_is_a_connection_ends_at_once() -> None:
    pair = ConnectionPair()
    pair.close("client", Cause.SHUTTING_DOWN)
    ended = pair.ending("client")
    assert (ended.cause, ended.acknowledged, ended.detection_ms) == (Cause.SHUTTING_DOWN, None, 0.0)
    assert pair.client.state == "ended"


# --- who, and why ---


def test_who_ended_it_follows_from_the_reason() -> None:
    blame: Mapping[Cause, Initiator] = {
        Cause.ACCESS_REVOKED: Initiator.PORTAL,
        Cause.ACCESS_EXPIRED: Initiator.PORTAL,
        Cause.PORTAL_DENIED: Initiator.PORTAL,
        Cause.WORKER_CRASHED: Initiator.SUPERVISOR,
        Cause.SUPERVISOR_DIED: Initiator.SUPERVISOR,
    }
    for reason in REASON_CODES.keys() - {"unspecified"}:
        pair = ConnectionPair()
        pair.connect()
        pair.close("gateway", Cause(reason), Initiator.SUPERVISOR)
        pair.advance(0.1)
        ended = pair.ending("client")
        assert (ended.cause, ended.initiated_by) == (Cause(reason), blame.get(Cause(reason), Initiator.PEER))
        assert pair.ending("gateway").initiated_by == Initiator.SUPERVISOR


def test_a_cause_that_no_goodbye_can_name_is_still_a_goodbye(pair: ConnectionPair) -> None:
    pair.close("client", Cause.RELAY_LOST)
    pair.advance(0.1)
    assert pair.ending("client").acknowledged is True
    assert pair.ending("gateway").cause == Cause.SHUTTING_DOWN


def test_what_the_peer_says_in_words_is_evidence(pair: ConnectionPair) -> None:
    goodbye = Goodbye(reason="shutting_down", identifier=b"12345678", text="upgrading to 2.0")
    pair.inject("gateway", encode_control(goodbye))
    assert pair.ending("client").evidence["text"] == "upgrading to 2.0"


# --- pings ---


def test_a_ping_measures_the_round_trip(pair: ConnectionPair) -> None:
    assert pair.client.handle_ping(7, pair.now)
    pair.settle()
    pair.advance(0.1)
    (pong,) = pair.pongs("client")
    assert pong.token == 7
    assert pong.rtt_ms == pytest.approx(RTT_MS)
    assert pair.packets == {"client": [], "gateway": []}


def test_nobody_can_be_pinged_before_the_handshake() -> None:
    assert not ConnectionPair().client.handle_ping(1, 0.0)


def test_unanswered_pings_are_forgotten(pair: ConnectionPair) -> None:
    pair.lost = lambda _side, _datagram: True
    for token in range(1000):
        pair.client.handle_ping(token, pair.now)
    pair.settle()
    pair.lost = lambda _side, _datagram: False
    pair.inject("gateway", encode_control(ProbeReply(identifier=bytes([1]) + (1).to_bytes(7, "big"), timestamp=0)))
    assert pair.pongs("client") == [], "the oldest one is not known any more"
    pair.inject("gateway", encode_control(ProbeReply(identifier=bytes([1]) + (1000).to_bytes(7, "big"), timestamp=0)))
    assert [pong.token for pong in pair.pongs("client")] == [999]


# --- the table ---


def test_every_reachable_state_has_an_exit() -> None:
    reachable = reachable_from("connecting")
    assert reachable == set(TRANSITIONS)
    assert [state for state in reachable if not TRANSITIONS[state]] == ["ended"]
    assert all("ended" in reachable_from(state) for state in reachable)


def test_whoever_waits_for_nobody_else_has_a_timer(pair: ConnectionPair) -> None:
    assert pair.client.poll_timeout() is not None
    assert pair.gateway.poll_timeout() is not None
    pair.close("client")
    due = pair.client.poll_timeout()
    assert due is not None
    assert due[0] <= pair.now + GOODBYE_REPEAT_S
    pair.advance(0.1)
    due = pair.gateway.poll_timeout()
    assert due is not None
    assert due[0] <= pair.now + LINGER_S
    waiting = ConnectionPair()
    waiting.gateway.handle_path(RTT_MS, waiting.now)
    due = waiting.gateway.poll_timeout()
    assert due == (waiting.now + HANDSHAKE_S, "the initiator's handshake is overdue")


# --- hostile peers: 10,000 cases ---


def states(pair: ConnectionPair) -> list[str]:
    return [connection.state for connection in pair.connections.values()]


def encoded_raw(kind: int, payload: bytes) -> bytes:
    header = bytes([0x60, 0, 0, 0]) + (8 + len(payload)).to_bytes(2, "big") + bytes([255, 0]) + bytes(32)
    return header + bytes([kind]) + bytes(7) + payload


def acknowledged(identifier: bytes) -> bytes:
    return encode_control(GoodbyeAcknowledged(identifier=identifier))


def probe(identifier: bytes, timestamp: int) -> bytes:
    return encode_control(Probe(identifier=identifier, timestamp=timestamp))


def probe_reply(identifier: bytes, timestamp: int) -> bytes:
    return encode_control(ProbeReply(identifier=identifier, timestamp=timestamp))


def malformed_goodbye(payload: bytes) -> bytes:
    return encoded_raw(2, payload)


def any_goodbye(version: int, code: int, rest: bytes) -> bytes:
    return encoded_raw(2, bytes([version, code]) + rest)


IDENTIFIERS = st.binary(min_size=8, max_size=8)
CONTROL = st.one_of(
    st.builds(
        encoded_raw,
        st.sampled_from([kind for kind in range(256) if kind != 2]),
        st.binary(max_size=40),
    ),
    st.builds(acknowledged, IDENTIFIERS),
    st.builds(probe, IDENTIFIERS, st.integers(0, 2**64 - 1)),
    st.builds(probe_reply, IDENTIFIERS, st.integers(0, 2**64 - 1)),
    st.builds(malformed_goodbye, st.binary(min_size=1, max_size=15)),
)


@pytest.mark.slow
def test_an_authenticated_hostile_peer_changes_no_state_but_by_a_goodbye() -> None:
    pair = ConnectionPair()
    pair.connect()

    @settings(max_examples=10_000, deadline=None)
    @given(CONTROL)
    def run(packet: bytes) -> None:
        pair.lost = lambda _side, _datagram: True  # its answers are not of interest here
        pair.inject("gateway", packet)
        pair.carried.clear()
        assert pair.client.state == "established"
        assert pair.endings("client") == []
        assert pair.packets["client"] == []

    run()
    assert pair.client.malformed_total > 0


@pytest.mark.slow
def test_any_goodbye_ends_it_once() -> None:
    pair = ConnectionPair()
    pair.connect()
    goodbyes = st.builds(any_goodbye, st.integers(0, 255), st.integers(0, 255), st.binary(min_size=14, max_size=60))

    @settings(max_examples=10_000, deadline=None)
    @given(goodbyes)
    def run(packet: bytes) -> None:
        pair.events["client"].clear()
        pair.client.state = "established"  # the same tunnel again: a handshake for each case would take a minute
        pair.client._deadline_at = None  # pyright: ignore[reportPrivateUsage]
        pair.inject("gateway", packet)
        pair.carried.clear()
        ended = pair.ending("client")
        assert states(pair)[0] == "lingering"
        assert ended.cause in REASON_CODES
        is_last_will = bool(packet[51] & 1)  # then nobody knows how long the news took
        assert (ended.detection_ms is None) is is_last_will
        assert (ended.detection_ms or 0) >= 0

    run()
