"""The long-term credential mechanism (RFC 8489 section 9.2.4) over time-limited credentials.

Checks go from cheap to dear: is there an integrity at all, does the nonce show that the sender lives at its
address, and only then the HMACs over secret and message.

A credential's expiry is looked at when an allocation is *made*. Whoever holds an allocation may go on with
the credentials that it was made with, as with coturn; otherwise every relayed tunnel would break when its
first credentials run out, since a client may not change its user name later (RFC 8656 section 5).
"""

from enum import Enum, auto

import msgspec

from . import codec
from .codec import Address, MalformedError, Message
from .credentials import expiry_unix, identifier_of, long_term_key, password_for
from .nonces import NonceIssuer

MAX_NONCE_BYTES = 763  # RFC 8489 section 14.10


class Refusal(Enum):
    """Why a request was not let in; each has its own answer."""

    UNAUTHORIZED = auto()
    """401: no or wrong credentials, or expired ones."""
    STALE_NONCE = auto()
    """438."""
    BAD_REQUEST = auto()
    """400: an integrity without the attributes that belong to it."""


class Credential(msgspec.Struct, frozen=True):
    """Who sent an authentic request."""

    username: str
    identifier: str
    key: bytes


class Authenticator:
    """Decides who sent a request."""

    def __init__(self, secret: str, realm: str, nonces: NonceIssuer) -> None:
        self._secret = secret
        self._realm = realm
        self._nonces = nonces

    def check(self, message: Message, source: Address, now: float) -> Credential | Refusal:
        """Check a request's nonce and integrity; whether its credential has expired is `has_expired`'s."""
        if message.covered is None:
            return Refusal.UNAUTHORIZED
        try:
            username = message.text(codec.USERNAME, codec.MAX_USERNAME_BYTES)
            realm = message.text(codec.REALM, MAX_NONCE_BYTES)
        except MalformedError:
            return Refusal.BAD_REQUEST
        nonce = message.first(codec.NONCE)
        if username is None or realm is None or nonce is None:
            return Refusal.BAD_REQUEST
        if not self._nonces.is_fresh(nonce, source, now):
            return Refusal.STALE_NONCE
        if expiry_unix(username) is None or not identifier_of(username):
            return Refusal.UNAUTHORIZED
        key = long_term_key(username, self._realm, password_for(self._secret, username))
        if not message.is_authentic(key):
            return Refusal.UNAUTHORIZED
        return Credential(username, identifier_of(username), key)


def has_expired(username: str, now_unix: float) -> bool:
    """Tell whether the time that a user name carries is over."""
    expiry = expiry_unix(username)
    return expiry is None or expiry <= now_unix
