"""Messages with candidates are merged without bringing back what was withdrawn."""

from exeunt.actors.portal.candidates import merged
from exeunt.actors.portal.messages import MAX_CANDIDATES, IceCandidates


def candidates(*lines: str, generation: int = 0, withdrawn: tuple[str, ...] = (), end: bool = False) -> IceCandidates:
    return IceCandidates(connection="c", candidates=lines, generation=generation, withdrawn=withdrawn, end=end)


def test_one_generation_is_one_union_in_order() -> None:
    assert merged(None, candidates("a")) == candidates("a")
    assert merged(candidates("a", "b", end=True), candidates("b", "c")) == candidates("a", "b", "c", end=True)


def test_a_newer_generation_replaces_an_older_one_whichever_comes_first() -> None:
    old, new = candidates("a", end=True), candidates("b", generation=1)
    assert merged(old, new) == new
    assert merged(new, old) == new


def test_the_last_word_on_a_candidate_counts() -> None:
    gone = candidates("b", withdrawn=("a",))
    assert merged(candidates("a"), gone) == gone
    assert merged(gone, candidates("a")) == candidates("b", "a")


def test_the_union_is_bounded() -> None:
    lines = tuple(str(number) for number in range(MAX_CANDIDATES))
    assert len(merged(candidates(*lines), candidates("x", withdrawn=("y",))).candidates) == MAX_CANDIDATES
    assert len(merged(candidates(withdrawn=lines), candidates(withdrawn=("x",))).withdrawn) == MAX_CANDIDATES
