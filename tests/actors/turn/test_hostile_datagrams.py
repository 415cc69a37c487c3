"""Whatever a stranger sends: no exception, no state, and no answer that is worth forging a sender for."""

from typing import TYPE_CHECKING

import pytest
from aioice import stun
from aioice.stun import Class, Method
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exeunt.actors.turn import codec

if TYPE_CHECKING:
    from .conftest import Bench

MANY = settings(
    max_examples=10_000,
    deadline=None,
    # One relay for all cases, as in life: nothing that strangers send may leave a trace in it.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
HEADERS_BYTES = 28  # IPv4 and UDP
STRANGER = ("203.0.113.77", 4242)

KINDS = [*sorted(codec.UNDERSTOOD), codec.SOFTWARE, 0x001A, 0x7FFF, 0xFFFF]
LENGTHS = [0, 1, 3, 4, 4, 4, 8, 8, 20]


def attributes_from(script: bytes) -> list[tuple[int, bytes]]:
    """Make attributes of drawn bytes: a type, a length, a value, and so on. Much faster than drawing lists."""
    attributes: list[tuple[int, bytes]] = []
    while len(script) >= 2:
        length = LENGTHS[script[1] % len(LENGTHS)]
        attributes.append((KINDS[script[0] % len(KINDS)], script[2 : 2 + length]))
        script = script[2 + length :]
    return attributes


requests = st.sampled_from([Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])


def scripted(kind: Class, method: Method, script: bytes) -> bytes:
    return codec.encode(method, kind, b"t" * 12, attributes_from(script))


stun_like = st.builds(
    scripted,
    st.sampled_from(list(Class)),
    st.sampled_from(list(Method)),
    st.binary(max_size=60),
)


def valid_messages(bench: "Bench") -> list[bytes]:
    """Build what a good client sends, from its address."""
    return [
        codec.encode(Method.BINDING, Class.REQUEST, bytes(12), []),
        bench.signed(Method.ALLOCATE, [(codec.REQUESTED_TRANSPORT, b"\x11\0\0\0")]),
        bench.signed(Method.REFRESH, [(codec.LIFETIME, bytes(4))]),
        bench.signed(Method.CREATE_PERMISSION, [bench.peer(bench.PEER)]),
        bench.signed(Method.CHANNEL_BIND, [(codec.CHANNEL_NUMBER, b"\x40\0\0\0"), bench.peer(bench.PEER)]),
        bench.send_indication(b"payload"),
        codec.channel_data(0x4000, b"payload"),
    ]


@pytest.fixture
def good_messages(bench: "Bench") -> list[bytes]:
    return valid_messages(bench)


def mutated(data: bytes, changes: bytes, cut: int, mend: bool) -> bytes:
    """Change some bytes and the length; ``mend`` makes length and fingerprint fit again."""
    wrong = bytearray(data)
    for position, value in zip(changes[::2], changes[1::2], strict=False):
        wrong[position % len(wrong)] = value
    result = bytes(wrong[: len(wrong) - cut])
    if mend and len(result) >= codec.HEADER_BYTES:
        result = result[: len(result) - len(result) % 4]
        result = stun.set_body_length(result, len(result) - codec.HEADER_BYTES)
        fingerprint = stun.message_fingerprint(result).to_bytes(4)
        result = stun.set_body_length(result + b"\x80\x28\0\4" + fingerprint, len(result) + 8 - codec.HEADER_BYTES)
    return result


def assert_harmless(bench: "Bench", data: bytes, source: tuple[str, int]) -> None:
    allocations = bench.server.allocations
    answers = bench.from_client(data, source)
    assert len(answers) <= 1
    for answer in answers:
        assert (answer.destination, answer.allocation) == (source, None)
        assert len(answer.data) + HEADERS_BYTES <= 3 * (len(data) + HEADERS_BYTES)
    assert bench.server.allocations == allocations


@pytest.mark.slow
@MANY
@given(data=st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"\0\1\0\0!\x12\xa4B" + tail) | stun_like)
def test_a_strangers_nonsense_is_harmless(bench: "Bench", data: bytes) -> None:
    assert_harmless(bench, data, STRANGER)


@pytest.mark.slow
@MANY
@given(
    which=st.integers(0, 6),
    change=st.tuples(st.binary(max_size=8), st.integers(0, 12), st.booleans()),
)
def test_changed_copies_of_good_messages_are_harmless(
    bench: "Bench", good_messages: list[bytes], which: int, change: tuple[bytes, int, bool]
) -> None:
    """First from a stranger, whom they must gain nothing, then from the good client's own address."""
    if not bench.server.allocations:
        bench.allocate()
    good = good_messages[which]
    data = mutated(good, *change)
    assert_harmless(bench, data, STRANGER)
    bench.from_client(data, bench.CLIENT)
    if not bench.server.allocations:
        assert which == 2, "only a Refresh ends an allocation"
        assert authentic_part(data) == authentic_part(good)


def authentic_part(data: bytes) -> bytes:
    """Answer what the integrity of a signed message covers, itself included; the length field aside."""
    end = data.find(b"\0\x08\0\x14") + 24
    return data[:2] + data[4:end]


@pytest.mark.slow
@MANY
@given(data=st.binary(max_size=64))
def test_peers_without_permission_reach_nobody(bench: "Bench", data: bytes) -> None:
    if not bench.chosen:
        bench.allocate()
        bench.permit(bench.PEER)
    assert bench.from_peer(data, bench.chosen[0].allocation, ("203.0.113.10", 5000)) == []
    assert bench.from_peer(data, bench.chosen[0].allocation + 1, bench.PEER) == []


@pytest.mark.slow
@MANY
@given(method=requests, script=st.binary(max_size=60))
def test_the_nonsense_of_a_known_user_is_answered(bench: "Bench", method: Method, script: bytes) -> None:
    """A user may well be hostile too."""
    answers = bench.from_client(bench.signed(method, attributes_from(script)))
    assert len(answers) == 1
    assert bench.server.allocations <= 1
