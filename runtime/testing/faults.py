"""What a network may do to messages between workers: lose them, hold them up, bring them twice, part two workers.

Faults are deterministic: each is for messages that one can name, for so many times. Whatever is sent is matched
with the faults in the order in which they were made; the first that matches decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..codec import Codec
from ..envelope import Envelope, Message
from ..messages import MESSAGES

_AS_USUAL = (0.0,)


class Fault:
    """One fault. `hits` counts what it met; `lift` ends it."""

    def __init__(
        self, copies: Sequence[float], kind: type[Message] | None, *, to: str, sender: str, times: int | None
    ) -> None:
        self.copies = tuple(copies)
        """After how many seconds each copy arrives; empty: none does."""
        self.hits = 0
        self._kind = kind
        self._to = to
        self._sender = sender
        self._left = times

    def lift(self) -> None:
        """From now on it meets nothing."""
        self._left = 0

    def meets(self, envelope: Envelope) -> bool:
        """Say whether it is for this envelope, and count it."""
        if self._left == 0 or (self._kind is not None and not isinstance(envelope.body, self._kind)):
            return False
        if not (_within(envelope.to, self._to) and _within(envelope.sender, self._sender)):
            return False
        if self._left is not None:
            self._left -= 1
        self.hits += 1
        return True


class Faults:
    """The faults of one memory network: give `route` to it (`MemoryNetwork.route`).

    In each fault, `kind` is a type of message (None: any, answers and the runtime's own among them), `to` and
    `sender` are an address or the beginning of one (`n/w1`), and `times` is how many it meets (None: all).
    """

    def __init__(self, messages: Sequence[type[Message]] = ()) -> None:
        """`messages`: the types that cross, beside the runtime's own."""
        self.codec = Codec([*MESSAGES, *messages])
        self._faults: list[Fault] = []

    def drop(
        self, kind: type[Message] | None = None, *, to: str = "", sender: str = "", times: int | None = None
    ) -> Fault:
        """Lose them."""
        return self._add(Fault((), kind, to=to, sender=sender, times=times))

    def delay(
        self,
        kind: type[Message] | None = None,
        *,
        by_s: float,
        to: str = "",
        sender: str = "",
        times: int | None = None,
    ) -> Fault:
        """Have them arrive `by_s` seconds later, and what is sent behind them on the same way not before them."""
        return self._add(Fault((by_s,), kind, to=to, sender=sender, times=times))

    def duplicate(
        self, kind: type[Message] | None = None, *, to: str = "", sender: str = "", times: int | None = None
    ) -> Fault:
        """Have them arrive twice, which no transport of ours does: delivery is at most once."""
        return self._add(Fault((0.0, 0.0), kind, to=to, sender=sender, times=times))

    def part(self, one: str, other: str) -> tuple[Fault, Fault]:
        """Lose all that two workers (`n/w1`, `n/w2`) send each other, until both faults are lifted."""
        return self.drop(to=one, sender=other), self.drop(to=other, sender=one)

    def lift_all(self) -> None:
        """End every fault."""
        for fault in self._faults:
            fault.lift()
        self._faults.clear()

    def route(self, _sender: str, _recipient: str, envelope: Envelope) -> Sequence[float]:
        """Say after how many seconds each copy of this envelope arrives."""
        for fault in self._faults:
            if fault.meets(envelope):
                return fault.copies
        return _AS_USUAL

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault


def _within(address: str, prefix: str) -> bool:
    return not prefix or address == prefix or address.startswith(prefix.rstrip("/") + "/")
