"""Requests that may still be answered."""

from exeunt.actors.ice.candidate import Candidate
from exeunt.actors.ice.check_list import Base, Pair
from exeunt.actors.ice.transactions import ANSWER_WINDOW_S, MAX_OUTSTANDING, Transactions

PAIR = Pair(Base(0, Candidate("f", 1, ("192.0.2.1", 1), "host")), Candidate("g", 1, ("192.0.2.2", 2), "host"))


def add(transactions: Transactions, number: int, now: float) -> bytes:
    transaction_id = number.to_bytes(12, "big")
    transactions.add(transaction_id, PAIR, nominates=False, controlling=True, now=now)
    return transaction_id


def test_what_is_too_old_to_be_answered_is_forgotten_when_it_is_said() -> None:
    transactions = Transactions()
    assert transactions.poll_timeout() is None
    first, second = add(transactions, 1, 100.0), add(transactions, 2, 110.0)
    due = transactions.poll_timeout()
    assert due is not None
    assert due[0] > 100.0 + ANSWER_WINDOW_S
    transactions.expire(due[0])
    assert transactions.peek(first) is None
    assert transactions.peek(second) is not None
    later = transactions.poll_timeout()
    assert later is not None
    transactions.expire(later[0])
    assert len(transactions) == 0
    assert transactions.poll_timeout() is None


def test_of_too_many_the_oldest_is_forgotten() -> None:
    transactions = Transactions()
    ids = [add(transactions, number, 100.0) for number in range(MAX_OUTSTANDING + 1)]
    assert transactions.peek(ids[0]) is None
    assert transactions.peek(ids[1]) is not None
    assert len(transactions) == MAX_OUTSTANDING
