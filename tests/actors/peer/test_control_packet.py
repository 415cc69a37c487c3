"""Control packets: exact bytes, round trips, hostile input."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.peer.control_packet import (
    REASON_CODES,
    TEXT_BYTES_MAX,
    ControlEvent,
    Foreign,
    Goodbye,
    GoodbyeAcknowledged,
    GoodbyeReason,
    Malformed,
    Probe,
    ProbeReply,
    Unknown,
    decode_control,
    encode_control,
    goodbye_reason,
    is_control,
)
from exeunt.actors.wireguard.testing import TunnelPair

IDENTIFIER = b"\1\2\3\4\5\6\7\x08"


def control(event_type: int, payload: bytes = b"") -> bytes:
    """A control packet spelled out byte by byte."""
    length = (8 + len(payload)).to_bytes(2, "big")
    return b"\x60\0\0\0" + length + b"\xff\0" + bytes(32) + bytes([event_type]) + bytes(7) + payload


def test_a_goodbye_has_these_bytes() -> None:
    event = Goodbye(reason="signed_out", identifier=IDENTIFIER, elapsed_ms=258, text="bye")
    assert encode_control(event) == control(2, b"\x01\x01\0\0" + IDENTIFIER + b"\0\0\1\2" + b"bye")


def test_the_other_events_have_these_bytes() -> None:
    assert encode_control(GoodbyeAcknowledged(identifier=IDENTIFIER)) == control(0x45, IDENTIFIER)
    stamp = bytes.fromhex("0102030405060708")
    probe = Probe(identifier=IDENTIFIER, timestamp=0x0102030405060708)
    reply = ProbeReply(identifier=IDENTIFIER, timestamp=0x0102030405060708)
    assert encode_control(probe) == control(0x46, IDENTIFIER + stamp)
    assert encode_control(reply) == control(0x47, IDENTIFIER + stamp)


def test_reason_codes_never_change() -> None:
    assert dict(REASON_CODES) == {
        "unspecified": 0,
        "signed_out": 1,
        "shutting_down": 2,
        "idle": 3,
        "replaced": 4,
        "access_revoked": 5,
        "access_expired": 6,
        "worker_crashed": 7,
        "supervisor_died": 8,
        "device_lost": 9,
        "protocol_error": 10,
        "portal_denied": 11,
    }
    assert set(REASON_CODES) == set(get_args(GoodbyeReason))


def test_an_empty_goodbye_of_48_bytes_is_understood() -> None:
    packet = control(2)
    assert len(packet) == 48
    event = decode_control(packet)
    assert event == Goodbye(reason="unspecified")
    assert isinstance(event, Goodbye)
    assert not event.wants_acknowledgement


def test_foreign_and_unknown_events_are_named_and_harmless() -> None:
    assert decode_control(control(0, b'{"resource":"x"}')) == Foreign(name="assigned_ips")
    assert decode_control(control(1, b"{}")) == Foreign(name="domain_status")
    assert decode_control(control(3)) == Unknown(event_type=3)
    assert decode_control(control(255, b"later")) == Unknown(event_type=255)


def test_a_later_goodbye_keeps_the_fields_of_the_first_version() -> None:
    later = control(2, b"\x02\x63\xff\xfe" + IDENTIFIER + b"\0\0\0\x05" + bytes(400))
    assert decode_control(later) == Goodbye(reason="unspecified", identifier=IDENTIFIER, elapsed_ms=5)


def test_reserved_bytes_are_not_read() -> None:
    packet = bytearray(control(0x45, IDENTIFIER))
    packet[41:48] = b"\xff" * 7
    packet[7] = 64  # hop limit
    assert decode_control(bytes(packet)) == GoodbyeAcknowledged(identifier=IDENTIFIER)


@pytest.mark.parametrize(
    ("packet", "event_type"),
    [
        (control(2)[:40], None),
        (control(2)[:47], None),
        (control(2) + b"x", 2),
        (control(2, b"x" * 20)[:-1], 2),
        (control(2, b"\x01"), 2),
        (control(2, b"\x01\x01\0\0" + IDENTIFIER + b"\0\0\0"), 2),
        (control(2, b"\x01\x01\0\0" + IDENTIFIER + bytes(4) + b"x" * (TEXT_BYTES_MAX + 1)), 2),
        (control(0x45), 0x45),
        (control(0x45, bytes(9)), 0x45),
        (control(0x46, bytes(15)), 0x46),
        (control(0x47, bytes(17)), 0x47),
    ],
)
def test_broken_control_packets_are_malformed_not_ordinary(packet: bytes, event_type: int | None) -> None:
    event = decode_control(packet)
    assert isinstance(event, Malformed)
    assert event.event_type == event_type


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x60",
        control(2)[:39],
        b"\x45" + bytes(59),
        b"\x45" + control(2)[1:],  # IPv4 by its version
        control(2)[:6] + b"\x11" + control(2)[7:],  # UDP
        control(2)[:23] + b"\x01" + control(2)[24:],  # from ::1
        control(2)[:39] + b"\x01" + control(2)[40:],  # to ::1
    ],
)
def test_ordinary_packets_are_not_control(packet: bytes) -> None:
    assert not is_control(packet)
    assert not is_control(memoryview(packet))
    assert decode_control(packet) is None


def test_a_text_is_cut_at_a_character_and_cannot_steer_a_terminal() -> None:
    packet = encode_control(Goodbye(reason="idle", identifier=IDENTIFIER, text="x" + "ü" * 150))
    event = decode_control(packet)
    assert isinstance(event, Goodbye)
    assert event.text == "x" + "ü" * 99
    packet = encode_control(Goodbye(reason="idle", identifier=IDENTIFIER, text="a\x1b[2Jb\nc"))
    event = decode_control(packet)
    assert isinstance(event, Goodbye)
    assert event.text == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"


@pytest.mark.parametrize(
    "event",
    [
        GoodbyeAcknowledged(identifier=b"short"),
        Goodbye(reason="idle", identifier=b""),
        Goodbye(reason="idle", identifier=IDENTIFIER, elapsed_ms=-1),
        Goodbye(reason="network_lost", identifier=IDENTIFIER),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        Probe(identifier=IDENTIFIER, timestamp=2**64),
        ProbeReply(identifier=IDENTIFIER, timestamp=-1),
    ],
)
def test_what_cannot_be_said_raises(event: ControlEvent) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_control(event)


def test_a_cause_becomes_a_reason_that_can_be_said() -> None:
    assert goodbye_reason("access_revoked") == "access_revoked"
    assert goodbye_reason("network_lost") == "unspecified"


IDENTIFIERS = st.binary(min_size=8, max_size=8)
STAMPS = st.integers(0, 2**64 - 1)
PRINTABLE = st.text(st.characters(categories=["L", "N", "P"]), max_size=50)
REASONS: st.SearchStrategy[GoodbyeReason] = st.sampled_from(list(REASON_CODES))
EVENTS: st.SearchStrategy[ControlEvent] = st.one_of(
    st.builds(Goodbye, reason=REASONS, identifier=IDENTIFIERS, elapsed_ms=st.integers(0, 2**32 - 1), text=PRINTABLE),
    st.builds(GoodbyeAcknowledged, identifier=IDENTIFIERS),
    st.builds(Probe, identifier=IDENTIFIERS, timestamp=STAMPS),
    st.builds(ProbeReply, identifier=IDENTIFIERS, timestamp=STAMPS),
)


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(EVENTS)
def test_what_is_encoded_is_decoded(event: ControlEvent) -> None:
    packet = encode_control(event)
    assert is_control(packet)
    assert decode_control(packet) == event
    assert decode_control(memoryview(packet)) == event


def cut_control(event_type: int, payload: bytes, end: int) -> bytes:
    return control(event_type, payload * (1 + end % 20))[: None if end > 90 else end]


TYPES = st.sampled_from([2, 0x45, 0x46, 0x47, 2, 0, 1, 3, 0x44, 0x48, 255])
HOSTILE = st.one_of(st.binary(max_size=80), st.builds(cut_control, TYPES, st.binary(max_size=20), st.integers(0, 400)))


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(HOSTILE)
def test_hostile_packets_never_raise(packet: bytes) -> None:
    event = decode_control(packet)
    assert (event is not None) == is_control(packet)
    if isinstance(event, Goodbye):
        assert event.text.isprintable()
        assert event.reason in REASON_CODES


def test_events_cross_a_tunnel_unharmed() -> None:
    """Padding goes on and comes off; an empty goodbye is 80 bytes on the wire, as elsewhere."""
    pair = TunnelPair()
    pair.connect()
    event = Goodbye(reason="shutting_down", identifier=IDENTIFIER, elapsed_ms=20, text="upgrade")
    pair.send("gateway", encode_control(event))
    (packet,) = pair.received["client"]
    assert decode_control(packet) == event
    pair.send("client", control(2))
    assert len(pair.carried[-1][1]) == 80
