"""NAT behaviour discovery, the server's side: answers leave from where it was asked to, and tell where that is."""

from typing import TYPE_CHECKING

import pytest
from aioice.stun import Class, Method
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exeunt.actors.turn import Listener, Origins, Settings, Transmit, codec
from exeunt.actors.turn.codec import Address

if TYPE_CHECKING:
    from .conftest import Bench

ORIGINS = Origins(("192.0.2.1", 3478), ("192.0.2.2", 3479))
ORIGINS_V6 = Origins(("2001:db8::1", 3478), ("2001:db8::2", 3479))
HEADERS_BYTES = {4: 28, 6: 48}
STRANGER, STRANGER_V6 = ("203.0.113.77", 4242), ("2001:db8:77::1", 4242)
OTHERS = [Listener.OTHER_PORT, Listener.OTHER_HOST, Listener.OTHER_BOTH]


@pytest.fixture
def bench(make_bench: "type[Bench]") -> "Bench":
    return make_bench(origins=(ORIGINS, ORIGINS_V6), public_ipv6="2001:db8::1")


def change_request(flags: int) -> tuple[int, bytes]:
    return codec.CHANGE_REQUEST, flags.to_bytes(4)


def binding(*attributes: tuple[int, bytes]) -> bytes:
    return codec.encode(Method.BINDING, Class.REQUEST, b"t" * 12, list(attributes))


def ask(bench: "Bench", data: bytes, listener: Listener, source: Address = STRANGER) -> list[Transmit]:
    bench.server.handle_datagram(data, source, bench.now, listener)
    return bench.drain()


@pytest.mark.parametrize(
    ("flags", "asked", "answering"),
    [
        (0x0, Listener.PRIMARY, Listener.PRIMARY),
        (0x2, Listener.PRIMARY, Listener.OTHER_PORT),
        (0x4, Listener.PRIMARY, Listener.OTHER_HOST),
        (0x6, Listener.PRIMARY, Listener.OTHER_BOTH),
        (0x2, Listener.OTHER_PORT, Listener.PRIMARY),
        (0x6, Listener.OTHER_PORT, Listener.OTHER_HOST),
        (0x0, Listener.OTHER_BOTH, Listener.OTHER_BOTH),
        (0x6, Listener.OTHER_BOTH, Listener.PRIMARY),
    ],
)
def test_the_answer_leaves_from_the_address_that_was_asked_for(
    bench: "Bench", flags: int, asked: Listener, answering: Listener
) -> None:
    """RFC 5780 section 6.1, table 1."""
    (answer,) = ask(bench, binding(change_request(flags)), asked)
    assert (answer.destination, answer.listener) == (STRANGER, answering)
    told = codec.parse(answer.data)
    assert told.addresses(codec.XOR_MAPPED_ADDRESS) == [STRANGER]
    assert told.plain_address(codec.RESPONSE_ORIGIN) == ORIGINS.address(answering)
    assert told.plain_address(codec.OTHER_ADDRESS) == ORIGINS.address(asked.changed(Listener.OTHER_BOTH))
    assert bench.server.counters.changed_origins == (flags != 0)


def test_each_family_has_its_own_addresses(bench: "Bench") -> None:
    (answer,) = ask(bench, binding(change_request(0x6)), Listener.PRIMARY, STRANGER_V6)
    told = codec.parse(answer.data)
    assert told.plain_address(codec.RESPONSE_ORIGIN) == ORIGINS_V6.other
    assert answer.listener is Listener.OTHER_BOTH


def test_a_plain_request_is_told_both_addresses(bench: "Bench") -> None:
    told = codec.parse(ask(bench, binding(), Listener.PRIMARY)[0].data)
    assert told.plain_address(codec.OTHER_ADDRESS) == ORIGINS.other


def test_a_relay_with_one_address_refuses_to_change_it_and_tells_no_other(make_bench: "type[Bench]") -> None:
    bench = make_bench()
    refused = codec.parse(ask(bench, binding(change_request(0x6)), Listener.PRIMARY)[0].data)
    assert (bench.error(refused), refused.first(codec.UNKNOWN_ATTRIBUTES)) == (420, b"\0\x03")
    assert bench.server.counters.refused == 1
    told = codec.parse(ask(bench, binding(), Listener.PRIMARY)[0].data)
    assert told.first(codec.OTHER_ADDRESS) is None
    assert told.first(codec.RESPONSE_ORIGIN) is None


