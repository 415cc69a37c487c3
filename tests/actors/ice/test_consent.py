"""The clock of consent, with a clock of our own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.ice.consent import Consent


def make(now: float = 100.0) -> Consent:
    return Consent(interval_s=2.0, lost_after_s=15.0, rng=random.Random(3), now=now)


def run(consent: Consent, start: float, end: float) -> list[float]:
    """Follow every timeout punctually; return when checks were sent."""
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
    return checks


def test_a_check_every_two_seconds_or_so_while_answered() -> None:
    consent = make()
    now, checks = 100.0, 0
    while now < 200.0:
        when, why = consent.poll_timeout()
        assert why == "consent check"
        assert 1.5 <= when - now <= 2.5
        now = when
        consent.handle_timeout(now)
        assert consent.poll_check()
        consent.handle_alive(now + 0.6)
        checks += 1
    assert 40 <= checks <= 67


def test_silence_checks_faster_then_ends_at_the_limit() -> None:
    consent = make()
    checks = run(consent, 100.0, 200.0)
    assert consent.is_lost(115.0)
    assert not consent.is_lost(114.99)
    assert len([when for when in checks if when > 107.5]) >= 11
    assert checks[-1] < 115.0


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
    assert consent.is_lost(161.5)


def test_a_hint_brings_the_next_check_forward_and_nothing_else() -> None:
    consent = make()
    consent.handle_hint(100.3)
    assert consent.poll_timeout() == (100.3, "consent check")
    assert not consent.is_suspect(100.3)


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
    assert consent.is_lost(now + 15.001)
    assert not consent.is_lost(now + 14.999)


@pytest.mark.parametrize("lost_after_s", [5.0, 15.0, 30.0])
def test_the_last_sign_never_moves_back(lost_after_s: float) -> None:
    consent = Consent(interval_s=2.0, lost_after_s=lost_after_s, rng=random.Random(1), now=100.0)
    consent.handle_alive(110.0)
    consent.handle_alive(105.0)
    assert consent.last_alive == 110.0
