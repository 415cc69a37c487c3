"""Getting in, getting an allocation, keeping it and giving it back."""

from typing import TYPE_CHECKING, Any

import pytest
from aioice import stun
from aioice.stun import Class, Method

from exeunt.actors.turn import CloseReason, codec
from exeunt.actors.turn.credentials import gateway_identifier

if TYPE_CHECKING:
    from .conftest import Bench

UDP = (codec.REQUESTED_TRANSPORT, b"\x11\0\0\0")


def lifetime(seconds: int) -> tuple[int, bytes]:
    return (codec.LIFETIME, seconds.to_bytes(4))


def bare(method: Method, *attributes: tuple[int, bytes]) -> bytes:
    return codec.encode(method, Class.REQUEST, b"t" * 12, list(attributes))


# STUN


@pytest.mark.parametrize("source", [("198.51.100.7", 40_000), ("2001:db8::7", 40_000)])
def test_a_binding_request_is_told_its_address(bench: "Bench", source: tuple[str, int]) -> None:
    (transmit,) = bench.from_client(bare(Method.BINDING), source)
    answer = stun.parse_message(transmit.data)
    assert answer.message_class is Class.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == source
    assert answer.attributes["SOFTWARE"] == "exeunt"
    assert "FINGERPRINT" in answer.attributes


def test_what_must_be_understood_and_is_not_is_named(bench: "Bench") -> None:
    answer = bench.answer(bare(Method.BINDING, (0x0003, bytes(4)), (0x7777, b""), (0x8777, b"")))
    assert bench.error(answer) == 420
    assert answer.first(codec.UNKNOWN_ATTRIBUTES) == bytes.fromhex("00037777")
    assert bench.error(bench.allocate((0x001A, b""))) == 420  # DONT-FRAGMENT


def test_responses_and_foreign_indications_are_ignored(bench: "Bench") -> None:
    for kind in (Class.RESPONSE, Class.ERROR, Class.INDICATION):
        assert bench.from_client(codec.encode(Method.BINDING, kind, bytes(12), [])) == []
    assert bench.from_client(codec.encode(Method.SHARED_SECRET, Class.REQUEST, bytes(12), [])) == []
    assert bench.server.counters.ignored == 4


# Credentials


def test_a_stranger_is_challenged(bench: "Bench") -> None:
    answer = bench.answer(bare(Method.ALLOCATE, UDP))
    assert bench.error(answer) == 401
    assert answer.first(codec.REALM) == b"exeunt"
    assert len(answer.first(codec.NONCE) or b"") == 24
    assert bench.server.allocations == 0


@pytest.mark.parametrize("method", [Method.BINDING, Method.ALLOCATE, Method.REFRESH])
@pytest.mark.parametrize("attributes", [[], [(0x7777, b"")], [(codec.MESSAGE_INTEGRITY, b"")]])
def test_at_worst_strangers_get_thrice_what_they_sent(
    make_bench: "type[Bench]", method: Method, attributes: list[tuple[int, bytes]]
) -> None:
    bench = make_bench(realm="r" * 32, software="s" * 16)
    headers_bytes = 28  # IPv4 and UDP
    data = codec.encode(method, Class.REQUEST, bytes(12), attributes)
    data = stun.set_body_length(data[:-8], len(data) - 8 - codec.HEADER_BYTES)  # without FINGERPRINT
    (transmit,) = bench.from_client(data)
    assert len(transmit.data) + headers_bytes <= 3 * (len(data) + headers_bytes)


@pytest.mark.parametrize(
    "how",
    [
        {"secret": "another secret"},
        {"username": "1:alice"},  # expired in 1970
        {"username": "alice"},
        {"username": "1900000000:"},
    ],
)
def test_wrong_and_expired_credentials_are_unauthorized(bench: "Bench", how: dict[str, Any]) -> None:
    assert bench.error(bench.allocate(**how)) == 401
    assert bench.server.allocations == 0


