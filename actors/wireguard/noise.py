"""The Noise primitives that WireGuard is made of: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s.

A handshake is a transcript hash `h` and a chaining key `ck`. Every byte sent or received is mixed into `h`; every
Diffie-Hellman result is mixed into `ck`, from which the key of the next encryption falls out. What is encrypted is
bound to the transcript by using `h` as associated data. Whoever can follow to the end knows that the other one saw
the same bytes and holds the keys it claims (Noise specification, section 5.2; WireGuard paper, section 5.4).
"""

import hashlib
import hmac
import struct
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .timing import TIMESTAMP_GRANULARITY_NS

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
KEY_BYTES = 32
TIMESTAMP_BYTES = 12

_HANDSHAKE_NONCE = bytes(12)
"""Each handshake key encrypts once, so its counter is always zero."""

_TAI64_EPOCH = 2**62 + 10
"""TAI64 label of the Unix epoch: 2^62 by definition, and TAI was 10 s ahead of UTC in 1970. Leap seconds are not added:
only the order of timestamps matters, and other implementations do the same."""

_TAI64N = struct.Struct(">QI")


class SealError(Exception):
    """A handshake field did not authenticate, or a public key was a point of low order."""


def blake2s(*parts: bytes) -> bytes:
    """HASH of the paper: BLAKE2s with 32 bytes of output, over the concatenation."""
    return hashlib.blake2s(b"".join(parts)).digest()


def keyed_mac(key: bytes, message: bytes | memoryview) -> bytes:
    """MAC of the paper: keyed BLAKE2s with 16 bytes of output (not HMAC)."""
    return hashlib.blake2s(message, key=key, digest_size=16).digest()


def kdf(key: bytes, material: bytes, count: int) -> tuple[bytes, ...]:
    """KDF_count of the paper: HKDF over HMAC-BLAKE2s, `count` outputs of 32 bytes each (Noise 4.3)."""
    secret = hmac.digest(key, material, "blake2s")
    outputs: list[bytes] = []
    block = b""
    for number in range(1, count + 1):
        block = hmac.digest(secret, block + bytes([number]), "blake2s")
        outputs.append(block)
    return tuple(outputs)


def exchange(private_key: X25519PrivateKey, public_key: bytes) -> bytes:
    """Diffie-Hellman on Curve25519.

    Raises:
        SealError: the public key is a point of low order, for which the result would be zero.
    """
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:
        raise SealError from error


def tai64n(unix_ns: int) -> bytes:
    """Encode a wall-clock time as 12 bytes that sort like the time itself (cr.yp.to/libtai/tai64.html)."""
    seconds, nanoseconds = divmod(unix_ns, 10**9)
    return _TAI64N.pack(_TAI64_EPOCH + seconds, nanoseconds)


class TimestampSource:
    """Strictly increasing handshake timestamps.

    They are rounded for privacy, and a clock that stands still or goes back must not produce an initiation that the
    peer takes for a replay: then the last one is continued by the smallest step.
    """

    def __init__(self) -> None:
        self.last_ns = 0
        """The latest one, as wall-clock time; 0 before the first."""

    def next(self, unix_ns: int) -> bytes:
        """Return the timestamp of one more initiation, at this wall-clock time."""
        rounded_ns = unix_ns - unix_ns % TIMESTAMP_GRANULARITY_NS
        self.last_ns = max(rounded_ns, self.last_ns + TIMESTAMP_GRANULARITY_NS)
        return tai64n(self.last_ns)


class SymmetricState:
    """The running state of one handshake (Noise 5.2): chaining key, transcript hash and the current key."""

    __slots__ = ("chaining_key", "hash", "key")

    def __init__(self, chaining_key: bytes, hash_: bytes, key: bytes = b"") -> None:
        self.chaining_key = chaining_key
        self.hash = hash_
        self.key = key

    @classmethod
    def start(cls, responder_public_key: bytes) -> Self:
        """State before the first message: names of the construction, and the responder's key, known in advance."""
        chaining_key = blake2s(CONSTRUCTION)
        return cls(chaining_key, blake2s(blake2s(chaining_key, IDENTIFIER), responder_public_key))

    def copy(self) -> "SymmetricState":
        """Return a state that can be advanced on trial, leaving this one alone if the message is forged."""
        return SymmetricState(self.chaining_key, self.hash, self.key)

    def mix_hash(self, data: bytes) -> None:
        """Add bytes to the transcript."""
        self.hash = blake2s(self.hash, data)

    def mix_key(self, material: bytes) -> None:
        """Add a secret (or, as PSK modes demand, an ephemeral public key) to the chaining key."""
        self.chaining_key, self.key = kdf(self.chaining_key, material, 2)

    def mix_ephemeral(self, public_key: bytes) -> None:
        """Process the token `e` of a PSK handshake: into transcript and chaining key (Noise 9.2)."""
        self.mix_hash(public_key)
        self.mix_key(public_key)

    def mix_key_and_hash(self, preshared_key: bytes) -> None:
        """Process the token `psk`."""
        self.chaining_key, extra, self.key = kdf(self.chaining_key, preshared_key, 3)
        self.mix_hash(extra)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt with the current key, bound to the transcript, and add the ciphertext to it."""
        ciphertext = ChaCha20Poly1305(self.key).encrypt(_HANDSHAKE_NONCE, plaintext, self.hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Undo `encrypt_and_hash`.

        Raises:
            SealError: the field was not made by someone with the same keys and the same transcript.
        """
        try:
            plaintext = ChaCha20Poly1305(self.key).decrypt(_HANDSHAKE_NONCE, ciphertext, self.hash)
        except InvalidTag as error:
            raise SealError from error
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys: initiator to responder, and back (Noise 5.2)."""
        first, second = kdf(self.chaining_key, b"", 2)
        return first, second
