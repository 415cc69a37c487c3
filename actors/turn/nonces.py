"""Nonces that the server need not remember.

A nonce says when it goes stale and proves, by an HMAC under a key that only this server knows, that the
server issued it to this very address. So a flood of unauthenticated requests costs no memory, and a request
with a valid nonce shows that its sender can receive at the address that it claims.
"""

import base64
import binascii
import hashlib
import hmac

from .codec import Address

MAC_BYTES = 12  # 96 bits: as unguessable as a STUN transaction id
EXPIRY_BYTES = 6  # in ms


class NonceIssuer:
    """Issues nonces of 24 characters and recognises them."""

    def __init__(self, key: bytes, lifetime_s: float) -> None:
        self._key = key
        self._lifetime_s = lifetime_s

    def issue(self, source: Address, now: float) -> bytes:
        """Make a nonce for ``source`` that is good for the issuer's lifetime."""
        expiry = int((now + self._lifetime_s) * 1000).to_bytes(EXPIRY_BYTES)
        return base64.b64encode(expiry + self._mac(expiry, source))

    def is_fresh(self, nonce: bytes, source: Address, now: float) -> bool:
        """Tell whether ``nonce`` was issued by us, to ``source``, and has not expired."""
        try:
            raw = base64.b64decode(nonce, validate=True)
        except binascii.Error:
            return False
        expiry, mac = raw[:EXPIRY_BYTES], raw[EXPIRY_BYTES:]
        return hmac.compare_digest(mac, self._mac(expiry, source)) and int.from_bytes(expiry) > now * 1000

    def _mac(self, expiry: bytes, source: Address) -> bytes:
        message = expiry + f"{source[0]} {source[1]}".encode()
        return hmac.new(self._key, message, hashlib.sha256).digest()[:MAC_BYTES]
