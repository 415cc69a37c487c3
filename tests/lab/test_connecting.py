"""Agents behind NATs find the best path that there is, every time: eight pairs, twenty connects each.

The whole matrix, and the times, are `make nat-matrix`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from exeunt.clients.lab import NatKind

from .expectation import Expected, expected
from .meeting_place import Pair, meeting_place
from .nat_matrix import SUBSET, Cell, run

RUNS = 20
AT_ONCE = 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PUNCHED = {f"{ours}/{theirs}" for ours in ("srflx", "prflx") for theirs in ("srflx", "prflx")}
ONE_RELAY = {f"relay/{theirs}" for theirs in ("host", "srflx", "prflx")} | {
    f"{ours}/relay" for ours in ("host", "srflx", "prflx")
}
TYPES: dict[Pair, set[str]] = {
    (NatKind.NONE, NatKind.NONE): {"host/host"},
    (NatKind.FIREWALL, NatKind.FIREWALL): {"host/host"},
    (NatKind.PORT_RESTRICTED, NatKind.PORT_RESTRICTED): PUNCHED,
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC): ONE_RELAY,
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC): ONE_RELAY,
    (NatKind.DOUBLE, NatKind.PORT_RESTRICTED): PUNCHED,
    (NatKind.UDP_BLOCKED, NatKind.PORT_RESTRICTED): {each for each in ONE_RELAY if each.startswith("relay")},
    (NatKind.IPV6_ONLY, NatKind.IPV6_ONLY): {"host/host"},
}
"""The candidate types that each pair may agree on, the client's first."""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Pair, Cell]]:
    """All connects of the subset, made once."""
    with meeting_place(SUBSET, tmp_path_factory.mktemp("relays")) as place:

        async def work() -> list[Cell]:
            async with place.agents() as agents:
                return await run(agents, SUBSET, RUNS, at_once=AT_ONCE, seed=1)

        yield dict(zip(SUBSET, asyncio.run(work()), strict=True))


@pytest.mark.parametrize("pair", SUBSET, ids="-".join)
def test_the_best_path_is_found_and_both_sides_agree_on_it(cells: dict[Pair, Cell], pair: Pair) -> None:
    cell = cells[pair]
    assert cell.runs == RUNS
    right = cell.direct if expected(*pair) is Expected.DIRECT else cell.relayed
    assert (cell.connected, right, cell.same_pair, cell.carried) == (RUNS,) * 4, cell
    assert set(cell.types) <= TYPES[pair]


def test_expectations_are_those_of_the_two_behaviours() -> None:
    """The cells of the usual table: whom a symmetric NAT can meet, what blocked UDP leaves, who has a family."""
    kinds = set(NatKind)
    for kind in kinds:
        for other in kinds:
            assert expected(kind, other) is expected(other, kind)
    meets = {kind for kind in kinds if expected(NatKind.SYMMETRIC, kind) is Expected.DIRECT}
    assert meets == {NatKind.NONE, NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED}
    meets = {kind for kind in kinds if expected(NatKind.PORT_RESTRICTED, kind) is Expected.DIRECT}
    no_udp, symmetric = {NatKind.UDP_BLOCKED, NatKind.TCP_443}, {NatKind.SYMMETRIC, NatKind.CARRIER_SYMMETRIC}
    assert meets == kinds - no_udp - symmetric - {NatKind.IPV6_ONLY}
    meets = {kind for kind in kinds if expected(NatKind.IPV6_ONLY, kind) is Expected.DIRECT}
    assert meets == {NatKind.IPV6_ONLY, NatKind.DUAL_STACK}
    assert not any(expected(NatKind.UDP_BLOCKED, kind) is Expected.DIRECT for kind in kinds)
