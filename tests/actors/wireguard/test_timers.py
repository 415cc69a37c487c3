"""A tunnel in time: rekeying, rejecting, keepalives, giving up. The clock is a number."""

import itertools
import random

import pytest

from exeunt.actors.wireguard import (
    ICE_REKEY_ATTEMPT_TIME_S,
    DropReason,
    HandshakeCompleted,
    HandshakeFailed,
    Limits,
    MessageType,
    SessionExpired,
    classify,
)
from exeunt.actors.wireguard.testing import Side, TunnelPair, ipv4_packet


def count(pair: TunnelPair, side: Side, kind: MessageType) -> int:
    return sum(1 for sender, datagram in pair.carried if sender == side and classify(datagram) is kind)


def connected(limits: Limits | None = None, persistent_keepalive_s: float | None = None) -> TunnelPair:
    pair = TunnelPair(limits=limits, persistent_keepalive_s=persistent_keepalive_s)
    pair.connect()
    pair.carried.clear()
    pair.events["client"].clear()
    pair.events["gateway"].clear()
    return pair


def test_the_initiator_rekeys_on_the_first_packet_after_120_s() -> None:
    pair = connected()
    pair.advance(119)
    pair.send("client", ipv4_packet(fill=1))
    assert count(pair, "client", MessageType.INITIATION) == 0
    pair.advance(1.5)
    pair.send("client", ipv4_packet(fill=2))
    assert count(pair, "client", MessageType.INITIATION) == 1
    assert isinstance(pair.events["client"][0], HandshakeCompleted)
    assert pair.received["gateway"] == [ipv4_packet(fill=1), ipv4_packet(fill=2)]


def test_the_responder_does_not_rekey_by_time() -> None:
    pair = connected()
    pair.advance(150)
    pair.send("gateway", ipv4_packet())
    pair.advance(5)
    assert count(pair, "gateway", MessageType.INITIATION) == 0
    assert count(pair, "client", MessageType.INITIATION) == 0


def test_receiving_after_165_s_is_the_last_chance_to_rekey_and_taken_once() -> None:
    pair = connected()
    pair.lost = lambda datagram: classify(datagram) is MessageType.INITIATION
    pair.advance(164)
    pair.send("gateway", ipv4_packet())
    assert count(pair, "client", MessageType.INITIATION) == 0
    pair.advance(1.5)
    pair.send("gateway", ipv4_packet())
    pair.send("gateway", ipv4_packet())
    assert count(pair, "client", MessageType.INITIATION) == 1


def test_the_initiator_rekeys_by_message_count() -> None:
    pair = connected(Limits(rekey_after_messages=10))
    pair.advance(6)
    for number in range(10):
        pair.send("client", ipv4_packet(fill=number))
    assert count(pair, "client", MessageType.INITIATION) == 1
    assert len(pair.received["gateway"]) == 10


def test_no_counter_is_used_beyond_the_reject_limit() -> None:
    pair = connected(Limits(rekey_after_messages=5, reject_after_messages=10))
    pair.lost = lambda datagram: classify(datagram) is MessageType.INITIATION
    for number in range(20):
        pair.send("client", ipv4_packet(fill=number))
    # The keepalive that confirmed the session had counter 0; counter 9 is the last will's.
    assert len(pair.received["gateway"]) == 8
    assert pair.client.queued_packets == 12


def test_nothing_is_sealed_or_opened_after_180_s() -> None:
    pair = connected()
    pair.advance(179.9)
    early = pair.gateway.encapsulate(ipv4_packet(), pair.now)
    held = pair.client.encapsulate(ipv4_packet(), pair.now)
    assert early is not None
    assert held is not None
    # Straight at the sessions, with no timer served: age alone must be enough.
    pair.now += 0.2
    assert pair.client.handle_datagram(early, pair.now) is None
    assert pair.gateway.handle_datagram(held, pair.now) is None
    assert pair.client.drops[DropReason.EXPIRED_SESSION] == 1
    assert pair.gateway.drops[DropReason.EXPIRED_SESSION] == 1
    assert not pair.gateway.can_send(pair.now)
    assert pair.gateway.encapsulate(ipv4_packet(), pair.now) is None


