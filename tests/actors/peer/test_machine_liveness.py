"""Two connections, one of which stops answering: what the other one makes of it, and when it says idle."""

import pytest
from tests.actors.peer.pair import ConnectionPair

from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.events import PathDoubted
from exeunt.actors.peer.liveness import Doubt
from exeunt.actors.peer.restarts import RestartWanted
from exeunt.actors.timing import HANDSHAKE_S, LATEST_S, PROBE_S, QUIET_S, RESTART_SPACING_S
from exeunt.actors.wireguard.testing import Side, ipv4_packet

RTT_MS = 20.0


@pytest.fixture
def pair() -> ConnectionPair:
    """Connected, over 20 ms."""
    pair = ConnectionPair(rtt_ms=RTT_MS)
    pair.connect()
    return pair


def kill(pair: ConnectionPair, side: Side) -> None:
    """That side's process is gone: it neither sends nor hears anything."""
    pair.lost = lambda _side, _datagram: True
    pair.connections[side].state = "ended"


def wanted(pair: ConnectionPair, side: Side) -> list[str]:
    return [event.reason for event in pair.events[side] if isinstance(event, RestartWanted)]


def test_a_killed_peer_is_known_for_one_within_two_seconds(pair: ConnectionPair) -> None:
    kill(pair, "client")
    pair.gateway.handle_doubt("reset", "the link was reset", pair.now)
    pair.settle()
    assert PathDoubted() in pair.events["gateway"]
    pair.advance(2.0)
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by, ended.acknowledged) == (Cause.PROCESS_DIED, Initiator.NETWORK, None)
    assert ended.detection_ms == pytest.approx(PROBE_S * 1000, abs=1)
    assert pair.gateway.state == "ended"


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.4])
def test_a_peer_whose_portal_link_alone_was_cut_stays(loss: float) -> None:
    for seed in range(20):
        pair = ConnectionPair(rtt_ms=RTT_MS, seed=seed)
        pair.connect()
        pair.loss = loss
        pair.gateway.handle_doubt("reset", "the link was reset", pair.now)
        pair.settle()
        pair.advance(5)
        assert pair.endings("gateway") == pair.endings("client") == []


def test_a_goodbye_that_comes_during_the_probes_is_the_cause(pair: ConnectionPair) -> None:
    pair.gateway.handle_doubt("left", "it said so", pair.now, "signed_out")
    pair.settle()
    pair.advance(0.2)
    pair.close("client", Cause.SIGNED_OUT)
    pair.advance(5)
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by, ended.acknowledged) == (Cause.SIGNED_OUT, Initiator.PEER, True)
    assert ended.evidence == {"told": "goodbye: signed_out"}


@pytest.mark.parametrize(
    ("doubt", "word", "cause"),
    [("ended", "worker_crashed", Cause.WORKER_CRASHED), ("reset", "", Cause.PROCESS_DIED)],
)
def test_a_peer_that_comes_back_before_the_probes_are_over_has_still_gone_for_its_reason(
    pair: ConnectionPair, doubt: Doubt, word: str, cause: Cause
) -> None:
    pair.advance(1)
    kill(pair, "client")
    pair.gateway.handle_doubt(doubt, "the portal says so", pair.now, word)
    pair.settle()
    pair.advance(0.2)
    pair.gateway.handle_close(Cause.REPLACED, Initiator.PEER, {"replaced_by": "c-2"}, pair.now)
    pair.settle()
    assert pair.ending("gateway").cause == cause
    assert pair.ending("gateway").evidence["replaced_by"] == "c-2"


def test_a_peer_that_answers_and_begins_another_connection_has_replaced_this_one(pair: ConnectionPair) -> None:
    pair.gateway.handle_doubt("reset", "the portal says so", pair.now)
    pair.settle()
    pair.advance(0.2)
    pair.close("gateway", Cause.REPLACED, Initiator.PEER)
    pair.advance(0.2)
    assert (pair.ending("gateway").cause, pair.ending("gateway").acknowledged) == (Cause.REPLACED, True)


