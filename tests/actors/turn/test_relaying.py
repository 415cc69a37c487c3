"""Permissions, channels, and data in both directions."""

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from aioice import stun
from aioice.stun import Class, Method

from exeunt.actors.turn import Transmit, codec

if TYPE_CHECKING:
    from .conftest import Bench

OTHER_PEER = ("203.0.113.10", 5000)


@pytest.fixture
def allocated(bench: "Bench") -> "Bench":
    bench.allocate()
    return bench


def allocation(bench: "Bench") -> int:
    return bench.chosen[0].allocation


# Indications


def test_data_goes_both_ways_by_indications(allocated: "Bench") -> None:
    assert allocated.error(allocated.permit(allocated.PEER)) is None
    assert allocated.from_client(allocated.send_indication(b"there")) == [
        Transmit(b"there", allocated.PEER, allocation(allocated))
    ]
    (back,) = allocated.from_peer(b"and back", allocation(allocated))
    assert (back.destination, back.allocation) == (allocated.CLIENT, None)
    message = stun.parse_message(back.data)
    assert (message.message_method, message.message_class) == (Method.DATA, Class.INDICATION)
    assert message.attributes["XOR-PEER-ADDRESS"] == allocated.PEER
    assert message.attributes["DATA"] == b"and back"


def test_a_permission_is_for_the_address_not_for_the_port(allocated: "Bench") -> None:
    allocated.permit(allocated.PEER)
    other_port = (allocated.PEER[0], 1)
    assert len(allocated.from_client(allocated.send_indication(b"x", other_port))) == 1
    assert len(allocated.from_peer(b"x", allocation(allocated), other_port)) == 1


def test_without_permission_nothing_passes(allocated: "Bench") -> None:
    assert allocated.from_client(allocated.send_indication(b"x")) == []
    assert allocated.from_peer(b"x", allocation(allocated)) == []
    assert allocated.server.counters.not_permitted == 2


def test_a_permission_lasts_300_seconds(allocated: "Bench") -> None:
    allocated.permit(allocated.PEER)
    allocated.pass_time(299)
    assert allocated.from_peer(b"x", allocation(allocated))
    allocated.pass_time(1)
    assert not allocated.from_peer(b"x", allocation(allocated))
    allocated.permit(allocated.PEER)
    assert allocated.from_peer(b"x", allocation(allocated))


def test_several_peers_are_permitted_at_once_or_not_at_all(allocated: "Bench") -> None:
    assert allocated.error(allocated.permit(allocated.PEER, ("127.0.0.1", 1))) == 403
    assert not allocated.from_peer(b"x", allocation(allocated))
    assert allocated.error(allocated.permit(allocated.PEER, OTHER_PEER)) is None
    for peer in (allocated.PEER, OTHER_PEER):
        assert allocated.from_peer(b"x", allocation(allocated), peer)
    assert allocated.error(allocated.permit()) == 400


def test_permissions_are_bounded_and_expired_ones_make_room(make_bench: "type[Bench]") -> None:
    bench = make_bench(max_permissions=2)
    bench.allocate()
    assert bench.error(bench.permit(("203.0.113.1", 1), ("203.0.113.2", 1))) is None
    assert bench.error(bench.permit(("203.0.113.1", 1))) is None
    assert bench.error(bench.permit(("203.0.113.3", 1))) == 508
    assert bench.error(bench.bind(0x4000, ("203.0.113.3", 1))) == 508
    bench.pass_time(300)
    assert bench.error(bench.permit(("203.0.113.3", 1))) is None


def test_an_indication_without_its_parts_is_malformed(allocated: "Bench") -> None:
    allocated.permit(allocated.PEER)
    for attributes in ([allocated.peer(allocated.PEER)], [(codec.DATA, b"x")]):
        data = codec.encode(Method.SEND, Class.INDICATION, allocated.transaction_id(), attributes)
        assert allocated.from_client(data) == []
    dont_fragment = [allocated.peer(allocated.PEER), (codec.DATA, b"x"), (0x001A, b"")]
    data = codec.encode(Method.SEND, Class.INDICATION, allocated.transaction_id(), dont_fragment)
    assert allocated.from_client(data) == []
    assert allocated.server.counters.malformed == 3


