"""What stands between a client and a relay is named; and where it cannot be known, nothing is claimed."""

import random

import pytest
from aioice.stun import Class, Method
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.turn import codec
from exeunt.actors.turn.codec import Address
from exeunt.clients.check.discovery import TRANSITIONS, Comparison, Dependence, Discovery, Phase
from exeunt.clients.check.questions import PATIENCE_S, Questions

from .conftest import LOCAL, OTHER, PUBLIC_HOST, RTT_S, SERVER, Nat, Network

EI, AD, APD = Dependence
OPEN = Nat(EI, EI)


@pytest.mark.parametrize("mapping", Dependence)
@pytest.mark.parametrize("filtering", Dependence)
@pytest.mark.parametrize("translates", [True, False])
def test_every_kind_of_nat_and_firewall_is_named(mapping: Dependence, filtering: Dependence, translates: bool) -> None:
    network = Network(Nat(mapping, filtering, translates))
    discovery = Discovery(SERVER, LOCAL)
    took_s = network.run(discovery)
    found = discovery.behaviour
    assert (found.mapping, found.filtering) == (mapping if translates else EI, filtering)
    assert found.is_translated == translates
    assert found.mapped is not None
    assert found.mapped[0] == (PUBLIC_HOST if translates else LOCAL[0])
    assert found.rtt_s == pytest.approx(RTT_S)
    assert took_s <= PATIENCE_S + 2 * RTT_S + 0.001


@pytest.mark.parametrize("mapping", Dependence)
@pytest.mark.parametrize("filtering", Dependence)
def test_a_fifth_of_all_datagrams_may_be_lost(mapping: Dependence, filtering: Dependence) -> None:
    """Claims stay right but for those that rest on silence, which takes four losses in a row to be mistaken."""
    right = 0
    for seed in range(50):
        rng = random.Random(seed)
        network = Network(Nat(mapping, filtering), is_lost=lambda rng=rng: rng.random() < 0.2)  # type: ignore[misc]
        discovery = Discovery(SERVER, LOCAL)
        network.run(discovery)
        found = discovery.behaviour
        assert found.mapping in (None, mapping)
        right += (found.mapping, found.filtering) == (mapping, filtering)
    assert right >= 40


def test_a_relay_with_one_address_tells_only_how_it_sees_us() -> None:
    network = Network(OPEN, origins=())
    discovery = Discovery(SERVER, LOCAL)
    network.run(discovery)
    found = discovery.behaviour
    assert (found.mapping, found.filtering, found.is_translated) == (None, None, True)
    assert network.sent == [SERVER]


def test_a_silent_relay_is_given_up() -> None:
    network = Network(OPEN, dead=frozenset({SERVER}))
    discovery = Discovery(SERVER, LOCAL)
    assert network.run(discovery) == pytest.approx(PATIENCE_S)
    assert discovery.behaviour.mapped is None
    assert discovery.behaviour.is_translated is None


def test_silence_of_a_dead_address_is_not_taken_for_filtering() -> None:
    other_host = (OTHER[0], SERVER[1])
    network = Network(OPEN, dead=frozenset({OTHER, other_host}))
    discovery = Discovery(SERVER, LOCAL)
    network.run(discovery)
    found = discovery.behaviour
    assert found.mapped is not None
    assert (found.mapping, found.filtering) == (None, None)


class Hand:
    """Answers a discovery by hand."""

    def __init__(self) -> None:
        self.discovery = Discovery(SERVER, LOCAL)
        self.discovery.handle_start(0.0)

    def asked(self) -> list[tuple[bytes, Address]]:
        """The open questions: transaction id, and whom."""
        found: list[tuple[bytes, Address]] = []
        while (transmit := self.discovery.questions.poll_transmit()) is not None:
            found.append((codec.parse(transmit.payload).transaction_id, transmit.destination))
        return found

    def answer(
        self,
        transaction_id: bytes,
        source: Address = SERVER,
        other: Address | None = OTHER,
        kind: Class = Class.RESPONSE,
    ) -> None:
        carried = [(codec.XOR_MAPPED_ADDRESS, codec.xor_address(LOCAL, transaction_id))]
        if other is not None:
            carried.append((codec.OTHER_ADDRESS, codec.plain_address(other)))
        self.discovery.handle_datagram(codec.encode(Method.BINDING, kind, transaction_id, carried), source, 0.01)


