"""The pairs of a session and what is known of each (RFC 8445 section 6.1.2).

A pair is a base of ours (a socket, or a relay's allocation) and a candidate of the peer. Reflexive candidates of ours
are not paired: a check from them is a check from their base (RFC 8445 section 6.1.2.4). There is one component and one
stream, so the Frozen state has no use here and is left out.

The list is bounded: an authenticated peer can add candidates and make up source addresses, so both are capped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from .agent import Address, CandidateType, Path
from .candidate import Candidate, can_pair, foundation, pair_priority

MAX_PAIRS = 100
"""RFC 8445 section 6.1.2.5."""
MAX_REMOTE_CANDIDATES = 64
CHECK_INTERVALS_S = (0.15, 0.3, 0.6, 1.0, 1.0, 1.0, 1.5)
"""Pauses after the first, second, … transmission of a check; a check has failed 5.55 s after its first one.

RFC 8445 section 14.3 asks for at least 500 ms; with fewer than a dozen pairs and 20 ms between first checks, 150 ms
keep the rate within its bounds. An answer that arrives after the end still counts.
"""
NOMINATION_INTERVALS_S = (0.15, *(0.3,) * 14)
"""The same for a nomination: the pair works, so what is not answered was lost, and traffic waits for it."""
MAX_TRIGGERED_SENDS = 5
"""How often the peer's checks may advance one of ours, so that two agents cannot drive each other in a loop."""


class PairState(Enum):
    """RFC 8445 section 6.1.2.6, without Frozen."""

    WAITING = "waiting"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


PAIR_TRANSITIONS: dict[PairState, dict[str, PairState]] = {
    PairState.WAITING: {"sent": PairState.IN_PROGRESS, "answered": PairState.SUCCEEDED},
    PairState.IN_PROGRESS: {
        "sent": PairState.IN_PROGRESS,
        "answered": PairState.SUCCEEDED,
        "unanswered": PairState.FAILED,
        "refused": PairState.FAILED,
        "doubted": PairState.WAITING,
    },
    PairState.SUCCEEDED: {
        "sent": PairState.SUCCEEDED,  # a nomination
        "answered": PairState.SUCCEEDED,
        "unanswered": PairState.FAILED,
        "refused": PairState.FAILED,
        "doubted": PairState.WAITING,
    },
    PairState.FAILED: {"answered": PairState.SUCCEEDED, "doubted": PairState.WAITING},
}
"""What happens to a pair. "doubted": a triggered check, or a look at everything again after a silence."""


class Base(msgspec.Struct, frozen=True):
    """An address that checks are sent from, with the host or relayed candidate that it is."""

    id: int
    candidate: Candidate


@dataclass(slots=True)
class Check:
    """A request under way, retransmitted unchanged until answered or given up."""

    transaction_id: bytes
    payload: bytes
    nominates: bool
    next_at: float
    sends: int = 0
    triggered_sends: int = 0


@dataclass(slots=True, eq=False)
class Pair:
    """One pair, and the outcome of its checks so far."""

    base: Base
    remote: Candidate
    state: PairState = PairState.WAITING
    check: Check | None = None
    local_type: CandidateType = "host"
    rtt_ms: float = 0.0
    valid_since: float | None = None
    remote_nominated: bool = False
    """The controlling side sent USE-CANDIDATE on it; it is selected as soon as our own check succeeds."""
    is_leaving: bool = False
    """One of its ends was taken back, or will be: it still carries what it carries, and is not chosen any more."""

    @property
    def relay_legs(self) -> int:
        """How many relays a packet passes: 0, 1 or 2."""
        return (self.base.candidate.type == "relay") + (self.remote.type == "relay")

    @property
    def path(self) -> Path:
        """What the layer above is told of this pair."""
        return Path(
            kind="relay" if self.relay_legs else "direct",
            local_type=self.local_type,
            remote_type=self.remote.type,
            local=self.base.candidate.address,
            remote=self.remote.address,
            rtt_ms=self.rtt_ms,
        )

    def advance(self, happening: str, now: float | None = None) -> None:
        """Follow the table; a happening that it does not name in this state changes nothing."""
        self.state = PAIR_TRANSITIONS[self.state].get(happening, self.state)
        if self.state is not PairState.SUCCEEDED:
            self.valid_since = None
        elif self.valid_since is None:
            self.valid_since = now

    def priority(self, *, controlling: bool) -> int:
        """Return the pair's priority, equal on both sides."""
        ours, theirs = self.base.candidate.priority, self.remote.priority
        return pair_priority(ours, theirs) if controlling else pair_priority(theirs, ours)


