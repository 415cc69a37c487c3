"""From datagrams to frames, against a receiver that remembers everything and merges one packet at a time."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import Kernel
from exeunt.actors.wireguard.replay import ReplayWindow
from exeunt.actors.wireguard.timing import REPLAY_WINDOW_PACKETS

from .both_ends import INDEX, KEY, Receiver, seal
from .oracle import LONE, SIX, Ip, Opener, Tcp, Udp, Whole, frame_of, frames_of, packets_of, sealed
from .strategies import wholes

slow = pytest.mark.slow

MTU = 1420
PING = Ip().write(1, bytes(64))


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def datagrams_of(packets: list[bytes], first: int = 0) -> list[bytes]:
    return [sealed(KEY, INDEX, first + number, packet, MTU) for number, packet in enumerate(packets)]


def opened(kernel: Kernel, packets: list[bytes]) -> list[tuple[bytes, int]]:
    """The frames; they are the oracle's, too."""
    frames, done = Receiver(kernel).open(datagrams_of(packets))
    assert frames == frames_of(packets)
    assert done.datagrams == len(packets)
    return frames


def stream(flow: Tcp | Udp, count: int, size: int = 100) -> list[bytes]:
    return packets_of(replace(flow, payload=content(count * size)), size)


# --- what is merged ---


@pytest.mark.parametrize("flow", [Tcp(flags=0x18), Tcp(ip=SIX, options=bytes(12)), Udp(), Udp(ip=SIX)])
@pytest.mark.parametrize("size", [1_300, 1_333])
def test_neighbours_become_the_frame_that_they_were_cut_from(kernel: Kernel, flow: Whole, size: int) -> None:
    whole = replace(flow, payload=content(44 * size + 17))
    assert opened(kernel, packets_of(whole, size)) == [(frame_of(whole, size), 45)]


def test_a_packet_alone_stays_to_the_byte(kernel: Kernel) -> None:
    for packet in (PING, Tcp(payload=b"x").write(), Udp(payload=b"y", without_checksum=True).write()):
        assert opened(kernel, [packet]) == [(LONE + packet, 1)]


def test_flows_are_merged_side_by_side_and_each_keeps_its_order(kernel: Kernel) -> None:
    flows = [stream(Tcp(ports=(number, 80)), 12) for number in range(3)]
    mixed = [packet for row in zip(*flows, strict=True) for packet in row]
    assert [packets for _, packets in opened(kernel, mixed)] == [12, 12, 12]


def test_trains_of_several_flows_after_one_another(kernel: Kernel) -> None:
    trains = [packet for number in range(4) for packet in stream(Tcp(ports=(number, 80)), 11, 1_300)]
    assert [packets for _, packets in opened(kernel, trains)] == [11, 11, 11, 11]


def test_a_frame_has_no_more_than_an_ip_packet_may(kernel: Kernel) -> None:
    assert [packets for _, packets in opened(kernel, stream(Tcp(), 100, 1_380))] == [47, 47, 6]


def test_a_udp_frame_has_no_more_packets_than_linux_takes(kernel: Kernel) -> None:
    assert [packets for _, packets in opened(kernel, stream(Udp(), 150))] == [64, 64, 22]


def test_what_is_read_long_after_it_has_begun_to_grow_goes_on(kernel: Kernel) -> None:
    """Runs that end at a flag, at a full frame, at another header, and go on in the middle of a frame."""
    first = stream(Tcp(flags=0x18), 30)
    second = stream(Tcp(sequence=3_001, acknowledged=8), 700)
    third = stream(Tcp(sequence=73_001, acknowledged=8), 30)
    counts = [packets for _, packets in opened(kernel, first + second + [PING] + third)]
    assert counts == [30, 654, 46, 1, 30]


def test_ids_need_not_follow(kernel: Kernel) -> None:
    packets = [Udp(ip=Ip(identification=number * 7), payload=content(50)).write() for number in range(20)]
    assert [count for _, count in opened(kernel, packets)] == [20]


