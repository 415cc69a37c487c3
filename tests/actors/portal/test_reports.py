"""An ending travels to the portal and to the other end, whatever its evidence looks like."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.endings import Cause, Ending, Initiator
from exeunt.actors.portal.codec import MalformedFrame, encode, peer_decoder, portal_decoder
from exeunt.actors.portal.messages import (
    MAX_PEER_FRAME_BYTES,
    MAX_PORTAL_FRAME_BYTES,
    AskEvidence,
    ConnectionEnded,
    Evidence,
    FromPeer,
    FromPortal,
    IceCandidates,
    IceCredentials,
    IceRestarted,
    PeerGone,
    RestartIce,
)
from exeunt.actors.portal.reports import MAX_EVIDENCE, MAX_EVIDENCE_CHARS, EndingReport, Observation

PEER = peer_decoder(MAX_PEER_FRAME_BYTES)
PORTAL = portal_decoder(MAX_PORTAL_FRAME_BYTES)

ENDING = Ending(
    connection="c-1",
    peer="gw-1",
    side="client",
    cause=Cause.NETWORK_LOST,
    initiated_by=Initiator.NETWORK,
    evidence={"silence_ms": 15000.0, "told": False, "probes_sent": 7, "icmp": None, "path": "direct"},
    detection_ms=15001.5,
    acknowledged=None,
    started_at="2026-01-01T00:00:00Z",
    ended_at="2026-01-01T00:01:00.250Z",
    last_seen_at="2026-01-01T00:00:45.125Z",
    rx_bytes=10,
    tx_bytes=20,
    path="direct",
)
REPORT = EndingReport.of(ENDING)
ICE = IceCredentials(username="u" * 8, password="p" * 32)

FROM_PEERS = [
    RestartIce(connection="c-1", reason="addresses changed"),
    AskEvidence(ref=7, connection="c-1"),
    ConnectionEnded(connection="c-1", cause="idle"),
    ConnectionEnded(connection="c-1", cause="network_lost", report=REPORT),
    IceCandidates(connection="c-1", candidates=("a",), generation=2, withdrawn=("b",)),
]
FROM_PORTALS = [
    IceRestarted(connection="c-1", generation=1, local_ice=ICE, remote_ice=ICE),
    PeerGone(connection="c-1", reason="reset", kind="reset"),
    PeerGone(connection="c-1", reason="ended", kind="ended", cause="idle"),
    Evidence(ref=7, connection="c-1"),
    Evidence(
        ref=7,
        connection="c-1",
        reports={"client": REPORT},
        observations=(Observation(at="2026-01-01T00:00:00Z", kind="link_closed", side="client", detail="reset"),),
    ),
]


@pytest.mark.parametrize("message", FROM_PEERS)
def test_what_a_peer_says_survives_the_way(message: FromPeer) -> None:
    assert PEER.decode(encode(message)).message == message


@pytest.mark.parametrize("message", FROM_PORTALS)
def test_what_the_portal_says_survives_the_way(message: FromPortal) -> None:
    assert PORTAL.decode(encode(message)).message == message


def test_an_older_end_is_understood() -> None:
    ended = PEER.decode('{"type":"connection_ended","connection":"c-1","cause":"idle"}').message
    assert ended == ConnectionEnded(connection="c-1", cause="idle")
    gone = PORTAL.decode('{"type":"peer_gone","connection":"c-1","reason":"lost"}').message
    assert gone == PeerGone(connection="c-1", reason="lost", kind="silent", cause="")
    candidates = PORTAL.decode('{"type":"ice_candidates","connection":"c-1","candidates":["a"]}').message
    assert candidates == IceCandidates(connection="c-1", candidates=("a",), generation=0)


def test_a_report_tells_the_ending() -> None:
    assert (REPORT.cause, REPORT.initiated_by, REPORT.path) == ("network_lost", "network", "direct")
    assert REPORT.detection_ms == 15001.5
    assert REPORT.evidence == {"silence_ms": "15000", "told": "no", "probes_sent": "7", "path": "direct"}


def frame_with(**changes: Any) -> str:
    fields = json.loads(encode(FROM_PEERS[3]))
    return json.dumps(fields | {"report": fields["report"] | changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence": {f"k{number}": "x" for number in range(MAX_EVIDENCE + 1)}},
        {"evidence": {"k": "x" * (MAX_EVIDENCE_CHARS + 1)}},
        {"evidence": {"k": "\x1b[2J"}},
        {"evidence": {"k": 7}},
        {"evidence": {"k": ["x"]}},
        {"evidence": {"K": "x"}},
        {"evidence": {"k" * 33: "x"}},
        {"evidence": {"": "x"}},
        {"evidence": None},
        {"cause": "x" * 65},
        {"cause": "a\nb"},
        {"initiated_by": None},
        {"detection_ms": -1},
        {"detection_ms": 1e13},
        {"detection_ms": "7"},
        {"started_at": "yesterday"},
        {"ended_at": "2026-01-01T00:00:00+00:00"},
        {"last_seen_at": "２０２６-01-01T00:00:00Z"},
        {"rx_bytes": -1},
        {"tx_bytes": 2**63},
        {"acknowledged": "yes"},
    ],
)
def test_a_report_is_bounded(changes: dict[str, Any]) -> None:
    PEER.decode(frame_with())
    with pytest.raises(MalformedFrame):
        PEER.decode(frame_with(**changes))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    evidence=st.dictionaries(st.from_regex(r"\A[a-z_]{1,40}\Z") | st.text(), VALUES, max_size=50),
    detection_ms=st.none() | st.floats(allow_nan=False),
    rx_bytes=st.integers(min_value=0, max_value=2**80),
)
def test_no_ending_is_too_strange_to_be_told(
    evidence: dict[str, Any], detection_ms: float | None, rx_bytes: int
) -> None:
    strange = msgspec.structs.replace(ENDING, evidence=evidence, detection_ms=detection_ms, rx_bytes=rx_bytes)
    message = ConnectionEnded(connection="c-1", cause=strange.cause, report=EndingReport.of(strange))
    assert PEER.decode(encode(message)).message == message


def test_the_largest_report_fits_into_a_frame() -> None:
    largest = {f"key_{number}": "\U0001f600\\" * 1000 for number in range(100)}
    message = ConnectionEnded(
        connection="c" * 64,
        cause="x" * 64,
        report=EndingReport.of(msgspec.structs.replace(ENDING, evidence=largest)),
    )
    assert len(encode(message).encode()) < MAX_PEER_FRAME_BYTES
    assert PEER.decode(encode(message)).message == message
