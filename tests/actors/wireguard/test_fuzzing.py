"""Bombarded: the seeded loop at length, and hypothesis' inventions against the same tunnels."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.wireguard.fuzzing import Mutator, Receiver, bombard, receivers

from exeunt.actors.wireguard import DropReason

DATAGRAMS = int(os.environ.get("EXEUNT_FUZZ_DATAGRAMS", "100000"))
RECEIVERS, RECORDED = receivers()
SIZES = [31, 32, 60, 64, 88, 92, 148, 200]


@pytest.mark.slow
@pytest.mark.timeout(60 + DATAGRAMS // 5_000)
def test_many_hostile_datagrams_do_nothing() -> None:
    fates = bombard(DATAGRAMS, seed=DATAGRAMS)
    assert sum(fates.values()) == DATAGRAMS
    # Each of the defences has been tried, not the outermost ones alone.
    tried = {fate for fate, count in fates.items() if count}
    assert tried >= {
        DropReason.NOT_WIREGUARD,
        DropReason.BAD_MAC1,
        DropReason.UNDER_LOAD,
        DropReason.BAD_HANDSHAKE,
        DropReason.REPLAYED_INITIATION,
        DropReason.UNEXPECTED_RESPONSE,
        DropReason.UNKNOWN_INDEX,
        DropReason.EXPIRED_SESSION,
        DropReason.BAD_TAG,
        DropReason.REPLAYED_PACKET,
    }


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None)
@given(st.sampled_from(RECEIVERS), st.randoms(use_true_random=False), st.booleans())
def test_no_mutation_of_what_was_recorded_does_anything(target: Receiver, rng: random.Random, right_mac1: bool) -> None:
    datagram = Mutator(RECORDED, rng).next()
    target.take(target.sign(datagram) if right_mac1 else datagram)
    target.check()


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None)
@given(
    st.sampled_from(RECEIVERS), st.integers(0, 5), st.sampled_from([60, 64, 88, 92, 148, 200]), st.binary(max_size=48)
)
def test_no_invention_does_anything(target: Receiver, kind: int, size: int, head: bytes) -> None:
    target.take(target.sign((bytes([kind, 0, 0, 0]) + head).ljust(size, b"\x55")))
    target.check()
