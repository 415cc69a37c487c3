"""What stands between us and the world, found out by asking (RFC 5780 section 4). Pure.

`Discovery` has one server with two addresses answer from, and be asked at, all four corners:

    asking ─► filtering ─► mapping ─► done
       └────────────────────────────────┘   the server is silent, or has no other address

Filtering is tested first. The tests of mapping send to the other addresses, which opens the very filter that is to be
measured. For the same reason each discovery has a socket of its own.

`Comparison` is for servers with one address: two of them tell whether the mapping depends on whom one talks to.

Both speak through `Questions`; after each input drain `questions.poll_transmit`, then ask `questions.poll_timeout`.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

import msgspec

from exeunt.actors.turn.codec import Address, family_of
from exeunt.actors.turn.discovery import CHANGE_HOST, CHANGE_PORT

from .questions import Answer, Questions


class Dependence(StrEnum):
    """What a mapping, or a filter, depends on (RFC 4787 sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint_independent"
    """On nothing: one mapping for everybody; everybody may answer to it."""
    ADDRESS_DEPENDENT = "address_dependent"
    """On the other end's address."""
    ADDRESS_AND_PORT_DEPENDENT = "address_and_port_dependent"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out. None: not."""

    server: Address
    local: Address
    """Where we sent from, as this host sees it."""
    mapped: Address | None = None
    """Where we sent from, as the server sees it; None: the server did not answer."""
    rtt_s: float | None = None
    mapping: Dependence | None = None
    filtering: Dependence | None = None

    @property
    def is_translated(self) -> bool | None:
        """Whether there is a NAT: the server sees another address than this host does."""
        return None if self.mapped is None else self.mapped != self.local


class Phase(StrEnum):
    """Where a discovery stands."""

    ASKING = "asking"
    FILTERING = "filtering"
    MAPPING = "mapping"
    DONE = "done"


TRANSITIONS: Final[Mapping[Phase, Mapping[str, Phase]]] = MappingProxyType(
    {
        Phase.ASKING: {"other address told": Phase.FILTERING, "silence, or no other address": Phase.DONE},
        Phase.FILTERING: {"answered or given up": Phase.MAPPING},
        Phase.MAPPING: {"answered or given up": Phase.DONE},
        Phase.DONE: {},
    }
)

# The questions, by RFC 5780's numbers: sections 4.3 (mapping) and 4.4 (filtering).
_FIRST: Final = "test I"
_FROM_OTHER, _FROM_OTHER_PORT = "filtering test II", "filtering test III"
_TO_OTHER_HOST, _TO_OTHER = "mapping test II", "mapping test III"


class Discovery:
    """Finds out what one server can tell."""

    def __init__(self, server: Address, local: Address, questions: Questions | None = None) -> None:
        self.questions = questions or Questions()
        self.phase = Phase.ASKING
        self._server = server
        self._local = local
        self._other = server

    @property
    def is_done(self) -> bool:
        """Whether `behaviour` says all that there is."""
        return self.phase is Phase.DONE

    def handle_start(self, now: float) -> None:
        """Begin."""
        self.questions.ask(_FIRST, self._server, now)

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in."""
        self.questions.handle_datagram(data, source, now)
        self._advance(now)

    def handle_timeout(self, now: float) -> None:
        """Go on without what has not come."""
        self.questions.handle_timeout(now)
        self._advance(now)

    @property
    def behaviour(self) -> Behaviour:
        """What was found out so far."""
        first = self._answer(_FIRST, self._server)
        if first is None:
            return Behaviour(server=self._server, local=self._local)
        return Behaviour(
            server=self._server,
            local=self._local,
            mapped=first.mapped,
            rtt_s=first.rtt_s,
            mapping=self._mapping(first),
            filtering=self._filtering(),
        )

    def _advance(self, now: float) -> None:
        questions = self.questions
        if self.phase is Phase.ASKING and not questions.is_open(_FIRST):
            first = self._answer(_FIRST, self._server)
            if first is None or not _is_usable(first.other, self._server):
                self._move("silence, or no other address")
                return
            assert first.other is not None
            self._other = first.other
            self._move("other address told")
            questions.ask(_FROM_OTHER, self._server, now, change=CHANGE_HOST | CHANGE_PORT)
            questions.ask(_FROM_OTHER_PORT, self._server, now, change=CHANGE_PORT)
        if self.phase is Phase.FILTERING:
            if questions.answers.get(_FROM_OTHER):
                questions.give_up(_FROM_OTHER_PORT)  # who lets a stranger in lets in a known host's other port
            if not questions.is_open(_FROM_OTHER, _FROM_OTHER_PORT):
                self._move("answered or given up")
                questions.ask(_TO_OTHER_HOST, (self._other[0], self._server[1]), now)
                questions.ask(_TO_OTHER, self._other, now)
        if self.phase is Phase.MAPPING and not questions.is_open(_TO_OTHER_HOST, _TO_OTHER):
            self._move("answered or given up")

    def _move(self, event: str) -> None:
        self.phase = TRANSITIONS[self.phase][event]

    def _mapping(self, first: Answer) -> Dependence | None:
        to_host = self._answer(_TO_OTHER_HOST, (self._other[0], self._server[1]))
        to_other = self._answer(_TO_OTHER, self._other)
        if to_host is None:
            return None
        if to_host.mapped == first.mapped:
            return Dependence.ENDPOINT_INDEPENDENT
        if to_other is None:
            return None
        if to_host.mapped == to_other.mapped:
            return Dependence.ADDRESS_DEPENDENT
        return Dependence.ADDRESS_AND_PORT_DEPENDENT

    def _filtering(self) -> Dependence | None:
        expected = {_FROM_OTHER: self._other, _FROM_OTHER_PORT: (self._server[0], self._other[1])}
        answers = {name: self.questions.answers.get(name) for name in expected}
        if any(answer is not None and not _came_from(expected[name], answer) for name, answer in answers.items()):
            return None  # the server did not do as it was asked
        if answers[_FROM_OTHER]:
            return Dependence.ENDPOINT_INDEPENDENT
        if self._answer(_TO_OTHER, self._other) is None:
            return None  # its silence tells nothing: the other address may be dead
        if answers[_FROM_OTHER_PORT]:
            return Dependence.ADDRESS_DEPENDENT
        return Dependence.ADDRESS_AND_PORT_DEPENDENT

    def _answer(self, name: str, source: Address) -> Answer | None:
        """Answer a useful answer to a question, from whom it was asked for."""
        answer = self.questions.answers.get(name)
        return answer if answer is not None and _came_from(source, answer) else None


class Comparison:
    """Asks several servers from one socket, and compares as what they see us."""

    def __init__(self, servers: Iterable[Address], local: Address, questions: Questions | None = None) -> None:
        self.questions = questions or Questions()
        self._servers = {f"server {number}": server for number, server in enumerate(servers)}
        self._local = local

    @property
    def is_done(self) -> bool:
        """Whether everybody has answered, or was given up."""
        return not self.questions.is_open(*self._servers)

    def handle_start(self, now: float) -> None:
        """Begin."""
        for name, server in self._servers.items():
            self.questions.ask(name, server, now)

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in."""
        self.questions.handle_datagram(data, source, now)

    def handle_timeout(self, now: float) -> None:
        """Go on without what has not come."""
        self.questions.handle_timeout(now)

    @property
    def mapping(self) -> Dependence | None:
        """Whether the mapping depends on whom we talk to; None unless two hosts have answered."""
        seen: dict[str, Address] = {}
        for name, server in self._servers.items():
            answer = self.questions.answers.get(name)
            if answer is not None and answer.mapped is not None and _came_from(server, answer):
                seen[server[0]] = answer.mapped
        if len(seen) < 2:
            return None
        # Two servers don't tell "on the address" from "on address and port"; for a tunnel both are the same.
        return Dependence.ENDPOINT_INDEPENDENT if len(set(seen.values())) == 1 else Dependence.ADDRESS_DEPENDENT


def _came_from(source: Address, answer: Answer) -> bool:
    return answer.source == source and answer.mapped is not None


def _is_usable(other: Address | None, server: Address) -> bool:
    """Tell whether an address that a server named may be asked: a stranger's word should not send us anywhere."""
    if other is None or other[1] in (0, server[1]) or other[0] == server[0]:
        return False
    address = ip_address(other[0])
    return (
        family_of(other[0]) == family_of(server[0])
        and not (address.is_multicast or address.is_unspecified or address.is_reserved)
        and address.is_loopback == ip_address(server[0]).is_loopback
    )
