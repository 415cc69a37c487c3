"""A session at rest is what it would be if each check had come by it: simulated, and with real agents and sockets."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.ice.internet import Agent, Network, connected, make_pair, start_both
from tests.actors.ice.sides import MakePair, Side, assert_carries, config_for, connect, new_credentials
from tests.actors.ice.test_reading import beside_lanes

from exeunt.actors.batch.choice import choose
from exeunt.actors.batch.lanes import Lanes
from exeunt.actors.grid import COARSE_S
from exeunt.actors.ice import Address, Sockets
from exeunt.actors.ice.connection import IceConnection
from exeunt.actors.ice.machine import IceMachine
from exeunt.actors.ice.messages import Rest
from exeunt.actors.ice.packing import Packing
from exeunt.actors.ice.rest import packed_remote
from exeunt.actors.ice.transactions import FORGET_AFTER_S

# Simulated


class RestingMachine:
    """A machine, and what `clock.SessionClock` and an answerer do, in virtual time."""

    def __init__(self, machine: IceMachine) -> None:
        self._asleep = machine
        self._packing = Packing(machine._checks._credentials)
        self._rest: Rest | None = None
        self._heard: tuple[float, float] = (0.0, 0.0)
        self._nominations = list[bytes]()
        self.answered = 0

    @property
    def selected(self) -> Any:
        return self._asleep.selected

    def answer(self, base_id: int, data: bytes, source: Address, now: float) -> bytes | None:
        rest, base = self._rest, self._asleep.selected
        if rest is None or base is None or base.base.id != base_id or source != rest.remote:
            return None
        reader = Packing(self._asleep._checks._credentials)
        request = reader.read_request(data)
        if request is None or reader.asked != (rest.asked, rest.nominates):
            return None
        if rest.nominates and request.transaction_id not in self._nominations:
            self._nominations = [*self._nominations, request.transaction_id][-64:]
        self._heard = (self._heard[1], now) if now > self._heard[1] else self._heard
        self.answered += 1
        return self._packing.success(request.transaction_id, source)

    def rest(self) -> None:
        self._rest = rest = self._asleep.poll_rest()
        if rest is not None:
            self._heard = 0.0, rest.heard_at
            ids = rest.nominations
            self._nominations = [ids[at : at + 12] for at in range(0, len(ids), 12)]

    def poll_timeout(self) -> tuple[float, str] | None:
        if self._rest is not None:
            return self._heard[1] + self._rest.quiet_s, "consent check"
        return self._asleep.poll_timeout()

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of it wakes it."""
        if self._rest is not None:
            self._rest = None
            self._asleep.handle_heard(*self._heard)
            self._asleep.handle_woken(b"".join(self._nominations))
        return getattr(self._asleep, name)


def let_rest(agent: Agent) -> RestingMachine:
    """Have it rest whenever it may."""
    machine = RestingMachine(agent.machine)
    network, receive = agent.network, agent.receive

    def take(base_id: int, data: bytes, source: Address) -> None:
        answer = machine.answer(base_id, data, source, network.now)
        if answer is None:
            answer = machine.answer_consent(base_id, data, source, network.now)
            if answer is not None:
                machine.rest()
        if answer is None:
            receive(base_id, data, source)
        else:
            agent.sent[source] += 1
            network.send(agent.nats[base_id], answer, source)

    agent.machine = machine  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    agent.receive = take  # type: ignore[method-assign]
    return machine


Happening = tuple[str, float]
HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(["nothing", "cut", "mend", "say", "hear", "hint", "rebind"]), st.floats(0.0, 20.0)),
    max_size=8,
)


def lived(happenings: list[Happening], *, loss: float, seed: int, rests: bool) -> tuple[Any, ...]:
    """Return what a gateway saw, did and said in such a life, and how many checks were answered for it."""
    network = Network(loss=loss, seed=seed)
    a, b = make_pair(network)
    machine = let_rest(b) if rests else None
    a.add_host("203.0.113.1")
    nat = a.add_host("10.1.0.1", "port", "203.0.113.7")
    b.add_host("203.0.113.2")
    start_both(a, b)
    network.run(5.0, connected(a, b))
    seen: list[Any] = []
    for what, then_s in happenings:
        if what in ("cut", "mend"):
            network.cut = what == "cut"
        elif what == "rebind":
            nat.rebind()
        elif what == "hint":
            b.machine.handle_hint(network.now)
            b.drain()
        elif b.machine.selected is not None and a.machine.selected is not None:
            (b if what == "say" else a).say()
        network.run(then_s)
        seen.append((b.machine.poll_timeout(), b.machine.last_alive, b.machine.watches(network.now)))
    network.run(40.0)
    consent = b.machine._consent
    clock = None if consent is None else (consent.last_alive, consent._gap_s, consent.poll_timeout())
    ids = len(b.machine._checks.nominations)
    said = [(source, destination, len(payload)) for source, destination, payload in network.log]
    return (b.events, a.events, dict(b.sent), seen, clock, ids, said), 0 if machine is None else machine.answered


