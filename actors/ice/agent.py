"""The interface to finding a path: what the rest of the tunnel knows of ICE.

Two hosts behind NATs each collect addresses at which they might be reached (*candidates*: own addresses, addresses
seen by a STUN server, addresses lent by a TURN relay), tell them to each other through the portal, try every pair,
and agree on one (RFC 8445). The answer is a `Path`. It may change later, when a better pair starts to work or the
chosen one falls silent, and it may be lost.

ICE finds paths; it does not decide alone who is alive. The layer above calls `note_alive` for every packet that it
authenticated, and the path counts as lost only when neither such a packet nor an answer to a consent check
(RFC 7675) arrived for `lost_after_s`.

Errors, by whose fault they are:

    NeverConnected          the world's: no pair worked in time. Its `reason` says what was missing
    ValueError              ours: a configuration that RFC 8839 forbids
    (nothing)               the peer's: malformed candidates and datagrams are counted in `counters` and dropped
"""

import re
import secrets
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

Address = tuple[str, int]
"""An IP address in its canonical text form, and a port."""

CandidateType = Literal["host", "srflx", "prflx", "relay"]
Role = Literal["controlling", "controlled"]
NeverReason = Literal["timed_out", "checks_failed", "no_local_candidates", "no_remote_candidates", "closed"]
RelayLoss = Literal["relay_lost", "relay_silent"]
"""A relay refused us or ended our allocation; or it only does not answer, as when our own line was cut."""
LostReason = Literal["no_answer"] | RelayLoss

UFRAG_LENGTH = 8
"""RFC 8839 section 5.4 asks for 4; a gateway that demultiplexes thousands of sessions by it wants no collisions."""
PASSWORD_LENGTH = 24
"""RFC 8839 section 5.4: at least 22 characters, that is 128 bits."""

_ICE_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_USERNAME = re.compile(r"[a-zA-Z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[a-zA-Z0-9+/]{22,256}")


class Path(msgspec.Struct, frozen=True):
    """A pair of candidates that both sides agreed on.

    `local` is the address that we send from (for a relayed candidate: the relay's), `remote` the one that we send to.
    `rtt_ms` is the round trip of the check that proved the pair.
    """

    kind: Literal["direct", "relay"]
    local_type: CandidateType
    remote_type: CandidateType
    local: Address
    remote: Address
    rtt_ms: float


class Route(msgspec.Struct, frozen=True):
    """How somebody who holds a duplicate of its descriptor could send a datagram on the path in use.

    Write `frame(datagram)` to the channel: to `destination` and from the local address `source` (IP_PKTINFO), or, where
    these are None, as it is: the descriptor is connected.
    """

    channel: str
    """"udp4", "udp6" or the name of a relay's connection: what `channel_descriptor` is asked for."""
    destination: Address | None
    source: str | None
    prefix: bytes
    """Of a relay: the channel number that each datagram begins with, before its length (RFC 8656 section 12.4)."""
    kind: Literal["direct", "relay"]
    padded: bool = False
    """Over TCP, ChannelData is padded to four bytes (RFC 8656 section 12.5)."""

    def frame(self, datagram: bytes) -> bytes:
        """Return the bytes to write for one datagram."""
        if not self.prefix:
            return datagram
        padding = bytes(-len(datagram) % 4) if self.padded else b""
        return self.prefix + len(datagram).to_bytes(2, "big") + datagram + padding


class Lost(msgspec.Struct, frozen=True):
    """Consent to send expired (RFC 7675 section 5.1): why, and how long ago the peer was last heard."""

    reason: LostReason
    last_seen_s_ago: float


