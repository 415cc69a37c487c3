"""Envelopes as bytes, and bytes that only pretend."""

import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runtime import troupe
from tests.runtime.troupe import NotRegistered, Number, Player, Say

from exeunt.runtime.batch import Batch
from exeunt.runtime.codec import MAX_ENVELOPE_BYTES, Codec, Malformed, MalformedFrame
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.errors import Failure, LocalError, Unencodable, UnknownMessage
from exeunt.runtime.messages import MESSAGES
from exeunt.runtime.node import Node

hostile = settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

unsigned = st.integers(0, 2**64 - 1)
bodies = st.one_of(st.none(), st.builds(Say, st.text(max_size=20)), st.builds(Number, st.integers(-(2**63), 2**63 - 1)))
envelopes = st.builds(
    Envelope,
    unsigned,
    st.integers(1, 2**64 - 1),
    unsigned,
    st.text(max_size=9),
    st.text(max_size=9),
    st.just(1),
    unsigned,
    bodies,
)
ADDRESSES = ("n/w/p", "n/w/nobody", "n/w2/p", "n/w", "n", "", "//", "n/w/", "x/y/z", "n/w/p/q")
TAGS = (
    "Say/1",
    "Number/1",
    "exeunt.Watch/1",
    "exeunt.Unwatch/1",
    "exeunt.Stop/1",
    "exeunt.Terminated/1",
    "exeunt.Settled/1",
    "Fail/1",
    "?/1",
)
EDGES = (0, 1, 2**40, 2**63, 2**64 - 1, -1)
SCALARS: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    2**64 - 1,
    -(2**63),
    1.5,
    float("nan"),
    "",
    "n/w/p",
    "crashed",
    b"\xff",
    [],
    {"a": 1},
)


def pretender(rng: random.Random) -> list[object]:
    """Make a well-formed envelope with anything inside: these reach the node's own code."""
    body: object = rng.choice(SCALARS)
    if rng.random() < 0.7:
        body = [rng.choice(TAGS), *rng.choices(SCALARS, k=rng.randrange(4))]
    numbers = [rng.randrange(2**64) if rng.random() < 0.9 else rng.choice(EDGES) for _ in range(3)]
    ends = rng.choices(ADDRESSES, k=2)
    return [*numbers, *ends, rng.randrange(8), rng.randrange(2**63), body]


def framed(*items: object) -> bytes:
    """Frame runs of one body each."""
    runs: list[object] = [[*item[:7], [], [item[7]]] if isinstance(item, list) else item for item in items]
    return b"\x02" + msgspec.msgpack.encode(runs)


def encoded(codec: Codec, *envelopes: Envelope) -> bytes:
    return codec.encode([codec.run(one) for one in envelopes])


@settings(max_examples=300, deadline=None)
@given(st.lists(envelopes, max_size=5))
def test_what_was_encoded_is_decoded(sent: list[Envelope]) -> None:
    codec = Codec(troupe.MESSAGES)
    assert list(codec.decode(encoded(codec, *sent))) == sent


@settings(max_examples=300, deadline=None)
@given(st.lists(bodies, min_size=1, max_size=50), st.booleans(), st.integers(0, 2))
def test_tells_in_a_row_cross_as_one_run(said: list[Message | None], rooted: bool, gap: int) -> None:
    codec = Codec(troupe.MESSAGES)
    batch = Batch(codec)
    ids = [100 + number + (gap if number > 9 else 0) for number in range(len(said))]
    sent = [
        Envelope(id_, id_ if rooted else 7, 0 if rooted else 7, "n/w/a", "n/w/b", Kind.TELL, 0, body)
        for id_, body in zip(ids, said, strict=True)
    ]
    for one in sent:
        batch.add(one)
    assert len(batch.runs) == (2 if gap and len(said) > 10 else 1)
    (frame,) = batch.frames(lambda _envelope, _error: None)
    assert list(codec.decode(frame)) == sent


def test_what_cannot_be_encoded_is_named_and_the_rest_of_its_run_leaves() -> None:
    codec, unsendable = Codec(troupe.MESSAGES), list[int]()
    batch = Batch(codec)
    said = [Say("a"), Say("\ud800"), Say("b")]
    for id_, body in enumerate(said, 1):
        batch.add(Envelope(id_, id_, 0, "n/w/a", "n/w/b", Kind.TELL, 0, body))
    frames = list(batch.frames(lambda envelope, _error: unsendable.append(envelope.id)))
    found = [envelope for frame in frames for envelope in codec.decode(frame)]
    assert unsendable == [2]
    assert [(one.id, one.trace, one.body) for one in found] == [(1, 1, Say("a")), (3, 3, Say("b"))]


