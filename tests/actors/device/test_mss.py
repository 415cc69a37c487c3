"""Lowering the segment size that a SYN asks for; the checksums are those of a slow, plain sum."""

from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.batch.vnet import NEEDS_CSUM, NOTHING_LEFT
from exeunt.actors.device.mss import SYN_BYTES_MAX, clamp_mss

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
WSCALE, TIMESTAMP, SACK_OK = b"\x03\x03\x07", b"\x08\x0a" + b"\1\2\3\4" * 2, b"\x04\x02"


def mss(size: int) -> bytes:
    return b"\x02\x04" + size.to_bytes(2, "big")


def folded(data: bytes) -> int:
    """RFC 1071, word by word."""
    data += bytes(len(data) % 2)
    total = sum(data[at] << 8 | data[at + 1] for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def segment_sum(packet: bytes) -> int:
    """The sum over pseudo-header and segment; 0xFFFF where the checksum is right."""
    if packet[0] >> 4 == 4:
        start, addresses = (packet[0] & 15) * 4, packet[12:20]
    else:
        start, addresses = 40, packet[8:40]
    segment = packet[start:]
    return folded(addresses + bytes([0, 6]) + len(segment).to_bytes(2, "big") + segment)


def syn(options: bytes, *, version: int = 4, flags: int = SYN, ip_options: bytes = b"") -> bytes:
    """A segment with right checksums of its own."""
    options = options.ljust(len(options) + -len(options) % 4, b"\0")
    tcp = bytearray(b"\x9c\x40\x01\xbb\1\2\3\4\0\0\0\0" + bytes([(20 + len(options)) // 4 << 4, flags]) + b"\xff\xff")
    tcp += bytes(4) + options
    if version == 4:
        header_bytes = 20 + len(ip_options)
        ip = (
            bytes([0x40 | header_bytes // 4, 0])
            + (header_bytes + len(tcp)).to_bytes(2, "big")
            + b"\0\1\x40\0\x40\6\0\0"
        )
        ip += bytes([100, 64, 0, 1, 10, 0, 0, 1]) + ip_options
    else:
        ip = b"\x60\0\0\0" + len(tcp).to_bytes(2, "big") + b"\6\x40" + bytes(range(32))
    tcp[16:18] = (~segment_sum(ip + tcp) & 0xFFFF).to_bytes(2, "big")
    return ip + bytes(tcp)


def clamped(packet: bytes, mtu: int, before: bytes = NOTHING_LEFT) -> tuple[bool, bytes]:
    frame = bytearray(before + packet)
    done = clamp_mss(memoryview(frame), mtu)
    assert frame[: len(before)] == before
    return done, bytes(frame[len(before) :])


def test_a_syn_asks_for_what_the_path_takes() -> None:
    for version, fitting in ((4, 1192), (6, 1172)):
        for flags in (SYN, SYN_ACK):
            done, packet = clamped(syn(mss(1460) + WSCALE, version=version, flags=flags), 1232)
            assert done
            assert packet == syn(mss(fitting) + WSCALE, version=version, flags=flags)


def test_the_option_is_found_wherever_it_is() -> None:
    for before in (b"", b"\1", b"\1\1\1", WSCALE, SACK_OK + TIMESTAMP, WSCALE + SACK_OK):
        done, packet = clamped(syn(before + mss(1460) + SACK_OK, ip_options=b"\1" * 8), 1280)
        assert done
        assert packet == syn(before + mss(1240) + SACK_OK, ip_options=b"\1" * 8)
        assert segment_sum(packet) == 0xFFFF


def test_what_asks_for_less_or_for_nothing_stays() -> None:
    for packet in (
        syn(mss(1240)),
        syn(mss(536)),
        syn(WSCALE),
        syn(b""),
        syn(mss(1460), flags=ACK),
        syn(b"\0" + mss(1460)),  # after the end of the options
        syn(b"\x03\0" + mss(1460)),  # an option without a length
        syn(b"\x02\x05\x05\xb4\0"),  # not how long it has to be
        syn(SACK_OK + b"\x02\x08\x05\xb4"),  # longer than the header
        b"\x45\0\0\x28\0\1\x20\1\x40\6" + syn(mss(1460))[10:],  # a later fragment
        syn(mss(1460))[:9] + b"\x11" + syn(mss(1460))[10:],  # UDP
    ):
        assert clamped(packet, 1280) == (False, packet)


def test_a_checksum_that_the_kernel_has_left_to_us_is_left_as_it_is() -> None:
    before = bytes([NEEDS_CSUM]) + bytes(9)
    packet = syn(mss(1460))
    done, after = clamped(packet, 1280, before)
    assert done
    assert after == packet[:42] + (1240).to_bytes(2, "big") + packet[44:]


@given(
    st.integers(0, 65_535),
    st.integers(576, 1500),
    st.sampled_from((4, 6)),
    st.lists(st.sampled_from((b"\1", WSCALE, SACK_OK, TIMESTAMP)), max_size=3, unique=True),
)
def test_the_checksum_is_always_right(size: int, mtu: int, version: int, others: list[bytes]) -> None:
    done, packet = clamped(syn(b"".join(others) + mss(size), version=version), mtu)
    fitting = mtu - (40 if version == 4 else 60)
    assert done == (size > fitting)
    assert packet[packet.index(b"\x02\x04", 40 if version == 4 else 60) + 2 :][:2] == min(size, fitting).to_bytes(
        2, "big"
    )
    assert segment_sum(packet) == 0xFFFF


@given(st.sampled_from((4, 6)), st.binary(max_size=SYN_BYTES_MAX), st.integers(5, 15))
def test_nothing_in_a_packet_leads_outside_of_it(version: int, body: bytes, words: int) -> None:
    header = 40 if version == 6 else 20
    start = bytearray(body.ljust(header, b"\6"))
    start[0], start[6 if version == 6 else 9] = version << 4 | words, 6
    if version == 6 or len(start) >= words * 4:
        assert len(clamped(bytes(start), 576)[1]) == len(start)
