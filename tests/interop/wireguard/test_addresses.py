"""With wireguard-go: endpoints that move, keepalives, and the packet that is sealed ahead."""

from __future__ import annotations

import asyncio

import pytest
from tests.interop.wireguard.cable import Cable
from tests.interop.wireguard.traffic import carry, echo, open_stream

from exeunt.actors.wireguard import Limits, MessageType, classify

MEGABYTE = 1_000_000


async def test_they_follow_us_to_another_address(cable: Cable) -> None:
    ours = cable.ours(initiator=True)
    cable.introduce(ours)
    near, far = await open_stream(cable.near, cable.far, cable.THEIR_INNER[0])
    with near, far:
        await carry(near, far, MEGABYTE)
        ours.move(cable.ELSEWHERE)
        await echo(cable.near, cable.THEIR_INNER[0])  # they learn it from the first packet that we send
        await carry(far, near, MEGABYTE)
        host, port = ours.address
        assert host == cable.ELSEWHERE
        assert cable.theirs.show("endpoints") == f"{host}:{port}"
        ours.move(cable.OURS)
        await echo(cable.near, cable.THEIR_INNER[0])
        await asyncio.gather(carry(near, far, MEGABYTE), carry(far, near, MEGABYTE))
    assert len(ours.handshakes) == 1


async def test_we_follow_them_to_another_port(cable: Cable) -> None:
    ours = cable.ours(initiator=False, knows=False)
    cable.introduce(ours)
    near, far = await open_stream(cable.far, cable.near, cable.OUR_INNER[0])
    with near, far:
        await carry(near, far, MEGABYTE)
        before = ours.endpoint
        cable.theirs.move()
        await asyncio.gather(carry(near, far, MEGABYTE), carry(far, near, MEGABYTE))
    assert ours.endpoint == cable.theirs.endpoint
    assert ours.endpoint != before
    assert len(ours.handshakes) == 1


async def test_a_stranger_who_repeats_what_we_sent_moves_nobody(cable: Cable) -> None:
    """Only an authentic packet moves an endpoint, and a replay is none."""
    ours = cable.ours(initiator=True)
    cable.introduce(ours)
    await echo(cable.near, cable.THEIR_INNER[0])
    recorded = ours.sent[-1]
    home = cable.theirs.show("endpoints")
    cable.shout(recorded, recorded[:-1] + bytes([recorded[-1] ^ 1]))
    await echo(cable.near, cable.THEIR_INNER[0])
    assert cable.theirs.show("endpoints") == home


async def test_our_persistent_keepalive_keeps_them_informed(cable: Cable) -> None:
    ours = cable.ours(initiator=True, persistent_keepalive_s=0.1)
    cable.introduce(ours)
    ours.connect()
    await ours.until("a session", lambda: bool(ours.handshakes))
    first = ours.tunnel.tx_bytes
    await ours.until("five keepalives", lambda: ours.tunnel.tx_bytes >= first + 5 * 32)
    await echo(cable.near, cable.THEIR_INNER[0])  # in order behind the keepalives
    assert received(cable) == ours.tunnel.tx_bytes


async def test_their_persistent_keepalive_makes_a_session_and_keeps_it(cable: Cable) -> None:
    ours = cable.ours(initiator=False, knows=False)
    cable.introduce(ours, persistent_keepalive_s=1)
    await ours.until("three of them", lambda: ours.came[MessageType.TRANSPORT] >= 3)
    assert [one.role for one in ours.handshakes] == ["responder"]
    assert not any(ours.tunnel.drops.values()), ours.describe()


@pytest.mark.parametrize("initiator", [True, False], ids=["we initiate", "they initiate"])
async def test_they_take_a_packet_sealed_ahead_and_nothing_after_it(cable: Cable, initiator: bool) -> None:
    """Its counter leaps to the topmost that wireguard-go accepts."""
    ours = cable.ours(initiator=initiator, limits=Limits(rekey_timeout_s=0.1))
    cable.introduce(ours)
    await echo(cable.near if initiator else cable.far, (cable.THEIR_INNER if initiator else cable.OUR_INNER)[0])
    now = asyncio.get_running_loop().time()
    packet = bytes.fromhex("4500001c00000000400100000ad54d020ad54d01") + bytes(8)  # ICMP, and not to be answered
    will, late = ours.tunnel.seal_last_will(packet, now), ours.tunnel.encapsulate(packet, now)
    assert will is not None
    assert late is not None
    before = received(cable)
    for datagram in (will, will, late):
        ours.send(datagram)
    ours.connect()  # repeated, if it comes so soon that they take it for part of a flood, and count it not
    await ours.until("another session", lambda: len(ours.handshakes) == 2)
    await echo(cable.near, cable.THEIR_INNER[0])
    sent = list(ours.sent)
    answered = max(at for at, datagram in enumerate(sent) if classify(datagram) is MessageType.INITIATION)
    assert received(cable) == before + len(will) + sum(map(len, sent[answered:]))


def received(cable: Cable) -> int:
    """Bytes that they found authentic and new."""
    return int(cable.theirs.show("transfer").split("\t")[0])