def test_an_integrity_without_its_attributes_is_a_bad_request(bench: "Bench") -> None:
    data = codec.encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [UDP], bytes(16))
    assert bench.error(bench.answer(data)) == 400


def test_a_nonce_goes_stale_and_is_replaced(bench: "Bench") -> None:
    assert bench.error(bench.allocate()) is None
    bench.request(Method.REFRESH, lifetime(3600))
    bench.pass_time(3599)
    bench.request(Method.REFRESH, lifetime(3600))
    bench.pass_time(1)
    answer = bench.request(Method.REFRESH)
    assert bench.error(answer) == 438
    bench.nonces[bench.CLIENT] = answer.first(codec.NONCE) or b""
    assert bench.error(bench.request(Method.REFRESH, username=bench.username(lifetime_s=1))) == 441
    assert bench.server.counters.stale_nonces == 1


def test_a_nonce_is_good_for_one_address_only(bench: "Bench") -> None:
    bench.allocate()
    bench.nonces["198.51.100.8", 40_000] = bench.nonces[bench.CLIENT]
    assert bench.error(bench.allocate(source=("198.51.100.8", 40_000))) == 438


def test_the_calendar_can_be_corrected(bench: "Bench") -> None:
    bench.server.handle_clock(bench.now, bench.START_UNIX + 4000)
    assert bench.error(bench.allocate()) == 401


def test_an_allocation_outlives_its_credentials(bench: "Bench") -> None:
    username = bench.username(lifetime_s=30)
    bench.allocate(username=username)
    bench.pass_time(60)
    assert bench.error(bench.request(Method.REFRESH, lifetime(600), username=username)) is None
    bench.request(Method.REFRESH, lifetime(0), username=username)
    assert bench.error(bench.allocate(username=username)) == 401


# Allocate


def test_an_allocation_is_granted(bench: "Bench") -> None:
    answer = bench.allocate()
    assert answer.kind is Class.RESPONSE
    (chosen,) = bench.chosen
    assert 49152 <= chosen.port <= 65535
    assert answer.addresses(codec.XOR_RELAYED_ADDRESS) == [("192.0.2.1", chosen.port)]
    assert answer.addresses(codec.XOR_MAPPED_ADDRESS) == [bench.CLIENT]
    assert answer.number(codec.LIFETIME) == 600
    assert [(each.identifier, each.lifetime_s) for each in bench.opened] == [("alice", 600)]
    assert answer.covered is not None
    assert bench.server.counters.allocations == 1


def test_answers_to_known_users_are_signed(bench: "Bench") -> None:
    data = bench.signed(Method.ALLOCATE, [UDP])
    from exeunt.actors.turn.credentials import long_term_key, password_for

    username = bench.username()
    key = long_term_key(username, "exeunt", password_for("a secret that two programs share", username))
    assert bench.answer(data).is_authentic(key)


@pytest.mark.parametrize(("wish", "granted"), [(0, 600), (1, 600), (1200, 1200), (2**32 - 1, 3600)])
def test_lifetimes_are_kept_within_bounds(bench: "Bench", wish: int, granted: int) -> None:
    assert bench.allocate(lifetime(wish)).number(codec.LIFETIME) == granted


def test_a_second_allocation_on_the_five_tuple_is_a_mismatch(bench: "Bench") -> None:
    bench.allocate()
    assert bench.error(bench.allocate()) == 437
    assert bench.error(bench.request(Method.REFRESH, source=("198.51.100.7", 40_001))) == 437


def test_only_udp_is_relayed(bench: "Bench") -> None:
    tcp = (codec.REQUESTED_TRANSPORT, b"\x06\0\0\0")
    assert bench.error(bench.request(Method.ALLOCATE, tcp)) == 442
    assert bench.error(bench.request(Method.ALLOCATE)) == 400
    assert bench.error(bench.request(Method.ALLOCATE, (codec.REQUESTED_TRANSPORT, b"\x11"))) == 400


