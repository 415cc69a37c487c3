"""The relations between the timers: they hold, and whoever breaks one cannot even import the module."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from exeunt.actors import timing
from exeunt.actors.grid import COARSE_S
from exeunt.actors.ice.lull import REST_S
from exeunt.actors.ice.relay import BIND_AGAIN_AFTER_S, CHANNEL_LASTS_S, CHANNEL_RENEWED_AFTER_S
from exeunt.actors.ice.transactions import ANSWER_WINDOW_S, FORGET_AFTER_S
from exeunt.actors.turn.settings import CHANNEL_LIFETIME_S, DEFAULT_LIFETIME_S, PERMISSION_LIFETIME_S
from exeunt.actors.wireguard.timing import Limits

SOURCE = Path(timing.__file__).read_text(encoding="utf-8")


def with_constant(name: str, value: float) -> None:
    """Run the module's text with one constant changed."""
    changed, count = re.subn(rf"(?m)^{name}: Final = [0-9.]+$", f"{name}: Final = {value}", SOURCE)
    assert count == 1, f"{name} is no plain constant"
    module = ModuleType("exeunt.actors.timing_changed")
    module.__package__ = "exeunt.actors"
    exec(compile(changed, "timing_changed", "exec"), vars(module))


def test_the_timers_as_they_are_do_not_contradict_each_other() -> None:
    with_constant("GOODBYE_DEADLINE_S", timing.GOODBYE_DEADLINE_S)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("GOODBYE_REPEAT_S", 0.2, "a repetition fits its deadline"),
        ("LINGER_S", 0.9, "who lingers outlasts who repeats"),
        ("RELEASE_S", 0.7, "closing a peer outlasts goodbye and release"),
        ("PORTAL_LEAVE_S", 0.8, "the event loop outlasts portal and peers"),
        ("LAST_DELIVERY_S", 0.4, "the stream outlasts its loop and a slow user"),
        ("APPLICATION_LEAVE_S", 2.7, "the supervisor outlasts the stream"),
        ("WORKER_LEAVE_S", 1.5, "a worker outlasts a peer"),
        ("WORKER_LEAVE_S", 2.55, "a worker outlasts its event loop"),
        ("LOST_AFTER_S", 25.0, "a cut network is named before the handshake gives up"),
        ("CONSENT_INTERVAL_S", 4.0, "consent is asked for long before the verdict"),
        ("LOST_AFTER_S", 15.5, None),
        ("LOST_AFTER_S", 9.9, "consent is asked for long before the verdict"),
        ("LOST_AFTER_S", 18.7, "the latest verdict is not the handshake's"),
        ("PROBE_S", 2.0, "a dead process is named within two seconds"),
        ("PROBE_REPEAT_S", 0.2, "many probes make a round"),
        ("PROBE_S", 1.2, "who leaves the portal has said goodbye before it is concluded"),
        ("QUIET_S", 5.9, "an idle peer is asked by ICE before it is suspected"),
        ("STALL_GRACE_S", 1.4, "a stopped host probes before it concludes"),
        ("CONSENT_INTERVAL_S", 3.1, "a cut is named within a second and a half of its time"),
        ("RESTART_SPACING_S", 1.0, "a second restart is not taken for the first"),
        ("RESTART_S", 11.0, "a restart begun on suspicion is over at the latest verdict"),
        ("AUTHORIZE_S", 15.0, "a client outlasts the portal's wait for a gateway"),
        ("EXPIRY_PATIENCE_S", 0.9, "a client hears that its access has expired before it says so"),
        ("RESTART_REPEAT_S", 7.0, "suspicion, probes and a restart come before the verdict"),
    ],
)
def test_breaking_a_relation_is_noticed(name: str, value: float, what: str | None) -> None:
    if what is None:
        with_constant(name, value)
        return
    with pytest.raises(AssertionError, match=what):
        with_constant(name, value)


def test_what_a_relay_keeps_outlives_what_a_client_renews() -> None:
    """No program holds both ends of this: the client renews in `ice.relay`, the relay forgets by `turn.settings`."""
    assert CHANNEL_RENEWED_AFTER_S + BIND_AGAIN_AFTER_S * 10 < CHANNEL_LASTS_S < PERMISSION_LIFETIME_S
    assert PERMISSION_LIFETIME_S < CHANNEL_LIFETIME_S <= DEFAULT_LIFETIME_S
    assert timing.LATEST_S < PERMISSION_LIFETIME_S, "a silent peer is let in until it is called lost"


def test_twenty_percent_loss_leaves_a_goodbye_enough_rounds() -> None:
    rounds = int(timing.GOODBYE_DEADLINE_S / timing.GOODBYE_REPEAT_S) - 1
    unacknowledged = (1 - 0.8 * 0.8) ** rounds
    assert unacknowledged < 1 / 200_000, "of 200 sign-outs, 199 must be acknowledged"


def test_the_handshake_over_ice_is_a_valid_limit() -> None:
    assert Limits(rekey_attempt_time_s=timing.HANDSHAKE_S).rekey_attempt_time_s > timing.LOST_AFTER_S


def test_wake_ups_that_may_meet_do() -> None:
    """A socket that rests is read where the grid has points, too; and there late answers may be forgotten."""
    assert pytest.approx(round(COARSE_S / REST_S)) == COARSE_S / REST_S
    assert FORGET_AFTER_S - COARSE_S > ANSWER_WINDOW_S
