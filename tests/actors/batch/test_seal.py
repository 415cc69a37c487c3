"""From frames to datagrams, against packets that were made one at a time."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import MAX_DATAGRAMS, Kernel

from .both_ends import INDEX, KEY, seal
from .oracle import LONE, SIX, VNET, Ip, Tcp, Udp, Whole, frame_of, ones_complement, packets_of, pseudo, sealed
from .strategies import frames, wholes

slow = pytest.mark.slow


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def expected(packets: list[bytes], counter: int = 0, mtu: int = 1420) -> list[bytes]:
    return [sealed(KEY, INDEX, counter + number, packet, mtu) for number, packet in enumerate(packets)]


WHOLES: dict[str, Whole] = {
    "tcp4": Tcp(payload=content(60_000), flags=0x18),
    "tcp4-odd": Tcp(payload=content(60_001), flags=0x19, sequence=2**32 - 5_000, options=bytes(12)),
    "tcp4-with-ip-options": Tcp(ip=Ip(options=bytes(8), identification=0xFFFE), payload=content(9_999)),
    "tcp4-cwr": Tcp(payload=content(30_000), flags=0xD9),
    "tcp6": Tcp(ip=SIX, payload=content(50_000), flags=0x18),
    "udp4": Udp(payload=content(50_000)),
    "udp6": Udp(ip=SIX, payload=content(50_001)),
}


@pytest.mark.parametrize("whole", WHOLES.values(), ids=list(WHOLES))
@pytest.mark.parametrize("gso_size", [1360, 1361, 1000, 59_999])
def test_a_frame_is_cut_into_the_packets_it_stands_for(kernel: Kernel, whole: Whole, gso_size: int) -> None:
    datagrams, done = seal(kernel, frame_of(whole, gso_size), counter=9)
    assert datagrams == expected(packets_of(whole, gso_size), 9)
    assert done.total == sum(map(len, datagrams))


def test_channel_data_goes_before_each_datagram(kernel: Kernel) -> None:
    whole = WHOLES["tcp4"]
    plain = expected(packets_of(whole, 1300))
    datagrams, _ = seal(kernel, frame_of(whole, 1300), channel=0x4001)
    assert datagrams == [struct.pack("!HH", 0x4001, len(datagram)) + datagram for datagram in plain]


def test_a_sealing_can_be_used_again(kernel: Kernel) -> None:
    sealing = kernel.sealing(KEY, INDEX)
    train = memoryview(bytearray(200_000))
    for counter, (whole, gso_size) in enumerate([(WHOLES["udp4"], 500), (WHOLES["tcp4-odd"], 1301)] * 3):
        done = sealing.seal(memoryview(bytearray(frame_of(whole, gso_size))), train, counter=counter, mtu=1420)
        datagrams = [bytes(train[at : at + done.stride]) for at in range(0, done.total, done.stride)]
        datagrams[-1] = datagrams[-1][: done.total - (done.datagrams - 1) * done.stride]
        assert datagrams == expected(packets_of(whole, gso_size), counter)


def test_a_packet_that_is_complete_stays_as_it_is(kernel: Kernel) -> None:
    packet = Tcp(payload=b"hello", damage=5).write()
    assert seal(kernel, LONE + packet)[0] == expected([packet])


@pytest.mark.parametrize("whole", [Tcp(payload=content(99)), Udp(payload=content(99)), Udp(ip=SIX, payload=content(8))])
def test_a_checksum_is_completed(kernel: Kernel, whole: Whole) -> None:
    frame = bytearray(frame_of(whole, 0))
    frame[1] = 0
    assert seal(kernel, bytes(frame))[0] == expected([whole.write()])


def test_a_checksum_of_zero_is_written_as_its_other_form(kernel: Kernel) -> None:
    bare = Udp(payload=bytes(2))
    segment = struct.pack("!HHHH", *bare.ports, 10, 0)
    missing = 0xFFFF - ones_complement(pseudo(bare.ip.addresses(), 17, 10) + segment)
    whole = replace(bare, payload=missing.to_bytes(2, "big"))
    assert whole.write()[26:28] == b"\xff\xff"
    assert seal(kernel, frame_of(whole, 100))[0] == expected([whole.write()])


@pytest.mark.parametrize("size", [1_404, 1_405, 1_419, 1_420, 1_421, 1_500])
def test_padding_ends_at_the_mtu(kernel: Kernel, size: int) -> None:
    packet = Udp(payload=content(size - 28)).write()
    assert seal(kernel, LONE + packet)[0] == expected([packet])


def test_bytes_after_the_packet_are_not_sent(kernel: Kernel) -> None:
    packet = Udp(payload=b"end").write()
    assert seal(kernel, LONE + packet + b"more")[0] == expected([packet])


def test_behind_extension_headers_the_kernel_says_where(kernel: Kernel) -> None:
    whole = Tcp(ip=replace(SIX, options=b"\x06\x00" + bytes(6)), payload=content(500))
    assert seal(kernel, frame_of(whole, 100))[0] == expected(packets_of(whole, 100))


def test_as_many_packets_as_there_is_room_for_and_no_more(kernel: Kernel) -> None:
    whole = Tcp(ip=Ip(options=bytes(40)), options=bytes(40), payload=content(MAX_DATAGRAMS * 63))
    assert seal(kernel, frame_of(whole, 63), channel=0x4000)[1].datagrams == MAX_DATAGRAMS
    assert seal(kernel, frame_of(whole, 62))[1].datagrams == 0


def malformed() -> dict[str, bytes]:
    tcp = frame_of(Tcp(payload=content(3_000)), 1_000)
    udp = frame_of(Udp(payload=content(3_000)), 1_000)
    packet = tcp[10:]

    def changed(frame: bytes, at: int, value: int) -> bytes:
        return frame[:at] + bytes([value]) + frame[at + 1 :]

    return {
        "nothing": b"",
        "only a header": bytes(10),
        "no ip": LONE + b"\x50" + bytes(60),
        "too short for its length": LONE + packet[:-1],
        "too long": LONE + SIX.write(17, bytes(65_500)),
        "a length below the header's": LONE + packet[:2] + b"\0\x13" + packet[4:],
        "header length below 20": changed(tcp, 10, 0x44),
        "header length beyond the packet": LONE + changed(Ip().write(17, b""), 0, 0x4F),
        "gso_size 0": VNET.pack(1, 1, 40, 0, 20, 16) + packet,
        "an unknown gso_type": VNET.pack(1, 3, 40, 1000, 20, 16) + packet,
        "ecn without tcp": VNET.pack(1, 0x80, 40, 1000, 20, 16) + packet,
        "tcp6 of an ipv4 packet": VNET.pack(1, 4, 40, 1000, 20, 16) + packet,
        "udp of a tcp packet": VNET.pack(1, 5, 28, 1000, 20, 6) + packet,
        "tcp of a udp packet": VNET.pack(1, 1, 40, 1000, 20, 16) + udp[10:],
        "tcp header too short": changed(tcp, 10 + 32, 0x40),
        "tcp header beyond the packet": frame_of(Tcp(payload=b"1234"), 2)[:42] + b"\xf0" + bytes(11),
        "checksum beyond the packet": VNET.pack(1, 0, 0, 0, len(packet) - 17, 16) + packet,
        "checksum within the ip header": VNET.pack(1, 0, 0, 0, 0, 0) + packet,
        "more packets than allowed": VNET.pack(1, 1, 40, 2, 20, 16) + packet,
    }


@pytest.mark.parametrize("frame", malformed().values(), ids=list(malformed()))
def test_a_malformed_frame_is_no_datagram(kernel: Kernel, frame: bytes) -> None:
    assert seal(kernel, frame) == ([], (0, 0, 0))


@slow
@settings(max_examples=150, deadline=None)
@given(
    whole=wholes(),
    gso_size=st.one_of(st.integers(60, 1_500), st.integers(1, 60_000)),
    counter=st.integers(0, 2**60),
    mtu=st.integers(576, 9_000),
    ecn=st.booleans(),
)
def test_cuts_any_frame_as_the_oracle_does(
    kernel: Kernel, whole: Whole, *, gso_size: int, counter: int, mtu: int, ecn: bool
) -> None:
    gso_size = max(gso_size, -(-len(whole.payload) // MAX_DATAGRAMS), 1)
    datagrams, _ = seal(kernel, frame_of(whole, gso_size, ecn=ecn), counter=counter, mtu=mtu)
    assert datagrams == expected(packets_of(whole, gso_size), counter, mtu)


@slow
@settings(max_examples=400, deadline=None)
@given(frame=frames(), mtu=st.integers(0, 9_000))
def test_whatever_the_bytes_are_nothing_is_raised_and_all_kernels_agree(
    kernel: Kernel, reference: Kernel, frame: bytes, mtu: int
) -> None:
    assert seal(kernel, frame, mtu=mtu) == seal(reference, frame, mtu=mtu)
