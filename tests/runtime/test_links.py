"""Links: when one ends abnormally, so does the other. And watches that a stale `Terminated` must not satisfy."""

import itertools
from collections.abc import AsyncIterator

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Fail, Finish, Player, UnwatchIt, Watcher, WatchIt

from exeunt.runtime import Actor, Message, Ref, Terminated, receive
from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.node import Node
from exeunt.runtime.testing import MemoryNetwork


class LinkTo(Message, frozen=True):
    target: str


class UnlinkFrom(Message, frozen=True):
    target: str


class Linker(Player):
    """Links itself as it is told."""

    @receive(LinkTo)
    def link(self, message: LinkTo) -> None:
        self.node.ref(message.target).link()

    @receive(UnlinkFrom)
    def unlink(self, message: UnlinkFrom) -> None:
        self.node.ref(message.target).unlink()


class Trapper(Linker, Watcher):
    """Is told of ends instead."""

    trap_exits = True


MESSAGES: list[type[Message]] = [LinkTo, UnlinkFrom, Fail, Finish, WatchIt, UnwatchIt]


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", "c", messages=MESSAGES) as network:
        yield network


@pytest.fixture(params=["near", "far"])
async def pair(request: pytest.FixtureRequest, network: MemoryNetwork) -> tuple[Linker, Linker]:
    """Two that are linked, in one worker or in two."""
    first, second = Linker(), Linker()
    network.nodes["a"].start(first, "first")
    network.nodes["a" if request.param == "near" else "b"].start(second, "second")
    await first.ref.ask(LinkTo(str(second.ref)))
    await network.until_idle()
    return first, second


def ends(trapper: Trapper) -> list[tuple[str, str]]:
    return [(one.address, one.reason) for one in trapper.ended]


@pytest.mark.parametrize("who", [0, 1])
async def test_an_abnormal_end_is_shared(network: MemoryNetwork, pair: tuple[Linker, Linker], who: int) -> None:
    pair[who].ref.tell(Fail("ValueError"))
    for actor in pair:
        await actor.until_ended()
    assert pair[who].exit_reason == "crashed"
    assert pair[1 - who].exit_reason == "linked"
    assert pair[1 - who].log == []  # no on_stop: it was killed
    await network.until_idle()
    assert all(node.watches.is_empty for node in network.nodes.values())


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("reason", ["normal", "shutdown", "done"])
async def test_a_normal_end_is_not(network: MemoryNetwork, pair: tuple[Linker, Linker], who: int, reason: str) -> None:
    pair[who].ref.stop(reason)
    await pair[who].until_ended()
    await network.until_idle()
    assert pair[1 - who].state == "running"
    assert all(node.watches.is_empty for node in network.nodes.values())


@pytest.mark.parametrize("by", [0, 1])
async def test_after_unlink_nothing_is_shared(network: MemoryNetwork, pair: tuple[Linker, Linker], by: int) -> None:
    await pair[by].ref.ask(UnlinkFrom(str(pair[1 - by].ref)))
    await network.until_idle()
    pair[0].kill()
    await pair[0].until_ended()
    await network.until_idle()
    assert pair[1].state == "running"
    assert all(node.watches.is_empty for node in network.nodes.values())


async def test_ends_run_along_a_chain_of_links(network: MemoryNetwork) -> None:
    chain = [Linker() for _ in range(6)]
    for number, actor in enumerate(chain):
        network.nodes["abc"[number % 3]].start(actor, f"l{number}")
    for actor, following in itertools.pairwise(chain):
        await actor.ref.ask(LinkTo(str(following.ref)))
    await network.until_idle()
    chain[2].kill()
    for actor in chain:
        await actor.until_ended()
    assert [actor.exit_reason for actor in chain] == ["linked", "linked", "killed", "linked", "linked", "linked"]


@pytest.mark.parametrize("target", ["test/a/nobody", "test/b/nobody", "test/nowhere/nobody"])
@pytest.mark.parametrize("kind", [Linker, Trapper])
async def test_a_link_to_nobody(network: MemoryNetwork, target: str, kind: type[Linker]) -> None:
    actor = kind()
    network.nodes["a"].start(actor, "l").tell(LinkTo(target))
    if isinstance(actor, Trapper):
        await until(lambda: actor.ended)
        assert ends(actor) == [(target, "no_such_actor")]
        await network.until_idle()
        assert ends(actor) == [(target, "no_such_actor")]
    else:
        await actor.until_ended()
        assert actor.exit_reason == "linked"
    assert network.nodes["a"].watches.is_empty


@pytest.mark.parametrize("kind", [Linker, Trapper])
async def test_a_link_to_a_worker_that_is_killed(network: MemoryNetwork, kind: type[Linker]) -> None:
    actor, other = kind(), Linker()
    network.nodes["b"].start(other, "o")
    await network.nodes["a"].start(actor, "l").ask(LinkTo("test/b/o"))
    await network.until_idle()
    await network.kill("b")
    if isinstance(actor, Trapper):
        await until(lambda: actor.ended)
        assert ends(actor) == [("test/b/o", "worker_died")]
        assert actor.state == "running"
    else:
        await actor.until_ended()
        assert actor.exit_reason == "linked"


