"""With wireguard-go: cookies, once as the one who demands them and once as the one who has to show one."""

from __future__ import annotations

from tests.interop.wireguard.cable import Cable
from tests.interop.wireguard.ours import OUR_KEY
from tests.interop.wireguard.traffic import echo

from exeunt.actors.wireguard import CookieChecker, DropReason, Limits, MessageType
from exeunt.actors.wireguard.testing import public_key

FLOOD = 2_000
"""wireguard-go is under load for a second after 128 handshake messages have waited; it is quicker in taking them in
than in computing."""


async def test_they_understand_our_cookies(cable: Cable) -> None:
    """They repeat their initiation after five seconds, with the second MAC."""
    gate = CookieChecker(public_key(OUR_KEY), handshakes_per_second=0)
    ours = cable.ours(initiator=False, knows=False, gate=gate)
    cable.introduce(ours)
    await echo(cable.far, cable.OUR_INNER[0])
    assert ours.tunnel.drops[DropReason.UNDER_LOAD] == 1
    assert ours.came[MessageType.INITIATION] == 2


async def test_we_ask_them_for_proof_of_a_response_too(cable: Cable) -> None:
    limits = Limits(rekey_timeout_s=0.2, rekey_timeout_jitter_s=0.0)
    gate = CookieChecker(public_key(OUR_KEY), handshakes_per_second=0)
    ours = cable.ours(initiator=True, limits=limits, gate=gate)
    cable.introduce(ours)
    await echo(cable.near, cable.THEIR_INNER[0])
    assert ours.tunnel.drops[DropReason.UNDER_LOAD] == 1
    assert ours.handshakes[0].initiations == 2


async def test_we_understand_their_cookies(cable: Cable) -> None:
    """A recorded initiation, again and again from somewhere else, puts them under load."""
    ours = cable.ours(initiator=True, limits=Limits(rekey_timeout_s=0.2, rekey_timeout_jitter_s=0.0))
    cable.introduce(ours)
    ours.connect()
    recorded = ours.sent[-1]
    await ours.until("a session", lambda: bool(ours.handshakes))
    while not ours.came[MessageType.COOKIE_REPLY]:
        ours.events.clear()
        cable.shout(*[recorded] * FLOOD)
        ours.connect()
        await ours.until("another session", lambda: bool(ours.handshakes))
    assert ours.handshakes[-1].initiations >= 2
    assert ours.sent[-2][-16:] != bytes(16)
    assert ours.tunnel.drops[DropReason.BAD_COOKIE_REPLY] == 0
    await echo(cable.near, cable.THEIR_INNER[0])
