"""Whose a datagram is, without sockets."""

from array import array
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.actors.ice.reference import check_request

from exeunt.actors.ice import Address, Credentials
from exeunt.actors.ice.demultiplexer import (
    ANSWER_WINDOW_S,
    MAX_ADDRESSES,
    MAX_OFFERS,
    MAX_TRANSACTIONS,
    Demultiplexer,
    receiver_fragment,
)
from exeunt.actors.ice.packing import Packing, Role

HERE: Address = ("192.0.2.1", 1)
THERE: Address = ("192.0.2.2", 2)
INITIATION = b"\x01\x00\x00\x00" + bytes(144)


class Heard:
    """A session and an agent at once."""

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        """Nobody calls it: only the tables are tested."""

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Nor this."""

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Nor this."""


@pytest.fixture
def table() -> Demultiplexer:
    return Demultiplexer(Counter())


def agents(table: Demultiplexer, count: int) -> list[Heard]:
    made = [Heard() for _ in range(count)]
    for agent in made:
        table.add_agent(agent)
    return made


def request_to(fragment: str) -> bytes:
    credentials = Credentials(
        local_username="mine", local_password="m" * 22, remote_username=fragment, remote_password="t" * 22
    )
    return Packing(credentials).request(b"t" * 12, Role(controlling=True, tie_breaker=1), nominate=False)


def to_index(kind: int, index: int) -> bytes:
    lengths = {2: 92, 3: 64, 4: 32}
    at = 8 if kind == 2 else 4
    datagram = bytearray(bytes([kind, 0, 0, 0]) + bytes(lengths[kind] - 4))
    datagram[at : at + 4] = index.to_bytes(4, "little")
    return bytes(datagram)


def test_a_request_goes_by_fragment(table: Demultiplexer) -> None:
    one, two = Heard(), Heard()
    table.add_session("aaaaaaaa", one)
    table.add_session("aaaaaaab", two)
    assert table.session_for(request_to("aaaaaaaa")) is one
    assert table.session_for(request_to("aaaaaaab")) is two
    assert table.session_for(request_to("aaaaaaac")) is None
    with pytest.raises(ValueError, match="in use"):
        table.add_session("aaaaaaaa", two)
    table.remove_session("aaaaaaaa", two)  # not its own
    table.remove_session("aaaaaaab", two)
    assert table.session_for(request_to("aaaaaaaa")) is one
    assert table.session_for(request_to("aaaaaaab")) is None


def test_username_need_not_come_first() -> None:
    credentials = Credentials(
        local_username="mine", local_password="m" * 22, remote_username="theirs", remote_password="t" * 22
    )
    message = check_request(credentials, Role(controlling=True, tie_breaker=1), nominate=True)
    username = message.attributes.pop("USERNAME")
    message.attributes["SOFTWARE"] = "odd"
    message.attributes["USERNAME"] = username
    assert receiver_fragment(bytes(message)) == b"theirs"


@given(data=st.binary(min_size=20, max_size=100))
def test_no_datagram_is_too_strange(data: bytes) -> None:
    table = Demultiplexer(Counter())
    assert table.session_for(data) is None
    assert table.agents_for(data, HERE) == ()


def test_an_answer_goes_to_who_asked_for_a_while(table: Demultiplexer) -> None:
    session, answer = Heard(), b"\x01\x01\x00\x00\x21\x12\xa4\x42" + b"t" * 12
    table.expect_answer(b"t" * 12, session, 100.0)
    table.expect_answer(b"u" * 12, session, 100.0 + ANSWER_WINDOW_S)
    assert table.session_for(answer) is session
    table.expect_answer(b"v" * 12, session, 100.1 + ANSWER_WINDOW_S)
    assert table.session_for(answer) is None


