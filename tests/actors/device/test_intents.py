"""Packets that nobody can carry yet: kept in order, bounded, asked for, forgotten."""

from exeunt.actors.device.intents import Intents
from exeunt.actors.device.packet import IpHeader, read_header
from exeunt.actors.device.waiting import WAITING_PACKETS
from exeunt.actors.timing import INTENT_REPEAT_S


def packet(destination: str, number: int = 0) -> bytes:
    address = bytes(int(part) for part in destination.split("."))
    return bytes([0x45, 0, 0, 21]) + bytes(8) + bytes([100, 64, 0, 1]) + address + bytes([number % 256])


def header_of(one: bytes) -> IpHeader:
    header = read_header(one)
    assert header is not None
    return header


def keep(intents: Intents, one: bytes, now: float) -> tuple[str | None, bool]:
    return intents.keep(one, header_of(one), now)


def test_the_first_packet_asks_and_later_ones_only_after_a_while() -> None:
    intents = Intents()
    intents.set_resources({"10.0.0.0/8": "r-1"})
    assert keep(intents, packet("10.1.2.3"), 100.0) == ("r-1", True)
    assert keep(intents, packet("10.1.2.4"), 100.0 + INTENT_REPEAT_S - 0.01) == ("r-1", False)
    assert keep(intents, packet("10.1.2.4"), 100.0 + INTENT_REPEAT_S) == ("r-1", True)


def test_each_resource_is_asked_for_by_itself_and_the_longest_prefix_counts() -> None:
    intents = Intents()
    intents.set_resources({"10.0.0.0/8": "wide", "10.1.0.0/16": "narrow"})
    assert keep(intents, packet("10.1.2.3"), 1.0) == ("narrow", True)
    assert keep(intents, packet("10.2.2.3"), 1.0) == ("wide", True)
    assert keep(intents, packet("11.0.0.1"), 1.0) == (None, False)


def test_what_waits_comes_out_once_in_order() -> None:
    intents = Intents()
    intents.set_resources({"10.0.0.0/8": "r-1"})
    packets = [packet("10.0.0.1", number) for number in range(5)]
    for one in packets:
        keep(intents, one, 1.0)
    assert intents.take_all() == packets
    assert intents.take_all() == []
    assert keep(intents, packets[0], 1.0) == ("r-1", True), "it is wanted anew"


def test_the_oldest_go_first_when_too_many_wait() -> None:
    intents = Intents()
    intents.set_resources({"10.0.0.0/8": "r-1", "11.0.0.0/8": "r-2"})
    packets = [packet("10.0.0.1", number) for number in range(WAITING_PACKETS + 3)]
    for one in packets:
        keep(intents, one, 1.0)
    keep(intents, packet("11.0.0.1"), 1.0)
    assert intents.take_all() == [*packets[3:], packet("11.0.0.1")]


def test_packets_for_a_resource_that_is_gone_are_forgotten() -> None:
    intents = Intents()
    intents.set_resources({"10.0.0.0/8": "r-1", "11.0.0.0/8": "r-2"})
    keep(intents, packet("10.0.0.1"), 1.0)
    keep(intents, packet("11.0.0.1"), 1.0)
    intents.set_resources({"11.0.0.0/8": "r-2"})
    assert intents.take_all() == [packet("11.0.0.1")]
    assert keep(intents, packet("10.0.0.1"), 1.0) == (None, False)