V4, V6 = ((codec.REQUESTED_ADDRESS_FAMILY, bytes([family, 0, 0, 0])) for family in (1, 2))


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "wish", "relayed"),
    [
        ("192.0.2.1", None, [], "192.0.2.1"),
        ("192.0.2.1", None, [V4], "192.0.2.1"),
        ("192.0.2.1", None, [V6], None),
        ("192.0.2.1", "2001:db8::1", [], "192.0.2.1"),
        ("192.0.2.1", "2001:db8::1", [V6], "2001:db8::1"),
        (None, "2001:db8::1", [], "2001:db8::1"),
        (None, "2001:db8::1", [V4], None),
        ("192.0.2.1", None, [(codec.REQUESTED_ADDRESS_FAMILY, b"\3\0\0\0")], None),
    ],
)
def test_the_family_is_the_one_asked_for(
    make_bench: "type[Bench]",
    ipv4: str | None,
    ipv6: str | None,
    wish: list[tuple[int, bytes]],
    relayed: str | None,
) -> None:
    bench = make_bench(public_ipv4=ipv4, public_ipv6=ipv6)
    answer = bench.allocate(*wish, source=("2001:db8::7", 1234))
    assert bench.error(answer) == (None if relayed else 440)
    assert [host for host, _ in answer.addresses(codec.XOR_RELAYED_ADDRESS)] == ([relayed] if relayed else [])


def test_quotas_hold_by_user_and_in_total(make_bench: "type[Bench]") -> None:
    bench = make_bench(max_allocations_per_user=2, max_allocations=3)

    def allocate(port: int, user: str, lifetime_s: int = 3600) -> int | None:
        username = bench.username(user, lifetime_s)
        return bench.error(bench.allocate(source=("198.51.100.7", port), username=username))

    assert [allocate(port, "alice", port) for port in (1, 2, 3)] == [None, None, 486]  # renewed names, one user
    assert [allocate(port, "bob") for port in (4, 5)] == [None, 508]
    bench.request(Method.REFRESH, lifetime(0), source=("198.51.100.7", 1), username=bench.username("alice", 1))
    assert allocate(5, "bob") is None


def test_a_gateway_of_a_thousand_clients_has_an_allocation_for_each(make_bench: "type[Bench]") -> None:
    bench = make_bench()
    gateway, client = (bench.username(user) for user in (gateway_identifier("g"), "c"))

    def allocate(port: int, username: str) -> int | None:
        return bench.error(bench.allocate(source=("198.51.100.7", port), username=username))

    assert {allocate(port, gateway) for port in range(1, 1001)} == {None}
    assert [allocate(port, client) for port in range(2001, 2066)] == [None] * 64 + [486]


def test_a_gateway_has_a_quota_too(make_bench: "type[Bench]") -> None:
    bench = make_bench(max_allocations_per_gateway=2, max_allocations_per_user=1)
    username = bench.username(gateway_identifier("g"))
    answers = [bench.allocate(source=("198.51.100.7", port), username=username) for port in (1, 2, 3)]
    assert [bench.error(answer) for answer in answers] == [None, None, 486]


def test_a_taken_port_is_replaced_by_another(bench: "Bench") -> None:
    bench.port_opens = lambda _chosen: len(bench.chosen) > 3
    answer = bench.allocate()
    ports = [chosen.port for chosen in bench.chosen]
    assert len(set(ports)) == 4
    assert answer.addresses(codec.XOR_RELAYED_ADDRESS) == [("192.0.2.1", ports[-1])]


def test_without_any_port_there_is_no_capacity(make_bench: "type[Bench]") -> None:
    bench = make_bench(min_port=50_000, max_port=50_002)
    bench.port_opens = lambda _chosen: False
    assert bench.error(bench.allocate()) == 508
    assert sorted(chosen.port for chosen in bench.chosen) == [50_000, 50_001, 50_002]
    assert [each.reason for each in bench.closed] == [CloseReason.NO_PORT]
    assert bench.server.allocations == 0

    bench.port_opens = lambda _chosen: True
    for port in (1, 2, 3):
        assert bench.error(bench.allocate(source=("198.51.100.9", port))) is None
    assert bench.error(bench.allocate(source=("198.51.100.9", 4))) == 508