@settings(max_examples=60, deadline=None)
@given(happenings=HAPPENINGS, loss=st.sampled_from([0.0, 0.0, 0.2]), seed=st.integers(0, 1000))
def test_a_life_is_the_same_with_and_without_rest(happenings: list[Happening], loss: float, seed: int) -> None:
    resting, _ = lived(happenings, loss=loss, seed=seed, rests=True)
    assert resting == lived(happenings, loss=loss, seed=seed, rests=False)[0]


def test_a_peer_that_only_checks_is_answered_by_others_nearly_always() -> None:
    found, answered = lived([("nothing", 20.0)] * 12, loss=0.0, seed=1, rests=True)
    assert answered > 60
    assert found[5] == 64 * 12


@pytest.mark.parametrize("at", [23.0, 25.5, 40.0])
def test_a_cut_is_named_at_the_same_time(at: float) -> None:
    happenings = [("nothing", at), ("cut", 30.0)]
    (events, *_), answered = lived(happenings, loss=0.0, seed=3, rests=True)
    assert answered > 0
    (others, *_), _ = lived(happenings, loss=0.0, seed=3, rests=False)
    assert events == others
    assert 13.5 <= events[-1][0] - 1000.0 - at <= 17.0


def test_whatever_has_more_to_do_does_not_rest() -> None:
    network = Network()
    a, b = make_pair(network)
    a.add_host("203.0.113.1")
    b.add_host("203.0.113.2")
    start_both(a, b)
    assert b.machine.poll_rest() is None  # there is no path
    network.run(5.0)
    assert a.machine.poll_rest() is None  # it asks, and is not asked
    b.machine.handle_hint(network.now)
    assert b.machine.poll_rest() is None  # its question is not answered
    network.run(1.0)
    rest = b.machine.poll_rest()
    assert rest is not None
    assert rest.quiet_s == 6.0
    assert b.machine.poll_rest() is None  # the last check is theirs to keep now, and none has come since
    b.machine.handle_woken(rest.nominations)
    assert len(rest.nominations) % 12 == 0


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        (("192.0.2.1", 0x1234), b"\x12\x34" + bytes(4) + bytes((192, 0, 2, 1))),
        (("2001:db8::1", 1), b"\0\1" + bytes(4) + bytes.fromhex("20010db8000000000000000000000001")),
        (("fe80::1%1", 1), None),
        (("2001:DB8::1", 1), None),
    ],
)
def test_an_address_that_a_reading_would_tell_otherwise_is_not_packed(address: Address, packed: bytes | None) -> None:
    assert packed_remote(address) == packed


# Real


