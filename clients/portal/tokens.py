"""Tokens: what a peer signs in with.

`<kind>.<id>_<secret>`: the kind and the id are public, for logs and for `admin revoke`; the secret is 32
random bytes. The database keeps a salted hash only. The hash need not be slow: there is nothing to guess in
256 random bits, and slow hashes would let strangers occupy the portal.
"""

import hashlib
import hmac
import re
import secrets
from typing import get_args

import msgspec

from exeunt.actors.portal.messages import PeerKind

_FORM = re.compile(r"(client|gateway)\.([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")


class StoredToken(msgspec.Struct, frozen=True):
    """What is kept of a token."""

    id: str
    kind: PeerKind
    salt: bytes
    digest: bytes


def issue(kind: PeerKind) -> tuple[str, StoredToken]:
    """A new token: its text, to be shown once, and what to keep of it."""
    assert kind in get_args(PeerKind)
    token_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
    return f"{kind}.{token_id}_{secret}", StoredToken(token_id, kind, salt, _digest(secret, salt))


def token_id(text: str) -> str | None:
    """The public id in a token's text, or None where the text is no token."""
    match = _FORM.match(text)
    return match[2] if match else None


def matches(text: str, stored: StoredToken) -> bool:
    """Whether `text` is the token that `stored` was kept of."""
    match = _FORM.match(text)
    if match is None or (match[1], match[2]) != (stored.kind, stored.id):
        return False
    return hmac.compare_digest(_digest(match[3], stored.salt), stored.digest)


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, salt=salt, person=b"exeunt.token").digest()
