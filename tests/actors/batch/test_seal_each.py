"""Frames sealed one right behind the other: the same datagrams as one by one, as far as there is room."""

from array import array

import pytest
from tests.actors.batch.oracle import LONE, Tcp, frame_of

from exeunt.actors.batch import MAX_DATAGRAMS, TRAIN_BYTES, Kernel, Sealed, native
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


@pytest.mark.parametrize("channel", [None, 0x4001])
def test_each_frame_is_sealed_as_it_is_alone(kernel: Kernel, channel: int | None) -> None:
    buffer, spans = spans_of(FRAMES)
    train = memoryview(bytearray(len(FRAMES) * TRAIN_BYTES))
    sealed = kernel.sealing(KEY, INDEX).seal_each(buffer, spans, train, counter=5, mtu=MTU, channel=channel)
    counter, used, alone = 5, 0, memoryview(bytearray(TRAIN_BYTES))
    for frame, found in zip(FRAMES, sealed, strict=True):
        one = kernel.sealing(KEY, INDEX).seal(
            memoryview(bytearray(frame)), alone, counter=counter, mtu=MTU, channel=channel
        )
        assert found == one
        assert train[used : used + one.total] == alone[: one.total]
        counter, used = counter + one.datagrams, used + one.total
    assert sealed[2] == Sealed(0, 0, 0)


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