def test_an_idle_session_expires_and_its_keys_go() -> None:
    pair = connected()
    started_at = pair.now
    assert pair.client.poll_timeout() == (started_at + 180, "session expires")
    pair.advance(200)
    assert pair.carried == []
    for side in ("client", "gateway"):
        assert pair.events[side] == [SessionExpired(last_received_at=started_at)]
        assert pair.tunnels[side].local_indices == frozenset()
        assert pair.tunnels[side].poll_timeout() is None
    pair.send("client", ipv4_packet())
    assert pair.received["gateway"] == [ipv4_packet()]


def test_a_busy_tunnel_lives_for_an_hour_without_losing_a_packet() -> None:
    pair = connected()
    for second in range(3600):
        pair.send("client", ipv4_packet(fill=second % 256))
        pair.send("gateway", ipv4_packet(fill=second % 251))
        pair.advance(1)
    assert len(pair.received["gateway"]) == len(pair.received["client"]) == 3600
    # One handshake per REKEY_AFTER_TIME, all from the client.
    assert count(pair, "client", MessageType.INITIATION) in {29, 30}
    assert count(pair, "gateway", MessageType.INITIATION) == 0
    assert not any(isinstance(event, SessionExpired) for event in pair.events["client"])


def test_received_data_is_answered_by_a_keepalive_after_10_s() -> None:
    pair = connected()
    pair.send("client", ipv4_packet())
    pair.advance(9.9)
    assert count(pair, "gateway", MessageType.TRANSPORT) == 0
    pair.advance(0.2)
    assert count(pair, "gateway", MessageType.TRANSPORT) == 1
    pair.advance(60)  # a keepalive is not answered by a keepalive
    assert count(pair, "gateway", MessageType.TRANSPORT) == 1
    assert count(pair, "client", MessageType.TRANSPORT) == 1


def test_sending_data_makes_the_keepalive_unnecessary() -> None:
    pair = connected()
    pair.send("client", ipv4_packet())
    pair.advance(5)
    pair.send("gateway", ipv4_packet())
    pair.advance(6)
    assert count(pair, "gateway", MessageType.TRANSPORT) == 1


def test_silence_after_data_makes_a_new_handshake_after_15_s() -> None:
    pair = connected()
    pair.cut = {"gateway"}
    pair.send("client", ipv4_packet())
    pair.advance(14.9)
    assert count(pair, "client", MessageType.INITIATION) == 0
    pair.advance(0.5)
    assert count(pair, "client", MessageType.INITIATION) == 1
    pair.cut = set()
    pair.advance(6)
    assert isinstance(pair.events["client"][-1], HandshakeCompleted)


def test_silence_does_not_make_the_responder_initiate() -> None:
    pair = connected()
    pair.cut = {"client", "gateway"}
    pair.send("gateway", ipv4_packet())
    pair.advance(60)
    assert count(pair, "gateway", MessageType.INITIATION) == 0


def test_persistent_keepalive_speaks_without_traffic_and_keeps_sessions_coming() -> None:
    pair = connected(persistent_keepalive_s=25)
    pair.advance(24.9)
    assert pair.carried == []
    pair.advance(0.2)
    assert count(pair, "client", MessageType.TRANSPORT) == 1
    pair.advance(1000)
    assert pair.client.can_send(pair.now)
    assert not any(isinstance(event, SessionExpired) for event in pair.events["client"])
    assert pair.gateway.last_received_at is not None
    assert pair.now - pair.gateway.last_received_at <= 25


def test_persistent_keepalive_starts_over_after_giving_up() -> None:
    pair = TunnelPair(persistent_keepalive_s=25)
    pair.cut = {"client", "gateway"}
    pair.connect()
    pair.advance(91)
    assert isinstance(pair.events["client"][0], HandshakeFailed)
    pair.cut = set()
    pair.advance(26)
    assert pair.client.can_send(pair.now)