@pytest.mark.parametrize("attribute", [0x0026, 0x0027])
def test_padding_and_response_port_are_refused_where_they_were_asked_for(bench: "Bench", attribute: int) -> None:
    (answer,) = ask(bench, binding((attribute, bytes(4))), Listener.OTHER_PORT)
    assert bench.error(codec.parse(answer.data)) == 420
    assert (answer.destination, answer.listener) == (STRANGER, Listener.OTHER_PORT)


@pytest.mark.parametrize("value", [b"", b"\0\0\6", bytes(3) + b"\x80", b"\1\0\0\6", bytes(8)])
def test_a_change_request_that_is_none_is_dropped(bench: "Bench", value: bytes) -> None:
    assert ask(bench, binding((codec.CHANGE_REQUEST, value)), Listener.PRIMARY) == []
    assert bench.server.counters.malformed == 1


@pytest.mark.parametrize("listener", OTHERS)
def test_the_other_addresses_relay_nothing(bench: "Bench", listener: Listener) -> None:
    """A client is known by its address alone, so the same one at another listener must not be taken for it."""
    bench.allocate()
    bench.bind(0x4000)
    for data in (
        bench.signed(Method.REFRESH, [(codec.LIFETIME, bytes(4))]),
        bench.signed(Method.ALLOCATE, [(codec.REQUESTED_TRANSPORT, b"\x11\0\0\0")]),
        bench.send_indication(b"payload"),
    ):
        assert ask(bench, data, listener, bench.CLIENT) == []
    assert bench.server.counters.ignored == 3
    assert ask(bench, codec.channel_data(0x4000, b"payload"), listener, bench.CLIENT) == []
    assert bench.server.counters.malformed == 1
    assert bench.server.allocations == 1


def test_change_request_is_for_binding_only(bench: "Bench") -> None:
    refused = bench.request(Method.ALLOCATE, (codec.REQUESTED_TRANSPORT, b"\x11\0\0\0"), change_request(0x6))
    assert bench.error(refused) == 420


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=80)
    | st.binary(max_size=60).map(lambda tail: b"\0\1\0\0!\x12\xa4B" + tail)
    | st.lists(
        st.tuples(st.sampled_from([codec.CHANGE_REQUEST, codec.SOFTWARE, 0x0026, 0x0027]), st.binary(max_size=8)),
        max_size=4,
    ).map(lambda attributes: binding(*attributes)),
    listener=st.sampled_from(Listener),
    source=st.sampled_from([STRANGER, STRANGER_V6]),
)
def test_a_strangers_nonsense_is_harmless_at_every_address(
    bench: "Bench", data: bytes, listener: Listener, source: Address
) -> None:
    """One answer at most, to the asker, and within three times of what was asked, both with their headers."""
    headers_bytes = HEADERS_BYTES[codec.family_of(source[0])]
    answers = ask(bench, data, listener, source)
    assert len(answers) <= 1
    for answer in answers:
        assert (answer.destination, answer.allocation) == (source, None)
        assert len(answer.data) + headers_bytes <= 3 * (len(data) + headers_bytes)
    assert bench.server.allocations == 0


@pytest.mark.parametrize("source", [STRANGER, STRANGER_V6])
def test_even_the_longest_answer_is_worth_no_forged_sender(make_bench: "type[Bench]", source: Address) -> None:
    bench = make_bench(origins=(ORIGINS, ORIGINS_V6), software="s" * 16)
    headers_bytes = HEADERS_BYTES[codec.family_of(source[0])]
    bare = binding()[: codec.HEADER_BYTES - 18] + bytes(2) + binding()[4 : codec.HEADER_BYTES]  # no FINGERPRINT
    (answer,) = ask(bench, bare, Listener.PRIMARY, source)
    assert len(answer.data) + headers_bytes <= 3 * (len(bare) + headers_bytes)


@pytest.mark.parametrize(
    "other", [("192.0.2.1", 3479), ("192.0.2.2", 3478), ("192.0.2.1", 3478), ("2001:db8::2", 3479)]
)
def test_what_is_no_other_address_is_refused(other: Address) -> None:
    with pytest.raises(ValueError, match="other address"):
        Origins(("192.0.2.1", 3478), other)


def test_there_is_one_other_address_per_family() -> None:
    with pytest.raises(ValueError, match="one other address per family"):
        Settings(secret="s", public_ipv4="192.0.2.1", origins=(ORIGINS, ORIGINS))
