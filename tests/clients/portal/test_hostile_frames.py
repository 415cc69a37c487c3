"""Ten thousand bad frames, at both ends of the link: counted, answered, never an exception."""

import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.portal.codec import MalformedFrame, UnknownMessage, encode, peer_decoder, portal_decoder
from exeunt.actors.portal.machine import TRANSITIONS, LinkMachine
from exeunt.actors.portal.messages import (
    MAX_PEER_FRAME_BYTES,
    MAX_PORTAL_FRAME_BYTES,
    AskEvidence,
    Authorize,
    Authorized,
    ClaimConnections,
    ConnectionEnded,
    Evidence,
    FromPeer,
    FromPortal,
    Heartbeat,
    IceCandidates,
    IceCredentials,
    IceRestarted,
    Join,
    Joined,
    Leaving,
    LiveConnection,
    PeerGone,
    RequestAuthorization,
    RestartIce,
)
from exeunt.actors.portal.reports import EndingReport, Observation
from exeunt.clients.portal.directory import Directory, Identity, PeerRecord, ResourceRecord, SiteRecord
from exeunt.clients.portal.events import ClosedHow
from exeunt.clients.portal.machine import PortalMachine

IDS = ("client-1", "gateway-1", "resource-1", "c1", "x", "", "\x00", "é", "a" * 65)
CLAIM = LiveConnection(connection="c1", peer_id="client-1", resource_ids=("resource-1", "x"))
JOIN = Join(name="n", external_id="d", public_key=b"k" * 32, version="1.0", connections=(CLAIM,))
JOINED = Joined(peer_id="client-1", name="n", address_ipv4="100.64.0.1", address_ipv6="fd65::1")
ICE = IceCredentials(username="u" * 8, password="p" * 32)
REPORT = EndingReport(
    cause="idle",
    initiated_by="us",
    started_at="2026-01-01T00:00:00Z",
    ended_at="2026-01-01T00:01:00.5Z",
    evidence={"silence_ms": "15000", "endpoint": "192.0.2.1:51820"},
)
TO_PORTAL: list[Any] = [
    JOIN,
    Heartbeat(ref=1),
    RequestAuthorization(resource_id="resource-1", excluded_gateway_ids=("x",)),
    Authorized(ref="x"),
    ConnectionEnded(connection="c1", cause="idle"),
    ClaimConnections(connections=(CLAIM,)),
    IceCandidates(connection="c1", candidates=("candidate:1 1 udp 1 192.0.2.1 1 typ host",)),
    ConnectionEnded(connection="c1", cause="idle", report=REPORT),
    RestartIce(connection="c1", reason="addresses changed"),
    IceCandidates(connection="c1", candidates=("a",), generation=1, withdrawn=("b",)),
    AskEvidence(ref=1, connection="c1"),
    Leaving(reason="signed_out"),
]
TO_PEER: list[Any] = [
    JOINED,
    PeerGone(connection="c1", reason="it left", kind="left", cause="signed_out"),
    IceRestarted(connection="c1", generation=1, local_ice=ICE, remote_ice=ICE),
    Evidence(
        ref=1,
        connection="c1",
        reports={"client": REPORT},
        observations=(Observation(at="2026-01-01T00:00:00Z", kind="ended", side="client", detail="idle"),),
    ),
]
HOWS: tuple[ClosedHow, ...] = ("reset", "closed", "not_reading", "portal_stopping")
TAGS = sorted({kind.__struct_config__.tag for kind in (*FromPeer.__args__, *FromPortal.__args__)})
FIELDS = sorted(
    {name for kind in (*FromPeer.__args__, *FromPortal.__args__, EndingReport) for name in kind.__struct_fields__}
)
VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice(IDS),
    lambda rng: rng.choice([None, True, -1, 0, 1, 2**53, 2**64, 10**400, 0.5, "A" * 43 + "=", "inf"]),
    lambda rng: [rng.choice(IDS) for _ in range(rng.randrange(4))],
    lambda rng: {rng.choice(FIELDS): rng.choice(IDS) for _ in range(rng.randrange(4))},
    lambda rng: "".join(chr(rng.choice([9, 34, 65, 0xD7FF, 0x202E, 0x1F600])) for _ in range(rng.randrange(9))),
)