def middle(**changes: object) -> list[bytes]:
    """Twenty segments in a row; the tenth differs."""
    flow = Tcp(payload=content(100), flags=0x10)
    packets = [replace(flow, sequence=1 + 100 * number) for number in range(20)]
    packets[9] = replace(packets[9], **changes)  # type: ignore[arg-type]
    return [packet.write() for packet in packets]


DIFFERENT: dict[str, tuple[list[bytes], list[int]]] = {
    "pushed": (middle(flags=0x18), [10, 10]),
    "shorter": (middle(payload=content(99)), [10, 10]),
    "longer": (middle(payload=content(101)), [9, 1, 10]),
    "empty": (middle(payload=b""), [9, 1, 10]),
    "a gap": (middle(sequence=902), [9, 1, 10]),
    "another acknowledgement": (middle(acknowledged=8), [9, 1, 10]),
    "another window": (middle(window=501), [9, 1, 10]),
    "other options": (middle(options=bytes(4)), [9, 1, 10]),
    "another ttl": (middle(ip=Ip(ttl=63)), [9, 1, 10]),
    "another ecn": (middle(ip=Ip(traffic_class=3)), [9, 1, 10]),
    "no df": (middle(ip=Ip(fragment=0)), [9, 1, 10]),
    "the reserved bit": (middle(ip=Ip(fragment=0xC000)), [9, 1, 10]),
    "a fragment": (middle(ip=Ip(fragment=0x2000)), [9, 1, 10]),
    "ip options": (middle(ip=Ip(options=bytes(4))), [9, 1, 10]),
    "fin": (middle(flags=0x11), [9, 1, 10]),
    "ece": (middle(flags=0x50), [9, 1, 10]),
    "a reserved tcp bit": (middle(reserved=1), [9, 1, 10]),
    "a wrong checksum": (middle(damage=1), [9, 1, 10]),
}


@pytest.mark.parametrize(("packets", "counts"), DIFFERENT.values(), ids=list(DIFFERENT))
def test_what_differs_is_not_merged(kernel: Kernel, packets: list[bytes], counts: list[int]) -> None:
    assert [count for _, count in opened(kernel, packets)] == counts


