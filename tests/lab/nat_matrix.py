"""`make nat-matrix`: every kind of NAT against every other, compared with what is possible.

Real agents connect through the laboratory: edges take 10 ms, the relays' line 30 ms, a word by way of the portal 50 ms,
and the two sides start up to 150 ms apart. All sites stand in one laboratory, each with a process of agents that lives
as long as the run, so a connect costs no more than a connect.

A connect is *settled* when both sides are on one pair and, where a direct path exists, on a direct one; they have
five seconds for that after they connected.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from exeunt.clients.lab import NatKind

from .agents import Connect
from .expectation import Expected, expected
from .meeting_place import Agents, Pair, meeting_place, relays_for

SKEW_S = 0.150
SETTLE_S = 5.0
TALK_INTERVAL_S = 0.1
TARGET_MS = {Expected.DIRECT: 600.0, Expected.RELAYED: 1500.0}
"""For the median of a cell."""

SUBSET: tuple[Pair, ...] = (
    (NatKind.NONE, NatKind.NONE),
    (NatKind.FIREWALL, NatKind.FIREWALL),
    (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.DOUBLE, NatKind.PORT_RESTRICTED),
    (NatKind.UDP_BLOCKED, NatKind.PORT_RESTRICTED),
    (NatKind.IPV6_ONLY, NatKind.IPV6_ONLY),
)
"""The pairs that the ordinary tests try."""
ALL: tuple[Pair, ...] = tuple((client, gateway) for client in NatKind for gateway in NatKind)


@dataclass
class Outcome:
    """What one connect came to."""

    kind: str = ""
    """"direct", "relay", or "" when they did not connect."""
    types: str = ""
    is_same_pair: bool = False
    is_carried: bool = False
    is_settled_later: bool = False
    took_ms: float = 0.0


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """The connects of one pair, as the document has them."""

    client: str
    gateway: str
    expected: Expected
    runs: int
    connected: int
    direct: int
    relayed: int
    same_pair: int
    carried: int
    """How many carried a datagram and its echo."""
    settled_later: int
    """How many were on another path first, and on the right one within five seconds."""
    types: dict[str, int]
    """How often each pair of candidate types was agreed on, as the client sees it."""
    median_ms: float
    worst_ms: float
    """From the begin of gathering to being connected, on the side where it took longer."""

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be, in words."""
        right = self.direct if self.expected is Expected.DIRECT else self.relayed
        counts = {"connected": self.connected, str(self.expected): right, "on one pair": self.same_pair}
        counts |= {"carried data": self.carried}
        found = [f"{count} of {self.runs} {name}" for name, count in counts.items() if count != self.runs]
        target_ms = TARGET_MS[self.expected]
        return found + ([f"median over {target_ms:.0f} ms"] if self.median_ms > target_ms else [])


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """The document `exeunt.nat_matrix/1`."""

    schema: str = "exeunt.nat_matrix/1"
    cells: list[Cell]


async def try_once(agents: Agents, pair: Pair, rng: random.Random) -> Outcome:
    """Connect once, wait until it is settled, and exchange a datagram."""
    wanted = expected(*pair)
    outcome = Outcome()
    async with agents.between(pair) as connect:
        servers = relays_for(pair[0]), relays_for(pair[1])
        if not await connect.start(servers, rng.uniform(-SKEW_S, SKEW_S)):
            return outcome
        outcome.took_ms = connect.took_ms
        outcome.is_settled_later = not is_settled(connect, wanted)
        connect.talk(TALK_INTERVAL_S)
        await connect.wait(SETTLE_S, lambda: is_settled(connect, wanted) and connect.client.echoes > 0)
        path = connect.client.path
        assert path is not None
        outcome.kind = path.kind
        outcome.types = f"{path.local_type}/{path.remote_type}"
        outcome.is_same_pair = connect.is_same_pair
        outcome.is_carried = connect.client.echoes > 0
        outcome.is_settled_later &= is_settled(connect, wanted)
    return outcome


def is_settled(connect: Connect, wanted: Expected) -> bool:
    """Whether both sides are on one pair, and on a direct one where there is one."""
    kinds = {side.path.kind for side in connect.sides if side.path is not None}
    return connect.is_same_pair and (wanted is Expected.RELAYED or kinds == {"direct"})