def test_the_table_of_requests_is_bounded(table: Demultiplexer) -> None:
    session = Heard()
    for number in range(MAX_TRANSACTIONS + 10):
        table.expect_answer(number.to_bytes(12, "big"), session, 100.0)
    known = [n for n in range(MAX_TRANSACTIONS + 10) if table.session_for(b"\x01" * 8 + n.to_bytes(12, "big"))]
    assert known == list(range(10, MAX_TRANSACTIONS + 10))


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_wireguard_goes_by_receiver_index_from_wherever_it_comes(table: Demultiplexer, kind: int) -> None:
    one, two = agents(table, 2)
    table.claim(0x00ABCD, one)
    table.claim(0xFFABCD, two)
    table.know(HERE, one, proven=True)
    assert table.agents_for(to_index(kind, 0x00ABCD << 8 | 7), THERE) == (one,)
    assert table.agents_for(to_index(kind, 0xFFABCD << 8 | 255), HERE) == (two,)
    assert table.agents_for(to_index(kind, 0x123456 << 8), HERE) == ()
    with pytest.raises(ValueError, match="in use"):
        table.claim(0x00ABCD, two)
    table.remove_agent(one)
    assert table.agents_for(to_index(kind, 0x00ABCD << 8 | 7), THERE) == ()
    table.claim(0x00ABCD, two)


def test_an_initiation_goes_to_the_proven_else_to_who_expects_it(table: Demultiplexer) -> None:
    one, two, three = agents(table, 3)
    for prefix, agent in enumerate((one, two, three)):
        table.claim(prefix, agent)
    table.know(HERE, one, proven=False)
    table.know(HERE, two, proven=False)
    table.know(THERE, three, proven=True)
    assert table.agents_for(INITIATION, HERE) == (one, two)
    table.know(HERE, two, proven=True)
    table.know(HERE, two, proven=False)  # told again: it stays proven
    assert table.agents_for(INITIATION, HERE) == (two,)
    assert table.agents_for(INITIATION, ("192.0.2.9", 9)) == ()
    assert table.agents_for(INITIATION[:-1], HERE) == ()


def test_an_agent_without_indices_gets_what_comes_from_its_peer(table: Demultiplexer) -> None:
    plain, claiming = agents(table, 2)
    table.claim(5, claiming)
    table.know(HERE, plain, proven=True)
    table.know(HERE, claiming, proven=True)
    for datagram in (b"", b"x", to_index(4, 0x7777), INITIATION[:-1]):
        assert table.agents_for(datagram, HERE) == (plain,)


def test_one_datagram_is_offered_to_few_and_one_agent_knows_few_addresses(table: Demultiplexer) -> None:
    many = agents(table, 200)
    for agent in many:
        table.know(HERE, agent, proven=False)
    assert len(table.agents_for(INITIATION, HERE)) == MAX_OFFERS
    for port in range(1, 10_000):
        table.know(("192.0.2.3", port), many[0], proven=False)
    assert table.agents_at(("192.0.2.3", 9_999)) == (many[0],)
    assert table.agents_at(("192.0.2.3", 9_999 - MAX_ADDRESSES)) == ()
    assert many[0] not in table.agents_at(HERE)
    for agent in many:
        table.remove_agent(agent)
    assert table.agents_at(HERE) == table.agents_at(("192.0.2.3", 9_999)) == ()


def test_who_listens_hears_initiations_from_where_nobody_is_proven(table: Demultiplexer) -> None:
    listener, proven, expecting = agents(table, 3)
    table.listen(listener)
    table.know(THERE, proven, proven=True)
    table.know(HERE, expecting, proven=False)
    assert table.agents_for(INITIATION, ("192.0.2.3", 3)) == (listener,)
    assert table.agents_for(INITIATION, HERE) == (listener, expecting), "whoever tells candidates keeps nobody out"
    assert table.agents_for(INITIATION, THERE) == (proven,)
    assert table.agents_for(to_index(4, 5), ("192.0.2.3", 3)) == ()
    table.remove_agent(listener)
    assert table.agents_for(INITIATION, ("192.0.2.3", 3)) == ()


def test_a_listener_is_not_crowded_out(table: Demultiplexer) -> None:
    listener, *others = agents(table, MAX_OFFERS + 5)
    table.listen(listener)
    for one in others:
        table.know(HERE, one, proven=False)
    offered = table.agents_for(INITIATION, HERE)
    assert len(offered) == MAX_OFFERS
    assert offered[0] is listener
