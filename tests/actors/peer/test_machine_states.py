"""Whatever happens in whatever order, garbage included: no exception, the table is respected, one ending."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.actors.peer.pair import ConnectionPair, other, reachable_from

from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.states import State
from exeunt.actors.timing import GOODBYE_DEADLINE_S, LINGER_S
from exeunt.actors.wireguard.testing import SIDES, Side, ipv4_packet

SIDE = st.sampled_from(SIDES)
CAUSE = st.sampled_from([Cause.SIGNED_OUT, Cause.SHUTTING_DOWN, Cause.ACCESS_REVOKED, Cause.PORTAL_DENIED])


class Lives(RuleBasedStateMachine):
    """Both ends of a connection, and a world that does not care."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = ConnectionPair()
        self.states: dict[Side, State] = {"client": "connecting", "gateway": "connecting"}

    @rule(side=SIDE, rtt_ms=st.sampled_from([0.1, 20.0, 600.0]))
    def path(self, side: Side, rtt_ms: float) -> None:
        self.pair.connections[side].handle_path(rtt_ms, self.pair.now)
        self.pair.settle()

    @rule()
    def both_paths(self) -> None:
        self.pair.connect()

    @rule(side=SIDE)
    def packet(self, side: Side) -> None:
        self.pair.send(side, ipv4_packet())

    @rule(side=SIDE, datagram=st.binary(max_size=160))
    def garbage(self, side: Side, datagram: bytes) -> None:
        self.pair.deliver(side, datagram)

    @rule(side=SIDE, back=st.integers(1, 20), spoil=st.integers(0, 400))
    def replay_or_forge(self, side: Side, back: int, spoil: int) -> None:
        mine = [datagram for sender, datagram in self.pair.carried if sender == other(side)]
        if mine:
            datagram = bytearray(mine[-min(back, len(mine))])
            if spoil < len(datagram):
                datagram[spoil] ^= 0x55
            self.pair.deliver(side, bytes(datagram))

    @rule(side=SIDE, cause=CAUSE)
    def close(self, side: Side, cause: Cause) -> None:
        self.pair.close(side, cause)

    @rule(side=SIDE, ago_s=st.floats(0, 30))
    def lose(self, side: Side, ago_s: float) -> None:
        self.pair.connections[side].handle_lost(Cause.NETWORK_LOST, {}, ago_s, self.pair.now)
        self.pair.settle()

    @rule(side=SIDE)
    def fail(self, side: Side) -> None:
        self.pair.connections[side].handle_failed({}, self.pair.now)
        self.pair.settle()

    @rule(side=SIDE, token=st.integers(0, 5))
    def ping(self, side: Side, token: int) -> None:
        self.pair.connections[side].handle_ping(token, self.pair.now)
        self.pair.settle()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.06, 0.5, 2.0, 30.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.pair.advance(seconds)

    @rule(loss=st.sampled_from([0.0, 0.0, 0.2, 1.0]))
    def weather(self, loss: float) -> None:
        self.pair.loss = loss

    @invariant()
    def the_table_is_respected(self) -> None:
        for side in SIDES:
            now = self.pair.connections[side].state
            assert now in reachable_from(self.states[side])
            self.states[side] = now

    @invariant()
    def there_is_one_ending_once_it_is_over_and_none_before(self) -> None:
        for side in SIDES:
            over = self.states[side] in ("lingering", "ended")
            assert len(self.pair.endings(side)) == over
            assert len(self.pair.connected(side)) <= 1

    @invariant()
    def whoever_must_still_do_something_has_a_timer(self) -> None:
        for side in SIDES:
            connection = self.pair.connections[side]
            due = connection.poll_timeout()
            if connection.state in ("closing", "lingering") or (connection.has_path and connection.state != "ended"):
                assert due is not None or connection.state == "established"
            if connection.state == "ended":
                assert due is None

    def teardown(self) -> None:
        """Told to close, and given time, both come to an end."""
        for side in SIDES:
            self.pair.close(side, Cause.SHUTTING_DOWN)
        self.pair.advance(GOODBYE_DEADLINE_S + LINGER_S + 0.1)
        for side in SIDES:
            assert self.pair.connections[side].state == "ended"
            assert self.pair.ending(side).initiated_by in Initiator


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLives = pytest.mark.slow(Lives.TestCase)