def summary(pair: Pair, outcomes: Sequence[Outcome]) -> Cell:
    """A cell of what its connects came to."""
    took_ms = [outcome.took_ms for outcome in outcomes if outcome.kind]
    return Cell(
        client=pair[0],
        gateway=pair[1],
        expected=expected(*pair),
        runs=len(outcomes),
        connected=len(took_ms),
        direct=sum(outcome.kind == "direct" for outcome in outcomes),
        relayed=sum(outcome.kind == "relay" for outcome in outcomes),
        same_pair=sum(outcome.is_same_pair for outcome in outcomes),
        carried=sum(outcome.is_carried for outcome in outcomes),
        settled_later=sum(outcome.is_settled_later for outcome in outcomes),
        types=dict(Counter(outcome.types for outcome in outcomes if outcome.kind)),
        median_ms=round(statistics.median(took_ms), 1) if took_ms else 0.0,
        worst_ms=round(max(took_ms), 1) if took_ms else 0.0,
    )


async def run(agents: Agents, pairs: Sequence[Pair], runs: int, *, at_once: int, seed: int) -> list[Cell]:
    """Try every pair so often, several connects at once."""
    rng = random.Random(seed)
    free = asyncio.Semaphore(at_once)
    outcomes: dict[Pair, list[Outcome]] = {pair: [] for pair in pairs}

    async def attempt(pair: Pair) -> None:
        async with free:
            outcomes[pair].append(await try_once(agents, pair, rng))
            if len(outcomes[pair]) == runs:
                show(summary(pair, outcomes[pair]))

    async with asyncio.TaskGroup() as group:
        for pair in pairs:
            for _ in range(runs):
                group.create_task(attempt(pair))
    return [summary(pair, outcomes[pair]) for pair in pairs]


def show(cell: Cell) -> None:
    """Print a line of the table."""
    types = " ".join(f"{types} {count}" for types, count in cell.types.items())
    print(
        f"{cell.client:<19}{cell.gateway:<19}{cell.expected:<9}{cell.direct:>4}/{cell.relayed:<4}{cell.same_pair:>4}"
        f"{cell.settled_later:>6}{cell.median_ms:>8.0f}{cell.worst_ms:>8.0f}  {types}"
        + "".join(f"  << {words}" for words in cell.wrong),
        flush=True,
    )


def kinds_of(text: str) -> tuple[NatKind, NatKind]:
    """``client,gateway`` as an argument of the command."""
    client, gateway = text.split(",")
    return NatKind(client), NatKind(gateway)


def main() -> int:
    """Try all pairs, print the table, write the document; 1 if a cell is wrong."""
    parser = argparse.ArgumentParser(prog="tests.lab.nat_matrix")
    parser.add_argument("--runs", type=int, default=20, help="connects of each pair")
    parser.add_argument("--at-once", type=int, default=4, help="how many connects run side by side")
    parser.add_argument("--seed", type=int, default=1, help="of the starts' skew")
    parser.add_argument("--subset", action="store_true", help="only the pairs of the ordinary tests")
    parser.add_argument("--only", nargs="+", type=kinds_of, metavar="CLIENT,GATEWAY", help="only these pairs")
    parser.add_argument("--output", type=Path, default=Path("build/nat.json"))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("The matrix needs root: it is made of network namespaces.", file=sys.stderr)
        return 2
    pairs: Sequence[Pair] = arguments.only or (SUBSET if arguments.subset else ALL)
    print(f"{'client':<19}{'gateway':<19}{'expected':<9}{'dir':>4}/{'rel':<4}{'pair':>4}{'later':>6}  median   worst")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="exeunt-nat-") as home, meeting_place(pairs, Path(home)) as place:

        async def work() -> list[Cell]:
            async with place.agents() as agents:
                return await run(agents, pairs, arguments.runs, at_once=arguments.at_once, seed=arguments.seed)

        cells = asyncio.run(work())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(Matrix(cells=cells)), indent=2) + b"\n")
    wrong = [cell for cell in cells if cell.wrong]
    print(
        f"{len(cells)} pairs in {time.monotonic() - began:.0f} s, {len(wrong)} not as they must be; {arguments.output}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
