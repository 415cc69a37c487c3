"""Groups and names: the same in every worker, once the news has gone round."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from tests.runtime.chorus import MESSAGES, Call, Heard, Join, Names, Quit, Singer, Turns, Who
from tests.runtime.conftest import until
from tests.runtime.troupe import Fail, Finish, Number, Said, Say

from exeunt.runtime import ActorDead, ChildSpec, Directories, Ref, RemoteFailure, Restart, Supervisor, WorkerSpec
from exeunt.runtime.engine import Kind
from exeunt.runtime.messages import GroupJoined
from exeunt.runtime.testing import MemoryNetwork

KINDS = [pytest.param("processes", marks=pytest.mark.slow), "inline"]
Start = Callable[..., Awaitable[Supervisor]]


@pytest.fixture(params=KINDS)
async def start(request: pytest.FixtureRequest, directories: Directories) -> AsyncIterator[Start]:
    started: list[Supervisor] = []

    async def start(*children: ChildSpec) -> Supervisor:
        supervisor = Supervisor(
            "t",
            workers=[WorkerSpec(name="w1"), WorkerSpec(name="w2")],
            children=children,
            directories=directories,
            messages=["tests.runtime.chorus:MESSAGES"],
            engine=cast("Kind", request.param),
        )
        started.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        await supervisor.leave()


def singer(name: str, worker: str, *groups: str, **options: Any) -> ChildSpec:
    return ChildSpec(
        id=name, worker=worker, start="tests.runtime.chorus:Singer", args={"groups": list(groups)}, **options
    )


async def seen(ref: Ref, group: str, *expected: str) -> None:
    """Ask until it sees these members."""
    async with asyncio.timeout(10):
        while True:
            try:
                names: Names = await ref.ask(Who(group))
            except ActorDead:
                await asyncio.sleep(0)  # it is being restarted
            else:
                if names.names == expected:
                    return


async def test_everybody_knows_who_is_in_a_group(start: Start) -> None:
    program = await start(singer("a", "w1", "altos"), singer("b", "w2"), singer("c", "w2", "altos", "basses"))
    a, b = program.ref("a"), program.ref("b")
    await b.ask(Join("altos"))
    await b.ask(Join("altos"))  # to join twice is to join
    everybody = ("t/w1/a", "t/w2/b", "t/w2/c")
    for ref in (a, b, program.ref("c")):
        await seen(ref, "altos", *everybody)
        await seen(ref, "basses", "t/w2/c")
        await seen(ref, "nobody")
    await until(lambda: [str(one) for one in program.node.groups.members("altos")] == list(everybody))
    assert program.node.groups.names() == ["altos", "basses"]
    await b.ask(Quit("altos"))
    await b.ask(Quit("altos"))
    await seen(a, "altos", "t/w1/a", "t/w2/c")


async def test_a_member_that_ends_drops_out_and_its_successor_joins_by_itself(start: Start) -> None:
    program = await start(
        singer("a", "w1"), singer("b", "w2", "altos"), singer("c", "w2", "altos", restart=Restart.TEMPORARY)
    )
    a = program.ref("a")
    await seen(a, "altos", "t/w2/b", "t/w2/c")
    await program.ref("c").ask(Finish())
    await seen(a, "altos", "t/w2/b")
    await program.ref("b").ask(Join("late"))
    await seen(a, "late", "t/w2/b")
    with pytest.raises(RemoteFailure):
        await program.ref("b").ask(Fail("ValueError"))
    await seen(a, "late")  # its successor was not told to join that one
    await seen(a, "altos", "t/w2/b")


async def test_a_dead_workers_members_drop_out_and_the_new_worker_learns_of_all(start: Start) -> None:
    program = await start(
        singer("a", "w1", "altos"), singer("b", "w2", "altos", "basses"), singer("c", "w2", restart=Restart.TEMPORARY)
    )
    await program.ref("c").ask(Join("trebles"))
    await seen(program.ref("a"), "trebles", "t/w2/c")
    program.processes["w2"].kill()
    await seen(program.ref("a"), "trebles")
    await seen(program.ref("a"), "altos", "t/w1/a", "t/w2/b")
    await seen(program.ref("b"), "altos", "t/w1/a", "t/w2/b")
    said: Said = await program.ref("b").ask(Say("a"))
    assert said.text == "t/w1/a"


async def test_all_are_told_and_each_has_its_turn(start: Start) -> None:
    program = await start(singer("a", "w1", "altos"), singer("b", "w2", "altos"), singer("c", "w2", "altos"))
    a = program.ref("a")
    await seen(a, "altos", "t/w1/a", "t/w2/b", "t/w2/c")
    assert await a.ask(Call("altos", 1)) == Number(3)
    for name in "abc":
        async with asyncio.timeout(10):
            while await program.ref(name).ask(Heard()) != Number(1):
                pass
    turns: Names = await a.ask(Turns("altos", 4))
    assert turns.names == ("t/w1/a", "t/w2/b", "t/w2/c", "t/w1/a")
    assert await a.ask(Turns("nobody", 1)) == Names(("None",))
    assert await a.ask(Call("nobody", 1)) == Number(0)


async def test_children_are_found_by_name_from_any_worker(start: Start) -> None:
    program = await start(singer("a", "w1"), singer("b", "w2"))

    async def where(asked: str, child: str) -> str:
        said: Said = await program.ref(asked).ask(Say(child))
        return said.text

    assert await where("a", "b") == "t/w2/b"
    assert await where("b", "a") == "t/w1/a"
    assert await where("b", "nobody") == "None"
    await program.start_child(singer("late", "w1", restart=Restart.TEMPORARY))
    assert await where("b", "late") == "t/w1/late"
    assert str(program.node.whereis("late")) == "t/w1/late"
    await program.ref("late").ask(Finish())
    async with asyncio.timeout(10):
        while await where("b", "late") != "None":
            pass
    assert program.node.whereis("late") is None


async def test_what_a_dead_worker_said_last_is_not_heeded(start: Start) -> None:
    program = await start(singer("a", "w1"))
    epoch = program.processes["w1"].boot.epoch
    root = program.node.local("root")
    root.tell(GroupJoined("altos", ("t/w1/ghost",), "w1", epoch - 1))
    root.tell(GroupJoined("altos", ("t/w1/a",), "w1", epoch))
    await until(program.node.groups.names)
    assert [str(one) for one in program.node.groups.members("altos")] == ["t/w1/a"]


async def test_only_an_actor_joins() -> None:
    async with MemoryNetwork("w1", messages=MESSAGES) as network:
        node = network.nodes["w1"]
        with pytest.raises(RuntimeError, match="only an actor"):
            node.groups.join("altos")
        ref = node.start(Singer(("altos",)), "a")
        assert await ref.ask(Who("altos")) == Names(("test/w1/a",))
        await ref.ask(Finish())
        await network.until_idle()
        assert node.groups.names() == []
