"""Messages as RFC 5769 prints them, and what is wrong with others."""

import struct

import pytest
from aioice import stun
from aioice.stun import Class, Method

from exeunt.actors.turn import codec
from exeunt.actors.turn.codec import MalformedError

# RFC 5769 section 2.4: a request with long-term authentication.
SAMPLE = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c"
    "662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014"
    "f67024656dd64a3e02b8e0712e85c9a28ca89666"
)


def test_a_published_request_is_read() -> None:
    message = codec.parse(SAMPLE)
    assert (message.method, message.kind) == (Method.BINDING, Class.REQUEST)
    assert message.text(codec.USERNAME, 508) == "マトリックス"
    assert message.text(codec.REALM, 508) == "example.org"
    assert message.first(codec.NONCE) == b"f//499k954d6OL34oL9FSTvy64sA"
    assert message.unknown_required() == []


def test_a_published_integrity_is_right() -> None:
    key = stun_key("マトリックス", "example.org", "TheMatrIX")
    assert codec.parse(SAMPLE).is_authentic(key)
    assert not codec.parse(SAMPLE[:-1] + b"\x67").is_authentic(key)
    assert not codec.parse(SAMPLE).is_authentic(bytes(16))


def stun_key(username: str, realm: str, password: str) -> bytes:
    from exeunt.actors.turn.credentials import long_term_key

    return long_term_key(username, realm, password)


def test_what_is_written_another_implementation_reads() -> None:
    key = bytes(16)
    attributes = [
        (codec.XOR_MAPPED_ADDRESS, codec.xor_address(("2001:db8::7", 99), b"t" * 12)),
        (codec.SOFTWARE, b"odd"),
    ]
    data = codec.encode(Method.ALLOCATE, Class.RESPONSE, b"t" * 12, attributes, key)
    theirs = stun.parse_message(data)
    assert theirs.attributes["XOR-MAPPED-ADDRESS"] == ("2001:db8::7", 99)
    assert theirs.attributes["SOFTWARE"] == "odd"
    assert theirs.check_message_integrity(key)
    assert "FINGERPRINT" in theirs.attributes


def test_what_follows_the_integrity_is_not_believed() -> None:
    data = codec.encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [], bytes(16))[:-8]  # without FINGERPRINT
    forged = data + struct.pack("!HHI", codec.LIFETIME, 4, 0)
    message = codec.parse(stun.set_body_length(forged, len(forged) - 20))
    assert message.number(codec.LIFETIME) is None
    assert message.is_authentic(bytes(16))


def test_the_first_of_several_values_counts_and_lists_are_kept() -> None:
    peers = [(f"203.0.113.{last}", 1) for last in (1, 2)]
    attributes = [(codec.XOR_PEER_ADDRESS, codec.xor_address(peer, bytes(12))) for peer in peers]
    attributes += [(codec.LIFETIME, b"\0\0\0\1"), (codec.LIFETIME, b"\0\0\0\2")]
    message = codec.parse(codec.encode(Method.ALLOCATE, Class.REQUEST, bytes(12), attributes))
    assert message.addresses(codec.XOR_PEER_ADDRESS) == peers
    assert message.number(codec.LIFETIME) == 1


def binding(body: bytes = b"") -> bytes:
    return struct.pack("!HHI12s", 1, len(body), stun.COOKIE, bytes(12)) + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        binding()[:-1],
        binding() + b"\0",
        b"\xc0" + binding()[1:],  # the first two bits are not 00
        binding()[:4] + bytes(4) + binding()[8:],  # no magic cookie
        struct.pack("!HHI12s", 0x0FFF & 0x3EEF, 0, stun.COOKIE, bytes(12)),  # no such method
        binding(b"\0\6\0\xff"),  # longer than its message
        binding(b"\x80\x28\0\4\0\0\0\0"),  # a wrong fingerprint
        binding(b"\x80\x28\0\0"),  # an empty one
        binding(b"\x80\x22\0\0" * 129),
    ],
)
def test_what_is_not_a_message_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        codec.parse(data)


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\1\0\0\0", b"\0\2" + bytes(6), b"\0\7" + bytes(6)])
def test_a_wrong_value_is_malformed_when_it_is_looked_at(value: bytes) -> None:
    attributes = [(codec.XOR_PEER_ADDRESS, value), (codec.LIFETIME, b"\0"), (codec.USERNAME, b"\xff")]
    message = codec.parse(codec.encode(Method.ALLOCATE, Class.REQUEST, bytes(12), attributes))
    with pytest.raises(MalformedError):
        message.addresses(codec.XOR_PEER_ADDRESS)
    with pytest.raises(MalformedError):
        message.number(codec.LIFETIME)
    with pytest.raises(MalformedError):
        message.text(codec.USERNAME, 508)
    with pytest.raises(MalformedError):
        message.text(codec.USERNAME, 0)


def test_channel_data_may_be_padded_but_not_short() -> None:
    assert codec.parse_channel_data(codec.channel_data(0x4001, b"abc") + b"\0") == (0x4001, b"abc")
    with pytest.raises(MalformedError):
        codec.parse_channel_data(codec.channel_data(0x4001, b"abc")[:-1])
