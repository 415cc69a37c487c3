"""Several relays: which one is preferred, and what becomes of a path when one goes."""

import asyncio
from typing import Any

import pytest
from tests.actors.ice.sides import MakePair, Side, assert_carries, connect, new_credentials, turn

from exeunt.actors.ice import relay
from exeunt.actors.ice.candidate import parse_candidate


def through(side: Side) -> int:
    """The port of the relayed address that the path uses on this side."""
    path = side.agent.path
    assert path is not None
    assert path.local_type == "relay"
    return path.local[1]


def ports(server: Any) -> set[int]:
    return {allocation.transport.get_extra_info("sockname")[1] for allocation in server.allocations.values()}


async def path_changed(side: Side, count: int, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while len(side.paths) < count:  # noqa: ASYNC110 - callbacks, and real sockets between them
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_the_nearer_relay_is_preferred(turn_servers: list[Any], make_pair: MakePair) -> None:
    far, near = turn_servers
    far.delay_s = 0.1
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(far.address), turn(near.address))})
    await connect(a, b)
    assert through(a) in ports(near)
    relayed = [parse_candidate(line) for line in a.candidates if line]
    assert len(relayed) == 2
    assert max(relayed, key=lambda candidate: candidate.priority).address[1] in ports(near)
    await assert_carries(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["controlling", "controlled"])
async def test_a_relay_that_is_taken_off_the_list_is_left_before_it_is_released(
    who: str, turn_servers: list[Any], make_pair: MakePair
) -> None:
    old, new = turn_servers
    relayed: dict[str, Any] = {"relay_only": True, "servers": (turn(old.address),)}
    a, b = make_pair(**{"for_a" if who == "controlling" else "for_b": relayed})
    mine, other = (a, b) if who == "controlling" else (b, a)
    await connect(a, b)
    before = through(mine)
    assert before in ports(old)
    mine.agent.set_servers((turn(new.address),))
    sent = 0
    async with asyncio.timeout(5.0):
        while len(mine.paths) < 2 or len(other.paths) < 2:
            mine.agent.send(sent.to_bytes(4, "big") + b"x")
            sent += 1
            await asyncio.sleep(0.01)
    assert through(mine) in ports(new)
    assert [line for line in mine.candidates if str(before) in line] == mine.withdrawn
    assert len(old.allocations) == 1  # what the peer sent meanwhile still arrives
    await assert_carries_all(mine, other, sent)
    async with asyncio.timeout(5.0):
        while old.allocations:  # noqa: ASYNC110 - another socket's server
            await asyncio.sleep(0.05)
    assert ("REFRESH", 0) in old.requests
    assert a.losses.empty()
    assert b.losses.empty()


async def assert_carries_all(sender: Side, receiver: Side, sent: int) -> None:
    sender.agent.send(b"last")
    got: set[bytes] = set()
    async with asyncio.timeout(2.0):
        while b"last" not in got:
            got.add(await receiver.datagrams.get())
    assert len(got) == sent + 1


@pytest.mark.slow
@pytest.mark.parametrize("who", ["controlling", "controlled"])
async def test_a_relay_that_dies_is_replaced_by_another(who: str, turn_servers: list[Any], make_pair: MakePair) -> None:
    dying, spare = turn_servers
    spare.delay_s = 0.03
    servers = (turn(dying.address), turn(spare.address))
    a, b = make_pair(**{"for_a" if who == "controlling" else "for_b": {"relay_only": True, "servers": servers}})
    mine, other = (a, b) if who == "controlling" else (b, a)
    await connect(a, b)
    before = through(mine)
    assert before in ports(dying)
    loop = asyncio.get_running_loop()
    died_at = loop.time()
    dying.close()
    while len(mine.paths) < 2 or len(other.paths) < 2:
        mine.agent.send(b"anybody?")
        await asyncio.sleep(0.02)
        assert loop.time() - died_at < 5.0
    assert through(mine) in ports(spare)
    assert [line for line in mine.candidates if str(before) in line] == mine.withdrawn
    await asyncio.sleep(0.1)
    mine.agent.send(b"now")
    async with asyncio.timeout(2.0):
        while await other.datagrams.get() != b"now":
            pass
    assert a.losses.empty()
    assert b.losses.empty()