async def test_late_answers_are_forgotten_where_the_grid_has_a_point(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    session = b.agent._current
    sent, pair, began = session._asleep._checks._transactions, session._asleep.selected, session._now()
    assert pair is not None
    sent.add(b"t" * 12, pair, nominates=False, controlling=False, now=began)
    session._now = lambda: began + FORGET_AFTER_S - COARSE_S - 0.01
    session.note_alive()
    session._wake()
    assert len(sent) == 1
    session._now = lambda: began + FORGET_AFTER_S - COARSE_S + 0.01
    session._wake()
    assert len(sent) == 0


LANES = choose().lanes
real = pytest.mark.skipif(LANES is None, reason="no kernel with lanes")


class Gateway:
    """An agent that only answers, where sessions may rest, and its peer."""

    def __init__(self, **config: Any) -> None:
        assert LANES is not None
        self.lanes: Lanes = LANES()
        sockets = Sockets()
        sockets.read_with(beside_lanes(self.lanes), self.lanes)
        ours, theirs = new_credentials()
        self.peer = Side(config_for(theirs, **config))
        self.side = Side(config_for(ours, role="controlled", **config), sockets=sockets)
        self.side.peer, self.peer.peer = self.peer, self.side
        self.sockets = sockets
        self.stun: list[bytes] = []

    @property
    def session(self) -> IceConnection:
        return self.side.agent._current

    @property
    def is_at_rest(self) -> bool:
        return self.session._answerer is not None

    @property
    def answered(self) -> int:
        answerer = self.session._answerer
        return 0 if answerer is None else answerer.books()[0]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():  # noqa: ASYNC110 - real sockets, and nothing is called when others answer
                await asyncio.sleep(0.005)

    async def rest(self) -> None:
        """Come to rest, and have one check be answered there."""
        await connect(self.peer, self.side)
        await self.until(lambda: self.answered > 0)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway(consent_interval_s=0.25, lost_after_s=1.0)
    yield made
    for side in (made.side, made.peer):
        await side.agent.close(0.5)
    assert made.lanes.silent_by(1e12)[0] == []


@real
async def test_a_gateway_comes_to_rest_and_knows_that_its_peer_lives(gateway: Gateway) -> None:
    await gateway.rest()
    session = gateway.session
    assert session._timer is None
    before, answered = session.last_alive, gateway.answered
    await gateway.until(lambda: gateway.answered > answered)
    assert before is not None
    assert session.last_alive is not None
    assert session.last_alive > before
    assert session.watches
    assert gateway.is_at_rest  # to look does not wake it


@real
async def test_at_rest_a_peer_that_falls_silent_is_missed_and_lost(gateway: Gateway) -> None:
    await gateway.rest()
    await gateway.peer.agent.close(0.3)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(5):
        lost = await gateway.side.losses.get()
    assert gateway.side.quiet > 0
    assert not gateway.side.agent.watches
    assert lost.reason == "no_answer"
    assert 0.7 < loop.time() - began < 2.5
    assert not gateway.is_at_rest


@real
@pytest.mark.parametrize("what", ["send", "hint", "note_alive", "servers"])
async def test_whatever_happens_ends_the_rest_and_then_it_rests_again(gateway: Gateway, what: str) -> None:
    await gateway.rest()
    agent = gateway.side.agent
    happen: dict[str, Callable[[], None]] = {
        "send": lambda: agent.send(b"\4\0\0\0 data"),
        "hint": agent.hint,
        "note_alive": agent.note_alive,
        "servers": lambda: gateway.session.take_base_leaving(9),
    }
    happen[what]()
    assert not gateway.is_at_rest
    assert gateway.session._timer is not None
    await gateway.until(lambda: gateway.answered > 0)


@real
async def test_data_goes_by_while_it_rests(gateway: Gateway) -> None:
    await gateway.rest()
    await assert_carries(gateway.peer, gateway.side)
    await gateway.until(lambda: gateway.answered > 0)


@real
async def test_a_snapshot_has_what_was_heard_at_rest(gateway: Gateway) -> None:
    await gateway.rest()
    session = gateway.session
    answerer = session._answerer
    assert answerer is not None
    snapshot = session.snapshot()
    assert snapshot is not None
    assert snapshot.last_alive == answerer.books()[2]


@real
async def test_after_a_restart_the_new_session_rests(gateway: Gateway) -> None:
    await gateway.rest()
    old = gateway.session
    ours, theirs = new_credentials()
    await asyncio.gather(
        gateway.side.agent.restart(ours, 5.0, 1),
        gateway.peer.agent.restart(theirs, 5.0, 1),
    )
    assert gateway.session is not old
    await gateway.until(lambda: gateway.answered > 0)


@real
async def test_who_is_closed_at_rest_answers_nothing(gateway: Gateway) -> None:
    await gateway.rest()
    session = gateway.session
    await session.close(0.5)
    assert not gateway.is_at_rest
    assert session._timer is None
    assert gateway.lanes.silent_by(1e12)[0] == []


@real
async def test_long_passwords_are_no_case_for_it() -> None:
    gateway = Gateway()
    rng = random.Random(1)
    rests = gateway.sockets.rests
    assert rests is not None
    rest = Rest("127.0.0.1", ("127.0.0.1", 9), bytes(65), rng.randbytes(40), False, b"", 1.0, 6.0)
    assert rests.begin(gateway.session, rest, 0) is None
    rest = Rest("127.0.0.1", ("127.0.0.1", 9), bytes(64), bytes(129), False, b"", 1.0, 6.0)
    assert rests.begin(gateway.session, rest, 0) is None
    await gateway.side.agent.close(0.5)
    await gateway.peer.agent.close(0.5)
    assert Counter(gateway.side.agent.counters) == Counter()