def test_a_wrong_header_checksum_is_not_repaired(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    packets[5] = packets[5][:10] + b"\x12\x34" + packets[5][12:]
    assert [count for _, count in opened(kernel, packets)] == [5, 1, 14]


def test_a_first_packet_with_a_wrong_checksum_stays_alone(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    packets[0] = packets[0][:-1] + bytes([packets[0][-1] ^ 1])
    assert [count for _, count in opened(kernel, packets)] == [1, 19]


def test_what_is_of_no_flow_stops_all_growth(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    packets.insert(10, PING)
    assert [count for _, count in opened(kernel, packets)] == [10, 1, 10]


def test_another_flow_does_not(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    packets.insert(10, Udp(payload=content(100)).write())
    assert [count for _, count in opened(kernel, packets)] == [20, 1]


def test_without_coalescing_each_packet_is_a_frame(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    frames, _ = Receiver(kernel).open(datagrams_of(packets), coalesce=False)
    assert frames == [(LONE + packet, 1) for packet in packets]


# --- what is opened ---


def test_a_burst_of_nothing(kernel: Kernel) -> None:
    assert Receiver(kernel).open([])[1] == ([], 0, 0, 0, 0, 0, 0, 0)


def test_a_forged_datagram_costs_the_others_nothing(kernel: Kernel) -> None:
    packets = stream(Tcp(), 20)
    datagrams = datagrams_of(packets)
    for number in (0, 7, 8, 19):
        datagrams[number] = datagrams[number][:-1] + bytes([datagrams[number][-1] ^ 1])
    receiver = Receiver(kernel)
    frames, done = receiver.open(datagrams)
    assert (done.datagrams, done.forged) == (16, 4)
    assert frames == frames_of(packets[1:7] + packets[9:19])
    _, again = receiver.open(datagrams_of(packets))
    assert (again.datagrams, again.replayed) == (4, 16)


def test_what_is_opened_is_counted(kernel: Kernel) -> None:
    receiver = Receiver(kernel)
    packets = [PING, b"", b"\x50" + bytes(39), b"E", PING]
    frames, done = receiver.open(datagrams_of(packets))
    assert frames == [(LONE + PING, 1), (LONE + PING, 1)]
    octets = sum(map(len, datagrams_of(packets)))
    assert done[1:] == (5, octets, 1, 0, 0, 2, 0)


def test_a_counter_at_the_limit_is_refused(kernel: Kernel) -> None:
    _, done = Receiver(kernel).open(datagrams_of([PING] * 4, first=98), limit=100)
    assert (done.datagrams, done.over_limit) == (2, 2)


def test_counters_do_not_begin_anew(kernel: Kernel) -> None:
    receiver = Receiver(kernel)
    counters = [number % 2**64 for number in range(2**64 - 15, 2**64 + 15)]
    datagrams = [sealed(KEY, INDEX, counter, PING, MTU) for counter in counters]
    _, done = receiver.open(datagrams)
    assert (done.datagrams, done.over_limit) == (15, 15)
    assert receiver.window.state[0] == 15


def test_a_forged_datagram_does_not_mark_its_counter(kernel: Kernel) -> None:
    good = datagrams_of([PING])[0]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    _, done = Receiver(kernel).open([bad, good, good])
    assert (done.forged, done.datagrams, done.replayed) == (1, 1, 1)


def test_a_far_leap_makes_all_before_it_stale(kernel: Kernel) -> None:
    receiver = Receiver(kernel)
    far = REPLAY_WINDOW_PACKETS + 5
    order = [3, far, 4, 5, 6, far + 1, 3]
    _, done = receiver.open([datagrams_of([PING], counter)[0] for counter in order])
    assert (done.datagrams, done.replayed) == (4, 3)


def test_a_packet_is_received_once_whatever_is_repeated(kernel: Kernel) -> None:
    receiver = Receiver(kernel)
    datagrams = datagrams_of([PING] * 300)
    assert receiver.open(datagrams)[1].datagrams == 300
    assert receiver.open(datagrams[::-1])[1].replayed == 300


@slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-9_000, 9_000), st.integers(1, 200)), min_size=1, max_size=8))
def test_the_window_is_what_the_tunnels_own_would_be(kernel: Kernel, runs: list[tuple[int, int]]) -> None:
    """Bursts of consecutive counters, forwards and backwards from the highest."""
    receiver, model = Receiver(kernel), ReplayWindow()
    highest = 0
    keepalives: dict[int, bytes] = {}
    for step, count in runs:
        first = max(0, highest + step)
        counters = range(first, first + count)
        for counter in counters:
            keepalives.setdefault(counter, sealed(KEY, INDEX, counter, b"", MTU))
        _, done = receiver.open([keepalives[counter] for counter in counters])
        assert done.keepalives == sum(model.mark(counter) for counter in counters)
        assert receiver.window.state == model.state
        highest = max(highest, first + count)


# --- both ways, and anything ---


@slow
@settings(max_examples=100, deadline=None)
@given(whole=wholes(), gso_size=st.one_of(st.integers(60, 1_500), st.integers(1, 60_000)))
def test_sealed_opened_and_cut_again_it_is_the_same(kernel: Kernel, whole: Whole, gso_size: int) -> None:
    gso_size = max(gso_size, -(-len(whole.payload) // 1_024), 1)
    datagrams, _ = seal(kernel, frame_of(whole, gso_size), mtu=MTU)
    receiver = Receiver(kernel)
    again: list[bytes] = []
    for number, (frame, _) in enumerate(receiver.open(datagrams)[0]):
        cut, _ = seal(kernel, frame, counter=number * 1_024, mtu=MTU)
        frames, _ = Receiver(kernel).open(cut, coalesce=False)
        again.extend(packet[10:] for packet, _ in frames)
    assert again == packets_of(whole, gso_size)


@st.composite
def bursts(draw: st.DrawFn) -> list[bytes]:
    """Datagrams of a few flows: mixed, in trains, damaged, repeated, out of order, with strange ones between."""
    flows = draw(st.lists(wholes(st.integers(0, 6_000)), min_size=1, max_size=4))
    trains = [packets_of(flow, draw(st.sampled_from([100, 1_000, 1_333, 6_000]))) for flow in flows]
    strange = st.one_of(st.just(PING), st.just(b""), st.binary(max_size=80), st.just(Udp(payload=b"").write()))
    packets: list[bytes] = []
    while trains:
        train = draw(st.sampled_from(trains))
        some = draw(st.sampled_from([1, 2, 9, 1_000]))
        packets.extend(train[:some])
        del train[:some]
        if not train:
            trains.remove(train)
        if draw(st.integers(0, 9)) == 0:
            packets.append(draw(strange))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(packets) - 1))
        damaged = bytearray(packets[at])
        if damaged:
            damaged[draw(st.integers(0, 79)) % len(damaged)] ^= draw(st.integers(1, 255))
        packets[at] = bytes(damaged)
    datagrams = datagrams_of(packets)
    for _ in range(draw(st.integers(0, 3))):
        at, to = draw(st.integers(0, len(datagrams) - 1)), draw(st.integers(0, len(datagrams) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                datagrams[at] = datagrams[at][:-1] + bytes([datagrams[at][-1] ^ 1])
            case 1:
                datagrams.insert(to, datagrams[at])
            case 2:
                datagrams[at], datagrams[to] = datagrams[to], datagrams[at]
            case _:
                del datagrams[at : at + draw(st.integers(0, 1))]
                datagrams = datagrams or [sealed(KEY, INDEX, 0, b"", MTU)]
    return datagrams


@slow
@settings(max_examples=150, deadline=None)
@given(burst=bursts(), gap=st.sampled_from([0, 0, 4]), pieces=st.integers(1, 3), limit=st.sampled_from([2**60, 20]))
def test_any_burst_is_opened_as_the_oracle_does(
    kernel: Kernel, burst: list[bytes], gap: int, pieces: int, limit: int
) -> None:
    receiver, opener = Receiver(kernel), Opener(KEY)
    size = -(-len(burst) // pieces)
    for at in range(0, len(burst), size):
        part = burst[at : at + size]
        frames, done = receiver.open(part, limit=limit, gap=gap)
        assert frames == opener.open(part, limit)
        assert dict(zip(done._fields[1:], done[1:], strict=True)) == opener.counts


@slow
@settings(max_examples=100, deadline=None)
@given(burst=st.lists(st.binary(min_size=32, max_size=200), max_size=20))
def test_bytes_that_nobody_sealed_are_forged(kernel: Kernel, burst: list[bytes]) -> None:
    receiver = Receiver(kernel)
    before = list(receiver.window.state)
    frames, done = receiver.open(burst)
    assert frames == []
    assert done.forged + done.over_limit == len(burst)
    assert list(receiver.window.state) == before


@slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(bytes.__add__, st.sampled_from([b"", b"\x45\0\0", b"\x60"]), st.binary(max_size=120))))
def test_whatever_the_peer_seals_nothing_is_raised(kernel: Kernel, packets: list[bytes]) -> None:
    opener = Opener(KEY)
    burst = datagrams_of(packets)
    frames, done = Receiver(kernel).open(burst)
    assert frames == opener.open(burst, 2**60)
    assert dict(zip(done._fields[1:], done[1:], strict=True)) == opener.counts
