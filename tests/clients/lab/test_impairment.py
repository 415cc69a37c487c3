"""What a wire does to packets, without a wire: a fake clock and a seeded source of chance."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.clients.lab import Impairment
from exeunt.clients.lab.impairment import HELD_BACK_S, QUEUE_S, Direction

PACKETS = [b"%d" % number for number in range(1000)]
FAR = 1e9


def direction(**values: float) -> Direction:
    return Direction(Impairment(**values), random.Random(4))


def test_without_impairment_everything_is_through_at_once() -> None:
    wire = direction()
    for packet in PACKETS:
        wire.take(packet, 5.0)
    assert wire.next_at() == 5.0
    assert list(wire.arrived(5.0)) == PACKETS
    assert wire.next_at() is None


def test_a_delay_is_kept_to() -> None:
    wire = direction(delay_ms=30)
    wire.take(b"one", 1.0)
    wire.take(b"two", 1.01)
    assert wire.next_at() == pytest.approx(1.03)
    assert list(wire.arrived(1.0299)) == []
    assert list(wire.arrived(1.0301)) == [b"one"]
    assert list(wire.arrived(1.0401)) == [b"two"]


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=50), st.integers())
def test_jitter_delays_but_never_reorders(gaps: list[float], seed: int) -> None:
    wire = Direction(Impairment(delay_ms=10, jitter_ms=40), random.Random(seed))
    now, sent = 0.0, list[float]()
    for number, gap in enumerate(gaps):
        now += gap
        sent.append(now)
        wire.take(b"%d" % number, now)
    expected = 0
    while (due := wire.next_at()) is not None:
        for packet in wire.arrived(due):
            assert packet == b"%d" % expected
            assert due - sent[expected] > 0.0099
            expected += 1
    assert expected == len(gaps)


@pytest.mark.parametrize(
    ("values", "count"),
    [({"loss_percent": 100}, 0), ({"duplicate_percent": 100}, 2000), ({"loss_percent": 0}, 1000)],
)
def test_all_or_none_is_lost_or_doubled(values: dict[str, Any], count: int) -> None:
    wire = direction(**values)
    for packet in PACKETS:
        wire.take(packet, 0.0)
    assert len(list(wire.arrived(FAR))) == count


def test_a_share_is_lost_and_a_share_doubled() -> None:
    wire = direction(loss_percent=20, duplicate_percent=10)
    for packet in PACKETS:
        wire.take(packet, 0.0)
    arrived = list(wire.arrived(FAR))
    # Binomial: 200 lost, standard deviation 13; of the other 800, 80 doubled, standard deviation 8.
    assert 130 < 1000 - len(set(arrived)) < 270
    assert 35 < len(arrived) - len(set(arrived)) < 125


def test_a_packet_that_is_held_back_is_overtaken() -> None:
    wire = direction(delay_ms=5, reorder_percent=50)
    for number, packet in enumerate(PACKETS):
        wire.take(packet, number / 1000)
    arrived = list(wire.arrived(FAR))
    assert arrived != PACKETS
    assert sorted(arrived) == sorted(PACKETS)
    places = {packet: place for place, packet in enumerate(arrived)}
    assert max(abs(places[packet] - place) for place, packet in enumerate(PACKETS)) <= HELD_BACK_S * 1000


def test_a_rate_spaces_packets_and_drops_what_its_queue_does_not_hold() -> None:
    wire = direction(rate_mbit_s=1)
    packet = bytes(1250)  # 10 ms at 1 Mbit/s
    for _ in range(100):
        wire.take(packet, 0.0)
    through = 0
    while (due := wire.next_at()) is not None:
        through += len(list(wire.arrived(due)))
        assert due == pytest.approx(through * 0.010)
    assert through == QUEUE_S / 0.010 + 1
    wire.take(packet, 10.0)
    assert wire.next_at() == pytest.approx(10.010)


@pytest.mark.parametrize(
    "values", [{"loss_percent": 101}, {"duplicate_percent": -1}, {"delay_ms": -1}, {"rate_mbit_s": -0.1}]
)
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"%|at least 0"):
        Impairment(**values)