@pytest.mark.parametrize(("attempt_time_s", "least"), [(90, 17), (ICE_REKEY_ATTEMPT_TIME_S, 4)])
def test_an_unanswered_handshake_repeats_with_jitter_and_gives_up_on_time(attempt_time_s: float, least: int) -> None:
    pair = TunnelPair(limits=Limits(rekey_attempt_time_s=attempt_time_s))
    pair.cut = {"client", "gateway"}
    started_at = pair.now
    pair.client.encapsulate(ipv4_packet(), pair.now)
    sent_at = [pair.now]
    pair.settle()
    while (wake := pair.client.poll_timeout()) is not None:
        before = len(pair.carried)
        pair.advance(wake[0] - pair.now)
        sent_at += [pair.now] * (len(pair.carried) - before)
    gaps = [late - early for early, late in itertools.pairwise(sent_at)]
    assert all(5 <= gap <= 5.334 for gap in gaps)
    assert len(set(gaps)) > 1
    (event,) = pair.events["client"]
    assert isinstance(event, HandshakeFailed)
    assert event.initiations == len(sent_at)
    assert event.duration_s == pytest.approx(attempt_time_s)
    assert least <= len(sent_at) <= attempt_time_s / 5
    assert pair.now == pytest.approx(started_at + attempt_time_s)
    assert pair.client.queued_packets == 0
    assert pair.client.drops[DropReason.QUEUE_ABANDONED] == 1


def test_repetitions_differ_so_the_answer_names_the_initiation() -> None:
    pair = TunnelPair()
    pair.cut = {"client", "gateway"}
    pair.connect()
    pair.advance(12)
    assert len({datagram[4:40] for _, datagram in pair.carried}) == 3
    pair.cut = set()
    pair.advance(5)
    (event,) = pair.events["client"]
    assert isinstance(event, HandshakeCompleted)
    assert event.initiations == 4
    assert event.rtt_ms == 0  # of the fourth, not since the first


def test_data_after_giving_up_tries_again_but_not_before_the_rekey_timeout() -> None:
    pair = TunnelPair(limits=Limits(rekey_attempt_time_s=6))
    pair.cut = {"client", "gateway"}
    pair.connect()
    pair.advance(6.1)
    assert isinstance(pair.events["client"][0], HandshakeFailed)
    sent = len(pair.carried)
    pair.cut = set()
    pair.send("client", ipv4_packet())
    assert len(pair.carried) == sent
    wake = pair.client.poll_timeout()
    assert wake is not None
    assert wake[1] == "handshake may start"
    pair.advance(5)
    assert pair.received["gateway"] == [ipv4_packet()]


def test_the_round_trip_is_that_of_the_answered_initiation() -> None:
    pair = TunnelPair()
    pair.client.connect(pair.now)
    initiation = pair.client.poll_transmit()
    assert initiation is not None
    pair.gateway.handle_datagram(initiation, pair.now + 0.02)
    response = pair.gateway.poll_transmit()
    assert response is not None
    pair.client.handle_datagram(response, pair.now + 0.04)
    event = pair.client.poll_event()
    assert isinstance(event, HandshakeCompleted)
    assert event.rtt_ms == pytest.approx(40)


def test_after_a_long_sleep_the_attempt_ends_and_the_session_expires_without_a_burst() -> None:
    pair = connected()
    pair.client.connect(pair.now)
    assert pair.client.poll_transmit() is not None
    pair.client.handle_timeout(pair.now + 3600)
    assert pair.client.poll_transmit() is None
    events = [pair.client.poll_event(), pair.client.poll_event()]
    assert isinstance(events[0], SessionExpired)
    assert isinstance(events[1], HandshakeFailed)
    assert pair.client.poll_timeout() is None


@pytest.mark.parametrize("seed", range(5))
def test_with_a_third_of_all_datagrams_lost_traffic_goes_on(seed: int) -> None:
    pair = TunnelPair(seed=seed)
    rng = random.Random(seed)
    pair.lost = lambda _: rng.random() < 1 / 3
    for second in range(1200):
        pair.send("client", ipv4_packet(fill=second % 256))
        pair.send("gateway", ipv4_packet(fill=second % 256))
        pair.advance(1)
    assert len(pair.received["gateway"]) > 700
    assert len(pair.received["client"]) > 700
    assert not any(isinstance(event, HandshakeFailed) for event in pair.events["client"])
