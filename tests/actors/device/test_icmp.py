"""ICMP errors: what they say, and about what nobody is told."""

import ipaddress

import pytest
from tests.actors.device.test_mss import folded, mss, syn

from exeunt.actors.device.icmp import ERRORS_PER_S, IcmpErrors
from exeunt.actors.device.packet import read_header

LONG_V4 = b"\x45\0\x05\x00\0\1\x40\0\x40\x11\0\0" + bytes([100, 64, 0, 1, 10, 0, 0, 1]) + bytes(1260)
LONG_V6 = b"\x60\0\0\0\x05\x50\x11\x40" + ipaddress.ip_address("fd00::1").packed * 2 + bytes(1360)


def too_big(packet: bytes, *, errors: IcmpErrors | None = None, now: float = 1.0) -> bytes | None:
    header = read_header(packet)
    assert header is not None
    return (errors or IcmpErrors()).too_big(memoryview(packet), header, 1232, now)


def test_a_sender_over_ipv4_is_told_how_long_packets_may_be() -> None:
    error = too_big(LONG_V4)
    assert error is not None
    assert len(error) == 576
    assert error[2:4] == (576).to_bytes(2, "big")
    assert (error[12:16], error[16:20]) == (LONG_V4[16:20], LONG_V4[12:16]), "from where it was to go"
    assert error[9] == 1
    assert (error[20], error[21], error[24:28]) == (3, 4, (1232).to_bytes(4, "big"))
    assert error[28:] == LONG_V4[: 576 - 28]
    assert folded(error[:20]) == folded(error[20:]) == 0xFFFF


def test_and_over_ipv6() -> None:
    error = too_big(LONG_V6)
    assert error is not None
    assert len(error) == 1280
    assert (error[6], error[40], error[41], error[44:48]) == (58, 2, 0, (1232).to_bytes(4, "big"))
    assert error[8:40] == LONG_V6[24:40] + LONG_V6[8:24]
    assert error[48:] == LONG_V6[: 1280 - 48]
    assert folded(error[8:40] + (1240).to_bytes(4, "big") + bytes([0, 0, 0, 58]) + error[40:]) == 0xFFFF


def test_nobody_there() -> None:
    for packet, version, kind, code in ((syn(mss(1460)), 4, 3, 1), (syn(mss(1460), version=6), 6, 1, 3)):
        header = read_header(packet)
        assert header is not None
        error = IcmpErrors().unreachable(memoryview(packet), header, 1.0)
        assert error is not None
        message = error[20 if version == 4 else 40 :]
        assert (message[0], message[1]) == (kind, code)
        assert message[8:] == packet


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (LONG_V4[:9] + b"\1" + LONG_V4[10:20] + b"\3" + LONG_V4[21:], "it is an error itself"),
        (LONG_V4[:6] + b"\x20\x10" + LONG_V4[8:], "a later fragment"),
        (LONG_V4[:12] + b"\xe0\0\0\1" + LONG_V4[16:], "the source is a group"),
        (LONG_V4[:16] + b"\xef\xff\xff\xfa" + LONG_V4[20:], "it is for a group"),
        (LONG_V6[:24] + b"\xff" + LONG_V6[25:], "it is for a group"),
        (LONG_V4[:12] + bytes(4) + LONG_V4[16:], "nobody sent it"),
        (LONG_V4[:12] + b"\xff" * 4 + LONG_V4[16:], "all sent it"),
        (LONG_V6[:6] + b"\x3a" + LONG_V6[7:40] + b"\1" + LONG_V6[41:], "it is an error itself"),
        (LONG_V6[:8] + b"\xff" + LONG_V6[9:], "the source is a group"),
        (LONG_V6[:8] + bytes(16) + LONG_V6[24:], "nobody sent it"),
    ],
)
def test_nobody_is_told_about(packet: bytes, why: str) -> None:
    assert too_big(packet) is None, why


def test_a_ping_that_is_too_long_is_told() -> None:
    assert too_big(LONG_V4[:9] + b"\1" + LONG_V4[10:20] + b"\x08" + LONG_V4[21:]) is not None


def test_no_more_are_told_than_is_decent() -> None:
    errors = IcmpErrors()
    told = [too_big(LONG_V4, errors=errors, now=5.0) for _ in range(300)]
    assert sum(one is not None for one in told) == ERRORS_PER_S
    assert too_big(LONG_V4, errors=errors, now=5.0 + 1.5 / ERRORS_PER_S) is not None
    assert too_big(LONG_V4, errors=errors, now=5.0 + 1.5 / ERRORS_PER_S) is None
