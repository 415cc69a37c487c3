"""Frames sealed one right behind the other: the same datagrams as one by one, as far as there is room."""

from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.batch.oracle import LONE, SIX, Ip, Tcp, Udp, Whole, frame_of
from tests.actors.batch.strategies import wholes

from exeunt.actors.batch import MAX_DATAGRAMS, TRAIN_BYTES, Kernel, Sealed, native
from exeunt.actors.batch.pure import PureKernel
from exeunt.actors.wireguard.testing import ipv4_packet

KEY, INDEX, MTU = bytes(range(32)), 7, 1_280
FRAMES = [
    LONE + ipv4_packet(60),
    frame_of(Tcp(payload=bytes(range(250)) * 20, flags=0x18), 1_000),
    LONE + bytes(40),
    LONE + ipv4_packet(1_280, fill=9),
]


def spans_of(frames: list[bytes]) -> "tuple[memoryview, array[int]]":
    spans, at = array("I"), 0
    for frame in frames:
        spans.extend((at, len(frame)))
        at += len(frame)
    return memoryview(bytearray(b"".join(frames))), spans


def content(size: int, first: int = 0) -> bytes:
    return (bytes(range(first, 251)) * (size // (251 - first) + 1))[:size]


def seal_all(kernel: Kernel, frames: list[bytes], channel: int | None = None, mtu: int = MTU) -> list[Sealed]:
    """Seal frames into a train that was used before, and hold each against what it is alone; return how they are."""
    sealing, reference = kernel.sealing(KEY, INDEX), PureKernel(with_numpy=False).sealing(KEY, INDEX)
    train = memoryview(bytearray(b"\xaa" * (len(frames) + 1) * TRAIN_BYTES))
    sealed: list[Sealed] = []
    for first in (2**40, 5):
        buffer, spans = spans_of(frames)
        sealed = list(sealing.seal_each(buffer, spans, train, counter=first, mtu=mtu, channel=channel))
        counter, used, alone = first, 0, memoryview(bytearray(TRAIN_BYTES))
        for frame, found in zip(frames, sealed, strict=True):
            bare = memoryview(bytearray(frame))
            one = reference.seal(bare, alone, counter=counter, mtu=mtu, channel=channel)
            assert found == one
            assert train[used : used + one.total] == alone[: one.total]
            counter, used = counter + one.datagrams, used + one.total
        assert train[used : used + 64] == b"\xaa" * 64
    return sealed


@pytest.mark.parametrize("channel", [None, 0x4001])
def test_each_frame_is_sealed_as_it_is_alone(kernel: Kernel, channel: int | None) -> None:
    assert seal_all(kernel, FRAMES, channel)[2] == Sealed(0, 0, 0)


def tcp(packets: int, payload: int = 1_000, rest: int = 0, **fields: Any) -> bytes:
    """A frame of so many packets, and a shorter one."""
    return frame_of(Tcp(payload=content(packets * payload + rest), **fields), payload)


def udp(packets: int, payload: int = 1_000, **fields: Any) -> bytes:
    return frame_of(Udp(payload=content(packets * payload), **fields), payload)


ALIKE = {
    "one flow that goes on": [tcp(12, sequence=1 + n * 12_000, ip=Ip(identification=9 + n * 12)) for n in range(4)],
    "one flow with holes": [tcp(12, sequence=n * 50_000, ip=Ip(identification=7_000 * n)) for n in range(4)],
    "numbers that begin anew": [
        tcp(9, sequence=2**32 - 3_000, ip=Ip(identification=0xFFFC)),
        tcp(9, sequence=6_000, ip=Ip(identification=5)),
    ],
    "flows of several sources": [tcp(10, ports=(n, 80), ip=Ip(source=bytes([10, 0, 0, n]))) for n in range(1, 5)],
    "several acknowledged and windows": [tcp(8, acknowledged=n * 9, window=n) for n in range(1, 4)],
    "each with a flag at its end": [tcp(9, flags=0x18), tcp(9, flags=0x19), tcp(9, flags=0x10), tcp(9, flags=0x11)],
    "few packets each": [tcp(3, sequence=n) for n in range(9)],
    "too few packets in all": [tcp(3), tcp(3)],
    "one packet each": [tcp(1, sequence=n) for n in range(12)],
    "numbers of packets that differ": [tcp(2), tcp(20), tcp(1), tcp(7)],
    "a rest in the middle": [tcp(9), tcp(9, rest=17), tcp(9), tcp(9)],
    "a rest at the end": [tcp(9), tcp(9), tcp(9, flags=0x18, rest=1)],
    "a rest as long as what follows": [tcp(9, rest=500), tcp(9, payload=500), tcp(9, payload=500)],
    "only one is congested": [tcp(9), tcp(9, flags=0x90), tcp(9), tcp(9)],
    "all are": [tcp(9, flags=0x90), tcp(9, flags=0xD8)],
    "something in between": [tcp(9), LONE + ipv4_packet(60), tcp(9), tcp(9)],
    "something malformed in between": [tcp(9), bytes(40), tcp(9), tcp(9)],
    "lengths that differ": [tcp(9), tcp(9, payload=999), tcp(9, payload=998), tcp(9)],
    "headers that differ": [tcp(9), tcp(9, payload=988, options=bytes(12)), tcp(9, payload=988, options=bytes(12))],
    "versions that differ": [tcp(9, ip=Ip(options=bytes(20))), tcp(9, ip=SIX), tcp(9, ip=SIX)],
    "protocols that differ": [tcp(9), udp(9, payload=1_012), udp(9, payload=1_012)],
    "udp": [udp(9), udp(9, ports=(7, 8)), udp(9)],
    "udp by ipv6": [udp(9, ip=SIX), udp(9, ip=SIX, ports=(7, 8))],
    "classes that differ": [tcp(9, ip=Ip(traffic_class=n)) for n in (0, 1, 3)],
    "more packets than one call seals": [tcp(600, payload=100) for _ in range(4)],
}


@pytest.mark.parametrize("frames", ALIKE.values(), ids=list(ALIKE))
@pytest.mark.parametrize(("channel", "mtu"), [(None, MTU), (0x4001, MTU), (None, 1_041)])
def test_frames_that_are_cut_alike_are_what_each_is_alone(
    kernel: Kernel, frames: list[bytes], channel: int | None, mtu: int
) -> None:
    seal_all(kernel, frames, channel, mtu)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    whole=wholes(st.integers(500, 9_000)),
    kinds=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2**16 - 1), st.integers(0, 9_000)), min_size=2, max_size=9
    ),
    gso_size=st.integers(90, 1_300),
    mtu=st.integers(576, 1_500),
)
def test_any_frames_in_a_row_are_what_each_is_alone(
    kernel: Kernel, whole: Whole, *, kinds: list[tuple[int, int, int]], gso_size: int, mtu: int
) -> None:
    """Frames of one kind whose lengths, flags, ports and numbers differ."""
    frames: list[bytes] = []
    for kind, number, size in kinds:
        other = replace(whole, ip=replace(whole.ip, identification=number), payload=content(size or 1, kind))
        if isinstance(other, Tcp):
            other = replace(other, sequence=number * 2**16, flags=(0x10, 0x18, 0x90, 0x11)[kind])
        frames.append(frame_of(replace(other, ports=(kind, number)), gso_size))
    seal_all(kernel, frames, mtu=mtu)


