"""Trains that are put together: what fits goes in one, and nothing changes its place."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.batch.contract import MAX_DATAGRAMS, TRAIN_BYTES, VNET_BYTES, Sealed
from exeunt.actors.device.trains import Trains


class Line:
    """Notes what is sent: each train as the datagrams in it."""

    def __init__(self) -> None:
        self.trains: list[tuple[list[bytes], int]] = []

    def send(self, train: memoryview, stride: int, total: int, ecn: int) -> int:
        assert len(train) == total
        datagrams = [bytes(train[at : at + stride]) for at in range(0, total, stride)]
        self.trains.append((datagrams, ecn))
        return len(datagrams)

    @property
    def datagrams(self) -> list[bytes]:
        return [datagram for train, _ in self.trains for datagram in train]


def seal(trains: Trains, line: Line, sizes: list[int], first: int = 0, ecn: int = 0) -> list[bytes]:
    """Put datagrams of these sizes where a kernel would, each filled with its number."""
    datagrams = [bytes([(first + number) % 256]) * size for number, size in enumerate(sizes)]
    whole = b"".join(datagrams)

    def put(_buffer: memoryview, _spans: "array[int]", train: memoryview) -> list[Sealed]:
        assert len(train) >= TRAIN_BYTES
        train[: len(whole)] = whole
        return [Sealed(len(datagrams), sizes[0], len(whole))]

    assert trains.take(memoryview(marked(ecn)), array("I", (0, 30)), put, line.send) == 0
    return datagrams


def marked(ecn: int) -> bytes:
    return bytes(VNET_BYTES) + bytes([0x45, ecn]) + bytes(18)


def test_equal_ones_and_a_shorter_last_one_go_together() -> None:
    trains, line = Trains(), Line()
    sent = seal(trains, line, [100, 100, 100]) + seal(trains, line, [100], 3) + seal(trains, line, [60], 4)
    assert line.trains == [], "they wait for more"
    trains.flush(line.send)
    assert line.trains == [(sent, 0)]
    trains.flush(line.send)
    assert len(line.trains) == 1, "nothing is sent twice"


def test_after_a_shorter_one_nothing_fits() -> None:
    trains, line = Trains(), Line()
    first, second = seal(trains, line, [100, 60]), seal(trains, line, [100], 2)
    trains.flush(line.send)
    assert line.trains == [(first, 0), (second, 0)]


def test_a_longer_one_and_another_mark_do_not_fit() -> None:
    trains, line = Trains(), Line()
    first, second = seal(trains, line, [60]), seal(trains, line, [100], 1)
    third = seal(trains, line, [100], 2, ecn=2)
    trains.flush(line.send)
    assert line.trains == [(first, 0), (second, 0), (third, 2)]


def test_there_is_always_room_for_any_frame() -> None:
    trains, line = Trains(), Line()
    for number in range(200):
        seal(trains, line, [1400] * 40, number)
    trains.flush(line.send)
    assert len(line.datagrams) == 200 * 40


def test_a_train_has_no_more_datagrams_than_a_frame_may_have() -> None:
    trains, line = Trains(), Line()
    for number in range(3 * MAX_DATAGRAMS):
        seal(trains, line, [32], number)
    trains.flush(line.send)
    assert max(len(train) for train, _ in line.trains) <= MAX_DATAGRAMS


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([48, 64, 128]), st.integers(1, 48), st.integers(0, 3))))
def test_order_bytes_and_marks_stay(frames: list[tuple[int, int, int, int]]) -> None:
    trains, line = Trains(), Line()
    sent: list[tuple[bytes, int]] = []
    for packets, stride, last, ecn in frames:
        datagrams = seal(trains, line, [stride] * packets + [last], len(sent), ecn)
        sent += [(datagram, ecn) for datagram in datagrams]
    trains.flush(line.send)
    assert [(datagram, ecn) for train, ecn in line.trains for datagram in train] == sent


def test_what_does_not_fit_any_more_is_sealed_after_the_rest_was_sent() -> None:
    trains, line = Trains(), Line()
    asked: list[list[int]] = []

    def two_at_a_time(_buffer: memoryview, spans: "array[int]", train: memoryview) -> list[Sealed]:
        asked.append(list(spans[::2]))
        for number, at in enumerate(spans[:4:2]):
            train[number * 60 : number * 60 + 60] = bytes([at]) * 60
        return [Sealed(1, 60, 60)] * len(spans[:4:2])

    spans = array("I", (0, 30, 30, 30, 60, 30, 90, 30, 120, 30))
    assert trains.take(memoryview(marked(0) * 5), spans, two_at_a_time, line.send) == 0
    trains.flush(line.send)
    assert asked == [[0, 30, 60, 90, 120], [60, 90, 120], [120]]
    assert line.datagrams == [bytes([at]) * 60 for at in spans[::2]]


def test_what_makes_no_sense_is_counted_and_what_goes_another_way_is_not() -> None:
    trains, line = Trains(), Line()
    spans = array("I", (0, 30, 30, 30))
    assert trains.take(memoryview(marked(0) * 2), spans, lambda *_: [Sealed(0, 0, 0)] * 2, line.send) == 2
    assert trains.take(memoryview(marked(0) * 2), spans, lambda *_: None, line.send) == 0
    trains.flush(line.send)
    assert line.trains == []
