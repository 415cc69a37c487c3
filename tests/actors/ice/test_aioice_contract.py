"""Everything of aioice that is used, so that a new release that changes it fails here and not in a tunnel."""

import hashlib
import inspect
import struct
from importlib.metadata import version

import pytest
from aioice import stun, turn


def test_the_release_is_the_one_that_was_read() -> None:
    assert version("aioice").startswith("0.13.")


def test_the_codec() -> None:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, b"t" * 12, {"USERNAME": "a:b"})
    message.add_message_integrity(b"key")
    parsed = stun.parse_message(bytes(message))
    assert parsed.transaction_id == b"t" * 12
    assert parsed.attributes["USERNAME"] == "a:b"
    assert parsed.check_message_integrity(b"key")
    assert not parsed.check_message_integrity(b"other")
    assert parsed.error_code is None
    for name in ("PRIORITY", "ICE-CONTROLLING", "ICE-CONTROLLED", "USE-CANDIDATE", "XOR-MAPPED-ADDRESS", "ERROR-CODE"):
        assert name in stun.ATTRIBUTES_BY_NAME


def test_hostile_attributes_still_raise_only_what_is_caught() -> None:
    short_priority = struct.pack("!HHI12sHH", 1, 8, 0x2112A442, bytes(12), 0x24, 1) + b"\x01\x00\x00\x00"
    with pytest.raises((struct.error, ValueError)):
        stun.parse_message(short_priority)


@pytest.mark.parametrize("client", [turn.TurnClientUdpProtocol, turn.TurnClientTcpProtocol])
def test_the_turn_client(client: type[turn.TurnClientUdpProtocol | turn.TurnClientTcpProtocol]) -> None:
    parameters = list(inspect.signature(client.__init__).parameters)
    assert parameters == ["self", "server", "username", "password", "lifetime", "channel_refresh_time"]
    for name in ("connect", "delete", "channel_bind"):
        assert inspect.iscoroutinefunction(getattr(client, name))
    for name in ("_send", "datagram_received", "connection_made", "connection_lost"):
        assert callable(getattr(client, name))
    instance = client(("192.0.2.1", 3478), username="u", password="p", lifetime=600, channel_refresh_time=500)
    assert instance.channel_to_peer == {}
    assert instance.peer_to_channel == {}
    assert instance.receiver is None
    assert instance.refresh_task is None
    assert instance.relayed_address is None
    assert instance.mapped_address is None
    assert turn.DEFAULT_ALLOCATION_LIFETIME == 600


def test_the_long_term_key_is_the_one_of_rfc_8489() -> None:
    assert turn.make_integrity_key("u", "r", "p") == hashlib.md5(b"u:r:p").digest()
