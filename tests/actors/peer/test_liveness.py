"""Who is taken for dead, when, and why; and who is not. A clock that moves only when told."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.blame import initiator_of, told_cause
from exeunt.actors.peer.liveness import Doubt, Liveness, LivenessEvent, PathWanted, ProbeWanted, Verdict
from exeunt.actors.timing import (
    BUSY_SUSPECT_S,
    CONSENT_INTERVAL_S,
    DOUBT_S,
    EARLIEST_S,
    LATEST_S,
    LOST_AFTER_S,
    LOST_MARGIN_S,
    PROBE_REPEAT_S,
    PROBE_S,
    QUIET_S,
    RELAY_LOST_S,
    STALL_GRACE_S,
    SUSPECT_S,
    TOLD_PATIENCE_S,
)

RTT_S = 0.02


class World:
    """Serves the timers on time, and plays a peer that answers probes while it `lives`."""

    def __init__(self, *, rtt_s: float = RTT_S, lost_after_s: float = LOST_AFTER_S) -> None:
        self.now = self.start = 1000.0
        self.rtt_s = rtt_s
        self.lives = True
        self.liveness = Liveness(lost_after_s=lost_after_s, now=self.now)
        self.liveness.handle_rtt(rtt_s)
        self.events: list[tuple[float, LivenessEvent]] = []
        self.answers: list[float] = []

    def doubt(self, doubt: Doubt, reason: str = "the portal says so", cause: str = "") -> None:
        self.liveness.handle_doubt(doubt, reason, self.now, cause)
        self.drain()

    def advance(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        until = self.now + seconds
        while True:
            timeout = self.liveness.poll_timeout()
            assert timeout is not None
            wake = min([timeout[0], *self.answers])
            if wake > until or self.verdicts:
                break
            self.now = max(self.now, wake)
            if self.answers and self.answers[0] <= self.now:
                self.answers.pop(0)
                self.liveness.handle_alive(self.now, answers_probe=True)
            meanwhile()
            self.liveness.handle_timeout(self.now)
            self.drain()
        self.now = until

    def sleep(self, seconds: float) -> None:
        """Our own process is stopped; then its timers fire, all of them late."""
        self.now += seconds
        self.liveness.handle_timeout(self.now)
        self.drain()

    def drain(self) -> None:
        while (event := self.liveness.poll_event()) is not None:
            self.events.append((self.now, event))
            if isinstance(event, ProbeWanted) and self.lives:
                self.answers.append(self.now + self.rtt_s)

    @property
    def verdicts(self) -> list[Verdict]:
        return [event for _, event in self.events if isinstance(event, Verdict)]

    @property
    def verdict(self) -> Verdict:
        (verdict,) = self.verdicts
        return verdict

    def since_start(self, kind: type[LivenessEvent]) -> list[float]:
        """When events of that kind came, in seconds since the beginning, to the hundredth."""
        return [round(at - self.start, 2) for at, event in self.events if isinstance(event, kind)]


# --- what the portal says ---


def test_a_process_whose_link_was_reset_and_that_does_not_answer_has_died() -> None:
    world = World()
    world.lives = False
    world.doubt("reset", "the link was reset")
    world.advance(2)
    verdict = world.verdict
    assert (verdict.cause, verdict.initiated_by) == (Cause.PROCESS_DIED, Initiator.NETWORK)
    assert verdict.detection_ms == pytest.approx(PROBE_S * 1000, abs=1)
    assert verdict.evidence["told"] == "the link was reset"
    assert verdict.evidence["portal_saw"] == "reset"
    assert verdict.evidence["probes_sent"] == pytest.approx(PROBE_S / PROBE_REPEAT_S, abs=1)


@pytest.mark.parametrize("doubt", ["reset", "left", "ended", "silent", "hint"])
def test_a_living_peer_is_never_ended_by_what_the_portal_says(doubt: Doubt) -> None:
    world = World()
    world.doubt(doubt, cause="signed_out")
    world.advance(60)
    assert world.verdicts == []
    assert world.since_start(PathWanted) == []


def test_a_living_peer_costs_one_probe() -> None:
    world = World()
    world.doubt("reset")
    world.advance(QUIET_S - 1)
    assert len(world.since_start(ProbeWanted)) == 1


@pytest.mark.parametrize(
    ("doubt", "word", "cause", "by"),
    [
        ("ended", "worker_crashed", Cause.WORKER_CRASHED, Initiator.SUPERVISOR),
        ("ended", "network_lost", Cause.NETWORK_LOST, Initiator.NETWORK),
        ("ended", "relay_lost", Cause.RELAY_LOST, Initiator.NETWORK),
        ("ended", "access_revoked", Cause.ACCESS_REVOKED, Initiator.PORTAL),
        ("ended", "process_died", Cause.NETWORK_LOST, Initiator.NETWORK),
        ("left", "signed_out", Cause.SIGNED_OUT, Initiator.PEER),
        ("left", "crashed", Cause.WORKER_CRASHED, Initiator.SUPERVISOR),
        ("left", "a_word_of_2030", Cause.SHUTTING_DOWN, Initiator.PEER),
        ("left", "", Cause.SHUTTING_DOWN, Initiator.PEER),
    ],
)
def test_what_the_peer_told_the_portal_is_the_cause_once_it_is_silent(
    doubt: Doubt, word: str, cause: Cause, by: Initiator
) -> None:
    world = World()
    world.lives = False
    world.doubt(doubt, cause=word)
    world.advance(2)
    assert (world.verdict.cause, world.verdict.initiated_by) == (cause, by)
    assert world.verdict.evidence["told_cause"] == word


def test_a_portal_that_only_lost_sight_of_a_silent_peer_concludes_nothing() -> None:
    world = World()
    world.lives = False
    world.doubt("silent", "its heartbeats are missing")
    world.advance(EARLIEST_S - 0.1)
    assert world.verdicts == []
    assert world.since_start(PathWanted)[0] == DOUBT_S
    world.advance(0.2)
    assert world.verdict.cause == Cause.NETWORK_LOST
    assert world.verdict.evidence["portal_saw"] == "silent"


def test_who_leaves_the_portal_answers_until_it_has_left_us_too() -> None:
    world = World()
    world.doubt("left", cause="shutting_down")
    world.advance(1.0)
    world.lives = False
    world.answers.clear()
    world.advance(PROBE_S + 0.1)
    assert world.verdict.cause == Cause.SHUTTING_DOWN
    assert world.verdict.evidence["heard_while_leaving"] is True


def test_who_leaves_the_portal_and_stays_with_us_is_let_be() -> None:
    world = World()
    world.doubt("left", cause="shutting_down")
    world.advance(TOLD_PATIENCE_S + 0.5)
    world.lives = False
    world.answers.clear()
    world.advance(LOST_AFTER_S + 2)
    assert world.verdict.cause == Cause.NETWORK_LOST


def test_who_says_why_is_believed_before_who_says_nothing() -> None:
    world = World()
    world.lives = False
    world.doubt("ended", cause="worker_crashed")
    world.advance(0.3)
    world.doubt("reset", "the link was reset, too")
    world.advance(2)
    assert world.verdict.cause == Cause.WORKER_CRASHED


def test_what_was_under_way_when_the_process_died_does_not_save_it() -> None:
    world = World(rtt_s=0.3)
    world.lives = False
    world.doubt("reset")
    world.advance(0.15)
    world.liveness.handle_alive(world.now)
    world.advance(2)
    assert world.verdict.cause == Cause.PROCESS_DIED


def test_but_what_comes_later_does() -> None:
    world = World(rtt_s=0.3)
    world.lives = False
    world.doubt("reset")
    world.advance(0.35)
    world.liveness.handle_alive(world.now)
    world.advance(5)
    assert world.verdicts == []


def test_a_slow_path_is_given_two_and_a_half_round_trips() -> None:
    world = World(rtt_s=0.9)
    world.lives = False
    world.doubt("reset")
    world.advance(2.2)
    assert world.verdicts == []
    world.advance(0.1)
    assert world.verdict.detection_ms == pytest.approx(2250, abs=1)


# --- silence ---


def test_an_idle_connection_asks_now_and_then_and_lives_for_ever() -> None:
    world = World()
    world.advance(3600)
    assert world.verdicts == []
    assert len(world.since_start(ProbeWanted)) == pytest.approx(3600 / QUIET_S, rel=0.05)


def test_where_ice_hears_the_peer_nothing_is_asked() -> None:
    world = World()
    for _ in range(100):
        world.advance(5)
        world.liveness.handle_alive(world.now - 0.1)
    assert world.events == []


def test_who_wakes_early_learns_when_it_is_due_by_now() -> None:
    world = World()
    world.liveness.handle_alive(world.now + 2.0)
    world.liveness.handle_timeout(world.now + QUIET_S - 0.2)
    assert world.liveness.poll_timeout() == (world.now + 2.0 + QUIET_S, "liveness")
    assert world.events == []


def test_five_seconds_without_an_answer_are_suspicious() -> None:
    world = World()
    world.lives = False
    world.liveness.handle_sent(world.now)
    world.advance(LATEST_S + 0.1)
    assert world.since_start(ProbeWanted)[0] == SUSPECT_S
    assert world.since_start(PathWanted)[0] == SUSPECT_S + DOUBT_S
    assert world.verdict.cause == Cause.NETWORK_LOST
    assert world.verdict.detection_ms == pytest.approx(EARLIEST_S * 1000, abs=1)


def test_on_a_busy_path_less_than_a_second_without_an_answer_is_suspicious() -> None:
    world = World()
    for _ in range(20):
        world.advance(0.05)
        world.liveness.handle_alive(world.now)
    world.lives = False
    world.liveness.handle_sent(world.now)
    silent_since = world.now - world.start
    world.advance(5)
    assert world.since_start(ProbeWanted)[0] == pytest.approx(silent_since + BUSY_SUSPECT_S)
    assert world.since_start(PathWanted)[0] == pytest.approx(silent_since + BUSY_SUSPECT_S + DOUBT_S)
    assert world.verdicts == []


def test_who_lives_on_another_path_does_not_save_this_one() -> None:
    world = World()
    for _ in range(20):
        world.advance(0.05)
        world.liveness.handle_alive(world.now)
    world.lives = False
    world.liveness.handle_sent(world.now)
    for _ in range(40):
        world.advance(0.05)
        world.liveness.handle_alive(world.now, by_ice=True)
    assert len(world.since_start(PathWanted)) == 1


def test_what_flows_one_way_is_answered_by_the_probes() -> None:
    world = World()
    for _ in range(200):
        world.advance(0.05)
        world.liveness.handle_sent(world.now)
    assert world.since_start(PathWanted) == []


def test_an_answer_is_an_answer_to_all_that_was_sent() -> None:
    world = World()
    for _ in range(20):
        world.liveness.handle_sent(world.now)
        world.advance(1)
        world.liveness.handle_alive(world.now)
    assert world.events == []


def test_what_ice_says_of_a_silent_path_is_the_verdict() -> None:
    world = World()
    world.lives = False
    world.advance(LOST_AFTER_S)
    world.liveness.handle_path_lost({"ice": "no_answer"}, LOST_AFTER_S, world.now)
    world.drain()
    assert (world.verdict.cause, world.verdict.evidence["ice"]) == (Cause.NETWORK_LOST, "no_answer")


@pytest.mark.parametrize("pause_s", [0.01, 1.0, 2.0, CONSENT_INTERVAL_S])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_cut_is_named_fifteen_seconds_later_whether_the_path_was_idle_or_busy(pause_s: float, part: float) -> None:
    """The peer speaks with such pauses; the path is cut after that part of what would be the next."""
    world = World()
    for _ in range(20):
        world.advance(pause_s)
        world.liveness.handle_alive(world.now)
    world.lives = False
    cut_at = world.now + part * pause_s
    world.advance(20)
    named_at = next(at for at, event in world.events if isinstance(event, Verdict))
    assert abs(named_at - cut_at - LOST_AFTER_S) < 1.5


def test_a_short_patience_is_kept_in_proportion() -> None:
    world = World(lost_after_s=3.0)
    world.lives = False
    world.liveness.handle_sent(world.now)
    world.advance(4)
    assert world.since_start(ProbeWanted)[0] == 1.0
    assert world.verdict.detection_ms == pytest.approx(3000 + 3000 / 8 + LOST_MARGIN_S * 1000, abs=1)


# --- a relay that is gone ---


def test_without_its_relay_a_connection_has_a_few_seconds_to_find_something_else() -> None:
    world = World()
    world.lives = False
    world.liveness.handle_relay_lost({"ice": "relay_lost"}, world.now)
    world.drain()
    assert world.since_start(PathWanted) == [0.0]
    world.advance(RELAY_LOST_S + 0.1)
    assert (world.verdict.cause, world.verdict.initiated_by) == (Cause.RELAY_LOST, Initiator.NETWORK)
    assert world.verdict.evidence["ice"] == "relay_lost"


def test_while_the_peer_is_heard_another_path_has_time() -> None:
    world = World()
    world.lives = False
    world.liveness.handle_relay_lost({}, world.now)
    world.advance(3.0)
    world.liveness.handle_alive(world.now)
    world.advance(RELAY_LOST_S - 0.1)
    assert world.verdicts == []
    world.advance(0.2)
    assert world.verdict.cause is Cause.RELAY_LOST


@pytest.mark.parametrize("who", ["we", "ICE"])
def test_a_path_through_a_relay_that_is_gone_was_not_lost_by_the_network(who: str) -> None:
    world = World()
    world.lives = False
    world.advance(12.0)
    world.liveness.handle_relay_lost({"ice": "relay_lost"}, world.now)
    if who == "ICE":
        world.liveness.handle_path_lost({"ice": "no_answer"}, 15.0, world.now)
        world.drain()
    else:
        world.advance(4.0)
    assert (world.verdict.cause, world.verdict.initiated_by) == (Cause.RELAY_LOST, Initiator.NETWORK)


def test_another_path_makes_the_relay_forgotten() -> None:
    world = World()
    world.liveness.handle_relay_lost({}, world.now)
    world.advance(1)
    world.liveness.handle_path(0.05, world.now)
    world.advance(60)
    assert world.verdicts == []


# --- our own process was stopped ---


@pytest.mark.parametrize("asleep_s", [2.0, 60.0, 4000.0])
def test_after_a_sleep_the_peer_is_asked_before_it_is_called_lost(asleep_s: float) -> None:
    world = World()
    world.advance(1)
    world.sleep(asleep_s)
    assert world.verdicts == []
    world.advance(10)
    assert world.verdicts == [], "it lives and has answered"


def test_after_a_sleep_a_peer_that_is_gone_is_called_lost_soon() -> None:
    world = World()
    world.advance(1)
    world.lives = False
    world.sleep(60)
    world.advance(STALL_GRACE_S + 0.1)
    assert world.verdict.cause == Cause.NETWORK_LOST


def test_a_long_sleep_may_end_in_another_network() -> None:
    world = World()
    world.sleep(60)
    assert [event.reason for _, event in world.events if isinstance(event, PathWanted)] == [
        f"this host was stopped for {60 - QUIET_S:.0f} s"
    ]


def test_a_round_during_which_we_slept_begins_anew() -> None:
    world = World()
    world.lives = False
    world.doubt("reset")
    world.sleep(30)
    assert world.verdicts == []
    world.lives = True
    world.advance(10)
    assert world.verdicts == []


def test_what_ice_concludes_just_after_a_sleep_is_not_believed() -> None:
    world = World()
    world.sleep(60)
    world.liveness.handle_path_lost({"ice": "no_answer"}, 60.0, world.now + 0.1)
    world.drain()
    assert world.verdicts == []
    world.advance(STALL_GRACE_S + 1)
    assert world.verdicts == [], "for the peer has answered"


# --- all of it ---


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["alive", "sent", "hint", "silent", "wait"]), st.floats(0, 4))))
def test_without_a_word_of_its_end_silence_is_the_only_cause(steps: list[tuple[str, float]]) -> None:
    world = World()
    world.lives = False
    for what, seconds in steps:
        world.advance(seconds)
        if world.verdicts:
            break
        match what:
            case "alive":
                world.liveness.handle_alive(world.now)
            case "sent":
                world.liveness.handle_sent(world.now)
            case "hint":
                world.doubt("hint")
            case "silent":
                world.doubt("silent")
            case _:
                pass
    for verdict in world.verdicts:
        assert verdict.cause == Cause.NETWORK_LOST
        assert verdict.detection_ms >= EARLIEST_S * 1000 - 1
    world.advance(LATEST_S + 0.1)
    assert len(world.verdicts) == 1


def test_every_cause_has_somebody_to_blame() -> None:
    assert {initiator_of(cause) for cause in Cause} <= set(Initiator)
    assert all(told_cause(cause) == cause for cause in Cause if cause is not Cause.PROCESS_DIED)


def resting(*, rested_s: float) -> World:
    """A peer that was heard all the time, by somebody else who watches it."""
    world = World()
    world.liveness.rest(watched=True)
    world.now += rested_s
    return world


def test_while_somebody_else_watches_nothing_is_waited_for() -> None:
    world = resting(rested_s=100.0)
    assert world.liveness.poll_timeout() is None


def test_who_was_watched_and_falls_silent_is_suspected_no_later() -> None:
    world = resting(rested_s=100.0)
    heard_at = world.now - 6.0
    world.liveness.handle_alive(heard_at, by_ice=True)
    world.liveness.handle_timeout(world.now)
    world.liveness.rest(watched=False)
    assert world.events == []
    assert world.liveness.poll_timeout() == (heard_at + QUIET_S, "liveness")


def test_who_is_not_watched_any_more_is_looked_after_at_once_and_that_is_not_late() -> None:
    world = resting(rested_s=100.0)
    world.liveness.rest(watched=False)
    timeout = world.liveness.poll_timeout()
    assert timeout is not None
    assert timeout[0] <= world.now
    world.liveness.handle_alive(world.now - 1.0, by_ice=True)
    world.liveness.handle_timeout(world.now)
    world.drain()
    assert world.events == []
    assert world.liveness.poll_timeout() == (world.now - 1.0 + QUIET_S, "liveness")


def test_a_host_that_was_stopped_while_somebody_else_watched_probes_before_it_concludes() -> None:
    world = resting(rested_s=100.0)
    world.liveness.handle_alive(world.now - 60.0, by_ice=True)
    world.liveness.handle_timeout(world.now)
    world.drain()
    kinds = [type(event) for _, event in world.events]
    assert kinds[0] is PathWanted
    assert Verdict not in kinds


def test_what_is_under_way_is_not_left_to_who_watches() -> None:
    world = World()
    world.liveness.handle_sent(world.now)
    world.liveness.rest(watched=True)
    assert world.liveness.poll_timeout() == (world.now + SUSPECT_S, "liveness")
    world.liveness.handle_alive(world.now + 1.0)
    world.liveness.rest(watched=True)
    assert world.liveness.poll_timeout() is None
    world.liveness.handle_sent(world.now + 2.0)
    assert world.liveness.poll_timeout() is not None
