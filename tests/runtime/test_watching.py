"""Watching: `Terminated` comes exactly once, whatever the end."""

import asyncio

import pytest
from tests.runtime.troupe import Ended, EndedList, Fail, Finish, Gate, Player, Say, UnwatchIt, Watcher, WatchIt

from exeunt.runtime import Ref, Terminated
from exeunt.runtime.node import Node


@pytest.fixture
def watcher(node: Node) -> Ref:
    return node.start(Watcher(), "watcher")


async def ends(watcher: Ref, count: int = 1) -> list[tuple[str, str]]:
    found: EndedList = await watcher.ask(Ended(count))
    return [(one.address, one.reason) for one in found.ended]


@pytest.mark.parametrize(
    ("message", "reason"), [(Finish(), "normal"), (Finish("done"), "done"), (Fail("ValueError"), "crashed")]
)
async def test_an_end_is_told_once(node: Node, watcher: Ref, message: Finish | Fail, reason: str) -> None:
    ref = node.start(Player(), "p")
    for _ in range(3):
        await watcher.ask(WatchIt("n/w/p"))
    ref.tell(message)
    assert await ends(watcher) == [("n/w/p", reason)]
    node.start(Player(), "p").stop()
    assert await ends(watcher) == [("n/w/p", reason)]


async def test_a_crash_is_told_with_its_failure(node: Node, watcher: Ref) -> None:
    node.start(Player(), "p", incarnation=7).tell(Fail("ValueError"))
    await watcher.ask(WatchIt("n/w/p"))
    found: EndedList = await watcher.ask(Ended(1))
    terminated = found.ended[0]
    if terminated.reason == "crashed":
        assert terminated.failure is not None
        assert terminated.failure.type == "ValueError"
        assert terminated.incarnation == 7
    assert terminated.abnormal


async def test_a_kill_is_told(node: Node, watcher: Ref) -> None:
    gate = Gate()
    node.start(gate, "g")
    await watcher.ask(WatchIt("n/w/g"))
    gate.kill()
    assert await ends(watcher) == [("n/w/g", "killed")]


async def test_one_who_never_lived_is_told_at_once(watcher: Ref) -> None:
    await watcher.ask(WatchIt("n/w/nobody"))
    assert await ends(watcher) == [("n/w/nobody", "no_such_actor")]


async def test_an_unknown_worker_is_told_at_once(watcher: Ref) -> None:
    await watcher.ask(WatchIt("n/nowhere/p"))
    assert await ends(watcher) == [("n/nowhere/p", "no_such_actor")]


async def test_a_dead_worker_is_told_once(node: Node, watcher: Ref) -> None:
    await watcher.ask(WatchIt("n/w/watcher"))
    assert node.watches.add("n/w/watcher", "n/w2/p", 1)
    node.worker_down("w2")
    node.worker_down("w2")
    assert await ends(watcher) == [("n/w2/p", "worker_died")]


async def test_after_unwatch_nothing_comes(node: Node, watcher: Ref) -> None:
    first, second = node.start(Player(), "p"), node.start(Player(), "q")
    for name in ("n/w/p", "n/w/q"):
        await watcher.ask(WatchIt(name))
    await watcher.ask(UnwatchIt("n/w/p"))
    first.stop()
    second.stop()
    assert await ends(watcher) == [("n/w/q", "shutdown")]


async def test_who_watches_again_is_told_again(node: Node, watcher: Ref) -> None:
    for count in (1, 2):
        node.start(Player(), "p").stop()
        await watcher.ask(WatchIt("n/w/p"))
        assert len(await ends(watcher, count)) == count


async def test_a_full_mailbox_still_takes_the_news(node: Node) -> None:
    class Small(Watcher):
        mailbox_bound = 0

    small = Small()
    ref = node.start(small, "small")
    player = node.start(Player(), "p")
    node.watches.add("n/w/small", "n/w/p", 1)
    node.watches.add_remote("n/w/small", "n/w/p", 1)
    player.stop()
    await small.changed.wait()
    assert [one.reason for one in small.ended] == ["shutdown"]
    ref.stop()


async def test_many_watchers_are_each_told(node: Node) -> None:
    watchers = [node.start(Watcher(), f"w{n}") for n in range(50)]
    ref = node.start(Player(), "p")
    await asyncio.gather(*(one.ask(WatchIt("n/w/p")) for one in watchers))
    ref.stop()
    assert {tuple(await ends(one)) for one in watchers} == {(("n/w/p", "shutdown"),)}


async def test_a_watcher_that_ends_leaves_no_trace_of_its_watch(node: Node, watcher: Ref) -> None:
    node.start(Player(), "p")
    await watcher.ask(WatchIt("n/w/p"))
    actor = node.actors["watcher"]
    watcher.stop()
    await actor.until_ended()
    assert node.watches.is_empty


async def test_only_an_actor_can_watch(node: Node) -> None:
    with pytest.raises(RuntimeError, match="only an actor can watch"):
        node.local("p").watch()


async def test_terminated_to_one_who_does_not_watch_is_dropped(node: Node, watcher: Ref) -> None:
    from exeunt.runtime.envelope import Envelope, Kind

    body = Terminated("n/w/p", "crashed")
    node.deliver(Envelope(1, 1, 0, "n/w/p", "n/w/watcher", Kind.SYSTEM, 0, body))
    node.start(Player(), "p").stop()
    await watcher.ask(WatchIt("n/w/p"))
    assert len(await ends(watcher)) == 1
    with pytest.raises(Exception, match="Watcher does not handle Say"):
        await watcher.ask(Say("?"))
