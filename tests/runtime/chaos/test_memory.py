"""Nothing is kept of actors that have come and gone. `make soak` looks at the memory itself, for ten minutes."""

from pathlib import Path

import pytest
from tests.runtime.chaos.mayflies import MESSAGES, Go, Hello, Mayfly, Visit, Visits, Walker, tables
from tests.runtime.chaos.test_asks_racing_a_stop import two_nodes
from tests.runtime.conftest import until

from exeunt.runtime import ActorDead
from exeunt.runtime.codec import Codec
from exeunt.runtime.envelope import Message
from exeunt.runtime.messages import MESSAGES as RUNTIMES
from exeunt.runtime.node import Node
from exeunt.runtime.reply import Reply
from exeunt.runtime.testing import MemoryNetwork

MAYFLIES = 10_000
AT_ONCE = 500


class Large(Message, frozen=True):
    text: object


def kept(node: Node) -> dict[str, int]:
    """What a node keeps of actors, but for those that live."""
    return {name: count for name, count in tables(node).items() if count and name not in ("actors", "by_address")}


@pytest.mark.slow
async def test_ten_thousand_names_come_and_go(tmp_path: Path) -> None:
    with two_nodes(tmp_path, Codec([*RUNTIMES, *MESSAGES])) as (home, visitors):
        walker = visitors.start(Walker([str(home.outside)]), "walker")
        for first in range(0, MAYFLIES, AT_ONCE):
            mayflies = [home.start(Mayfly(), f"m{number}") for number in range(first, first + AT_ONCE)]
            for mayfly in mayflies:
                walker.tell(Visit(str(mayfly)))
            await until(lambda: len(home.actors) == 0)
        await until(lambda: not kept(home) and not kept(visitors))
        assert (await walker.ask(Visits())).count == MAYFLIES
        assert list(visitors.actors) == ["walker"]


async def test_nothing_is_kept_of_who_never_was(tmp_path: Path) -> None:
    with two_nodes(tmp_path, Codec([*RUNTIMES, *MESSAGES])) as (home, visitors):
        replies: list[Reply] = []
        for number in range(1_000):
            for worker in ("w1", "nowhere"):
                nobody = visitors.ref(f"n/{worker}/nobody{number}")
                nobody.tell(Hello())
                replies.append(nobody.ask(Hello()))
        for reply in replies:
            with pytest.raises(ActorDead):
                await reply
        await until(lambda: not kept(home) and not kept(visitors))
        assert (home.dead_letters.total, visitors.dead_letters.total) == (1_000, 1_000)


async def test_what_cannot_be_encoded_takes_up_no_room() -> None:
    async with MemoryNetwork("w1", "w2", messages=[*MESSAGES, Large]) as network:
        network.nodes["w1"].start(Mayfly(), "m")
        ref = network.ref("w1/m", seen_from="w2")
        for _ in range(2_000):  # more than a window
            ref.tell(Large(object()))
        ref.tell(Go())
        await until(lambda: not network.nodes["w1"].actors)
        assert network.nodes["w2"].dead_letters.total == 2_000
