"""Frames are hostile until decoded."""

import json
from typing import Any

import pytest

from exeunt.actors.portal.codec import (
    MalformedFrame,
    UnknownMessage,
    encode,
    error_about,
    peer_decoder,
    portal_decoder,
)
from exeunt.actors.portal.messages import (
    MAX_PEER_FRAME_BYTES,
    MAX_PORTAL_FRAME_BYTES,
    Authorize,
    Client,
    Heartbeat,
    IceCandidates,
    IceCredentials,
    Join,
    Relay,
    Resource,
)

PEER = peer_decoder(MAX_PEER_FRAME_BYTES)
PORTAL = portal_decoder(MAX_PORTAL_FRAME_BYTES)
JOIN = Join(name="laptop", external_id="device-1", public_key=b"k" * 32, version="0.1.0")


def test_a_message_survives_the_way() -> None:
    assert PEER.decode(encode(JOIN)).message == JOIN


def test_keys_travel_as_base64_under_a_snake_case_type() -> None:
    fields = json.loads(encode(JOIN))
    assert fields["type"] == "join"
    assert fields["public_key"] == "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


def test_unknown_fields_are_counted_and_ignored() -> None:
    decoded = PEER.decode('{"type":"heartbeat","ref":3,"colour":"red","size":1}')
    assert decoded.message == Heartbeat(ref=3)
    assert decoded.unknown_fields == 2


def test_an_unknown_type_is_not_malformed() -> None:
    with pytest.raises(UnknownMessage, match="teleport"):
        PEER.decode('{"type":"teleport"}')


def test_a_direction_does_not_understand_the_other() -> None:
    with pytest.raises(UnknownMessage):
        PEER.decode('{"type":"joined"}')
    with pytest.raises(UnknownMessage):
        PORTAL.decode('{"type":"join"}')


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"heartbeat","ref":1}',
        "",
        "null",
        "[]",
        "{}",
        '{"type":1}',
        '{"type":"heartbeat"}',
        '{"type":"heartbeat","ref":-1}',
        '{"type":"heartbeat","ref":1e999}',
        '{"type":"heartbeat","ref":9007199254740993}',
        "[" * 60_000,
        '{"type":' * 5_000,
        '{"type":"leaving","reason":"\\u001b[2J"}',
        '{"type":"leaving","reason":"\\ud800"}',
        '{"type":"ice_candidates","connection":"../../etc","candidates":[]}',
        json.dumps({"type": "ice_candidates", "connection": "c", "candidates": ["x"] * 65}),
        json.dumps({"type": "heartbeat", "ref": 1, "pad": "x" * MAX_PEER_FRAME_BYTES}),
    ],
)
def test_malformed_frames_are_told_apart(frame: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        PEER.decode(frame)


@pytest.mark.parametrize("key", ["", "AAAA", "A" * 44, "!" * 44, 7])
def test_keys_have_32_bytes(key: Any) -> None:
    with pytest.raises(MalformedFrame):
        PEER.decode(json.dumps(json.loads(encode(JOIN)) | {"public_key": key}))


def test_an_error_repeats_little_of_what_it_is_about() -> None:
    error = error_about(MalformedFrame("\x1b" + "x" * 1000))
    assert len(error.message) == 256
    assert error.message.isprintable()


def test_secrets_stay_out_of_representations() -> None:
    ice = IceCredentials(username="user", password="correct-horse".replace("-", "+") * 3)
    relay = Relay(id="r", host="h", port=1, username="u", password="hunter2", expires_at=1)
    message = Authorize(
        ref="r",
        connection="c",
        client=Client(id="c", name="c", public_key=b"p" * 32, address_ipv4="", address_ipv6=""),
        resource=Resource(id="r", name="r", address="10.0.0.0/8", site="main"),
        preshared_key=b"secret" * 5 + b"!!",
        local_ice=ice,
        remote_ice=ice,
    )
    shown = repr([message, relay])
    assert not any(secret in shown for secret in ("horse", "hunter2", "secretsecret"))
    assert "Resource(id='r'" in shown


def test_candidates_keep_their_order() -> None:
    message = IceCandidates(connection="c", candidates=("b", "a"), end=True)
    assert PEER.decode(encode(message)).message == message
    assert PORTAL.decode(encode(message)).message == message
