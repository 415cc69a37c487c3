"""Staying useful under a flood of handshakes: cookies.

A handshake costs its receiver Diffie-Hellman computations, and its source address can be invented. So when there are
too many, the receiver answers with a cookie, a MAC of the source address under a secret of its own, and goes on only
with messages that prove, by their second MAC, that the cookie arrived. It keeps no state per sender for that. A cookie
reply is smaller than the message it answers, so it amplifies nothing (WireGuard paper, sections 5.3 and 5.4.7).

One checker stands in front of all tunnels of one key pair, before any of them spends effort on the message.
"""

import ipaddress
import os
import struct
from collections.abc import Callable
from typing import Protocol

import msgspec

from .drop import DropReason
from .mac import cookie_key, has_valid_mac1, has_valid_mac2, mac1_key
from .noise import keyed_mac
from .source_limit import SourceLimit
from .timing import COOKIE_SECRET_MAX_AGE_S, HANDSHAKES_PER_SECOND
from .wire import CookieReply, MessageType, classify, encode_cookie_reply, handshake_sender
from .xchacha import NONCE_BYTES, xchacha20_poly1305_seal

_SECRET_BYTES = 32
_LOAD_INTERVAL_S = 1.0


class Admitted(msgspec.Struct, frozen=True):
    """The handshake message may be processed."""


class Refused(msgspec.Struct, frozen=True):
    """The handshake message goes no further; the reply, if there is one, goes back to its source."""

    reason: DropReason
    cookie_reply: bytes | None = None


class Gate(Protocol):
    """What judges handshake messages before they cost anything."""

    def admit(self, datagram: bytes | memoryview, source: bytes, now: float, /) -> Admitted | Refused:
        """Judge an initiation or a response that came from `source` (see `pack_source`)."""
        ...

    def note_authentic(self, now: float, /) -> None:
        """The message that was admitted just now was the peer's, and new: it is no load."""


def pack_source(host: str, port: int) -> bytes:
    """Return a source address as a cookie covers it: 4 or 16 bytes of IP address, then the port.

    Raises:
        ValueError: the host is not an IP address.
    """
    return ipaddress.ip_address(host).packed + struct.pack(">H", port)


class CookieChecker:
    """Decides which handshake messages to one key pair are worth a Diffie-Hellman computation.

    `random_bytes` makes the cookie secret and the nonces; it is the operating system's, except in tests.
    """

    def __init__(
        self,
        public_key: bytes,
        *,
        handshakes_per_second: int = HANDSHAKES_PER_SECOND,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._mac1_key = mac1_key(public_key)
        self._cookie_key = cookie_key(public_key)
        self._limit = handshakes_per_second
        self._random_bytes = random_bytes
        self._secret = b""
        self._secret_until = 0.0
        self._interval_start = float("-inf")
        self._count = 0
        self._count_before = 0
        self._sources = SourceLimit()

    def is_under_load(self, now: float) -> bool:
        """Say whether this second or the last one saw more handshake messages than the limit."""
        self._roll(now)
        return max(self._count, self._count_before) > self._limit

    def admit(self, datagram: bytes | memoryview, source: bytes, now: float) -> Admitted | Refused:
        """Judge an initiation or a response that came from `source` (see `pack_source`)."""
        if classify(datagram) not in {MessageType.INITIATION, MessageType.RESPONSE}:
            return Refused(DropReason.NOT_WIREGUARD)
        if not has_valid_mac1(self._mac1_key, datagram):
            return Refused(DropReason.BAD_MAC1)
        self._roll(now)
        self._count += 1
        if not self.is_under_load(now):
            return Admitted()
        cookie = self._cookie_for(source, now)
        if not has_valid_mac2(cookie, datagram):
            return Refused(DropReason.UNDER_LOAD, self._cookie_reply(cookie, datagram))
        if not self._sources.allow(source, now):
            return Refused(DropReason.RATE_LIMITED)
        return Admitted()

    def note_authentic(self, now: float) -> None:
        """The message that was admitted just now was the peer's, and new. Each peer has `INITIATIONS_PER_SECOND` of
        those at most, and they are not what cookies are for: when all come back at once, nobody is to wait for one.
        """
        self._roll(now)
        self._count = max(0, self._count - 1)

    def _roll(self, now: float) -> None:
        elapsed_s = now - self._interval_start
        if elapsed_s >= _LOAD_INTERVAL_S:
            self._count_before = self._count if elapsed_s < 2 * _LOAD_INTERVAL_S else 0
            self._count = 0
            self._interval_start = now

    def _cookie_for(self, source: bytes, now: float) -> bytes:
        if not self._secret or now >= self._secret_until:
            self._secret = self._random_bytes(_SECRET_BYTES)
            self._secret_until = now + COOKIE_SECRET_MAX_AGE_S
        return keyed_mac(self._secret, source)

    def _cookie_reply(self, cookie: bytes, datagram: bytes | memoryview) -> bytes:
        mac1 = bytes(datagram[-32:-16])
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = xchacha20_poly1305_seal(self._cookie_key, nonce, cookie, mac1)
        return encode_cookie_reply(CookieReply(handshake_sender(datagram), nonce, sealed))