@pytest.mark.parametrize(
    ("doubt", "word", "cause", "by"),
    [
        ("left", "signed_out", Cause.SIGNED_OUT, Initiator.PEER),
        ("ended", "worker_crashed", Cause.WORKER_CRASHED, Initiator.SUPERVISOR),
        ("ended", "never_connected", Cause.NEVER_CONNECTED, Initiator.NETWORK),
        ("ended", "network_lost", Cause.NEVER_CONNECTED, Initiator.NETWORK),
    ],
)
def test_a_peer_that_said_why_it_is_gone_is_not_waited_for(
    doubt: Doubt, word: str, cause: Cause, by: Initiator
) -> None:
    pair = ConnectionPair()
    pair.gateway.handle_doubt(doubt, "it has ended", pair.now, word)
    pair.settle()
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by, ended.acknowledged) == (cause, by, None)
    assert ended.evidence == {"connected": False, "told": "it has ended", "told_cause": word, "portal_saw": doubt}
    assert pair.gateway.poll_timeout() is None


def test_a_peer_that_died_on_its_way_is_not_waited_for() -> None:
    pair = ConnectionPair()
    pair.gateway.handle_doubt("reset", "its link broke", pair.now)
    pair.advance(PROBE_S - 0.01)
    assert pair.endings("gateway") == []
    pair.advance(0.02)
    ended = pair.ending("gateway")
    assert (ended.cause, ended.initiated_by) == (Cause.PROCESS_DIED, Initiator.NETWORK)
    assert ended.detection_ms == pytest.approx(PROBE_S * 1000)


def test_a_check_of_a_peer_whose_link_was_reset_keeps_the_search_going() -> None:
    pair = ConnectionPair()
    pair.gateway.handle_doubt("reset", "its link broke", pair.now)
    pair.advance(0.5)
    pair.gateway.handle_alive(pair.now)
    pair.gateway.handle_doubt("silent", "it is silent", pair.now)
    pair.advance(PROBE_S * 2)
    assert pair.gateway.state == "connecting"


def test_a_peer_that_died_while_it_shook_hands_is_known_for_one() -> None:
    pair = ConnectionPair(rtt_ms=RTT_MS)
    pair.gateway.handle_doubt("reset", "its link broke", pair.now)
    pair.lost = lambda side, _datagram: side == "client" and pair.gateway.state == "established"
    pair.connect()
    assert pair.gateway.state == "established"
    pair.advance(2.0)
    assert pair.ending("gateway").cause is Cause.PROCESS_DIED


def test_a_cut_is_found_by_both_and_another_path_is_sought_before(pair: ConnectionPair) -> None:
    pair.advance(3)
    pair.client.handle_ping(1, pair.now)
    pair.settle()
    pair.advance(0.1)
    pair.lost = lambda _side, _datagram: True
    cut_at = pair.now
    pair.send("client", ipv4_packet())
    pair.advance(LATEST_S - 0.2)
    assert pair.endings("client") == pair.endings("gateway") == []
    assert wanted(pair, "client")
    assert wanted(pair, "gateway")
    pair.advance(0.3)
    for side in ("client", "gateway"):
        ended = pair.ending(side)
        assert (ended.cause, ended.initiated_by) == (Cause.NETWORK_LOST, Initiator.NETWORK)
        assert ended.detection_ms == pytest.approx(LATEST_S * 1000, abs=1)
    assert pair.now - cut_at < LATEST_S + 0.3


def test_a_connection_lives_for_hours_without_traffic(pair: ConnectionPair) -> None:
    pair.advance(2 * 3600)
    assert pair.endings("client") == pair.endings("gateway") == []
    assert wanted(pair, "client") == wanted(pair, "gateway") == []
    pair.send("client", ipv4_packet())
    pair.advance(0.1)
    assert pair.packets["gateway"] == [ipv4_packet()]


def test_a_handshake_that_fails_in_silence_is_no_error_of_protocol(pair: ConnectionPair) -> None:
    pair.client.tunnel.connect(pair.now)
    pair.lost = lambda _side, _datagram: True
    pair.settle()
    pair.advance(HANDSHAKE_S + 1)
    assert pair.ending("client").cause == Cause.NETWORK_LOST