@pytest.mark.parametrize("end", [Fail("ValueError"), Finish()])
async def test_who_traps_exits_is_told_of_each_end_once(network: MemoryNetwork, end: Message) -> None:
    trapper, other = Trapper(), Linker()
    network.nodes["b"].start(other, "o")
    ref = network.nodes["a"].start(trapper, "t")
    await ref.ask(LinkTo("test/b/o"))
    await ref.ask(WatchIt("test/b/o"))
    await ref.ask(UnlinkFrom("test/b/o"))
    await ref.ask(LinkTo("test/b/o"))
    other.ref.tell(end)
    await other.until_ended()
    await network.until_idle()
    assert ends(trapper) == [("test/b/o", "crashed" if isinstance(end, Fail) else "normal")]
    assert trapper.state == "running"


async def test_unlinking_leaves_a_watch_and_unwatching_a_link(network: MemoryNetwork) -> None:
    watcher, linker = Trapper(), Linker()
    for number, actor in enumerate((watcher, linker)):
        other = Linker()
        network.nodes["b"].start(other, f"o{number}")
        ref = network.nodes["a"].start(actor, f"x{number}")
        target = f"test/b/o{number}"
        for message in (LinkTo(target), WatchIt(target)) if actor is watcher else (LinkTo(target),):
            await ref.ask(message)
        if actor is watcher:
            await ref.ask(UnlinkFrom(target))
        await network.until_idle()
        other.kill()
        await network.until_idle()
    assert ends(watcher) == [("test/b/o0", "killed")]
    assert linker.exit_reason == "linked"


async def test_an_end_before_the_others_half_is_there(network: MemoryNetwork) -> None:
    """The link, and the end of who made it, are under way together."""
    trapper, first = Trapper(), Linker()
    network.nodes["b"].start(trapper, "t")
    ref = network.nodes["a"].start(first, "first")
    ref.tell(LinkTo("test/b/t"))
    ref.tell(Fail("ValueError"))
    await network.until_idle()
    assert ends(trapper) == [("test/a/first", "crashed")]
    assert all(node.watches.is_empty for node in network.nodes.values())


async def test_a_link_with_oneself_is_no_trouble(network: MemoryNetwork) -> None:
    actor = Linker()
    ref = network.nodes["a"].start(actor, "l")
    await ref.ask(LinkTo("test/a/l"))
    ref.tell(Fail("ValueError"))
    await actor.until_ended()
    await network.until_idle()
    assert network.nodes["a"].watches.is_empty


# --- stale ends ---


def terminated(watch: int, reason: str = "crashed") -> Envelope:
    body = Terminated("test/b/o", reason, watch=watch)
    return Envelope(1, 1, 0, "test/b/o", "test/a/w", Kind.SYSTEM, 0, body)


@pytest.fixture
async def watched(network: MemoryNetwork) -> tuple[Node, Trapper, Ref]:
    """A watcher in one worker that has watched, unwatched, and watched again one in another."""
    network.nodes["b"].start(Linker(), "o")
    watcher = Trapper()
    ref = network.nodes["a"].start(watcher, "w")
    await ref.ask(WatchIt("test/b/o"))
    return network.nodes["a"], watcher, ref


async def test_an_end_that_answers_an_earlier_watch_does_not_answer_a_later_one(
    network: MemoryNetwork, watched: tuple[Node, Trapper, Ref]
) -> None:
    node, watcher, ref = watched
    first = node.watches.id_of("test/a/w", "test/b/o")
    await ref.ask(UnwatchIt("test/b/o"))
    node.deliver(terminated(first))
    await ref.ask(WatchIt("test/b/o"))
    second = node.watches.id_of("test/a/w", "test/b/o")
    assert second != first
    node.deliver(terminated(first))
    await network.until_idle()
    assert watcher.ended == []
    node.deliver(terminated(second))
    node.deliver(terminated(second))
    await network.until_idle()
    assert ends(watcher) == [("test/b/o", "crashed")]


async def test_the_end_of_a_linked_one_says_nothing_of_its_successor(network: MemoryNetwork) -> None:
    """Who traps exits links itself to the successor as soon as it hears of the end. It hears once."""

    class Faithful(Trapper):
        @receive(Terminated)
        def terminated(self, message: Terminated) -> None:
            self.ended.append(message)
            if len(self.ended) == 1:
                network.nodes["b"].start(Linker(), "o", incarnation=2)
                self.node.ref(message.address).watch()

    faithful, other = Faithful(), Linker()
    network.nodes["b"].start(other, "o")
    await network.nodes["a"].start(faithful, "f").ask(LinkTo("test/b/o"))
    await network.until_idle()
    sent: list[Terminated] = []
    system = network.nodes["b"].system

    def spy(to: str, message: Message, *, sender: str) -> None:
        if isinstance(message, Terminated):
            sent.append(message)
        system(to, message, sender=sender)

    network.nodes["b"].system = spy  # type: ignore[method-assign]
    other.kill()
    await network.until_idle()
    assert len(sent) == 1
    assert sent[0].watch != 0
    assert ends(faithful) == [("test/b/o", "killed")]
    assert network.nodes["b"].actors["o"].state == "running"


async def test_nobody_but_an_actor_links(network: MemoryNetwork) -> None:
    ref = network.nodes["a"].start(Actor(), "x")
    for act in (ref.link, ref.unlink):
        with pytest.raises(RuntimeError, match="only an actor"):
            act()
