"""Documents cut into parts and put together again, with their descriptors, within bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.runtime import inheritance
from exeunt.runtime.inheritance import MAX_PARTS, PART_BYTES, Assembly, Part, parts
from exeunt.runtime.last_words import decode, encode
from exeunt.runtime.line import MAX_MESSAGE_BYTES


@given(st.integers(0, 4 * PART_BYTES), st.lists(st.integers(3, 9), max_size=3))
def test_what_is_cut_is_put_together(size: int, descriptors: list[int]) -> None:
    document = bytes(index % 251 for index in range(min(size, 512))) + bytes(max(0, size - 512))
    assembly = Assembly()
    for part in parts("a", document):
        assert decode(encode(part)) == part
        assert len(encode(part)) <= MAX_MESSAGE_BYTES
        assert "a" not in assembly.bequests
        assert assembly.add(part, list(descriptors) if part.number == 0 else [])
    bequest = assembly.take("a")
    assert bequest is not None
    assert (bequest.document, bequest.descriptors) == (document, descriptors)
    assert assembly.take("a") is None


def test_a_document_has_a_limit() -> None:
    with pytest.raises(ValueError, match="at most"):
        list(parts("a", bytes(MAX_PARTS * PART_BYTES + 1)))


def test_documents_may_come_side_by_side() -> None:
    one, other = list(parts("a", bytes(PART_BYTES + 1))), list(parts("b", bytes(PART_BYTES + 2)))
    assembly = Assembly()
    assert all(assembly.add(part, []) for part in (one[0], other[0], one[1], other[1]))
    assert {key: len(bequest.document) for key, bequest in assembly.bequests.items()} == {
        "a": PART_BYTES + 1,
        "b": PART_BYTES + 2,
    }


FIRST = Part(key="a", number=0, count=2, document=b"1")


@pytest.mark.parametrize(
    ("part", "descriptors"),
    [
        (FIRST, []),  # again
        (msgspec.structs.replace(FIRST, number=2), []),
        (msgspec.structs.replace(FIRST, number=-1), []),
        (msgspec.structs.replace(FIRST, number=1, count=3), []),
        (msgspec.structs.replace(FIRST, number=1, count=0), []),
        (msgspec.structs.replace(FIRST, key="b", count=MAX_PARTS + 1), []),
        (msgspec.structs.replace(FIRST, key="b", number=1), []),
        (msgspec.structs.replace(FIRST, key="b", document=bytes(PART_BYTES + 1)), []),
        (msgspec.structs.replace(FIRST, number=1), [7]),  # descriptors come with the first
    ],
)
def test_a_part_that_makes_no_sense_is_refused_and_spoils_nothing(part: Part, descriptors: list[int]) -> None:
    assembly = Assembly()
    assert assembly.add(FIRST, [5])
    assert not assembly.add(part, descriptors)
    assert assembly.add(msgspec.structs.replace(FIRST, number=1, document=b"2"), [])
    assert assembly.bequests["a"].document == b"12"


def test_a_key_is_left_once() -> None:
    assembly = Assembly()
    (whole,) = parts("a", b"1")
    assert assembly.add(whole, [])
    assert not assembly.add(whole, [])


def test_there_is_room_for_so_many_keys_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "MAX_KEYS", 2)
    monkeypatch.setattr(inheritance, "MAX_BYTES", 10)
    assembly = Assembly()
    assert assembly.add(next(parts("a", b"12345")), [])
    assert not assembly.add(next(parts("b", b"123456")), [])
    assert assembly.add(next(parts("b", b"12345")), [])
    assert not assembly.add(next(parts("c", b"")), [])
    assembly.take("a")
    assert assembly.add(next(parts("c", b"12345")), [])


def test_what_nobody_takes_leaves_its_descriptors() -> None:
    assembly = Assembly()
    assembly.add(FIRST, [5])
    assembly.add(next(parts("b", b"")), [6, 7])
    assert sorted(assembly.take_descriptors()) == [5, 6, 7]
    assert assembly.take_descriptors() == []
