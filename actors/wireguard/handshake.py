"""Two messages make a session: who may speak, both fresh secrets, and the transport keys.

    initiator → responder   e, es, s, ss, {timestamp}     Initiation
    responder → initiator   e, ee, se, psk, {}            Response

The initiator shows its identity only encrypted, and the responder answers nobody who does not already know its public
key. Functions here are pure in everything but the ephemeral key, which the operating system makes. Authenticity of the
fields is checked here; replayed timestamps, MACs and load are the tunnel's business (WireGuard paper, section 5.4).
"""

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .mac import has_valid_mac1, mac1_key
from .noise import KEY_BYTES, SealError, SymmetricState, exchange
from .wire import Initiation, MessageType, Response, classify, decode_initiation


class StaticKeys:
    """The long-lived keys of one pair of peers, and what can be computed from them once.

    Raises:
        ValueError: a key is not 32 bytes, or the peer's public key is a point of low order.
    """

    __slots__ = ("peer_public_key", "preshared_key", "private_key", "public_key", "static_static")

    def __init__(self, private_key: bytes, peer_public_key: bytes, preshared_key: bytes) -> None:
        if not len(private_key) == len(peer_public_key) == len(preshared_key) == KEY_BYTES:
            raise ValueError("WireGuard keys have 32 bytes each")
        self.private_key = X25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self.private_key.public_key().public_bytes_raw()
        self.peer_public_key = peer_public_key
        self.preshared_key = preshared_key
        try:
            self.static_static = exchange(self.private_key, peer_public_key)
        except SealError as error:
            raise ValueError("the peer's public key is a point of low order") from error


class TransportKeys(msgspec.Struct, frozen=True):
    """What a finished handshake leaves behind: two 32-byte keys and the index each side chose for itself."""

    send_key: bytes
    receive_key: bytes
    local_index: int
    remote_index: int

    def __repr__(self) -> str:
        """Never show a key in a log or a traceback."""
        return f"TransportKeys(local_index={self.local_index}, remote_index={self.remote_index})"


class SentInitiation:
    """Our half of a handshake that waits for the response. Reading a forged response leaves it as it was."""

    __slots__ = ("_ephemeral", "_keys", "_state", "local_index")

    def __init__(self, keys: StaticKeys, ephemeral: X25519PrivateKey, state: SymmetricState, local_index: int) -> None:
        self._keys = keys
        self._ephemeral = ephemeral
        self._state = state
        self.local_index = local_index

    def finish(self, response: Response) -> TransportKeys:
        """Derive the transport keys from the peer's response.

        Raises:
            SealError: the response is not the peer's answer to this initiation.
        """
        state = self._state.copy()
        state.mix_ephemeral(response.ephemeral)
        state.mix_key(exchange(self._ephemeral, response.ephemeral))
        state.mix_key(exchange(self._keys.private_key, response.ephemeral))
        state.mix_key_and_hash(self._keys.preshared_key)
        state.decrypt_and_hash(response.encrypted_nothing)
        send_key, receive_key = state.split()
        return TransportKeys(send_key, receive_key, self.local_index, response.sender)


class ReceivedInitiation:
    """An initiation that the peer has authenticated, not yet answered."""

    __slots__ = ("_initiation", "_keys", "_state", "timestamp")

    def __init__(self, keys: StaticKeys, initiation: Initiation, state: SymmetricState, timestamp: bytes) -> None:
        self._keys = keys
        self._initiation = initiation
        self._state = state
        self.timestamp = timestamp
        """TAI64N; the caller refuses one that is not above the last accepted (paper 5.1)."""

    def respond(self, local_index: int, ephemeral: X25519PrivateKey) -> tuple[Response, TransportKeys]:
        """Make the response and the session's keys.

        Raises:
            SealError: the initiator's ephemeral key is a point of low order.
        """
        state = self._state
        public_key = ephemeral.public_key().public_bytes_raw()
        state.mix_ephemeral(public_key)
        state.mix_key(exchange(ephemeral, self._initiation.ephemeral))
        state.mix_key(exchange(ephemeral, self._keys.peer_public_key))
        state.mix_key_and_hash(self._keys.preshared_key)
        nothing = state.encrypt_and_hash(b"")
        receive_key, send_key = state.split()
        response = Response(local_index, self._initiation.sender, public_key, nothing)
        return response, TransportKeys(send_key, receive_key, local_index, self._initiation.sender)


def initiate(
    keys: StaticKeys, local_index: int, timestamp: bytes, ephemeral: X25519PrivateKey
) -> tuple[Initiation, SentInitiation]:
    """Make an initiation; `timestamp` is a TAI64N above all earlier ones, `ephemeral` a key never used before."""
    state = SymmetricState.start(keys.peer_public_key)
    public_key = ephemeral.public_key().public_bytes_raw()
    state.mix_ephemeral(public_key)
    state.mix_key(exchange(ephemeral, keys.peer_public_key))
    static = state.encrypt_and_hash(keys.public_key)
    state.mix_key(keys.static_static)
    encrypted_timestamp = state.encrypt_and_hash(timestamp)
    message = Initiation(local_index, public_key, static, encrypted_timestamp)
    return message, SentInitiation(keys, ephemeral, state, local_index)


def read_initiation(keys: StaticKeys, initiation: Initiation) -> ReceivedInitiation:
    """Authenticate an initiation as the peer's.

    Raises:
        SealError: it was not made for us, or not by this peer.
    """
    state, static = _read_static(keys.private_key, keys.public_key, initiation)
    if static != keys.peer_public_key:
        raise SealError
    state.mix_key(keys.static_static)
    timestamp = state.decrypt_and_hash(initiation.encrypted_timestamp)
    return ReceivedInitiation(keys, initiation, state, timestamp)


def peek_static(private_key: bytes, datagram: bytes | memoryview) -> bytes | None:
    """Return whose initiation a datagram claims to be: the initiator's public key, or None.

    For a gateway that finds the tunnel of an initiation. Not yet authenticated as that peer's (the timestamp is), and
    costs a Diffie-Hellman computation: under load check the cookie first.
    """
    if classify(datagram) is not MessageType.INITIATION:
        return None
    private = X25519PrivateKey.from_private_bytes(private_key)
    public_key = private.public_key().public_bytes_raw()
    if not has_valid_mac1(mac1_key(public_key), datagram):
        return None
    try:
        return _read_static(private, public_key, decode_initiation(datagram))[1]
    except SealError:
        return None


def _read_static(
    private_key: X25519PrivateKey, public_key: bytes, initiation: Initiation
) -> tuple[SymmetricState, bytes]:
    state = SymmetricState.start(public_key)
    state.mix_ephemeral(initiation.ephemeral)
    state.mix_key(exchange(private_key, initiation.ephemeral))
    return state, state.decrypt_and_hash(initiation.encrypted_static)
