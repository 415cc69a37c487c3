"""What the crowd of busy clients counts, and what the resource sends back. No tunnel here but one in memory."""

from __future__ import annotations

import socket
import sys
from array import array

import pytest
from tests.bench.test_straight import Nobody
from tests.bench.tunnel.busy import BusyVisitor, Watch
from tests.bench.tunnel.flow import echo
from tests.bench.tunnel.growth import Active
from tests.bench.tunnel.window import DATAGRAM_BYTES, TRAIN_MOST, Frames, Window

from exeunt.actors.batch.contract import OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES
from exeunt.actors.batch.split import read_frame
from exeunt.actors.wireguard.testing import TunnelPair

CLIENT, RESOURCE = bytes((100, 64, 0, 7)), bytes((10, 20, 0, 10))
PORTS_AT = VNET_BYTES + 20


def trains(window: Window) -> list[int]:
    """The numbers of all that may go now."""
    return [number for number, _ in iter(window.next_train, None)]


def test_a_window_is_full_until_something_comes_back() -> None:
    window = Window(34, 16)
    assert [window.next_train() for _ in range(3)] == [(0, 16), (1, 16), None]
    window.take(bytes([0] * 10))
    assert window.next_train() is None, "a train has 16"
    window.take(bytes([0] * 6 + [1] * 16))
    assert trains(window) == [2, 3]
    assert (window.echoed, window.lost) == (32, 0)


def test_what_a_later_train_overtakes_is_lost_and_replaced() -> None:
    window = Window(48, 16)
    assert trains(window) == [0, 1, 2]
    window.take(bytes([0] * 10))
    window.take(bytes([2] * 16))
    assert window.lost == 6 + 16
    assert trains(window) == [3, 4, 5]
    window.take(bytes([1] * 16))
    assert window.next_train() is None, "what comes later than others makes no room a second time"
    assert window.echoed == 42


def test_what_nobody_overtakes_is_lost_after_a_while() -> None:
    window = Window(32, 16)
    assert trains(window) == [0, 1]
    window.take(bytes([0]))
    window.mend()
    assert trains(window) == []
    window.mend()
    assert window.lost == 31
    assert trains(window) == [2, 3]


def test_numbers_begin_again() -> None:
    window = Window(32, 16)
    for number in range(600):
        sent = window.next_train()
        assert sent is not None
        assert sent[0] == number % 256
        window.take(bytes([sent[0]] * 16))
    assert (window.echoed, window.lost) == (9600, 0)


@pytest.mark.parametrize("datagrams", [1, 2, 16, TRAIN_MOST])
def test_a_train_goes_through_a_tunnel_and_is_counted(datagrams: int) -> None:
    pair, frames = TunnelPair(), Frames(port=5203)
    pair.connect()
    train = memoryview(bytearray(TRAIN_BYTES))
    frame = frames.make(CLIENT, RESOURCE, 9, datagrams)
    cut = read_frame(frame)
    assert cut is not None
    assert cut.packets == datagrams
    assert frames.numbers(frame) == b"", "it has not come back"
    there, back = bytes(frame[PORTS_AT : PORTS_AT + 2]), bytes(frame[PORTS_AT + 2 : PORTS_AT + 4])
    frame[PORTS_AT : PORTS_AT + 4] = back + there
    sealed = pair.client.seal_frame(frame, train, pair.now)
    assert sealed is not None
    spans = array("I")
    for at in range(0, sealed.total, sealed.stride):
        spans.extend((at, min(sealed.stride, sealed.total - at)))
    assert len(spans) == 2 * datagrams
    out = memoryview(bytearray(sealed.total + datagrams * OUT_BYTES_EACH))
    came = pair.gateway.handle_datagrams(train, spans, out, pair.now, coalesce=True)
    assert [packets for _, _, packets in came] == [datagrams], "it is opened as one frame"
    start, end, _ = came[0]
    assert frames.numbers(out[start:end]) == bytes([9]) * datagrams


def test_a_train_is_sent_back_as_it_came() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
        far.setsockopt(17, 104, 1)  # UDP_GRO
        for each in (near, far):
            each.bind(("127.0.0.1", 0))
            each.settimeout(5)
        buffer = memoryview(bytearray(65_535))
        cut = [(17, 103, DATAGRAM_BYTES.to_bytes(2, sys.byteorder))]  # UDP_SEGMENT
        near.sendmsg([bytes(3 * DATAGRAM_BYTES + 5)], cut, 0, far.getsockname())
        echo(far, buffer)
        assert [len(near.recv(4096)) for _ in range(4)] == [DATAGRAM_BYTES] * 3 + [5]
        near.sendto(b"alone", far.getsockname())
        echo(far, buffer)
        assert near.recv(4096) == b"alone"


def test_turns_are_added_up() -> None:
    found = Active([100, 80], 200, 0, 1.0, 0.5, 2.0) + Active([100, 120], 240, 4, 1.0, 0.5, 2.0)
    assert found.each == [200, 200]
    assert found.spread_percent == 0
    assert found.mbit_s == pytest.approx(400 * DATAGRAM_BYTES * 8 / 1e6 / 4)
    assert (found.total, found.lost, found.gateway_s, found.crowd_s) == (440, 4, 2.0, 1.0)


async def test_what_is_not_ordinary_goes_to_who_knows_it() -> None:
    watch, visitor = Watch(), BusyVisitor("name", "token", "ws://127.0.0.1:1")
    sockets, agent = visitor.new_sockets(), Nobody()
    sockets.acquire(agent)
    port = sockets.descriptors()["udp4"].getsockname()[1]
    watch.add(visitor)
    with socket.socket(type=socket.SOCK_DGRAM) as near:
        for datagram in (b"no index, and nobody's", b"\x04\0\0\0\1\2\3\4" + bytes(40)):
            near.sendto(datagram, ("127.0.0.1", port))
    watch.read()
    assert sockets.counters["data_for_nobody"] == 2
    sockets.release(agent)
    watch.close()
    await visitor.close()