def test_a_server_that_does_not_change_its_address_is_not_believed() -> None:
    hand = Hand()
    ((first, _),) = hand.asked()
    hand.answer(first)
    for transaction_id, destination in hand.asked():
        assert destination == SERVER
        hand.answer(transaction_id, SERVER)
    for transaction_id, destination in hand.asked():
        hand.answer(transaction_id, destination)
    assert hand.discovery.is_done
    assert hand.discovery.behaviour.filtering is None
    assert hand.discovery.behaviour.mapping is EI


def test_a_server_that_refuses_the_change_leaves_filtering_unknown() -> None:
    hand = Hand()
    hand.answer(hand.asked()[0][0])
    for transaction_id, _ in hand.asked():
        hand.answer(transaction_id, SERVER, kind=Class.ERROR)
    for transaction_id, destination in hand.asked():
        hand.answer(transaction_id, destination)
    assert hand.discovery.behaviour.filtering is None


@pytest.mark.parametrize(
    "other",
    [
        SERVER,
        (SERVER[0], 3479),
        (OTHER[0], SERVER[1]),
        (OTHER[0], 0),
        ("127.0.0.1", 3479),
        ("224.0.0.1", 3479),
        ("0.0.0.0", 3479),
        ("255.255.255.255", 3479),
        ("2001:db8::2", 3479),
    ],
)
def test_a_server_cannot_send_us_to_where_no_server_is(other: Address) -> None:
    hand = Hand()
    hand.answer(hand.asked()[0][0], other=other)
    assert hand.discovery.is_done
    assert hand.asked() == []


@given(data=st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\1\1\0\0!\x12\xa4B" + tail))
def test_nonsense_is_dropped(data: bytes) -> None:
    hand = Hand()
    hand.discovery.handle_datagram(data, SERVER, 0.1)
    assert hand.discovery.phase is Phase.ASKING


@given(which=st.integers(0, 2), changes=st.binary(min_size=2, max_size=8))
def test_changed_answers_never_raise(which: int, changes: bytes) -> None:
    hand = Hand()
    asked = hand.asked()
    if which:
        hand.answer(asked[0][0])
        asked = hand.asked()
    carried = [
        (codec.XOR_MAPPED_ADDRESS, codec.xor_address(LOCAL, asked[-1][0])),
        (codec.OTHER_ADDRESS, codec.plain_address(OTHER)),
    ]
    wrong = bytearray(codec.encode(Method.BINDING, Class.RESPONSE, asked[-1][0], carried)[:-8])  # no FINGERPRINT
    wrong[2:4] = (len(wrong) - codec.HEADER_BYTES).to_bytes(2)
    for position, value in zip(changes[::2], changes[1::2], strict=False):
        wrong[position % len(wrong)] = value
    hand.discovery.handle_datagram(bytes(wrong), SERVER, 0.1)


def test_two_servers_tell_whether_the_mapping_depends_on_them() -> None:
    for mapping, found in [(EI, EI), (AD, AD), (APD, AD)]:
        network = Network(Nat(mapping, APD))
        comparison = Comparison([SERVER, OTHER], LOCAL)
        network.run(comparison)
        assert comparison.mapping is found


def test_one_server_tells_nothing_about_it() -> None:
    network = Network(OPEN, dead=frozenset({OTHER}))
    comparison = Comparison([SERVER, OTHER], LOCAL)
    network.run(comparison)
    assert comparison.mapping is None


def test_every_phase_has_an_exit() -> None:
    for phase, moves in TRANSITIONS.items():
        assert moves or phase is Phase.DONE


def test_a_question_is_as_long_as_it_was_asked_to_be() -> None:
    questions = Questions()
    for length_bytes in (28, 32, 1252, 1472):
        questions.ask("long", SERVER, 0.0, length_bytes=length_bytes)
        transmit = questions.poll_transmit()
        assert transmit is not None
        assert len(transmit.payload) == length_bytes
        codec.parse(transmit.payload)
