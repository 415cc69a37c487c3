"""With wireguard-go: both sides as the initiator, with and without a preshared key, echoes and TCP, new sessions."""

from __future__ import annotations

import asyncio

import pytest
from tests.interop.wireguard.cable import Cable
from tests.interop.wireguard.traffic import both_ways, carry, echo, open_stream

from exeunt.actors.wireguard import DropReason, Limits

NO_KEY, PRESHARED_KEY = bytes(32), b"\x63" * 32
PRESHARED = pytest.mark.parametrize("preshared_key", [NO_KEY, PRESHARED_KEY], ids=["no psk", "psk"])
HASTY = Limits(
    rekey_after_time_s=0.25,
    reject_after_time_s=3.0,
    keepalive_timeout_s=0.5,
    rekey_timeout_s=0.1,
    rekey_timeout_jitter_s=0.02,
    rekey_attempt_time_s=10.0,
)
"""wireguard-go's times are its own: it renews a session only after two minutes."""
MEGABYTE = 1_000_000


@PRESHARED
async def test_we_initiate(cable: Cable, preshared_key: bytes) -> None:
    ours = cable.ours(initiator=True, preshared_key=preshared_key)
    cable.introduce(ours, knows=False, preshared_key=preshared_key)
    for address in cable.THEIR_INNER:
        await echo(cable.near, address, b"odd")
        await echo(cable.near, address, bytes(1300))
    received, sent = cable.theirs.show("transfer").split("\t")
    assert (int(received), int(sent)) == (ours.tunnel.tx_bytes, ours.tunnel.rx_bytes)
    for address in cable.THEIR_INNER:
        await both_ways(cable.near, cable.far, address, MEGABYTE)
    assert [one.role for one in ours.handshakes] == ["initiator"]
    assert not any(ours.tunnel.drops.values()), ours.describe()


@PRESHARED
async def test_they_initiate(cable: Cable, preshared_key: bytes) -> None:
    ours = cable.ours(initiator=False, knows=False, preshared_key=preshared_key)
    cable.introduce(ours, preshared_key=preshared_key)
    for address in cable.OUR_INNER:
        await echo(cable.far, address, b"odd")
        await echo(cable.far, address, bytes(1300))
        await both_ways(cable.far, cable.near, address, MEGABYTE)
    assert [one.role for one in ours.handshakes] == ["responder"]
    assert not any(ours.tunnel.drops.values()), ours.describe()


async def test_a_wrong_preshared_key_makes_no_session(cable: Cable) -> None:
    ours = cable.ours(initiator=True, preshared_key=PRESHARED_KEY, limits=HASTY)
    cable.introduce(ours, preshared_key=b"\x64" * 32)
    ours.connect()
    await ours.until("a refusal", lambda: ours.tunnel.drops[DropReason.BAD_HANDSHAKE] >= 2)
    assert ours.handshakes == []
    assert ours.tunnel.rx_bytes == 0


@pytest.mark.parametrize("initiator", [True, False], ids=["we initiate", "they initiate"])
async def test_both_may_begin_at_once(cable: Cable, initiator: bool) -> None:
    """Two handshakes cross; whichever of the two sessions each side uses, the other one knows it."""
    ours = cable.ours(initiator=initiator)
    cable.introduce(ours)
    ours.connect()
    await asyncio.gather(echo(cable.far, cable.OUR_INNER[0]), echo(cable.near, cable.THEIR_INNER[0]))
    await both_ways(cable.near, cable.far, cable.THEIR_INNER[0], MEGABYTE)
    assert 1 <= len(ours.handshakes) <= 2


async def test_sessions_are_renewed_by_time_under_traffic(cable: Cable) -> None:
    ours = cable.ours(initiator=True, limits=HASTY)
    cable.introduce(ours)
    near, far = await open_stream(cable.near, cable.far, cable.THEIR_INNER[0])
    with near, far:
        rounds = 0
        while len(ours.handshakes) < 6:
            await carry(near, far, MEGABYTE, str(rounds))
            await carry(far, near, MEGABYTE, str(rounds))
            rounds += 1
            assert rounds < 500, ours.describe()
    assert len({one.remote_index for one in ours.handshakes}) == len(ours.handshakes)
    assert all(one.role == "initiator" for one in ours.handshakes)
    assert not any(ours.tunnel.drops.values()), ours.describe()


@pytest.mark.parametrize("initiator", [True, False], ids=["we initiate", "they initiate"])
async def test_sessions_are_renewed_by_count_under_traffic(cable: Cable, initiator: bool) -> None:
    """A responder, too, renews a session whose counters run out (paper 6.2)."""
    limits = Limits(rekey_after_messages=300, rekey_timeout_s=0.1, rekey_timeout_jitter_s=0.0)
    ours = cable.ours(initiator=initiator, limits=limits)
    cable.introduce(ours)
    if not initiator:
        await echo(cable.far, cable.OUR_INNER[0])
    near, far = await open_stream(cable.near, cable.far, cable.THEIR_INNER[0])
    with near, far:
        rounds = 0
        while len(ours.handshakes) < 5:
            await carry(near, far, MEGABYTE, str(rounds))
            rounds += 1
            assert rounds < 500, ours.describe()
    roles = [one.role for one in ours.handshakes]
    assert roles[0] == ("initiator" if initiator else "responder")
    assert set(roles[1:]) == {"initiator"}
    assert not any(ours.tunnel.drops.values()), ours.describe()


async def test_an_idle_session_is_renewed_by_the_next_packet(cable: Cable) -> None:
    limits = Limits(rekey_after_time_s=0.4, reject_after_time_s=0.9, keepalive_timeout_s=0.2, rekey_timeout_s=0.1)
    ours = cable.ours(initiator=True, limits=limits)
    cable.introduce(ours)
    await echo(cable.near, cable.THEIR_INNER[0])
    await ours.until("the end of the session", lambda: not ours.tunnel.local_indices)
    await echo(cable.near, cable.THEIR_INNER[0])
    assert len(ours.handshakes) == 2