def test_a_peer_that_lives_but_shakes_no_hand_breaks_the_protocol(pair: ConnectionPair) -> None:
    pair.client.tunnel.connect(pair.now)
    pair.lost = lambda _side, _datagram: True
    pair.settle()
    for _ in range(int(HANDSHAKE_S) + 1):
        pair.client.handle_alive(pair.now)
        pair.advance(1)
    assert pair.ending("client").cause == Cause.PROTOCOL_ERROR


# --- roaming ---


def test_a_host_that_has_moved_asks_for_a_restart(pair: ConnectionPair) -> None:
    pair.client.handle_moved("another address", pair.now)
    pair.settle()
    assert wanted(pair, "client") == ["another address"]


def test_before_the_first_path_too_and_what_is_postponed_is_asked_later() -> None:
    pair = ConnectionPair()
    pair.client.handle_moved("one", pair.now)
    pair.client.handle_moved("two", pair.now)
    pair.settle()
    assert wanted(pair, "client") == ["one"]
    pair.advance(RESTART_SPACING_S)
    assert wanted(pair, "client") == ["one", "one", "two"], "the portal had not answered"


def test_a_restart_begins_once_and_not_after_the_end(pair: ConnectionPair) -> None:
    assert pair.client.handle_restart_began(1, pair.now)
    assert not pair.client.handle_restart_began(1, pair.now)
    pair.close("client")
    pair.advance(1)
    assert not pair.client.handle_restart_began(2, pair.now)
    pair.client.handle_moved("another address", pair.now)
    pair.settle()
    assert wanted(pair, "client") == []


# --- idle ---


def idle_after(seconds: float) -> ConnectionPair:
    pair = ConnectionPair(rtt_ms=RTT_MS, idle_after_s=seconds)
    pair.connect()
    return pair


def test_an_answer_to_a_probe_is_not_asked_about(pair: ConnectionPair) -> None:
    hear_of_each_other(pair, 20.0)  # what the path takes in one piece has been sought
    pair.gateway.handle_ping(1, pair.now)
    pair.settle()
    hear_of_each_other(pair, 12.0)  # a keepalive says that the answer has come (paper 6.5)
    pair.carried.clear()
    hear_of_each_other(pair, 60.0)
    assert pair.carried == []


def hear_of_each_other(pair: ConnectionPair, seconds: float) -> None:
    """Let time pass, in which checks of ICE are answered."""
    for _ in range(int(seconds / 2)):
        pair.advance(2.0)
        for connection in pair.connections.values():
            connection.handle_alive(pair.now)


def test_who_has_nothing_to_say_for_long_says_goodbye() -> None:
    pair = idle_after(60)
    pair.advance(50)
    pair.send("gateway", ipv4_packet())
    pair.advance(59)
    assert pair.endings("client") == []
    pair.advance(2)
    ours, theirs = pair.ending("client"), pair.ending("gateway")
    assert (ours.cause, ours.initiated_by, ours.acknowledged) == (Cause.IDLE, Initiator.US, True)
    assert ours.evidence["idle_s"] == pytest.approx(60, abs=0.1)
    assert (theirs.cause, theirs.initiated_by) == (Cause.IDLE, Initiator.PEER)


def test_probes_and_pings_are_no_traffic() -> None:
    pair = idle_after(60)
    for _ in range(5):
        pair.advance(QUIET_S)
        pair.client.handle_ping(7, pair.now)
        pair.settle()
    pair.advance(60 - 5 * QUIET_S + 1)
    assert pair.ending("client").cause == Cause.IDLE


def test_a_text_for_people_travels_with_the_goodbye(pair: ConnectionPair) -> None:
    pair.gateway.handle_close(Cause.SHUTTING_DOWN, Initiator.US, {}, pair.now, "upgrade")
    pair.settle()
    pair.advance(1)
    assert pair.ending("client").evidence == {"told": "goodbye: shutting_down", "text": "upgrade"}