def test_deadlines_cross_as_the_time_that_is_left_where_clocks_differ() -> None:
    here = Codec(troupe.MESSAGES, clock_ns=lambda: 1_000)
    there = Codec(troupe.MESSAGES, clock_ns=lambda: 70_000)
    (found,) = there.decode(encoded(here, Envelope(1, 1, 0, "a", "b", Kind.ASK, 1_500, Say("?"))))
    assert found.deadline_ns == 70_500


def test_a_failure_crosses_as_data(codec: Codec) -> None:
    sent = Envelope(1, 1, 1, "n/w/a", "n/w/b", Kind.FAILURE, 0, Failure("Refused", "no", "", "not_now"))
    assert list(codec.decode(encoded(codec, sent))) == [sent]


@hostile
@given(seed=st.integers(0, 2**64))
def test_mutated_or_random_frames_are_malformed_or_have_malformed_bodies(seed: int, codec: Codec) -> None:
    rng = random.Random(seed)
    frame = bytearray(framed(*(pretender(rng) for _ in range(rng.randint(1, 3)))))
    if rng.random() < 0.2:
        frame = bytearray(b"\x02" * rng.randrange(2) + rng.randbytes(rng.randrange(1, 200)))
    for _ in range(rng.randint(0, 3)):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    try:
        for envelope in codec.decode(bytes(frame[: rng.choice((len(frame), rng.randrange(len(frame)))) :])):
            assert envelope.body is None or isinstance(envelope.body, (Message, Malformed, Failure))
    except MalformedFrame:
        pass


@pytest.mark.slow
async def test_a_node_lives_through_ten_thousand_hostile_frames(node: Node) -> None:
    player = Player()
    ref = node.start(player, "p")
    await player.started

    @hostile
    @given(st.integers(0, 2**64))
    def attack(seed: int) -> None:
        rng = random.Random(seed)
        node.handle_frame(framed(*(pretender(rng) for _ in range(rng.randint(1, 3)))))
        player.mailbox.ordinary = player.mailbox.system = None  # what got through, and may stop it
        player.mailbox.draining = False

    attack()
    assert node.malformed_total > 5_000
    assert await ref.ask(Number(1)) == Number(1)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "version missing"),
        (b"\x01", "version 01"),
        (b"\x02", "truncated"),
        (b"\x02\x91", "truncated"),
        (b"\x02\xdd\xff\xff\xff\xff", "truncated"),
        (b"\x02" + msgspec.msgpack.encode([[1, 1, 0, "n/w/p", "n/w/p", 2, 0, [], [None, None]]]), "only tells"),
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
    head = msgspec.msgpack.encode([1, 1, 0, "n/w/p", "n/w/p", 1, 0, []])[1:]
    frame = b"\x02\x91\x99" + head + b"\x91" + deep
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
        encoded(codec, Envelope(1, 1, 0, "a", "b", 1, 0, NotRegistered()))


@pytest.mark.parametrize("body", [Say("\ud800"), Number(2**70), Say("x" * MAX_ENVELOPE_BYTES)])
def test_a_message_that_msgpack_cannot_carry_is_not_sent(codec: Codec, body: Message) -> None:
    with pytest.raises(Unencodable):
        encoded(codec, Envelope(1, 1, 0, "a", "b", 1, 0, body))


def test_two_types_with_one_tag_are_named() -> None:
    class Twin(Message, frozen=True, tag="Say/1"):
        text: str

    with pytest.raises(LocalError, match=r"Twin and .*Say have the same tag, 'Say/1'"):
        Codec([Say, Twin])


def test_the_runtimes_own_names_are_free_for_others() -> None:
    class Stop(Message, frozen=True):
        pass

    codec = Codec([*MESSAGES, Stop])
    sent = Envelope(1, 1, 0, "n/w/a", "n/w/b", Kind.TELL, 0, Stop())
    assert list(codec.decode(encoded(codec, sent))) == [sent]


def test_a_new_field_with_a_default_reads_old_messages() -> None:
    class Old(Message, frozen=True, tag="Greeting/1"):
        text: str

    class New(Message, frozen=True, tag="Greeting/1"):
        text: str
        loud: bool = False

    frame = encoded(Codec([Old]), Envelope(1, 1, 0, "a", "b", 1, 0, Old("hi")))
    (found,) = Codec([New]).decode(frame)
    assert found.body == New("hi")


@pytest.mark.parametrize(("module", "reason"), [("__main__", "import your program"), ("m", "not among the program's")])
def test_a_type_of_the_script_that_was_started_is_told_from_one_that_was_not_listed(module: str, reason: str) -> None:
    stray = type("Stray", (Message,), {"__module__": module}, frozen=True)
    with pytest.raises(UnknownMessage, match=reason):
        Codec(()).run(Envelope(1, 1, 0, "n/w/a", "n/w/b", Kind.TELL, 0, stray()))