# Channels


def test_data_goes_both_ways_by_a_channel(allocated: "Bench") -> None:
    assert allocated.error(allocated.bind(0x4001)) is None
    assert allocated.from_client(codec.channel_data(0x4001, b"there")) == [
        Transmit(b"there", allocated.PEER, allocation(allocated))
    ]
    assert allocated.from_peer(b"back", allocation(allocated)) == [
        Transmit(codec.channel_data(0x4001, b"back"), allocated.CLIENT, None)
    ]
    counters = allocated.server.counters
    assert (counters.relayed_to_peers_bytes, counters.relayed_to_clients_bytes) == (5, 4)


def test_from_another_port_of_the_peer_it_is_an_indication(allocated: "Bench") -> None:
    allocated.bind(0x4001)
    (back,) = allocated.from_peer(b"back", allocation(allocated), (allocated.PEER[0], 1))
    assert stun.parse_message(back.data).attributes["DATA"] == b"back"


def test_an_empty_payload_is_relayed(allocated: "Bench") -> None:
    allocated.bind(0x4001)
    assert allocated.from_client(codec.channel_data(0x4001, b""))[0].data == b""
    assert allocated.from_peer(b"", allocation(allocated))[0].data == b"\x40\x01\0\0"


@pytest.mark.parametrize("number", [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF])
def test_channel_numbers_have_a_range(allocated: "Bench", number: int) -> None:
    assert allocated.error(allocated.bind(number)) == 400


def test_a_channel_binds_one_peer_and_a_peer_one_channel(allocated: "Bench") -> None:
    assert allocated.error(allocated.bind(0x4000)) is None
    assert allocated.error(allocated.bind(0x4000)) is None
    assert allocated.error(allocated.bind(0x4000, OTHER_PEER)) == 400
    assert allocated.error(allocated.bind(0x4FFF)) == 400
    assert allocated.error(allocated.bind(0x4FFF, OTHER_PEER)) is None
    number_only = (codec.CHANNEL_NUMBER, b"\x40\1\0\0")
    assert allocated.error(allocated.request(Method.CHANNEL_BIND, number_only)) == 400


def test_a_channel_lasts_600_seconds_and_its_permission_with_it(allocated: "Bench") -> None:
    allocated.request(Method.REFRESH, (codec.LIFETIME, (3600).to_bytes(4)))
    allocated.bind(0x4000)
    allocated.pass_time(1)
    allocated.permit(allocated.PEER)  # must not shorten what the channel gave
    allocated.pass_time(598)
    assert allocated.from_client(codec.channel_data(0x4000, b"x"))
    assert allocated.from_peer(b"x", allocation(allocated))
    allocated.pass_time(1)
    assert not allocated.from_client(codec.channel_data(0x4000, b"x"))
    assert not allocated.from_peer(b"x", allocation(allocated))
    assert allocated.error(allocated.bind(0x4000, OTHER_PEER)) is None
    assert allocated.error(allocated.bind(0x4001, allocated.PEER)) is None
    assert allocated.from_client(codec.channel_data(0x4000, b"x"))[0].destination == OTHER_PEER


def test_a_rebind_prolongs(allocated: "Bench") -> None:
    allocated.request(Method.REFRESH, (codec.LIFETIME, (3600).to_bytes(4)))
    allocated.bind(0x4000)
    allocated.pass_time(500)
    allocated.bind(0x4000)
    allocated.pass_time(500)
    assert allocated.from_client(codec.channel_data(0x4000, b"x"))


def test_channel_data_without_allocation_or_channel_is_counted(allocated: "Bench") -> None:
    assert allocated.from_client(codec.channel_data(0x4000, b"x")) == []
    assert allocated.from_client(codec.channel_data(0x4000, b"x"), ("198.51.100.9", 1)) == []
    assert allocated.from_client(allocated.send_indication(b"x"), ("198.51.100.9", 1)) == []
    assert allocated.server.counters.no_allocation == 3


