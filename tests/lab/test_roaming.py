"""A path that was found is kept: over far and slow ways, through outages, and when a NAT forgets."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from exeunt.clients.lab import Delays, NatKind

from .agents import Connect, Side
from .expectation import Expected
from .meeting_place import MeetingPlace, Pair, meeting_place, relays_for
from .nat_matrix import SETTLE_S, is_settled

pytestmark = pytest.mark.slow

FAR = Delays(edge_ms=150, relay_ms=30, portal_ms=50)
"""600 ms round trip between two sites."""
FAR_S = float(os.environ.get("EXEUNT_SLOW_PATH_S", "60"))
TALK_INTERVAL_S = 0.05
HEALED_S = 2.0
PATIENCE_S = 20.0


async def settle(connect: Connect, pair: Pair, talker: str = "client") -> Side:
    """Connect directly, and have data flow; return the side that talks."""
    assert await connect.start((relays_for(pair[0]), relays_for(pair[1])))
    side = connect.client if talker == "client" else connect.gateway
    connect.talk(TALK_INTERVAL_S, side)
    assert await connect.wait(SETTLE_S, lambda: is_settled(connect, Expected.DIRECT) and side.echoes > 10)
    return side


async def outage_s(connect: Connect, talker: Side, disturb: Callable[..., object], *arguments: object) -> float:
    """Disturb the path, and wait until data flows again: return how long that took."""

    def work() -> float:
        disturb(*arguments)
        return time.monotonic()

    began = await asyncio.to_thread(work)
    # What was under way when it happened may still arrive. What was sent since, and echoed, tells that it flows.
    flows = await connect.wait(PATIENCE_S, lambda: talker.echo_sent_s > began)
    assert flows, [side.path for side in connect.sides]
    return time.monotonic() - began


@pytest.mark.parametrize(("gateway", "how"), [(NatKind.NONE, "rebind"), (NatKind.FULL_CONE, "roam")])
@pytest.mark.parametrize("talker", ["client", "gateway"])
def test_a_nat_that_forgot_heals_where_the_peer_is_reachable(
    tmp_path: Path, gateway: NatKind, how: str, talker: str
) -> None:
    """Whoever has something to say: a client that only downloads sends nothing when nothing comes."""
    pair = (NatKind.PORT_RESTRICTED, gateway)
    with meeting_place([pair], tmp_path) as place:

        async def work() -> list[float]:
            site = place.clients[pair[0]]
            took: list[float] = []
            async with place.agents() as agents, agents.between(pair) as connect:
                side = await settle(connect, pair, talker)
                for number in range(4):
                    await asyncio.sleep(0.7 * number)  # so that it happens at any moment between two checks
                    if how == "rebind":
                        took.append(await outage_s(connect, side, place.internet.rebind, site))
                    else:
                        took.append(await outage_s(connect, side, place.internet.roam, site, 77 + number))
                    assert not connect.client.is_lost
                    assert not connect.gateway.is_lost
                    assert connect.is_same_pair
            return took

        took = asyncio.run(work())
    print(f"healed within {[round(each, 2) for each in took]} s")
    assert max(took) < HEALED_S


@pytest.mark.parametrize("how", ["renumber", "rebind", "unplug"])
def test_a_signalled_restart_heals_where_the_peer_is_not_reachable(tmp_path: Path, how: str) -> None:
    """The client has another address, or its NAT other ports that the gateway's NAT does not let in."""
    pair = (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    with meeting_place([pair], tmp_path) as place:
        internet, site = place.internet, place.clients[pair[0]]

        def disturb() -> None:
            if how == "renumber":
                internet.renumber(site, 44)
            elif how == "rebind":
                internet.rebind(site)
            else:
                internet.unplug(site)
                internet.plug_in(site)

        async def work() -> float:
            async with place.agents() as agents, agents.between(pair) as connect:
                side = await settle(connect, pair)
                await asyncio.to_thread(disturb)
                restarting = asyncio.create_task(connect.restart())
                took = await outage_s(connect, side, lambda: None)
                assert await restarting
                assert is_settled(connect, Expected.DIRECT)
                assert not connect.client.is_lost
                assert not connect.gateway.is_lost
            return took

        took = asyncio.run(work())
    print(f"healed within {took:.2f} s")
    assert took < HEALED_S


def test_an_outage_of_three_seconds_is_survived(tmp_path: Path) -> None:
    pair = (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    with meeting_place([pair], tmp_path) as place:

        async def work() -> float:
            site = place.clients[pair[0]]
            async with place.agents() as agents, agents.between(pair) as connect:
                side = await settle(connect, pair)
                await asyncio.to_thread(place.internet.cut, site)
                await asyncio.sleep(3)
                took = await outage_s(connect, side, place.internet.heal, site)
                assert not connect.client.is_lost
                assert not connect.gateway.is_lost
            return took

        took = asyncio.run(work())
    print(f"data flows {took:.2f} s after the outage")
    assert took < 1.0


@pytest.mark.timeout(120 + FAR_S)
def test_a_path_of_600_ms_stays_up(tmp_path: Path) -> None:
    """With data and without; without, only the checks themselves say that the peer is there."""
    pair = (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED)
    with meeting_place([pair], tmp_path, FAR) as place:

        async def work() -> tuple[Connect, Connect]:
            async with place.agents() as agents, agents.between(pair) as busy, agents.between(pair) as idle:
                for connect in (busy, idle):
                    assert await connect.start((relays_for(pair[0]), relays_for(pair[1])))
                    assert await connect.wait(SETTLE_S, partial(is_settled, connect, Expected.DIRECT))
                busy.talk(TALK_INTERVAL_S)
                await asyncio.sleep(FAR_S)
                for side in (*busy.sides, *idle.sides):
                    assert not side.is_lost
                    assert [path.kind for path in side.paths].count("direct") == len(set(side.paths))
                idle.talk(TALK_INTERVAL_S)
                assert await idle.wait(SETTLE_S, lambda: idle.client.echoes > 3)
            return busy, idle

        busy, _ = asyncio.run(work())
    expected_echoes = FAR_S / TALK_INTERVAL_S
    assert busy.client.echoes > 0.9 * expected_echoes


def test_two_places_of_one_test_do_not_meet(tmp_path: Path) -> None:
    """Laboratories stand side by side: the same addresses, and nobody hears of the other."""
    pair = (NatKind.NONE, NatKind.NONE)
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    with meeting_place([pair], homes[0]) as one, meeting_place([pair], homes[1]) as other:

        async def work(place: MeetingPlace) -> bool:
            async with place.agents() as agents, agents.between(pair) as connect:
                await settle(connect, pair)
                return connect.is_same_pair

        async def both() -> tuple[bool, bool]:
            first, second = await asyncio.gather(work(one), work(other))
            return first, second

        assert asyncio.run(both()) == (True, True)
