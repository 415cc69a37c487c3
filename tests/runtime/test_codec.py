"""Envelopes as bytes, and bytes that only pretend."""

import struct

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exeunt.runtime.codec import MAX_ENVELOPE_BYTES, Codec, Malformed, MalformedFrame
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.errors import Failure, Unencodable, UnknownMessage
from exeunt.runtime.messages import MESSAGES, Watch
from exeunt.runtime.node import Node
from tests.runtime import troupe
from tests.runtime.troupe import NotRegistered, Number, Player, Say

hostile = settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

unsigned = st.integers(0, 2**64 - 1)
bodies = st.one_of(
    st.none(), st.builds(Say, st.text(max_size=20)), st.builds(Number, st.integers(-(2**63), 2**63 - 1))
)
envelopes = st.builds(
    Envelope, unsigned, unsigned, unsigned, st.text(max_size=9), st.text(max_size=9), st.just(1), unsigned, bodies
)
addresses = st.sampled_from(["n/w/p", "n/w/nobody", "n/w2/p", "n/w", "n", "", "//", "n/w/", "x/y/z", "n/w/p/q"])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=9), st.binary(max_size=9)
)
tags = st.sampled_from(["Say/1", "Number/1", "Watch/1", "Unwatch/1", "Stop/1", "Terminated/1", "Fail/1", "?/1"])
values = st.one_of(scalars, st.lists(scalars, max_size=4), st.tuples(tags, scalars, scalars).map(list))
pretenders = st.tuples(
    unsigned, unsigned, unsigned, addresses, addresses, st.integers(-1, 7), unsigned, values
).map(list)
"""Well-formed frames with anything inside: these reach the node's own code."""


def framed(*items: object) -> bytes:
    encoded = [msgspec.msgpack.encode(item) for item in items]
    return b"\x01" + b"".join(struct.pack("<I", len(data)) + data for data in encoded)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(envelopes, max_size=5))
def test_what_was_encoded_is_decoded(sent: list[Envelope]) -> None:
    codec = Codec(troupe.MESSAGES)
    assert list(codec.decode(codec.frame(codec.encode(one) for one in sent))) == sent


def test_a_failure_crosses_as_data(codec: Codec) -> None:
    sent = Envelope(1, 1, 1, "n/w/a", "n/w/b", Kind.FAILURE, 0, Failure("Refused", "no", "", "not_now"))
    assert list(codec.decode(codec.frame([codec.encode(sent)]))) == [sent]


@hostile
@given(frame=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(b"\x01".__add__)))
def test_random_bytes_are_malformed_and_nothing_else(frame: bytes, codec: Codec) -> None:
    try:
        for envelope in codec.decode(frame):
            assert isinstance(envelope, Envelope)
    except MalformedFrame:
        pass


@hostile
@given(st.lists(envelopes, min_size=1, max_size=3), st.data())
def test_mutated_frames_are_malformed_or_have_malformed_bodies(sent: list[Envelope], data: st.DataObject) -> None:
    codec = CODEC
    frame = bytearray(codec.frame(codec.encode(one) for one in sent))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        for envelope in codec.decode(bytes(frame[: data.draw(st.integers(0, len(frame)))])):
            assert envelope.body is None or isinstance(envelope.body, (Message, Malformed, Failure))
    except MalformedFrame:
        pass


CODEC = Codec([*MESSAGES, *troupe.MESSAGES])


async def test_a_node_lives_through_ten_thousand_hostile_frames(node: Node) -> None:
    player = Player()
    ref = node.start(player, "p")
    await player.started
    pending = len(node._pending)  # pyright: ignore[reportPrivateUsage]

    @settings(hostile, max_examples=10_000)
    @given(st.lists(pretenders, min_size=1, max_size=3), st.booleans())
    def attack(items: list[object], cut: bool) -> None:
        frame = framed(*items)
        node.handle_frame(frame[:-1] if cut else frame)
        player.mailbox._ordinary.clear()  # pyright: ignore[reportPrivateUsage]
        player.mailbox._system.clear()  # pyright: ignore[reportPrivateUsage]

    attack()
    assert node.malformed_total > 1_000
    assert len(node._pending) == pending  # pyright: ignore[reportPrivateUsage]
    assert await ref.ask(Number(1)) == Number(1)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "version missing"),
        (b"\x02", "version 02"),
        (b"\x01\x05\x00", "length is cut short"),
        (b"\x01\x05\x00\x00\x00abc", "longer than its frame"),
        (b"\x01\xff\xff\xff\xff", "longer than its frame"),
        (framed([-1, 1, 0, "n/w/p", "n/w/p", 1, 0, None]), ">= 0"),
        (framed([1, 1, 0, "n/w/p", "n/w/p", 9, 0, None]), "<= 5"),
        (framed({"id": 1}), "Expected"),
    ],
)
def test_a_malformed_frame_says_what_is_wrong(codec: Codec, frame: bytes, reason: str) -> None:
    with pytest.raises(MalformedFrame, match=reason):
        list(codec.decode(frame))


def test_a_body_nested_too_deep_is_malformed(codec: Codec) -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    head = msgspec.msgpack.encode([1, 1, 0, "n/w/p", "n/w/p", 1, 0])[1:]
    data = b"\x98" + head + deep
    frame = b"\x01" + struct.pack("<I", len(data)) + data
    try:
        (found,) = codec.decode(frame)
    except MalformedFrame:
        return
    assert isinstance(found.body, Malformed)


async def test_an_ask_with_an_unreadable_body_is_counted(node: Node) -> None:
    ref = node.start(Player(), "p")
    node.handle_frame(framed([1, 1, 0, "n/w2/x", "n/w/p", 2, 0, ["Unheard/1"]]))
    assert node.malformed_total == 1
    assert await ref.ask(Number(1)) == Number(1)


def test_an_unregistered_message_is_not_sent(codec: Codec) -> None:
    with pytest.raises(UnknownMessage, match="NotRegistered"):
        codec.encode(Envelope(1, 1, 0, "a", "b", 1, 0, NotRegistered()))


@pytest.mark.parametrize("body", [Say("\ud800"), Number(2**70), Say("x" * MAX_ENVELOPE_BYTES)])
def test_a_message_that_msgpack_cannot_carry_is_not_sent(codec: Codec, body: Message) -> None:
    with pytest.raises(Unencodable):
        codec.encode(Envelope(1, 1, 0, "a", "b", 1, 0, body))


def test_a_new_field_with_a_default_reads_old_messages() -> None:
    class Old(Message, frozen=True, tag="Greeting/1"):
        text: str

    class New(Message, frozen=True, tag="Greeting/1"):
        text: str
        loud: bool = False

    data = Codec([Old]).encode(Envelope(1, 1, 0, "a", "b", 1, 0, Old("hi")))
    (found,) = Codec([New]).decode(Codec.frame([data]))
    assert found.body == New("hi")
    assert Watch() is not None