def hostile(rng: random.Random) -> str | bytes:
    """A frame from nowhere, a frame that looks like one of ours, or one of ours that was damaged."""
    match rng.randrange(5):
        case 0:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        case 1:
            return "".join(rng.choice('{}[]:,"\\u0x8type 1e9é') for _ in range(rng.randrange(60)))
        case 2:
            return rng.choice(["[", '{"a":', '{"type":', "9"]) * rng.choice([1, 100, 20_000])
        case 3:
            fields = {rng.choice(FIELDS): rng.choice(VALUES)(rng) for _ in range(rng.randrange(6))}
            return json.dumps(fields | {"type": rng.choice(TAGS)}, ensure_ascii=rng.random() < 0.5)
        case _:
            text = encode(rng.choice([*TO_PORTAL, *TO_PEER]))
            at, to = sorted((rng.randrange(len(text)), rng.randrange(len(text))))
            return text if rng.random() < 0.3 else text[:at] + rng.choice(["", '"', "\\ud800", "}"]) + text[to:]


def directory() -> Directory:
    peer = PeerRecord("client-1", "client", "n", "100.64.0.1", "fd65::1")
    gateway = PeerRecord("gateway-1", "gateway", "g", "100.64.0.2", "fd65::2", "site-1")
    return Directory(
        sites={"site-1": SiteRecord("site-1", "main")},
        peers={peer.id: peer, gateway.id: gateway},
        resources={"resource-1": ResourceRecord("resource-1", "web", "10.0.0.0/8", "site-1")},
        tokens={"t1": peer.id, "t2": gateway.id},
    )


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.integers(0, 2**64))
def test_any_frame_decodes_or_is_refused(seed: int) -> None:
    frame = hostile(random.Random(seed))
    for decoder in (peer_decoder(MAX_PEER_FRAME_BYTES), portal_decoder(MAX_PORTAL_FRAME_BYTES)):
        with contextlib.suppress(MalformedFrame, UnknownMessage):
            encode(decoder.decode(frame).message)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.integers(0, 2**64))
def test_the_portal_machine_survives_any_frames(seed: int) -> None:
    rng = random.Random(seed)
    machine = PortalMachine(directory(), rng=rng, unix_offset_s=1.8e9, authorization_lifetime_s=60)
    now = 0.0
    identities = (Identity("client", "client-1", "t1"), Identity("gateway", "gateway-1", "t2"))
    for session in range(2):
        machine.handle_opened(session, identities[session], now)
        if rng.random() < 0.9:
            machine.handle_frame(session, encode(JOIN), now)
    machine.handle_frame(0, encode(RequestAuthorization(resource_id="resource-1")), now)
    for _ in range(4):
        now += rng.choice([0.0, 0.01, 1.0, 20.0])
        session = rng.randrange(3)
        match rng.randrange(12):
            case 0:
                machine.handle_closed(session, rng.choice(HOWS), now)
                machine.handle_opened(session, identities[session % 2], now)
                machine.handle_frame(session, encode(JOIN), now)
            case 1:
                machine.handle_directory(rng.choice([Directory(), directory()]), now)
            case 2:
                machine.handle_timeout(now)
            case 3 | 4:
                machine.handle_frame(session, encode(rng.choice(TO_PORTAL)), now)
            case _:
                machine.handle_frame(session, hostile(rng), now)
        while (output := machine.poll_transmit()) is not None:
            message = getattr(output, "message", None)
            if message is not None:
                # Whatever the portal says can be read at the other end.
                portal_decoder(MAX_PORTAL_FRAME_BYTES).decode(encode(message))
                confirm(machine, message, now)
        while machine.poll_event() is not None:
            pass
        machine.poll_timeout()


def confirm(machine: PortalMachine, message: FromPortal, now: float) -> None:
    """A gateway that answers half of what it is asked, so that connections come about."""
    if isinstance(message, Authorize) and now % 2 < 1:
        machine.handle_frame(1, encode(Authorized(ref=message.ref)), now)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.integers(0, 2**64))
def test_the_link_machine_survives_any_frames(seed: int) -> None:
    rng = random.Random(seed)
    machine = LinkMachine(JOIN, rng=rng)
    now = 0.0
    for _ in range(5):
        now += rng.choice([0.0, 0.1, 20.0])
        match rng.randrange(14):
            case 0:
                machine.handle_start(now)
            case 1:
                machine.handle_opened(now)
            case 2:
                machine.handle_frame(encode(JOINED), now)
            case 3:
                machine.handle_timeout(now)
            case 4:
                machine.handle_send(rng.choice(TO_PORTAL), now)
            case 5 if rng.random() < 0.1:
                machine.handle_leave("idle", 0.25, now)
            case 6 if rng.random() < 0.3:
                machine.handle_refused(rng.randrange(100, 600), rng.choice([None, 0.0, 1e300]), now)
            case 7:
                machine.handle_closed("broken", now)
            case _:
                machine.handle_frame(hostile(rng), now)
        while machine.poll_transmit() is not None:
            pass
        while machine.poll_event() is not None:
            pass
        assert (machine.poll_timeout() is None) == (machine.state == "closed" or machine.counters.tries == 0)
        assert machine.state in TRANSITIONS
