"""Last words: what a process wants said in its name when it dies without a chance to speak. Pure.

A worker deposits words with its supervisor while it lives: a datagram, the socket to send it through, and where it
goes. Where nobody else can write to the socket (TLS), or not be sure to be read (a stream that was in the middle of a
message), an actor of the program is told them instead, or as well, and knows another way. A worker may replace or
withdraw them at any time, and withdraws all of them when it ends in an orderly way. If it dies instead, by an
exception, by SIGKILL, by the kernel's want of memory, the supervisor says what is left in its keeping: at once, and
several times, since datagrams get lost. What the words mean is nobody's business here.

    worker                     supervisor
      │  open "3" ⟨descriptor⟩     │      a channel: a duplicate of a socket
      │  put "a" through "3"       │
      │  put "b" through "3"       │
      │  withdraw "a"              │
      ✝                            │  "b" goes out of the same socket, so from the same port
                                   │  … again, REPEATS_AT_S

What arrives from a worker is checked like anything else that arrives: the worker may have gone mad before it died.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from .address import Address
from .inheritance import Part, Taken

REPEATS_AT_S: Final = (0.0, 0.01, 0.025, 0.045, 0.07, 0.1, 0.145, 0.2)
"""When words are said, counted from the death. Of eight datagrams all are lost once in 400,000 times where every fifth
is. The gaps grow: a burst of loss that swallows the first ones is over before the last."""

TELL_S: Final = REPEATS_AT_S[-1]
"""How long an actor has to take note of what it is told."""

MAX_WORDS: Final = 4096
"""What one worker may deposit: some times the connections that one process can carry."""

MAX_BYTES: Final = 1 << 20
"""All payloads of one worker together."""

MAX_PAYLOAD_BYTES: Final = 1472
"""Of one message: what fits into one datagram on Ethernet, over IPv4."""


class Told(msgspec.Struct, frozen=True):
    """What an actor is told (`LastWords`) if the worker dies."""

    to: str
    """Its address, in another worker of the same program."""
    payload: bytes


class Words(msgspec.Struct, frozen=True, kw_only=True, tag="put"):
    """One datagram, to be sent through a channel if its worker dies; or what somebody is told; or both."""

    key: str
    """Later words of that key take their place."""
    channel: str = ""
    """Empty: through none."""
    payload: bytes = b""
    destination: tuple[str, int] | None = None
    """Address and port; None for a connected socket."""
    source: str | None = None
    """The address of ours that it leaves from, where the socket is bound to none (RFC 3542, section 6.2)."""
    told: Told | None = None

    @property
    def size(self) -> int:
        """Of its payloads, in bytes."""
        return len(self.payload) + (0 if self.told is None else len(self.told.payload))


class Withdraw(msgspec.Struct, frozen=True, kw_only=True, tag="withdraw"):
    """The words of this key are not to be said any more."""

    key: str


class WithdrawAll(msgspec.Struct, frozen=True, kw_only=True, tag="withdraw_all"):
    """Nothing is to be said any more: the worker ends in an orderly way."""


class OpenChannel(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """A duplicate of a socket comes with this message."""

    channel: str


class CloseChannel(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """The duplicate is not needed any more."""

    channel: str


Deposit = Words | Withdraw | WithdrawAll | OpenChannel | CloseChannel | Part | Taken
"""What a worker says to its supervisor on this line: also what it hands over to a successor (`inheritance`)."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Deposit)


def encode(deposit: Deposit) -> bytes:
    """Return one message to the supervisor."""
    return _ENCODER.encode(deposit)


def decode(message: bytes) -> Deposit | None:
    """Read one message of a worker; None for one that makes no sense. Never raises."""
    try:
        deposit = _DECODER.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return None
    return None if isinstance(deposit, Words) and not _can_be_said(deposit) else deposit


def _can_be_said(words: Words) -> bool:
    """Say whether its addresses are addresses: a name would have to be looked up, and that takes time."""
    host, port = words.destination or ("::", 1)
    try:
        ipaddress.ip_address(host)
        ipaddress.ip_address(words.source or "::")
        if words.told is not None:
            Address.parse(words.told.to)
    except ValueError:
        return False
    payloads = [words.payload] if words.channel else []
    payloads += [] if words.told is None else [words.told.payload]
    return 0 < port < 1 << 16 and bool(payloads) and all(0 < len(one) <= MAX_PAYLOAD_BYTES for one in payloads)


class Register:
    """What one worker has deposited, within bounds."""

    def __init__(self) -> None:
        self.words: dict[str, Words] = {}
        """By key, the earliest first."""
        self.bytes_total = 0
        """Of their payloads."""
        self.refused_total = 0
        """Words that there was no room for."""

    def put(self, words: Words) -> None:
        """Take words in, in the place of earlier ones of that key; those are gone even if there is no room."""
        self.withdraw(words.key)
        size = self.bytes_total + words.size
        if len(self.words) >= MAX_WORDS or size > MAX_BYTES:
            self.refused_total += 1
        else:
            self.words[words.key] = words
            self.bytes_total = size

    def withdraw(self, key: str) -> None:
        """Forget words; harmless when there are none."""
        before = self.words.pop(key, None)
        if before is not None:
            self.bytes_total -= before.size

    def told(self) -> dict[str, dict[str, bytes]]:
        """Return what actors are to be told: by address, then by key."""
        found: dict[str, dict[str, bytes]] = {}
        for key, words in self.words.items():
            if words.told is not None:
                found.setdefault(words.told.to, {})[key] = words.told.payload
        return found

    def withdraw_all(self) -> None:
        """Forget everything."""
        self.words.clear()
        self.bytes_total = 0


class Recital:
    """When the words of one dead worker are said. All times are seconds of one clock."""

    def __init__(self, died_at: float) -> None:
        self.died_at = died_at
        self.said = 0
        """How often everything has been said."""

    def poll_timeout(self) -> float | None:
        """Return when everything is to be said the next time; None when it has been said often enough."""
        return self.died_at + REPEATS_AT_S[self.said] if self.said < len(REPEATS_AT_S) else None

    def handle_timeout(self, now: float) -> bool:
        """Say whether it is time. A round that is late does not make the next one earlier."""
        due = self.poll_timeout()
        if due is None or now < due:
            return False
        self.said += 1
        return True
