"""STUN Binding requests that are asked again until answered or given up (RFC 8489). Pure.

Unlike the RFC's retransmissions, each repetition is a transaction of its own, so that an answer's round trip is known
exactly; servers remember nothing of Binding requests, to them there is no difference. The pauses are shorter than the
RFC's too: somebody waits for `exeunt check`, and a question that is lost four times tells enough.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from aioice.stun import Class, Method

from exeunt.actors.turn import codec
from exeunt.actors.turn.codec import Address, MalformedError

PAUSES_S: Final = (0.15, 0.25, 0.35, 0.45)
"""After each time that a question is asked. Their sum, 1.2 s, exceeds any round trip that a tunnel is of use for."""
PATIENCE_S: Final = sum(PAUSES_S)
FILLER: Final = 0xFFFF
"""A type that nobody has registered, and that whoever does not know it must ignore (RFC 8489 section 14)."""


class Transmit(msgspec.Struct, frozen=True):
    """A datagram to send."""

    payload: bytes
    destination: Address


class Answer(msgspec.Struct, frozen=True):
    """A server answered."""

    name: str
    """The question's."""
    source: Address
    mapped: Address | None
    """How the server sees us; None where it refused (an error response)."""
    other: Address | None
    """Its other address, if it has one (RFC 5780)."""
    rtt_s: float


@dataclass(slots=True)
class _Question:
    destination: Address
    attributes: list[tuple[int, bytes]]
    next_at: float
    asked: int = 0


class Questions:
    """Questions by name. One that was answered or given up is in `answers` (None: given up), the others are open."""

    def __init__(self, draw: Callable[[int], bytes] = os.urandom) -> None:
        self.answers: dict[str, Answer | None] = {}
        self.malformed = 0
        self._draw = draw
        self._open: dict[str, _Question] = {}
        self._transactions: dict[bytes, tuple[str, float]] = {}
        self._transmits: deque[Transmit] = deque()

    def ask(self, name: str, destination: Address, now: float, *, change: int = 0, length_bytes: int = 0) -> None:
        """Begin to ask.

        Args:
            name: of the question.
            destination: whom.
            now: in seconds, monotonic.
            change: the flags of CHANGE-REQUEST (RFC 5780 section 7.2); 0: without it.
            length_bytes: make the message at least this long, a multiple of 4.
        """
        attributes = [(codec.CHANGE_REQUEST, change.to_bytes(4))] if change else []
        short_of = length_bytes - len(codec.encode(Method.BINDING, Class.REQUEST, bytes(12), attributes))
        if short_of >= 4:
            attributes.append((FILLER, bytes(short_of - 4)))
        self._open[name] = _Question(destination, attributes, now)
        self.handle_timeout(now)

    def is_open(self, *names: str) -> bool:
        """Tell whether any of these is neither answered nor given up."""
        return any(name in self._open for name in names)

    def give_up(self, name: str) -> None:
        """Ask no more, and take no answer any more."""
        if self._open.pop(name, None) is not None:
            self.answers[name] = None

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in; whatever is no answer to a question of ours is dropped."""
        try:
            message = codec.parse(data)
            name, asked_at = self._transactions.get(message.transaction_id, ("", 0.0))
            if name not in self._open or message.method is not Method.BINDING:
                return
            if message.kind is Class.RESPONSE:
                mapped, other = message.addresses(codec.XOR_MAPPED_ADDRESS), message.plain_address(codec.OTHER_ADDRESS)
            elif message.kind is Class.ERROR:
                mapped, other = [], None
            else:
                return
        except MalformedError:
            self.malformed += 1
            return
        del self._open[name]
        self.answers[name] = Answer(name, source, mapped[0] if mapped else None, other, now - asked_at)

    def handle_timeout(self, now: float) -> None:
        """Ask again what is due, and give up what was asked often enough."""
        for name, question in list(self._open.items()):
            if now < question.next_at:
                continue
            if question.asked == len(PAUSES_S):
                self.give_up(name)
                continue
            question.next_at = now + PAUSES_S[question.asked]
            question.asked += 1
            transaction_id = self._draw(12)
            self._transactions[transaction_id] = (name, now)
            payload = codec.encode(Method.BINDING, Class.REQUEST, transaction_id, question.attributes)
            self._transmits.append(Transmit(payload, question.destination))

    def poll_transmit(self) -> Transmit | None:
        """Answer the next datagram to send."""
        return self._transmits.popleft() if self._transmits else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Answer when `handle_timeout` is due, and why."""
        return min(((each.next_at, "a question is asked again") for each in self._open.values()), default=None)
