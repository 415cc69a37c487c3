"""The search for a path's MTU, with a path that drops what is too long, and a clock that moves only when told."""

import random

import pytest
from tests.actors.peer.pair import ConnectionPair, counting

from exeunt.actors.device.reach import BASE_MTU
from exeunt.actors.peer.control_packet import Probe, decode_control
from exeunt.actors.peer.path_mtu import (
    BEGIN_S,
    PATIENCE_ROUND_TRIPS,
    PATIENCE_S,
    ROUNDS,
    SEARCH_AGAIN_S,
    SIZES,
    PathMtu,
)


class Bare:
    """Seals nothing."""

    def encapsulate(self, packet: bytes, _now: float) -> bytes:
        return packet


class Path:
    """Takes packets of at most `takes` bytes; a round trip is over at once."""

    def __init__(self, takes: int, *, most: int = 1400, loss: float = 0.0, seed: int = 1, rtt_s: float = 0.02) -> None:
        self.takes, self.loss = takes, loss
        self.now = 100.0
        self.search = PathMtu(counting(1), most=most)
        self.search.handle_path(rtt_s, self.now)
        self.sent: list[list[int]] = []
        self.waits: list[float] = []
        self._rng = random.Random(seed)

    @property
    def mtu(self) -> int:
        return self.search.reach.mtu

    def turn(self) -> None:
        """Let time pass until something is due, and have what got through be answered."""
        due = self.search.poll_timeout()
        assert due is not None
        self.waits.append(due[0] - self.now)
        self.now = due[0]
        self.search.handle_timeout(Bare(), self.now)
        sizes: list[int] = []
        while (packet := self.search.poll_transmit()) is not None:
            sizes.append(len(packet))
            probe = decode_control(packet)
            assert isinstance(probe, Probe)
            if len(packet) <= self.takes and self._rng.random() >= self.loss:
                self.search.handle_reply(probe.identifier, self.now)
        self.sent.append(sizes)

    def search_all(self) -> None:
        """Until it rests."""
        self.turn()
        while True:
            due = self.search.poll_timeout()
            assert due is not None
            if due[0] - self.now == pytest.approx(SEARCH_AGAIN_S):
                return
            self.turn()


def test_a_good_path_is_known_after_one_probe() -> None:
    path = Path(1400)
    assert (path.mtu, path.search.reach.limit) == (BASE_MTU, BASE_MTU), "nothing is known yet"
    path.search_all()
    assert path.sent == [[1400]]
    assert (path.mtu, path.search.reach.limit) == (1400, 0)
    assert path.waits == [pytest.approx(BEGIN_S)]


@pytest.mark.parametrize("takes", [*SIZES, 1399, 1375, 1240, 1100])
def test_a_narrow_one_after_four_rounds(takes: int) -> None:
    path = Path(takes)
    path.search_all()
    assert path.mtu == path.search.reach.limit == max(size for size in SIZES if size <= takes)
    assert len(path.sent) == ROUNDS + 1
    assert path.sent[0] == [1400]
    assert path.sent[2] == [size for size in (1400, *SIZES) if size > takes], "what is known is not asked again"
    assert sum(path.waits[1:]) == pytest.approx(ROUNDS * PATIENCE_S)


def test_where_nothing_is_answered_all_stays() -> None:
    path = Path(500)
    path.search_all()
    assert (path.mtu, path.search.confirmed) == (BASE_MTU, 0)


def test_a_device_with_the_least_mtu_needs_no_limit() -> None:
    path = Path(1280, most=1280)
    assert (path.mtu, path.search.reach.limit) == (1280, 0)
    path.search_all()
    assert path.sent == [[1280]]
    assert (path.mtu, path.search.reach.limit, path.search.confirmed) == (1280, 0, 1280)


def test_more_holds_at_once_and_less_when_all_rounds_are_over() -> None:
    path = Path(1350)
    path.turn()
    path.turn()
    assert path.mtu == 1344
    path = Path(1240)
    for _ in range(ROUNDS):
        path.turn()
        assert path.mtu == BASE_MTU
    path.turn()
    assert path.mtu == 1232


def test_a_long_path_is_given_time() -> None:
    path = Path(1232, rtt_s=0.6)
    path.search_all()
    assert path.waits[1:] == [pytest.approx(PATIENCE_ROUND_TRIPS * 0.6)] * ROUNDS


def test_what_was_lost_by_chance_is_found_all_the_same() -> None:
    found: list[int] = []
    for seed in range(500):
        path = Path(1400, loss=0.36, seed=seed)  # 20 % each way
        path.search_all()
        found.append(path.mtu)
    assert found.count(1400) > 470
    assert min(found) >= 1312


def test_an_mtu_that_changes_is_found_out_in_time() -> None:
    path = Path(1400)
    path.search_all()
    path.takes = 1250
    path.search_all()
    assert path.mtu == 1232
    path.takes = 1400
    path.search_all()
    assert path.mtu == 1400
    assert sum(wait > SEARCH_AGAIN_S - 1 for wait in path.waits) == 2


def test_another_path_is_taken_to_be_as_wide_until_it_is_known() -> None:
    path = Path(1400)
    path.search_all()
    path.search.handle_path(0.02, path.now)
    assert (path.mtu, path.search.reach.limit, path.search.confirmed) == (1400, 0, 0)
    path.takes = 1312
    path.search_all()
    assert (path.mtu, path.search.reach.limit) == (1312, 1312)


def test_of_another_path_that_answers_nothing_no_more_is_expected_than_always_works() -> None:
    path = Path(1400)
    path.search_all()
    path.takes = 500
    path.search.handle_path(0.02, path.now)
    path.search_all()
    assert (path.mtu, path.search.reach.limit, path.search.confirmed) == (BASE_MTU, BASE_MTU, 0)


def test_after_a_narrow_path_another_one_is_begun_with_what_always_works() -> None:
    path = Path(1240)
    path.search_all()
    assert path.mtu == 1232
    path.search.handle_path(0.02, path.now)
    assert path.mtu == BASE_MTU


def test_an_answer_from_another_search_or_from_nowhere_means_nothing() -> None:
    path = Path(500)
    path.search.handle_timeout(Bare(), path.now + 1)
    packet = path.search.poll_transmit()
    assert packet is not None
    probe = decode_control(packet)
    assert isinstance(probe, Probe)
    path.search.handle_path(0.02, path.now)
    path.search.handle_reply(probe.identifier, path.now)
    path.search.handle_reply(b"\xff" * 8, path.now)
    assert (path.mtu, path.search.confirmed) == (BASE_MTU, 0)


def test_two_connections_find_out_about_both_ways() -> None:
    pair = ConnectionPair()
    pair.connect()
    taken = {"client": 1400, "gateway": 1240 + 32}
    whole: list[int] = []
    for _ in range(60):
        for side, connection in pair.connections.items():
            while (datagram := connection.path_mtu.poll_transmit()) is not None:
                whole.append(len(datagram))
                if len(datagram) <= taken[side]:
                    pair.deliver("gateway" if side == "client" else "client", datagram)
        pair.advance(0.05)
    assert whole[:2] == [1312, 1312]
    assert (pair.client.path_mtu.reach.mtu, pair.client.path_mtu.reach.limit) == (1280, 0)
    assert (pair.gateway.path_mtu.reach.mtu, pair.gateway.path_mtu.reach.limit) == (1232, 1232)
    assert pair.client.malformed_total == pair.gateway.malformed_total == 0