def test_after_the_end_nothing_passes(allocated: "Bench") -> None:
    allocated.bind(0x4000)
    allocated.request(Method.REFRESH, (codec.LIFETIME, bytes(4)))
    assert allocated.from_client(codec.channel_data(0x4000, b"x")) == []
    assert allocated.from_peer(b"x", allocation(allocated)) == []


def test_a_datagram_that_no_indication_could_carry_is_dropped(allocated: "Bench") -> None:
    allocated.permit(allocated.PEER)
    assert allocated.from_peer(bytes(65_500), allocation(allocated)) == []
    assert allocated.server.counters.oversized == 1
    (back,) = allocated.from_peer(bytes(65_507 - 72), allocation(allocated))
    assert len(back.data) <= 65_507


def test_the_ending_tells_what_was_relayed(allocated: "Bench") -> None:
    allocated.bind(0x4000)
    allocated.from_client(codec.channel_data(0x4000, bytes(10)))
    allocated.from_peer(bytes(3), allocation(allocated))
    allocated.request(Method.REFRESH, (codec.LIFETIME, bytes(4)))
    (closed,) = allocated.closed
    assert (closed.tx_bytes, closed.rx_bytes) == (10, 3)


# Whom a client may reach

FORBIDDEN = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "169.254.169.254",
]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_some_peers_are_forbidden(allocated: "Bench", host: str) -> None:
    assert allocated.error(allocated.permit((host, 1))) == 403
    assert allocated.error(allocated.bind(0x4000, (host, 1))) == 403


@pytest.mark.parametrize(
    "host", ["::1", "::", "ff02::1", "fe80::1", "::ffff:127.0.0.1", "::ffff:203.0.113.9", "64:ff9b::7f00:1"]
)
def test_some_ipv6_peers_are_forbidden(make_bench: "type[Bench]", host: str) -> None:
    bench = make_bench(public_ipv4=None, public_ipv6="2001:db8::1")
    bench.allocate()
    assert bench.error(bench.permit((host, 1))) == 403
    assert bench.error(bench.permit(("2001:db8::9", 1))) is None
    assert bench.error(bench.permit(("fd00::9", 1))) is None


def test_a_peer_of_the_other_family_is_a_mismatch(allocated: "Bench") -> None:
    assert allocated.error(allocated.permit(("2001:db8::9", 1))) == 443
    assert allocated.error(allocated.bind(0x4000, ("2001:db8::9", 1))) == 443


def test_loopback_can_be_allowed_and_networks_denied(make_bench: "type[Bench]") -> None:
    bench = make_bench(allow_loopback_peers=True, denied_peers=(ip_network("10.0.0.0/8"),))
    bench.allocate()
    assert bench.error(bench.bind(0x4000, ("127.0.0.1", 1))) is None
    assert bench.error(bench.permit(("10.1.2.3", 1))) == 403
    assert bench.error(bench.permit(("0.0.0.0", 1))) == 403


def test_the_relay_does_not_talk_to_itself(make_bench: "type[Bench]") -> None:
    bench = make_bench(own_addresses=frozenset({("192.0.2.1", 3478)}))
    bench.allocate()
    assert bench.error(bench.bind(0x4000, ("192.0.2.1", 3478))) == 403
    assert bench.error(bench.bind(0x4000, ("192.0.2.1", 50_000))) is None  # another client's relayed port
    assert bench.from_client(bench.send_indication(b"x", ("192.0.2.1", 3478))) == []
    assert len(bench.from_client(bench.send_indication(b"x", ("192.0.2.1", 50_000)))) == 1


def test_a_peer_has_a_port(allocated: "Bench") -> None:
    assert allocated.error(allocated.bind(0x4000, (allocated.PEER[0], 0))) == 403
    allocated.permit(allocated.PEER)
    assert allocated.from_client(allocated.send_indication(b"x", (allocated.PEER[0], 0))) == []
