"""The two MACs at the end of each handshake message, as their sender makes them and as their receiver checks the first.

`mac1` proves knowledge of the receiver's public key: without it the receiver stays silent, so a port scan sees nothing.
`mac2` proves the sender's address: it is keyed with a cookie that a receiver under load sends to that address. A sender
that holds no fresh cookie leaves it zero (WireGuard paper, section 5.4.4).
"""

import hmac

from .noise import blake2s, keyed_mac
from .wire import MAC_BYTES, CookieReply
from .xchacha import xchacha20_poly1305_open

_LABEL_MAC1 = b"mac1----"
_LABEL_COOKIE = b"cookie--"


def mac1_key(receiver_public_key: bytes) -> bytes:
    """Key of the first MAC of messages to this receiver."""
    return blake2s(_LABEL_MAC1, receiver_public_key)


def cookie_key(receiver_public_key: bytes) -> bytes:
    """Key under which this receiver's cookie replies are sealed."""
    return blake2s(_LABEL_COOKIE, receiver_public_key)


def has_valid_mac1(key: bytes, datagram: bytes | memoryview) -> bool:
    """Check the first MAC of an initiation or a response."""
    body = bytes(datagram[: -2 * MAC_BYTES])
    return hmac.compare_digest(keyed_mac(key, body), bytes(datagram[-2 * MAC_BYTES : -MAC_BYTES]))


def has_valid_mac2(cookie: bytes, datagram: bytes | memoryview) -> bool:
    """Check the second MAC of an initiation or a response against the cookie its sender must hold."""
    signed = bytes(datagram[:-MAC_BYTES])
    return hmac.compare_digest(keyed_mac(cookie, signed), bytes(datagram[-MAC_BYTES:]))


class MacSigner:
    """Adds the MACs to our handshake messages to one peer, and keeps the cookie that the peer may demand."""

    __slots__ = ("_awaited", "_cookie", "_cookie_key", "_cookie_lifetime_s", "_cookie_until", "_mac1_key")

    def __init__(self, peer_public_key: bytes, cookie_lifetime_s: float) -> None:
        self._mac1_key = mac1_key(peer_public_key)
        self._cookie_key = cookie_key(peer_public_key)
        self._cookie_lifetime_s = cookie_lifetime_s
        self._cookie = b""
        self._cookie_until = 0.0
        self._awaited: tuple[int, bytes] | None = None

    def holds_cookie(self, now: float) -> bool:
        """Say whether the next message will carry a second MAC."""
        return bool(self._cookie) and now < self._cookie_until

    def sign(self, body: bytes, local_index: int, now: float) -> bytes:
        """Return the complete datagram of a handshake message, and remember it for a cookie reply."""
        mac1 = keyed_mac(self._mac1_key, body)
        self._awaited = (local_index, mac1)
        signed = body + mac1
        mac2 = keyed_mac(self._cookie, signed) if self.holds_cookie(now) else bytes(MAC_BYTES)
        return signed + mac2

    def accept_cookie(self, reply: CookieReply, now: float) -> bool:
        """Keep the cookie of a genuine reply to our last handshake message; False for anything else.

        The next handshake message uses it. Nothing is sent at once: the repeat timer does (paper 6.6), so a stream of
        cookie replies cannot make us answer each.
        """
        if self._awaited is None or self._awaited[0] != reply.receiver:
            return False
        cookie = xchacha20_poly1305_open(self._cookie_key, reply.nonce, reply.encrypted_cookie, self._awaited[1])
        if cookie is None:
            return False
        self._cookie = cookie
        self._cookie_until = now + self._cookie_lifetime_s
        self._awaited = None
        return True