@dataclass(slots=True)
class CheckList:
    """All bases, remote candidates and pairs of one session."""

    pairs: dict[tuple[int, Address], Pair] = field(default_factory=dict[tuple[int, Address], Pair])
    bases: dict[int, Base] = field(default_factory=dict[int, Base])
    remotes: dict[Address, Candidate] = field(default_factory=dict[Address, Candidate])
    reflexive: tuple[Address, ...] = ()
    """Our own addresses as STUN servers saw them."""

    def add_base(self, base: Base) -> None:
        """Pair a new base of ours with what the peer has told so far."""
        self.bases[base.id] = base
        for remote in self.remotes.values():
            self._pair(base, remote)

    def remove_base(self, base_id: int) -> None:
        """Forget a base and its pairs."""
        self.bases.pop(base_id, None)
        for key in [key for key in self.pairs if key[0] == base_id]:
            del self.pairs[key]

    def remove_remote(self, address: Address, *, keep: "Pair | None") -> None:
        """Forget a candidate that the peer took back, and its pairs; the one to keep is marked as leaving."""
        self.remotes.pop(address, None)
        for key in [key for key in self.pairs if key[1] == address]:
            self.pairs[key].is_leaving = True
            if self.pairs[key] is not keep:
                del self.pairs[key]

    def leave_base(self, base_id: int) -> None:
        """Choose no pair of this base any more: it will go soon."""
        for pair in self.pairs.values():
            if pair.base.id == base_id:
                pair.is_leaving = True

    def add_remote(self, remote: Candidate) -> bool:
        """Pair a candidate that the peer told; False if there are too many.

        One that a check has already revealed as peer-reflexive takes its told type (RFC 8838 section 11).
        """
        known = self.remotes.get(remote.address)
        if known is None and len(self.remotes) >= MAX_REMOTE_CANDIDATES:
            return False
        if known is None or known.type == "prflx":
            self.remotes[remote.address] = remote
            for pair in self.pairs.values():
                if pair.remote.address == remote.address:
                    pair.remote = remote
            for base in self.bases.values():
                self._pair(base, remote)
        return True

    def learn(self, base_id: int, source: Address, priority: int) -> Pair | None:
        """Return the pair that an authenticated check came in on, made if need be (RFC 8445 section 7.3.1.3, .4)."""
        base = self.bases.get(base_id)
        if base is None:
            return None
        remote = self.remotes.get(source)
        if remote is None:
            if len(self.remotes) >= MAX_REMOTE_CANDIDATES and not self._forget_a_reflexive_remote():
                return None
            remote = Candidate(foundation("prflx", source[0]), priority, source, "prflx")
            self.remotes[source] = remote
        self._pair(base, remote, even_if_unlikely=True)
        return self.pairs.get((base_id, source))

    def in_order(self, *, controlling: bool) -> Iterator[Pair]:
        """Iterate over the pairs, the highest priority first."""
        return iter(sorted(self.pairs.values(), key=lambda pair: -pair.priority(controlling=controlling)))

    def local_type(self, base: Base, mapped: Address) -> CandidateType:
        """Which candidate of ours a check proved, by the address that the peer saw (RFC 8445 section 7.2.5.3.1)."""
        if mapped == base.candidate.address:
            return base.candidate.type
        if base.candidate.type == "relay":
            return "relay"
        return "srflx" if mapped in self.reflexive else "prflx"

    def _pair(self, base: Base, remote: Candidate, *, even_if_unlikely: bool = False) -> None:
        key = (base.id, remote.address)
        if key in self.pairs or not (even_if_unlikely or can_pair(base.candidate, remote)):
            return
        if len(self.pairs) >= MAX_PAIRS:
            failed = next((k for k, pair in self.pairs.items() if pair.state is PairState.FAILED), None)
            if failed is None:
                return
            del self.pairs[failed]
        self.pairs[key] = Pair(base, remote, local_type=base.candidate.type)

    def _forget_a_reflexive_remote(self) -> bool:
        """Make room for a rebound NAT mapping: drop the oldest learned address none of whose pairs works."""
        working = {p.remote.address for p in self.pairs.values() if p.state is not PairState.FAILED}
        for address, remote in self.remotes.items():
            if remote.type == "prflx" and address not in working:
                del self.remotes[address]
                for key in [key for key in self.pairs if key[1] == address]:
                    del self.pairs[key]
                return True
        return False
