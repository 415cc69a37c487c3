"""Candidate lines, ours and hostile ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.ice.candidate import (
    Candidate,
    MalformedCandidate,
    can_pair,
    pair_priority,
    parse_candidate,
    priority,
)


@pytest.mark.parametrize("prefix", ["", "candidate:", "a=candidate:"])
def test_the_example_of_the_rfc_is_read(prefix: str) -> None:
    line = prefix + "2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998 generation 0"
    assert parse_candidate(line) == Candidate("2", 1694498815, ("192.0.2.3", 45664), "srflx")


def test_priorities_are_the_formulas_of_rfc_8445() -> None:
    assert priority("host") == 2130706431
    assert priority("srflx") == 1694498815
    assert pair_priority(5, 3) == (3 << 32) + 10 + 1
    assert pair_priority(3, 5) == (3 << 32) + 10


def test_a_written_candidate_is_read_back() -> None:
    candidate = Candidate("f", 7, ("2001:db8::1", 9), "host")
    assert parse_candidate(candidate.to_sdp()) == candidate


def make(kind: str, host: str) -> Candidate:
    return parse_candidate(f"f 1 udp 1 {host} 5 typ {kind}")


def test_what_cannot_reach_each_other_is_not_paired() -> None:
    assert not can_pair(make("host", "203.0.113.1"), make("host", "2001:db8::1"))
    assert not can_pair(make("relay", "203.0.113.1"), make("host", "10.0.0.1"))
    assert can_pair(make("relay", "10.0.0.9"), make("host", "10.0.0.1"))
    assert can_pair(make("relay", "203.0.113.1"), make("relay", "203.0.113.2"))


ODD_WORDS = (
    "",
    "1",
    "0",
    "-1",
    "udp",
    "TCP",
    "typ",
    "host",
    "relay",
    "::1",
    "::ffff:1.2.3.4",
    "65536",
    "\u00b2",
    "1e3",
    "_1",
)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(text=st.text(max_size=24), position=st.integers(0, 7), odd=st.integers(0, 3 * len(ODD_WORDS)))
def test_any_line_is_understood_in_full_or_refused(text: str, position: int, odd: int) -> None:
    nearly: list[str] = ["f", "1", "udp", "1", "192.0.2.1", "5", "typ", "host"]
    nearly[position] = ODD_WORDS[odd] if odd < len(ODD_WORDS) else text
    for line in (text, " ".join(nearly)):
        try:
            candidate = parse_candidate(line)
        except MalformedCandidate:
            continue
        assert parse_candidate(candidate.to_sdp()) == candidate
