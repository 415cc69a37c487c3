"""XChaCha20-Poly1305, the AEAD with a 24-byte nonce that cookie replies use.

HChaCha20 turns the key and the first 16 nonce bytes into a sub-key; the rest is ChaCha20-Poly1305 with the last 8
(draft-irtf-cfrg-xchacha-03, section 2). The cryptography library has no HChaCha20, but it is the ChaCha20 block
function without the final addition of the initial state. So: take one block of key stream, subtract that state again
from the first and the last row.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

NONCE_BYTES = 24

_ROW = struct.Struct("<4I")
_CONSTANT = _ROW.unpack(b"expand 32-byte k")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Derive the 32-byte sub-key from a 32-byte key and a 16-byte nonce (draft section 2.2)."""
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    first = _subtract(_ROW.unpack_from(block, 0), _CONSTANT)
    last = _subtract(_ROW.unpack_from(block, 48), _ROW.unpack(nonce))
    return first + last


def xchacha20_poly1305_seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt under a 24-byte nonce; the result is 16 bytes longer (draft section 2.3)."""
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(_short(nonce), plaintext, associated)


def xchacha20_poly1305_open(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Decrypt, or return None when the tag is wrong."""
    try:
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])).decrypt(_short(nonce), ciphertext, associated)
    except InvalidTag:
        return None


def _short(nonce: bytes) -> bytes:
    return bytes(4) + nonce[16:NONCE_BYTES]


def _subtract(row: tuple[int, ...], initial: tuple[int, ...]) -> bytes:
    return _ROW.pack(*((word - start) & 0xFFFFFFFF for word, start in zip(row, initial, strict=True)))
