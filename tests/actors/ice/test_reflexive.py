"""Questions to STUN servers that are not answered in time."""

from aioice import stun

from exeunt.actors.ice import binding
from exeunt.actors.ice.reflexive import (
    PROMPT_QUERIES,
    QUERY_INTERVALS_S,
    ReflexiveFound,
    ReflexiveMissed,
    ReflexiveQueries,
)

SERVER, MAPPED = ("192.0.2.1", 3478), ("203.0.113.7", 7000)
BEGAN_AT = 100.0


def advance(queries: ReflexiveQueries, until: float) -> list[float]:
    """Let time pass; return when something was sent."""
    sent: list[float] = []
    while (timeout := queries.poll_timeout()) is not None and timeout[0] <= until:
        queries.handle_timeout(timeout[0])
        while queries.poll_transmit() is not None:
            sent.append(timeout[0])
    return sent


def asked() -> tuple[ReflexiveQueries, bytes]:
    queries = ReflexiveQueries()
    queries.handle_query(0, SERVER, BEGAN_AT)
    transmit = queries.poll_transmit()
    assert transmit is not None
    return queries, transmit.payload


def answer_to(request: bytes) -> bytes:
    message = binding.read(request)
    assert message is not None
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
    answer.attributes["XOR-MAPPED-ADDRESS"] = MAPPED
    return bytes(answer)


def test_a_late_answer_is_not_waited_for_and_still_taken() -> None:
    queries, request = asked()
    late_at = BEGAN_AT + sum(QUERY_INTERVALS_S[:PROMPT_QUERIES])
    advance(queries, late_at - 0.01)
    assert (len(queries), queries.poll_event()) == (1, None)
    advance(queries, late_at)
    assert len(queries) == 0
    assert queries.poll_event() == ReflexiveMissed(0, SERVER)
    advance(queries, late_at + 3.0)
    assert queries.handle_response(0, answer_to(request), SERVER, late_at + 3.0)
    assert queries.poll_event() == ReflexiveFound(0, SERVER, MAPPED, (late_at + 3.0 - BEGAN_AT) * 1000)
    assert queries.poll_timeout() is None


def test_a_server_that_never_answers_is_given_up_and_missed_once() -> None:
    queries, request = asked()
    sent = advance(queries, BEGAN_AT + 1000.0)
    assert len(sent) == len(QUERY_INTERVALS_S) - 1
    assert sent[-1] - BEGAN_AT < 30.0
    assert queries.poll_event() == ReflexiveMissed(0, SERVER)
    assert queries.poll_event() is None
    assert queries.poll_timeout() is None
    assert not queries.handle_response(0, answer_to(request), SERVER, BEGAN_AT + 1000.0)
