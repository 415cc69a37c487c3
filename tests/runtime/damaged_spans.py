"""Spans as damaged, partial and clock-stepped as rings can give them."""

from hypothesis import strategies as st

from exeunt.runtime.trace import Span

T0 = 1_800_000_000_123_456_789
ACTORS = ["", "n/w1/a", "n/w1/b", "n/w2/a", "m/w1/a"]


@st.composite
def damaged_spans(draw: st.DrawFn) -> list[Span]:
    made: list[Span] = []
    next_id = 1
    for _ in range(draw(st.integers(0, 12))):
        count = draw(st.sampled_from([1, 1, 1, 5]))
        at = draw(st.lists(st.one_of(st.none(), st.integers(0, 60)), min_size=4, max_size=4))
        if at == [None] * 4:
            at[0] = 0
        if draw(st.booleans()):  # mostly clocks go forwards
            known = iter(sorted(one for one in at if one is not None))
            at = [None if one is None else next(known) for one in at]
        sent, received, started, ended = (None if one is None else T0 + one * 1000 for one in at)
        made.append(
            Span(
                id=next_id,
                cause=draw(st.integers(0, next_id + 5)),
                trace=draw(st.integers(1, next_id)),
                from_=draw(st.sampled_from(ACTORS)),
                to=draw(st.sampled_from(ACTORS[1:])),
                message=draw(st.sampled_from(["Work", "Done", "StartActor"])),
                kind=draw(st.sampled_from(["tell", "ask", "reply", "failure", "system"])),
                worker="w1",
                sent_ns=sent,
                received_ns=received,
                started_ns=started,
                ended_ns=ended,
                outcome=draw(st.sampled_from(["ok", "failed", "refused", "dropped", "cancelled", "pending"])),
                count=count,
            )
        )
        next_id += count
    return sorted(made, key=lambda span: span.first_ns)