def test_a_pending_allocate_is_answered_once(bench: "Bench") -> None:
    request = bench.signed(Method.ALLOCATE, [UDP])
    bench.server.handle_datagram(request, bench.CLIENT, bench.now)  # the port isn't open yet
    bench.server.handle_datagram(request, bench.CLIENT, bench.now)
    assert bench.server.poll_transmit() is None
    bench.server.handle_datagram(bench.signed(Method.REFRESH, []), bench.CLIENT, bench.now)
    refused = bench.server.poll_transmit()
    assert refused is not None
    assert bench.error(codec.parse(refused.data)) == 437
    (transmit,) = bench.drain()
    assert codec.parse(transmit.data).kind is Class.RESPONSE


@pytest.mark.parametrize("method", [Method.ALLOCATE, Method.REFRESH])
def test_a_repeated_request_is_answered_the_same(bench: "Bench", method: Method) -> None:
    if method is Method.REFRESH:
        bench.allocate()
    request = bench.signed(method, [UDP] if method is Method.ALLOCATE else [lifetime(0)])
    first = bench.answer(request)
    bench.pass_time(39)
    assert bench.answer(request) == first
    assert bench.server.counters.repeated == 1
    bench.pass_time(2)
    assert bench.error(bench.answer(request)) == 437  # too late for a repetition: a new request


# Refresh and the end


def test_an_allocation_expires_unless_it_is_refreshed(bench: "Bench") -> None:
    bench.allocate()
    assert bench.server.poll_timeout() == (bench.now + 600, "an allocation expires")
    bench.pass_time(500)
    assert bench.request(Method.REFRESH).number(codec.LIFETIME) == 600
    bench.pass_time(599)
    assert bench.server.allocations == 1
    bench.pass_time(1)
    assert bench.server.allocations == 0
    (closed,) = bench.closed
    assert (closed.reason, closed.duration_s) == (CloseReason.EXPIRED, 1100)
    assert bench.server.poll_timeout() is None
    assert bench.error(bench.request(Method.REFRESH)) == 437


def test_a_refresh_can_shorten(bench: "Bench") -> None:
    bench.allocate(lifetime(3600))
    bench.request(Method.REFRESH, lifetime(600))
    assert bench.server.poll_timeout() == (bench.now + 600, "an allocation expires")


def test_a_refresh_of_zero_releases(bench: "Bench") -> None:
    bench.allocate()
    answer = bench.request(Method.REFRESH, lifetime(0))
    assert (answer.kind, answer.number(codec.LIFETIME)) == (Class.RESPONSE, 0)
    assert [each.reason for each in bench.closed] == [CloseReason.RELEASED]
    assert bench.error(bench.allocate()) is None


def test_a_refresh_for_another_family_is_a_mismatch(bench: "Bench") -> None:
    bench.allocate()
    assert bench.error(bench.request(Method.REFRESH, V6)) == 443
    assert bench.error(bench.request(Method.REFRESH, V4)) is None


def test_another_user_may_not_touch_an_allocation(bench: "Bench") -> None:
    bench.allocate()
    assert bench.error(bench.request(Method.REFRESH, lifetime(0), username=bench.username("mallory"))) == 441
    assert bench.server.allocations == 1


def test_the_server_leaves(bench: "Bench") -> None:
    for port in (1, 2):
        bench.allocate(source=("198.51.100.7", port))
    bench.server.handle_close(bench.now)
    assert bench.drain() == []
    assert [each.reason for each in bench.closed] == [CloseReason.SERVER_LEFT] * 2
    assert bench.server.allocations == 0
