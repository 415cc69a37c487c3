"""The link machine against a clock that only moves when told."""

import json
import random
from typing import Any, cast
from unittest.mock import ANY

import pytest

from exeunt.actors.portal.backoff import FIRST_TRIES, MAX_S
from exeunt.actors.portal.codec import encode, peer_decoder
from exeunt.actors.portal.events import (
    CloseSocket,
    LinkDenied,
    LinkDown,
    LinkEvent,
    LinkJoined,
    LinkLeft,
    LinkMessage,
    LinkState,
    OpenSocket,
    SendFrame,
    SocketCommand,
)
from exeunt.actors.portal.machine import TRANSITIONS, LinkMachine
from exeunt.actors.portal.messages import (
    MAX_PEER_FRAME_BYTES,
    Authorized,
    ClaimConnections,
    ConnectionEnded,
    Disconnect,
    Error,
    FromPortal,
    HeartbeatReply,
    IceCandidates,
    IceCredentials,
    IceRestarted,
    Join,
    Joined,
    LastWill,
    Left,
    LiveConnection,
    PeerGone,
    RequestAuthorization,
    RestartIce,
)
from exeunt.actors.portal.outbox import CAPACITY, ENDS_CAPACITY
from exeunt.actors.portal.timing import ANSWER_LIMIT_S, NUDGE_INTERVAL_S, QUIET_LINK_S, REQUEST_LIFETIME_S

JOINED = Joined(peer_id="client-1", name="laptop", address_ipv4="100.64.0.1", address_ipv6="fd65::1")


ENDED = ConnectionEnded(connection="c-1", cause="idle")


WILL = LastWill(connection="z", datagram=bytes(64))