def test_it_stops_where_there_is_no_room_for_any_frame_more(kernel: Kernel) -> None:
    buffer, spans = spans_of(FRAMES)
    sealing = kernel.sealing(KEY, INDEX)
    size = sealing.seal_each(buffer, spans[:2], memoryview(bytearray(TRAIN_BYTES)), counter=0, mtu=MTU)[0].total
    for room, count in ((TRAIN_BYTES, 1), (TRAIN_BYTES + size - 1, 1), (TRAIN_BYTES + size, 2)):
        buffer, spans = spans_of(FRAMES)
        assert len(sealing.seal_each(buffer, spans, memoryview(bytearray(room)), counter=9, mtu=MTU)) == count
    assert list(sealing.seal_each(buffer, array("I"), memoryview(bytearray(0)), counter=9, mtu=MTU)) == []


@pytest.mark.parametrize("spans", [[0], [0, 10_000], [10_000, 1], [2**32 - 1, 2**32 - 1], [0, 1] * (MAX_DATAGRAMS + 1)])
def test_spans_lead_nowhere_else(spans: list[int]) -> None:
    compiled = native.load()
    if compiled is None:
        pytest.skip(f"no native kernel: {native.absent_because()}")
    buffer, train = memoryview(bytearray(1_000)), memoryview(bytearray(TRAIN_BYTES))
    with pytest.raises(ValueError, match="spans"):
        compiled.sealing(KEY, INDEX).seal_each(buffer, array("I", spans), train, counter=0, mtu=MTU)
    with pytest.raises(ValueError, match="spans"):
        compiled.sealing(KEY, INDEX).seal_each(train, array("I", [0, 50]), train[10:], counter=0, mtu=MTU)
    assert train == bytes(TRAIN_BYTES)
    assert compiled.index_of(buffer, array("I", spans)) is None
