"""Primitives against published vectors, the handshake against a transcript of another implementation."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from exeunt.actors.wireguard import Limits
from exeunt.actors.wireguard.handshake import StaticKeys, initiate, read_initiation
from exeunt.actors.wireguard.noise import SealError, TimestampSource, blake2s, exchange, keyed_mac, tai64n
from exeunt.actors.wireguard.session import Session
from exeunt.actors.wireguard.testing import public_key
from exeunt.actors.wireguard.wire import Response
from exeunt.actors.wireguard.xchacha import (
    hchacha20,
    xchacha20_poly1305_open,
    xchacha20_poly1305_seal,
)

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
KEY_80_TO_9F = bytes(range(0x80, 0xA0))


def secret(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def test_blake2s_of_rfc_7693_appendix_b() -> None:
    assert blake2s(b"a", b"bc").hex() == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"


def test_keyed_blake2s_of_the_reference_vectors() -> None:
    # First entry of blake2s-kat.txt; MAC is the same function with 16 bytes of output.
    key = bytes(range(32))
    full = hashlib.blake2s(b"", key=key).hexdigest()
    assert full == "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
    assert keyed_mac(key, b"") == hashlib.blake2s(b"", key=key, digest_size=16).digest()
    assert keyed_mac(key, b"") != bytes.fromhex(full)[:16]


def test_x25519_of_rfc_7748_section_6_1() -> None:
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    alice_public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert public_key(alice) == alice_public
    assert exchange(X25519PrivateKey.from_private_bytes(alice), public_key(bob)) == shared
    assert exchange(X25519PrivateKey.from_private_bytes(bob), alice_public) == shared


def test_chacha20_poly1305_of_rfc_8439_section_2_8_2() -> None:
    nonce = bytes.fromhex("070000004041424344454647")
    expected = (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    assert ChaCha20Poly1305(KEY_80_TO_9F).encrypt(nonce, SUNSCREEN, ASSOCIATED).hex() == expected


def test_hchacha20_of_the_xchacha_draft_section_2_2_1() -> None:
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(bytes(range(32)), nonce).hex() == expected


def test_xchacha20_poly1305_of_the_xchacha_draft_appendix_a_3_1() -> None:
    nonce = bytes(range(0x40, 0x58))
    expected = (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    sealed = xchacha20_poly1305_seal(KEY_80_TO_9F, nonce, SUNSCREEN, ASSOCIATED)
    assert sealed.hex() == expected
    assert xchacha20_poly1305_open(KEY_80_TO_9F, nonce, sealed, ASSOCIATED) == SUNSCREEN
    assert xchacha20_poly1305_open(KEY_80_TO_9F, nonce, sealed, b"") is None


def test_tai64n_counts_from_the_tai64_label_of_the_epoch() -> None:
    assert tai64n(0).hex() == "400000000000000a00000000"
    assert tai64n(1_700_000_000_123_456_789).hex() == f"{2**62 + 10 + 1_700_000_000:016x}{123_456_789:08x}"


def test_timestamps_increase_even_when_the_clock_stands_or_goes_back() -> None:
    source = TimestampSource()
    stamps = [source.next(unix_ns) for unix_ns in (10**18, 10**18, 10**18 - 10**12, 10**18 + 10**10)]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] > tai64n(10**18 + 10**10 - 2**24)


@pytest.mark.parametrize("low_order", [bytes(32), b"\x01" + bytes(31)])
def test_a_public_key_of_low_order_is_refused(low_order: bytes) -> None:
    with pytest.raises(SealError):
        exchange(X25519PrivateKey.from_private_bytes(secret("any")), low_order)
    with pytest.raises(ValueError, match="low order"):
        StaticKeys(secret("any"), low_order, bytes(32))


def test_keys_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        StaticKeys(bytes(31), secret("peer"), bytes(32))


# The transcript below comes from the independent implementation noiseprotocol 0.3.1, with the protocol
# Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s and the prologue "WireGuard v1 zx2c4 Jason@zx2c4.com". Each secret is the
# SHA-256 of its name, the timestamp is the first payload.
TIMESTAMP = bytes.fromhex("40000000698abcde12000000")
FIRST_MESSAGE = bytes.fromhex(
    "9619980f94384a2baf34641a1ee82ca64a0d4ea2e52766b2aae27fbdeb83d167"
    "e8f370de6ed63290232ed5b1a65ad755921e06f53f38c2d07d02e46be58ea277d5e69850c83ac7c836fb3d4d9dbc944b"
    "fb82e82a80064dc9d433f1b4373b2f82d743cef66ad0ab9b668fdb9c"
)
SECOND_MESSAGE = bytes.fromhex(
    "eeba1497071c7f708f171dda8b5685f39ae302e228162c2f6406de13ecf53e139703928c6ecb20734604639f97d65937"
)
TO_THE_RESPONDER = (
    "a87e54cc1ff3a6ac82c28833fee47be83117def5ee226af9b4bcdce477efd26d",
    "ea6561e0172ea4875d503fb2e9f5a5e212c706bbd6bb0742f804088d305d0512",
)
TO_THE_INITIATOR = (
    "254ac8f7e909ea3003c616bc1a4258bc1f2ff0aa615374a8e6ee7971335a7f79",
    "7c989c473002b171c13a65e0cc4d05ff693866cdc45bad658f6b58e230cffafa",
)


def test_handshake_equals_the_transcript_of_another_implementation() -> None:
    ours = StaticKeys(secret("static-i"), public_key(secret("static-r")), secret("psk"))
    theirs = StaticKeys(secret("static-r"), public_key(secret("static-i")), secret("psk"))
    ephemeral_i = X25519PrivateKey.from_private_bytes(secret("ephemeral-i"))
    ephemeral_r = X25519PrivateKey.from_private_bytes(secret("ephemeral-r"))

    initiation, sent = initiate(ours, 1, TIMESTAMP, ephemeral_i)
    assert initiation.ephemeral + initiation.encrypted_static + initiation.encrypted_timestamp == FIRST_MESSAGE

    received = read_initiation(theirs, initiation)
    assert received.timestamp == TIMESTAMP
    response, responder_keys = received.respond(2, ephemeral_r)
    assert response.ephemeral + response.encrypted_nothing == SECOND_MESSAGE

    initiator_keys = sent.finish(response)
    initiator = Session(initiator_keys, Limits(), initiated=True, now=0)
    responder = Session(responder_keys, Limits(), initiated=False, now=0)
    for forth, back in zip(TO_THE_RESPONDER, TO_THE_INITIATOR, strict=True):
        assert initiator.seal(b"to the responder")[16:].hex() == forth
        assert responder.seal(b"to the initiator")[16:].hex() == back
    assert (initiator_keys.local_index, initiator_keys.remote_index) == (1, 2)
    assert (responder_keys.local_index, responder_keys.remote_index) == (2, 1)


def test_a_forged_response_leaves_the_handshake_usable() -> None:
    ours = StaticKeys(secret("static-i"), public_key(secret("static-r")), secret("psk"))
    theirs = StaticKeys(secret("static-r"), public_key(secret("static-i")), secret("psk"))
    initiation, sent = initiate(ours, 1, TIMESTAMP, X25519PrivateKey.generate())
    response, keys = read_initiation(theirs, initiation).respond(2, X25519PrivateKey.generate())
    for forged in (
        Response(2, 1, response.ephemeral, bytes(16)),
        Response(2, 1, bytes(32), response.encrypted_nothing),
        Response(2, 1, secret("other"), response.encrypted_nothing),
    ):
        with pytest.raises(SealError):
            sent.finish(forged)
    assert sent.finish(response).send_key == keys.receive_key


def test_another_preshared_key_makes_no_session() -> None:
    ours = StaticKeys(secret("static-i"), public_key(secret("static-r")), secret("psk"))
    theirs = StaticKeys(secret("static-r"), public_key(secret("static-i")), secret("other psk"))
    initiation, sent = initiate(ours, 1, TIMESTAMP, X25519PrivateKey.generate())
    response, _ = read_initiation(theirs, initiation).respond(2, X25519PrivateKey.generate())
    with pytest.raises(SealError):
        sent.finish(response)


def test_keys_do_not_show_in_a_traceback() -> None:
    ours = StaticKeys(secret("static-i"), public_key(secret("static-r")), secret("psk"))
    theirs = StaticKeys(secret("static-r"), public_key(secret("static-i")), secret("psk"))
    initiation, _ = initiate(ours, 1, TIMESTAMP, X25519PrivateKey.generate())
    _, keys = read_initiation(theirs, initiation).respond(2, X25519PrivateKey.generate())
    assert repr(keys) == "TransportKeys(local_index=2, remote_index=1)"