class Rig:
    """A machine with its clock, and what came out of it."""

    def __init__(self) -> None:
        join = Join(name="laptop", external_id="device-1", public_key=b"k" * 32, version="0.1.0")
        self.machine = LinkMachine(join, rng=random.Random(7))
        self.now = 1000.0

    def commands(self) -> list[SocketCommand]:
        out: list[SocketCommand] = []
        while (command := self.machine.poll_transmit()) is not None:
            out.append(command)
        return out

    def state(self) -> LinkState:
        return self.machine.state

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(c.frame) for c in self.commands() if isinstance(c, SendFrame)]

    def events(self) -> list[LinkEvent]:
        out: list[LinkEvent] = []
        while (event := self.machine.poll_event()) is not None:
            out.append(event)
        return out

    def hear(self, message: FromPortal) -> None:
        self.machine.handle_frame(encode(message), self.now)

    def wait(self) -> str:
        """Let the clock run to the next timeout."""
        timeout = self.machine.poll_timeout()
        assert timeout is not None
        self.now = timeout[0]
        self.machine.handle_timeout(self.now)
        return timeout[1]

    def join(self) -> None:
        self.machine.handle_start(self.now)
        self.machine.handle_opened(self.now)
        self.hear(JOINED)
        assert self.state() == "joined"
        self.commands()
        self.events()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_join_is_the_first_and_only_thing_said_before_the_answer(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    assert rig.commands() == [OpenSocket()]
    rig.machine.handle_send(ConnectionEnded(connection="r", cause="idle"), rig.now)
    rig.machine.handle_opened(rig.now)
    rig.machine.handle_frame("nonsense", rig.now)
    rig.machine.handle_send(ConnectionEnded(connection="s", cause="idle"), rig.now)
    assert [m["type"] for m in rig.sent()] == ["join"]
    rig.hear(JOINED)
    assert [m["connection"] for m in rig.sent()] == ["r", "s"]
    assert rig.events() == [LinkJoined(JOINED)]


def test_what_comes_before_the_join_is_counted_and_dropped(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.hear(PeerGone(connection="c", reason="lost"))
    assert rig.machine.counters.early_messages == 1
    assert rig.events() == []


def test_a_last_will_waits_for_the_link_and_is_said_before_the_end(rig: Rig) -> None:
    """Its receiver need not be told what it is to conclude, if it can hear it from the peer."""
    rig.machine.handle_send(WILL, rig.now)
    rig.machine.handle_send(ConnectionEnded(connection="z", cause="worker_crashed"), rig.now)
    assert said_at_the_join(rig) == ["last_will", "connection_ended"]


def test_a_last_will_that_may_be_lost_is_said_again(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_send(WILL, rig.now)
    rig.sent()
    rig.machine.handle_closed("reset", rig.now)
    assert said_at_the_join(rig) == ["last_will"]


def test_a_wish_for_new_paths_that_a_breaking_link_has_swallowed_is_said_again(rig: Rig) -> None:
    """Where a network changes, the wish goes out by the link that the change is about to break."""
    rig.join()
    rig.machine.handle_send(RestartIce(connection="x", reason="the relay was lost"), rig.now)
    rig.sent()
    rig.machine.handle_closed("reset", rig.now)
    assert said_at_the_join(rig) == ["restart_ice"]


def test_a_wish_that_was_fulfilled_is_not_said_again(rig: Rig) -> None:
    rig.join()
    for connection in ("x", "y"):
        rig.machine.handle_send(RestartIce(connection=connection, reason="moved"), rig.now)
    ice = IceCredentials(username="user", password="p" * 22)
    rig.hear(IceRestarted(connection="x", generation=1, local_ice=ice, remote_ice=ice))
    rig.sent()
    rig.machine.handle_closed("reset", rig.now)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.sent()
    rig.hear(JOINED)
    assert [message["connection"] for message in rig.sent()] == ["y"]


def said_at_the_join(rig: Rig) -> list[str]:
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.sent()
    rig.hear(JOINED)
    return [message["type"] for message in rig.sent()]


@pytest.mark.parametrize(("opened", "limit_s", "why"), [(False, 15.0, "connect"), (True, 5.0, "join")])
def test_each_step_has_its_time_limit(rig: Rig, opened: bool, limit_s: float, why: str) -> None:
    rig.machine.handle_start(rig.now)
    if opened:
        rig.machine.handle_opened(rig.now)
    assert rig.machine.poll_timeout() == (rig.now + limit_s, why)
    rig.wait()
    assert rig.state() == "disconnected"
    assert rig.commands()[-1] == CloseSocket()


def test_heartbeats_are_sent_every_ten_seconds_and_three_may_stay_unanswered(rig: Rig) -> None:
    rig.join()
    for ref in (1, 2, 3):
        assert rig.wait() == "heartbeat"
        assert rig.sent() == [{"type": "heartbeat", "ref": ref}]
    rig.hear(HeartbeatReply(ref=3))
    for _ in range(3):
        rig.wait()
    assert rig.state() == "joined"
    rig.wait()
    assert rig.state() == "disconnected"
    assert rig.now == 1000.0 + 70
    (down,) = rig.events()
    assert isinstance(down, LinkDown)
    assert down.was_joined


def test_a_stale_heartbeat_reply_proves_nothing(rig: Rig) -> None:
    rig.join()
    for _ in range(3):
        rig.wait()
        rig.hear(HeartbeatReply(ref=0))
    rig.wait()
    assert rig.state() == "disconnected"


def test_the_first_tries_come_every_second_and_later_ones_back_off(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    delays: list[float] = []
    for _ in range(FIRST_TRIES + 40):
        rig.machine.handle_closed("refused", rig.now)
        before = rig.now
        assert rig.wait() == "reconnect"
        delays.append(rig.now - before)
    assert delays[:FIRST_TRIES] == [1.0] * FIRST_TRIES
    assert 0.25 <= delays[FIRST_TRIES] <= 0.75
    assert max(delays) <= MAX_S + 1e-6
    assert min(delays[-10:]) >= MAX_S / 3 - 1e-6


def test_success_resets_the_back_off(rig: Rig) -> None:
    rig.join()
    for _ in range(20):
        rig.machine.handle_closed("broken", rig.now)
        rig.wait()
    rig.machine.handle_opened(rig.now)
    rig.hear(JOINED)
    rig.machine.handle_closed("broken", rig.now)
    assert rig.machine.poll_timeout() is not None
    assert cast("tuple[float, str]", rig.machine.poll_timeout())[0] - rig.now <= 0.75


def test_only_401_is_fatal(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    for status in (400, 403, 404, 429, 500, 503):
        rig.machine.handle_refused(status, None, rig.now)
        assert rig.state() == "disconnected"
        rig.wait()
    rig.events()
    rig.machine.handle_refused(401, None, rig.now)
    (denied,) = rig.events()
    assert isinstance(denied, LinkDenied)
    assert denied.requires_sign_in
    assert rig.state() == "closed"
    assert rig.machine.poll_timeout() is None


@pytest.mark.parametrize(("asked_s", "waited_s"), [(30.0, 30.0), (1e9, 300.0), (0.0, 1.0)])
def test_retry_after_is_honoured_within_reason(rig: Rig, asked_s: float, waited_s: float) -> None:
    rig.machine.handle_start(rig.now)
    rig.machine.handle_refused(503, asked_s, rig.now)
    assert rig.machine.poll_timeout() == (rig.now + waited_s, "reconnect")


def test_disconnect_is_final(rig: Rig) -> None:
    rig.join()
    rig.hear(Disconnect(reason="revoked", requires_sign_in=True))
    assert rig.events() == [LinkDenied("revoked", requires_sign_in=True)]
    assert rig.commands() == [CloseSocket()]
    rig.machine.handle_closed("closed", rig.now)
    rig.machine.handle_start(rig.now)
    assert rig.state() == "closed"
    assert rig.commands() == []


def test_an_error_ends_a_join_but_not_a_joined_link(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.hear(Error(code="malformed_frame"))
    assert rig.state() == "disconnected"
    rig.join()
    rig.hear(Error(code="rate_limited"))
    assert rig.state() == "joined"
    assert rig.events() == [LinkMessage(Error(code="rate_limited"))]


def test_leaving_is_acknowledged(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    assert rig.sent() == [{"type": "leaving", "reason": "signed_out"}]
    rig.hear(Left())
    assert rig.events() == [LinkLeft(acknowledged=True)]
    assert rig.commands() == []
    assert rig.state() == "left"


def test_who_has_left_still_reports_what_ends_and_nothing_else(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    rig.commands()
    rig.machine.handle_send(ConnectionEnded(connection="x", cause="signed_out"), rig.now)
    rig.hear(Left())
    rig.machine.handle_send(ConnectionEnded(connection="y", cause="signed_out"), rig.now)
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    rig.machine.handle_send(WILL, rig.now)
    assert [message["connection"] for message in rig.sent()] == ["x", "y", "z"]
    rig.machine.handle_close()
    assert rig.commands() == [CloseSocket()]
    assert rig.state() == "closed"


def test_a_link_that_nobody_closes_ends_by_itself(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    rig.hear(Left())
    assert rig.wait() == "farewell"
    assert rig.commands()[-1] == CloseSocket()
    assert rig.state() == "closed"
    assert rig.machine.poll_timeout() is None


def test_a_link_that_breaks_after_the_goodbye_is_just_closed(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    rig.hear(Left())
    rig.events()
    rig.machine.handle_closed("broken", rig.now)
    assert rig.events() == []
    assert rig.state() == "closed"


def test_leaving_waits_no_longer_than_its_limit(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    assert rig.wait() == "leave"
    assert rig.now == 1000.25
    assert rig.events() == [LinkLeft(acknowledged=False)]
    assert rig.state() == "left"


def test_leaving_ends_when_the_link_does(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    rig.machine.handle_closed("broken", rig.now)
    assert rig.events() == [LinkLeft(acknowledged=False)]
    assert rig.state() == "closed"


def test_leaving_a_link_that_is_not_up_is_over_at_once(rig: Rig) -> None:
    rig.machine.handle_start(rig.now)
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    assert rig.events() == [LinkLeft(acknowledged=False)]
    assert rig.state() == "closed"


def test_closing_while_leaving_still_ends_the_leave(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_leave("signed_out", 0.25, rig.now)
    rig.machine.handle_close()
    assert rig.events() == [LinkLeft(acknowledged=False)]


def test_candidates_are_held_and_merged_while_the_link_is_down(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    for candidates, end in ((("a", "b"), False), (("b", "c"), True)):
        message = IceCandidates(connection="x", candidates=candidates, end=end)
        rig.machine.handle_send(message, rig.now)
    rig.machine.handle_send(IceCandidates(connection="y", candidates=("z",)), rig.now)
    rig.machine.handle_send(ConnectionEnded(connection="y", cause="idle"), rig.now)
    rig.wait()
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    held, ended = rig.sent()
    assert (held["connection"], held["candidates"], held["end"]) == ("x", ["a", "b", "c"], True)
    assert (ended["type"], ended["connection"], ended["cause"]) == ("connection_ended", "y", "idle")


def test_what_is_stale_after_a_loss_is_not_sent(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    rig.machine.handle_send(RestartIce(connection="old", reason="moved"), rig.now)
    rig.machine.handle_send(Authorized(ref="1"), rig.now)
    rig.now += 20
    rig.machine.handle_send(RestartIce(connection="new", reason="moved"), rig.now)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert [m["connection"] for m in rig.sent()] == ["new"]
    assert rig.machine.refused_messages == 1


def test_a_request_is_said_once_to_each_join_however_it_falls_between(rig: Rig) -> None:
    """Its maker makes it again at each join; what it made before it knew of that one is not for the portal."""
    request = RequestAuthorization(resource_id="r")
    rig.machine.handle_start(rig.now)
    rig.machine.handle_send(request, rig.now, join=0)
    rig.machine.handle_opened(rig.now)
    rig.machine.handle_send(request, rig.now, join=0)
    rig.commands()
    for number in (1, 2, 3):
        rig.hear(JOINED)
        assert rig.machine.counters.joins == number
        assert rig.sent() == []
        rig.machine.handle_send(request, rig.now, join=number - 1)
        assert rig.sent() == [], "the news of the join is on its way to whoever has made it"
        rig.machine.handle_send(request, rig.now, join=number)
        assert [m["type"] for m in rig.sent()] == ["request_authorization"]
        rig.machine.handle_reset(rig.now)
        rig.machine.handle_send(request, rig.now, join=number)
        rig.machine.handle_opened(rig.now)
        rig.commands()
    assert rig.machine.refused_messages == 0


def test_no_more_messages_are_held_than_there_is_room_for_and_one_of_a_kind(rig: Rig) -> None:
    for number in range(CAPACITY + 8):
        for _ in range(2):
            rig.machine.handle_send(RestartIce(connection=f"r{number}", reason="moved"), rig.now)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert len(rig.sent()) == CAPACITY
    assert rig.machine.refused_messages == 16


def test_a_changed_network_is_answered_at_once(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_reset(rig.now)
    assert rig.commands() == [CloseSocket(), OpenSocket()]
    assert rig.state() == "connecting"


# --- a link that only looks alive ---


def test_what_is_said_after_a_silence_is_said_with_a_heartbeat(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    assert [m["type"] for m in rig.sent()] == ["request_authorization"], "somebody was there a moment ago"
    rig.now += QUIET_LINK_S
    rig.machine.handle_send(RequestAuthorization(resource_id="s"), rig.now)
    rig.machine.handle_send(RequestAuthorization(resource_id="t"), rig.now)
    assert [m["type"] for m in rig.sent()] == ["request_authorization", "heartbeat", "request_authorization"]
    assert rig.machine.poll_timeout() == (rig.now + ANSWER_LIMIT_S, "question")
    rig.hear(HeartbeatReply(ref=1))
    assert rig.machine.poll_timeout() == (rig.now + 10.0, "heartbeat")


def test_a_link_that_does_not_answer_is_opened_anew_at_once_and_ends_are_said_again(rig: Rig) -> None:
    rig.join()
    rig.now += 5
    rig.machine.handle_send(ConnectionEnded(connection="c", cause="network_lost"), rig.now)
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    rig.commands()
    assert rig.wait() == "question"
    assert rig.commands() == [CloseSocket(), OpenSocket()]
    assert rig.events()[0] == LinkDown("the portal does not answer", was_joined=True, retry_s=ANY)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert [m["type"] for m in rig.sent()] == ["connection_ended"], "whoever asked asks again"


def test_what_was_answered_for_is_not_said_again(rig: Rig) -> None:
    rig.join()
    rig.now += 5
    rig.machine.handle_send(ConnectionEnded(connection="c", cause="network_lost"), rig.now)
    rig.hear(HeartbeatReply(ref=1))
    rig.machine.handle_reset(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert rig.sent() == []


def test_the_first_tries_after_a_loss_are_short(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    limits: list[float] = []
    for _ in range(5):
        assert rig.wait() == "reconnect"
        limits.append((rig.machine.poll_timeout() or (0.0, ""))[0] - rig.now)
        assert rig.wait() == "connect"
    assert limits == pytest.approx([2.0, 4.0, 8.0, 15.0, 15.0])


def test_who_wants_something_is_not_kept_waiting_by_the_back_off(rig: Rig) -> None:
    rig.join()
    for _ in range(12):
        rig.machine.handle_closed("refused", rig.now)
        rig.machine.handle_start(rig.now)
    rig.machine.handle_closed("refused", rig.now)
    rig.commands()
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    assert rig.commands() == [], "it was tried just now"
    rig.now += NUDGE_INTERVAL_S
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    assert rig.commands() == [OpenSocket()]


def test_a_portal_that_asks_us_to_wait_is_not_nudged(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_refused(503, 60.0, rig.now)
    rig.commands()
    rig.now += 30
    rig.machine.handle_send(RequestAuthorization(resource_id="r"), rig.now)
    assert rig.commands() == []


def test_the_next_join_claims_what_is_alive(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_connections((LiveConnection(connection="x", peer_id="g", resource_ids=("r",)),))
    rig.machine.handle_closed("broken", rig.now)
    rig.wait()
    rig.machine.handle_opened(rig.now)
    (join,) = rig.sent()
    assert join["connections"] == [{"connection": "x", "peer_id": "g", "resource_ids": ["r"]}]


def test_many_live_connections_are_claimed_in_frames_that_fit(rig: Rig) -> None:
    resources = tuple(f"resource-{number:08}" for number in range(20))
    alive = tuple(
        LiveConnection(connection=f"c{number}", peer_id=f"client-{number}", resource_ids=resources)
        for number in range(1000)
    )
    rig.machine.handle_connections(alive)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.hear(JOINED)
    frames = [c.frame for c in rig.commands() if isinstance(c, SendFrame)]
    assert len(frames) > 1
    assert max(map(len, frames)) < MAX_PEER_FRAME_BYTES
    messages = [peer_decoder(MAX_PEER_FRAME_BYTES).decode(frame).message for frame in frames]
    assert isinstance(messages[0], Join)
    assert not messages[0].complete
    assert all(isinstance(message, ClaimConnections) for message in messages[1:])
    claimed = [c for message in messages for c in getattr(message, "connections", ())]
    assert claimed == list(alive)


def test_a_malformed_frame_is_answered_and_an_unknown_type_tolerated(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_frame("{", rig.now)
    rig.machine.handle_frame('{"type":"from_the_future"}', rig.now)
    (error,) = rig.sent()
    assert (error["type"], error["code"]) == ("error", "malformed_frame")
    assert rig.machine.counters.malformed_frames == 1
    assert rig.machine.counters.unknown_messages == 1
    assert rig.state() == "joined"


def test_every_state_but_the_last_can_be_reached_and_left() -> None:
    reached: set[LinkState] = {"disconnected"}
    while True:
        further: set[LinkState] = {after for state in reached for after in TRANSITIONS[state].values()}
        further |= reached
        if further == reached:
            break
        reached = further
    assert reached == set(TRANSITIONS)
    for state, ways in TRANSITIONS.items():
        assert ("close" in ways) == (state != "closed")


def test_endings_are_held_beside_everything_else_and_bounded(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    for number in range(CAPACITY):
        rig.machine.handle_send(RestartIce(connection=f"r{number}", reason="moved"), rig.now)
    for number in range(ENDS_CAPACITY + 3):
        rig.machine.handle_send(ConnectionEnded(connection=f"c{number}", cause="network_lost"), rig.now)
    assert rig.machine.refused_messages == 3
    rig.now += 3600
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    ended = [message for message in rig.sent() if message["type"] == "connection_ended"]
    assert [message["connection"] for message in ended] == [f"c{number}" for number in range(ENDS_CAPACITY)]
    assert rig.wait() == "heartbeat"
    rig.hear(HeartbeatReply(ref=1))
    rig.machine.handle_closed("broken", rig.now)
    rig.machine.handle_send(ConnectionEnded(connection="later", cause="idle"), rig.now)
    assert rig.machine.refused_messages == 3, "the room is there again"


def test_a_wish_to_restart_waits_a_little_and_ends_with_its_connection(rig: Rig) -> None:
    rig.join()
    rig.machine.handle_closed("broken", rig.now)
    rig.machine.handle_send(RestartIce(connection="kept", reason="moved"), rig.now)
    rig.machine.handle_send(RestartIce(connection="over", reason="moved"), rig.now)
    rig.machine.handle_send(ConnectionEnded(connection="over", cause="idle"), rig.now)
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert [(m["type"], m["connection"]) for m in rig.sent()] == [("restart_ice", "kept"), ("connection_ended", "over")]
    assert rig.wait() == "heartbeat"
    rig.hear(HeartbeatReply(ref=1))
    rig.machine.handle_closed("broken", rig.now)
    rig.machine.handle_send(RestartIce(connection="stale", reason="moved"), rig.now)
    rig.now += REQUEST_LIFETIME_S
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.commands()
    rig.hear(JOINED)
    assert rig.sent() == []


# --- another link goes on ---


def test_what_the_portal_may_not_have_heard_is_left_to_another_link() -> None:
    rig = Rig()
    wish = RestartIce(connection="x", reason="moved")
    rig.machine.handle_send(RequestAuthorization(resource_id="r-1"), rig.now)  # its maker goes on, too
    rig.machine.handle_send(wish, rig.now)
    rig.machine.handle_send(ENDED, rig.now)
    assert rig.machine.take_unsaid(rig.now) == (wish, ENDED)
    assert rig.machine.take_unsaid(rig.now) == ()


def test_what_was_said_and_not_confirmed_is_left_as_well() -> None:
    rig = Rig()
    rig.machine.handle_start(rig.now)
    rig.machine.handle_opened(rig.now)
    rig.hear(JOINED)
    rig.machine.handle_send(ENDED, rig.now)
    rig.machine.handle_send(RequestAuthorization(resource_id="r-1"), rig.now)
    assert rig.machine.take_unsaid(rig.now) == (ENDED,)
