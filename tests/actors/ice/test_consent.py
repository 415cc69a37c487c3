"""The clock of consent, with a clock of our own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.ice.consent import EASE, PASSIVE_S, Consent


def make(now: float = 100.0, *, asks: bool = True, lost_after_s: float = 15.0) -> Consent:
    return Consent(asks=asks, interval_s=2.8, lost_after_s=lost_after_s, rng=random.Random(3), now=now)


def run(consent: Consent, start: float, end: float, *, rtt_s: float | None = None) -> list[float]:
    """Follow every timeout punctually, answered after `rtt_s` if that is given; return when checks were sent."""
    checks: list[float] = []
    now = start
    while not consent.is_lost(now):
        when, _ = consent.poll_timeout()
        if when > end:
            break
        now = max(now, when)
        consent.handle_timeout(now)
        if consent.poll_check():
            checks.append(now)
            if rtt_s is not None:
                consent.handle_answer(now + rtt_s, rtt_s)
    return checks


def test_an_idle_path_is_checked_ever_less_often_and_traffic_starts_over() -> None:
    consent = make()
    checks = run(consent, 100.0, 400.0, rtt_s=0.05)
    pauses = [later - earlier for earlier, later in zip([100.0, *checks], checks, strict=False)]
    assert 0.8 <= pauses[0] <= 1.0
    assert 1.6 <= pauses[1] <= 2.1
    assert all(2.24 <= pause <= 2.85 for pause in pauses[2:])
    assert not consent.is_suspect(400.0)
    consent.handle_alive(400.0)
    assert consent.poll_timeout()[0] <= 401.0


def test_traffic_takes_the_place_of_checks() -> None:
    consent = make()
    now = 100.0
    for _ in range(500):
        assert run(consent, now, now + 0.5) == []
        now += 0.5
        consent.handle_alive(now)


def test_who_is_controlled_asks_only_after_a_silence() -> None:
    consent = make(asks=False)
    now = 100.0
    for _ in range(100):
        assert run(consent, now, now + 5.5) == []
        now += 5.5
        consent.handle_alive(now)
    checks = run(consent, now, now + 60.0)
    assert checks[0] == now + PASSIVE_S
    assert len(checks) >= 15
    assert not consent.is_lost(now + 16.3)
    assert consent.is_lost(now + 16.5)


def test_silence_checks_faster_then_ends_at_the_limit() -> None:
    consent = make()
    checks = run(consent, 100.0, 200.0)
    assert consent.is_lost(115.5)
    assert not consent.is_lost(115.39)
    assert len([when for when in checks if when > 107.5]) >= 11
    assert checks[-1] < 115.5


def test_a_datagram_sent_into_a_silence_is_followed_by_a_check() -> None:
    consent = make()
    run(consent, 100.0, 150.0, rtt_s=0.05)
    heard_at = consent.last_alive
    assert not consent.handle_sent(heard_at + 0.5)
    assert consent.handle_sent(heard_at + 1.1)
    assert not consent.handle_sent(heard_at + 1.2)
    [first, *_] = run(consent, heard_at + 1.2, heard_at + 2.2)
    assert first == pytest.approx(heard_at + 2.1)


def test_a_stalled_process_gets_one_more_round() -> None:
    consent = make()
    consent.handle_timeout(160.0)
    assert not consent.is_lost(160.0)
    assert consent.poll_check()
    consent.handle_alive(160.1)
    assert not consent.is_lost(170.0)


def test_a_stall_does_not_hide_a_dead_peer() -> None:
    consent = make()
    consent.handle_timeout(160.0)
    run(consent, 160.0, 173.5)
    assert consent.is_lost(173.5)


def test_a_hint_brings_the_next_check_forward_and_nothing_else() -> None:
    consent = make()
    consent.handle_hint(100.3)
    assert consent.poll_timeout() == (100.3, "consent check")
    assert not consent.is_suspect(100.3)
    consent.handle_timeout(100.3)
    assert consent.poll_check()
    assert consent.poll_timeout()[0] > 100.9


@pytest.mark.parametrize("asks", [True, False])
def test_an_urgent_hint_is_repeated_until_answered_or_for_two_seconds(asks: bool) -> None:
    consent = make(asks=asks)
    consent.handle_hint(100.3, urgent=True)
    checks = run(consent, 100.3, 103.2)
    assert 20 <= len([when for when in checks if when <= 102.4]) <= 22
    assert len([when for when in checks if when > 102.45]) <= 1
    consent.handle_hint(103.2, urgent=True)
    assert len(run(consent, 103.2, 103.55)) == 4
    consent.handle_answer(103.55, 0.01)
    assert run(consent, 103.55, 104.1) == []


def test_a_flood_of_hints_asks_ten_times_a_second_at_most() -> None:
    consent = make()
    checks: list[float] = []
    for millisecond in range(1000):
        now = 100.0 + millisecond / 1000
        consent.handle_hint(now)
        consent.handle_timeout(now)
        if consent.poll_check():
            checks.append(now)
    assert len(checks) <= 11


@pytest.mark.parametrize("pause_s", [None, 0.01, 1.0])
@pytest.mark.parametrize("asks", [True, False])
def test_both_sides_name_a_cut_fifteen_seconds_after_it(asks: bool, pause_s: float | None) -> None:
    """Traffic flows with such pauses, or none flows; the path is cut at some time between two signs of life."""
    for number in range(20):
        consent = make()
        checks = run(consent, 100.0, 150.0 + number / 7, rtt_s=0.05)
        now = consent.last_alive
        while pause_s is not None and now < 160:
            now += pause_s
            consent.handle_alive(now)
        if not asks:
            signs = [at + 0.05 for at in checks] if pause_s is None else [160 - 2 * pause_s, 160 - pause_s]
            consent = make(asks=False)
            for sign in signs:
                consent.handle_alive(sign)
            now = signs[-1]
        rest_s = (pause_s or 2.8 * EASE) * number / 20
        run(consent, now, now + 60)
        named_at = next(at / 100 for at in range(int(now * 100), int(now * 100) + 3000) if consent.is_lost(at / 100))
        assert abs(named_at - (now + rest_s) - 15) < 1.5


@given(signs=st.lists(st.floats(0, 14.9), max_size=50))
def test_lost_exactly_when_the_last_sign_is_too_old(signs: list[float]) -> None:
    consent = make()
    now = 100.0
    for pause in signs:
        run(consent, now, now + pause)
        now += pause
        assert not consent.is_lost(now)
        consent.handle_alive(now)
    assert consent.poll_timeout()[0] <= now + 15.0
    run(consent, now, now + 60)
    assert consent.is_lost(now + 15.501)
    assert not consent.is_lost(now + 15.399)


@pytest.mark.parametrize("lost_after_s", [5.0, 15.0, 30.0])
def test_the_last_sign_never_moves_back(lost_after_s: float) -> None:
    consent = make(lost_after_s=lost_after_s)
    consent.handle_alive(110.0)
    consent.handle_alive(105.0)
    assert consent.last_alive == 110.0


@pytest.mark.parametrize(("asks", "silent_s", "watches"), [(False, 5.9, True), (False, 6.0, False), (True, 0.0, False)])
def test_who_only_answers_watches_until_it_asks(asks: bool, silent_s: float, watches: bool) -> None:
    assert make(100.0, asks=asks).watches(100.0 + silent_s) is watches