class NeverConnected(Exception):
    """No pair was agreed on. `reason` is a word for programs, `detail` a sentence for people (no addresses in it)."""

    def __init__(self, reason: NeverReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: NeverReason = reason
        self.detail = detail


class IceServer(msgspec.Struct, frozen=True):
    """A STUN or TURN server. `transport` and the credentials matter only to TURN (RFC 8656)."""

    kind: Literal["stun", "turn"]
    host: str
    port: int = 3478
    transport: Literal["udp", "tcp", "tls"] = "udp"
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"IceServer({self.kind}, {self.transport})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The short-term credentials of one ICE session, ours and the peer's (RFC 8445 section 5.3)."""

    local_username: str
    local_password: str = field(repr=False)
    remote_username: str
    remote_password: str = field(repr=False)

    def __post_init__(self) -> None:
        for username in (self.local_username, self.remote_username):
            if not _USERNAME.fullmatch(username):
                raise ValueError("an ICE username fragment has 4 to 256 ice-chars (RFC 8839 section 5.4)")
        for password in (self.local_password, self.remote_password):
            if not _PASSWORD.fullmatch(password):
                raise ValueError("an ICE password has 22 to 256 ice-chars (RFC 8839 section 5.4)")


def new_username_and_password() -> tuple[str, str]:
    """Draw one side's credentials from the operating system; both sides tell theirs by signalling."""

    def draw(length: int) -> str:
        return "".join(secrets.choice(_ICE_CHARACTERS) for _ in range(length))

    return draw(UFRAG_LENGTH), draw(PASSWORD_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class IceConfig:
    """What one agent needs to know beforehand. The credentials were exchanged by signalling."""

    role: Role
    local_username: str
    local_password: str = field(repr=False)
    remote_username: str
    remote_password: str = field(repr=False)
    servers: tuple[IceServer, ...] = ()
    lost_after_s: float = 15.0
    """RFC 7675 allows 30 s; 15 s is what people wait before they ask what is wrong."""
    consent_interval_s: float = 2.8
    """How long the controlling side leaves an idle path alone at most; drawn from 0.8 to 1 times this, so that peers
    do not beat in step (RFC 7675 section 5.1)."""
    gather_cap_s: float = 2.0
    """`gather` returns by then; a server that answers later still adds its candidate."""
    allow_relay: bool = True
    relay_only: bool = False
    host_filter: Callable[[str], bool] | None = None
    """Answers whether a local address may be offered. None: all but loopback and link-local. It is how the tunnel's
    own addresses stay out: a tunnel through itself would be found, and be the best path by priority."""

    resume: bytes | None = field(default=None, repr=False)
    """A predecessor's `snapshot`: the agent begins connected, and with its credentials, role and generation instead of
    these. `connect` returns its path at once."""

    def __post_init__(self) -> None:
        _ = self.credentials
        if self.relay_only and not self.allow_relay:
            raise ValueError("relay_only needs allow_relay")
        if self.consent_interval_s * 2 > self.lost_after_s:
            raise ValueError("lost_after_s must leave room for at least two consent checks")

    @property
    def credentials(self) -> Credentials:
        """The four credential fields as one value; raises ValueError if they are not well-formed."""
        return Credentials(
            local_username=self.local_username,
            local_password=self.local_password,
            remote_username=self.remote_username,
            remote_password=self.remote_password,
        )


def ignore(*_: object) -> None:
    """What is called where nobody listens, or nobody any more."""


def one_by_one(take: Callable[[bytes], object]) -> Callable[[memoryview, "array[int]", int], None]:
    """Return an `on_datagrams` for who wants each datagram by itself."""

    def take_all(buffer: memoryview, spans: "array[int]", _ecn: int) -> None:
        places = iter(spans)
        for at, length in zip(places, places, strict=True):
            take(bytes(buffer[at : at + length]))

    return take_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What an agent calls, on the event loop that it runs on. None of them may block or raise."""

    on_candidate: Callable[[str, int], object]
    """One SDP candidate line as it is found, and the generation of the session that it belongs to (0: the first, then
    what `restart` was given); once in each generation, after the last: the empty string (end of candidates)."""
    on_datagrams: Callable[[memoryview, "array[int]", int], object]
    """Datagrams that are not STUN, of one burst and one source, unauthenticated: a buffer, their places in it in order
    of arrival ('I': offset, length, offset, length…), and the ECN field (RFC 3168) of their outer headers. The buffer
    is overwritten after the call, and may be during it. No queue lies between. See `one_by_one`."""
    on_path: Callable[[Path], object]
    """The path was first agreed on, or changed, and the route with it."""
    on_lost: Callable[[Lost], object]
    """The path is lost, once; from then on `send` drops. `restart` may still find another."""
    on_withdrawn: Callable[[str, int], object] = ignore
    """A candidate that was told before does not work any more, since its relay is gone: the line and its
    generation."""
    on_broken: Callable[[RelayLoss], object] = ignore
    """The relay that carried the path is given up, for this reason, and no other pair has worked since, though all are
    checked. `on_path` if one does after all; a `restart` may find what is not known yet."""


class PathAgent(Protocol):
    """Finds a path to one peer, keeps it, and says when it changes or is lost."""

    @property
    def path(self) -> Path | None:
        """The path in use, or None before the first and after the last."""
        ...

    @property
    def counters(self) -> Counter[str]:
        """What was dropped or went wrong, by kind, since the agent was made.

        `segmentation_refused` says how often the kernel would not send a train at once, and was sent it one by one.
        `path_refused` and `path_unreachable`: ICMP said of the path in use that nobody listens at its other end, or
        that it cannot be reached. Anybody can say so: evidence beside other, no proof.
        """
        ...

    async def gather(self) -> None:
        """Find local candidates, each reported by `on_candidate`; return when done or after `gather_cap_s`."""
        ...

    def add_remote_candidate(self, candidate: str | None, generation: int = 0) -> None:
        """Take one SDP candidate line of the peer, before or during `connect`.

        None and "" mean end of candidates. A malformed line is counted and ignored. One of a generation that has not
        begun here waits, in bounds, for its `restart`; one of a past generation is counted and ignored.
        """

    def withdraw_remote_candidate(self, candidate: str, generation: int = 0) -> None:
        """Stop using a candidate that the peer had told; a path that uses it moves to another pair, if one works."""

    async def connect(self, timeout_s: float) -> Path:
        """Check pairs until one is agreed on. Raises NeverConnected."""
        ...

    def send(self, datagram: bytes | memoryview) -> None:
        """Send on the agreed pair, never blocking; drops, counted, if there is none or its buffer is full."""
        ...

    @property
    def channel(self) -> int | None:
        """The channel of a relay whose header (RFC 8656 section 12.4) may stand before each datagram of a train, so
        that it need not be put there; None: the path in use has none. Ask for each train.
        """
        ...

    def send_train(self, train: memoryview, stride: int, total: int, ecn: int = 0) -> int:
        """Send a train on the agreed pair, never blocking, with as few calls as the kernel allows.

        Its datagrams lie in the first `total` bytes, `stride` from one to the next, the last one maybe shorter; each
        with the header of `channel` before it, or none has it. `ecn` is the ECN field of the outer headers. Returns
        how many were handed over; the others are dropped and counted (`send_buffer_full`, `too_big`, `send_failed`).
        """
        ...

    def note_alive(self, at: float | None = None) -> None:
        """Say that an authenticated packet of the peer has just arrived. Cheap enough for every packet.

        Called from within `on_datagrams` it also tells which address the peer sends from now.
        """
        ...

    def note_sent(self, at: float) -> None:
        """Say that data was sent on the path in use at that time, by somebody who knows its `route`."""

    @property
    def last_alive(self) -> float | None:
        """When the peer last gave an authenticated sign of life: an answer, a request, or `note_alive`.

        Seconds of the agent's monotonic clock; None: never.
        """
        ...

    def route(self) -> Route | None:
        """Return how somebody else could send on the path in use; None: there is none, or nobody else can (TLS)."""
        ...

    def channel_descriptor(self, channel: str) -> int | None:
        """Return the descriptor of a route's channel, which stays ours; None: it is gone."""
        ...

    def snapshot(self) -> bytes | None:
        """Return what a successor process needs to go on with the path (`IceConfig.resume`), secrets included.

        It also needs the sockets (`Sockets.descriptors`, `Sockets.adopt`). None: there is no path, or it leads through
        a relay of ours, whose connection is not part of it. A relay of the peer's does not matter.
        """
        ...

    def hint(self, urgent: bool = False) -> None:
        """Say that the network may have changed (ICMP, a route, the portal): the path is checked at once.

        An urgent one is repeated every 100 ms until it is answered, for 2 s. A hint can be forged or wrong, so nothing
        ends by it.
        """

    def set_servers(self, servers: tuple[IceServer, ...]) -> None:
        """Use this list of servers from now on.

        New ones are asked at once. Relays that are not listed any more are withdrawn, the path moves away from them,
        and then they are released. The same relay with other credentials stays as it is.
        """

    async def restart(self, credentials: Credentials, timeout_s: float, generation: int) -> Path:
        """Find a path anew with new credentials (RFC 8445 section 9) while the old one stays in use until then.

        `generation` is larger than all before; candidates of the new session carry it in both directions. Raises
        NeverConnected, and then the old path, if it still lives, stays; and ValueError for a generation that is over.
        """
        ...

    async def close(self, timeout_s: float) -> None:
        """Release relays and sockets; returns within `timeout_s` and leaves no task behind. Idempotent."""
        ...