async def test_the_same_relay_with_other_credentials_is_kept(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    a.agent.set_servers((turn(turn_server.address, username="later", password="other"),))
    await assert_carries(a, b)
    assert a.withdrawn == []
    assert len([name for name, _ in turn_server.requests if name == "ALLOCATE"]) == 2  # the first is refused


@pytest.mark.slow
async def test_a_server_that_comes_later_gives_a_candidate(turn_servers: list[Any], make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_servers[0].address),)})
    await connect(a, b)
    a.agent.set_servers(tuple(turn(server.address) for server in turn_servers))
    async with asyncio.timeout(2.0):
        while len([line for line in a.candidates if line]) < 2:  # noqa: ASYNC110 - a callback will add it
            await asyncio.sleep(0.01)
    assert len(a.paths) == 1
    assert len(turn_servers[1].allocations) == 1


@pytest.mark.slow
async def test_a_path_whose_relay_died_is_broken_when_no_other_works(
    turn_servers: list[Any], make_pair: MakePair
) -> None:
    dying, mute = turn_servers
    mute.delay_s = 0.03
    servers = (turn(dying.address), turn(mute.address))
    a, b = make_pair(for_a={"relay_only": True, "servers": servers})
    await connect(a, b)
    assert through(a) in ports(dying)
    mute.is_mute = True
    died_at = asyncio.get_running_loop().time()
    dying.close()
    while not a.broken:
        a.agent.send(b"anybody?")
        await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - died_at < 5.0
    assert a.losses.empty()
    mute.is_mute = False
    await path_changed(a, 2)
    assert through(a) in ports(mute)
    assert (a.broken, b.broken) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("is_urgent", [True, False])
async def test_a_silent_path_has_its_relay_questioned(
    is_urgent: bool, turn_server: Any, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "KEEPALIVE_ROUNDS", 1)
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    a.agent.hint(urgent=is_urgent)
    await asyncio.sleep(0.1)
    assert turn_server.requests[-1][0] == "BINDING"
    turn_server.is_mute = True
    a.agent.hint(urgent=is_urgent)
    async with asyncio.timeout(5.0):
        assert (await a.losses.get()).reason == "relay_silent"
    assert a.agent.counters["relay_silent"] == 1


@pytest.mark.slow
async def test_the_old_session_leaves_a_relay_that_dies_during_a_restart(
    turn_servers: list[Any], make_pair: MakePair
) -> None:
    dying, spare = turn_servers
    spare.delay_s = 0.03
    servers = (turn(dying.address), turn(spare.address))
    a, b = make_pair(for_a={"relay_only": True, "servers": servers})
    await connect(a, b)
    assert through(a) in ports(dying)
    ours, _ = new_credentials()
    restarting = asyncio.create_task(a.agent.restart(ours, 8.0, 1))  # the peer does not hear of it
    await asyncio.sleep(0.2)
    dying.close()
    async with asyncio.timeout(5.0):
        while len(a.paths) < 2 or len(b.paths) < 2:
            a.agent.send(b"anybody?")
            await asyncio.sleep(0.02)
    assert through(a) in ports(spare)
    assert not restarting.done()
    restarting.cancel()
    await asyncio.gather(restarting, return_exceptions=True)


@pytest.mark.slow
async def test_a_refusal_shortens_the_question_that_is_under_way(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    turn_server.is_mute = True
    a.agent.hint()
    await asyncio.sleep(0.1)
    turn_server.close()
    a.agent.send(b"anybody?")
    async with asyncio.timeout(4.0):  # and not after five rounds
        assert (await a.losses.get()).reason == "relay_lost"
