"""Whether the peer is still there. Pure.

Only authenticated signs of life count: packets of the WireGuard session, and answers to ICE's checks. Whatever else
suggests that the peer may be gone is a *hint*, and a hint begins a *round* of probes: one every `PROBE_REPEAT_S`,
until a sign of life ends the round, or `PROBE_S` have passed without one (`DOUBT_S` where nothing would end by it).
What an unanswered round means depends on what began it:

    begun by                                       nobody answered
    portal: its link was reset (a process died)    the peer's process died
    portal: the peer left, or ended the connection what the peer told the portal
    portal: the peer's link fell silent; a hint    find another path; go on listening
    our own suspicion: 5 s without an answer,      find another path; go on listening
    0.8 s where packets came thick and fast

So nothing ever ends by a hint alone, and a portal that lost its link to a living peer ends nothing. Silence for
`lost_after_s` is a lost network, counted from when the path was cut, as far as one can tell (`ice.consent`). ICE says
so, but not while it looks for another path; then we do, at the same time. Where the path led through a relay that is
known to be gone, the relay was lost, and not the network; that is known, and over, sooner (`RELAY_LOST_S`).

A packet that was under way when the peer died still arrives after the hint. So in the first round trip of a round
nothing but the answer to a probe of that round ends it. A peer that told the portal that it leaves is alive, and
answers, until it has said goodbye to us too: its round goes on for a while after each sign of life.

If our own process was stopped or starved, silence proves nothing: what the peer said waits in our sockets. A timer
that fires late grants a round from its beginning, and `STALL_GRACE_S` before anything is called lost.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import msgspec

from ..endings import Cause, Initiator
from ..ice.consent import rest_after
from ..timing import (
    BUSY_GAP_S,
    BUSY_SUSPECT_S,
    CONSENT_INTERVAL_S,
    DOUBT_S,
    LOST_MARGIN_S,
    PROBE_REPEAT_S,
    PROBE_ROUND_TRIPS,
    PROBE_S,
    QUIET_S,
    RELAY_LOST_S,
    STALL_GRACE_S,
    STALL_S,
    SUSPECT_S,
    SUSPEND_S,
    TOLD_PATIENCE_S,
)
from .blame import initiator_of, told_cause
from .events import Ended

Doubt = Literal["left", "reset", "silent", "ended", "hint", "silence"]
"""What began a round; the first four are the portal's words for a peer that is gone."""

DOUBTS: Final[dict[str, Doubt]] = {"left": "left", "reset": "reset", "silent": "silent", "ended": "ended"}
"""The portal's words, by themselves."""

_STRENGTH: Final[dict[Doubt, int]] = {"silence": 0, "hint": 0, "silent": 1, "reset": 2, "left": 3, "ended": 4}
"""A round that is under way takes the better-informed doubt."""

_RESTING: Final = math.inf
_LOOK: Final = -math.inf
"""When to wake up while the peer was, and is not any more, watched by somebody else: at once, and that is not late."""

_TOLD: Final = frozenset[Doubt]({"left", "ended"})
_PORTAL: Final = frozenset[Doubt]({"left", "reset", "silent", "ended"})
_CONCLUSIVE: Final = frozenset[Doubt]({"reset", "left", "ended"})


class ProbeWanted(msgspec.Struct, frozen=True):
    """Ask the peer for a sign of life, now; the first of a round has ICE check the path as well."""

    first: bool


class PathWanted(msgspec.Struct, frozen=True):
    """The peer does not answer on this path: find another."""

    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The peer is not there any more."""

    cause: Cause
    initiated_by: Initiator
    evidence: dict[str, Any]
    detection_ms: float

    @property
    def ended(self) -> Ended:
        """What it means for the connection."""
        return Ended(
            cause=self.cause,
            initiated_by=self.initiated_by,
            evidence=self.evidence,
            detection_ms=self.detection_ms,
            acknowledged=None,
        )


LivenessEvent = ProbeWanted | PathWanted | Verdict


class _Round:
    """Probes under way."""

    __slots__ = ("began_at", "cause", "doubt", "ends_at", "heard_at", "in_flight_until", "probe_at", "reason", "sent")

    def __init__(self, doubt: Doubt, reason: str, cause: str) -> None:
        self.doubt: Doubt = doubt
        self.reason, self.cause = reason, cause
        self.sent = 0
        self.began_at = self.ends_at = self.in_flight_until = self.probe_at = 0.0
        self.heard_at: float | None = None


class Liveness:
    """The clock of one established connection. All times are seconds of one monotonic clock."""

    def __init__(self, *, lost_after_s: float, now: float) -> None:
        self.last_alive = now
        """When the last sign of life arrived."""
        self._began_at = now
        self._gap_s = 0.0
        self._lost_after_s = lost_after_s
        self._longest_rest_s = min(CONSENT_INTERVAL_S, lost_after_s / 4)
        self._suspect_s = min(SUSPECT_S, lost_after_s / 3)
        self._quiet_s = min(QUIET_S, lost_after_s / 2)
        self._rtt_s = 0.0
        self._unanswered_since: float | None = None
        self._round: _Round | None = None
        self._not_suspect_until = now
        self._grace_until = now
        self._relay_lost_at: float | None = None
        self._relay_evidence: dict[str, Any] = {}
        self._portal_saw: Doubt | None = None
        self._wake_at = now + self._quiet_s
        self._events: list[LivenessEvent] = []  # an empty deque has 700 bytes

    # --- in ---

    def handle_rtt(self, rtt_s: float) -> None:
        """Know the path's round trip."""
        self._rtt_s = rtt_s

    def handle_sent(self, now: float) -> None:
        """Something left that a living peer would sooner or later answer."""
        if self._unanswered_since is None:
            self._unanswered_since = now
            self._wake_at = min(self._wake_at, now + self._patience_s)

    def handle_alive(self, at: float, *, answers_probe: bool = False, by_ice: bool = False) -> None:
        """A sign of life arrived at that time; `answers_probe` if only somebody who lives now could have sent it.
        `by_ice`: it says nothing of the path in use, as ICE hears the peer on others, too.
        """
        if at < self.last_alive:
            return
        if at > self.last_alive:
            self._gap_s, self.last_alive = at - self.last_alive, at
        probing = self._round
        if by_ice and (probing is None or probing.doubt not in _CONCLUSIVE):
            return
        self._unanswered_since = None
        if probing is None or (at < probing.in_flight_until and not answers_probe) or at < probing.began_at:
            return
        if probing.doubt not in _TOLD or at - probing.began_at > TOLD_PATIENCE_S:
            self._round = None
        else:  # it leaves, and lives until it has
            probing.heard_at = at
            probing.ends_at = at + self._window_s(probing.doubt)

    def handle_doubt(self, doubt: Doubt, reason: str, now: float, cause: str = "") -> None:
        """Something suggests that the peer may be gone; `cause` is what it told the portal, if it did."""
        probing = self._round
        if doubt in _PORTAL:
            self._portal_saw = doubt
        if probing is None or _STRENGTH[doubt] > _STRENGTH[probing.doubt]:
            sent = probing.sent if probing else 0
            self._round = _Round(doubt, reason, cause)
            self._round.sent = sent
            self._begin_round(self._round, now)

    def handle_path(self, rtt_s: float, now: float) -> None:
        """There is another path, with this round trip: give it the time that the first one had."""
        self._rtt_s = rtt_s
        self._relay_lost_at = None
        self._not_suspect_until = now + self._suspect_s

    def handle_replaced(self, evidence: dict[str, Any], now: float) -> bool:
        """The peer has begun another connection. If it does not answer on this one, and the portal has said why, then
        that is the cause, and not the other connection; return whether it is so.
        """
        probing = self._round
        if probing is None or probing.doubt not in _CONCLUSIVE or self.last_alive > probing.began_at:
            return False
        self._unanswered(probing, now, evidence)
        return True

    def handle_path_lost(self, evidence: dict[str, Any], last_seen_s_ago: float, now: float) -> None:
        """ICE has given up on the path: nothing was heard on it for so long."""
        if now >= self._grace_until:
            self._lose(evidence, now, since=now - last_seen_s_ago)
        else:
            self._events.append(PathWanted("the path was lost while this host was stopped"))

    def handle_relay_lost(self, evidence: dict[str, Any], now: float) -> None:
        """The relay that carried the path is gone, and no other pair has worked since: a restart may find something."""
        if self._relay_lost_at is None:
            self._relay_lost_at, self._relay_evidence = now, evidence
            self._wake_at = min(self._wake_at, now + RELAY_LOST_S)
            self._events.append(PathWanted("the relay was lost"))

    def handle_timeout(self, now: float) -> None:
        """Do what is due. The caller has told the latest sign of life before."""
        if self._wake_at in (_RESTING, _LOOK):
            self._wake_at = self._suspect_at
        late_s = now - self._wake_at
        if late_s < 0:
            self._wake_at = self._next_wake(now)  # the peer may have been heard: sleep on
            return
        if late_s > STALL_S:
            self._was_stopped(late_s, now)
        probing = self._round
        if self._relay_lost_at is not None and now >= self._relay_lost_by(self._relay_lost_at):
            self._lose({}, now, since=self._relay_lost_at)
        elif probing is not None and now >= probing.ends_at:
            self._round = None
            self._unanswered(probing, now)
        elif now >= self._lost_at:
            self._lose({"liveness": "no answer"}, now, since=self.last_alive)
        elif probing is not None and now >= probing.probe_at:
            self._probe(probing, now)
        elif probing is None and now >= self._suspect_at:
            silent_s = now - self.last_alive
            self.handle_doubt("silence", f"no sign of life for {silent_s:.1f} s", now)
        self._wake_at = self._next_wake(now)

    def rest(self, *, watched: bool) -> None:
        """When `watched`, somebody else has `handle_timeout` called before `QUIET_S` have passed since the latest sign
        of life: as long as nothing is under way here, that is enough. When not any more, look soon.
        """
        if watched and self._round is None and self._unanswered_since is None and self._relay_lost_at is None:
            self._wake_at = _RESTING
        elif self._wake_at == _RESTING:
            self._wake_at = _LOOK

    # --- out ---

    def poll_event(self) -> LivenessEvent | None:
        """Return the next thing to do, or None."""
        return self._events.pop(0) if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, at the latest, and why. It may find that nothing is due yet. None: it
        rests.
        """
        return None if self._wake_at == _RESTING else (self._wake_at, "liveness" if self._round is None else "probe")

    # --- inside ---

    def _window_s(self, doubt: Doubt) -> float:
        return max(PROBE_S if doubt in _CONCLUSIVE else DOUBT_S, PROBE_ROUND_TRIPS * self._rtt_s)

    @property
    def _lost_at(self) -> float:
        half_s = rest_after(self._gap_s, self._longest_rest_s) / 2
        return max(self.last_alive + half_s + self._lost_after_s + LOST_MARGIN_S, self._grace_until)

    def _relay_lost_by(self, lost_at: float) -> float:
        """When it is too late for another path; while the peer is heard, one is being agreed on."""
        return max(max(lost_at, self.last_alive) + RELAY_LOST_S, self._grace_until)

    @property
    def _patience_s(self) -> float:
        if self._gap_s > BUSY_GAP_S or self.last_alive == self._began_at:
            return self._suspect_s
        return min(self._suspect_s, max(BUSY_SUSPECT_S, PROBE_ROUND_TRIPS * self._rtt_s))

    @property
    def _suspect_at(self) -> float:
        unanswered = math.inf if self._unanswered_since is None else self._unanswered_since + self._patience_s
        return max(min(unanswered, self.last_alive + self._quiet_s), self._not_suspect_until)

    def _next_wake(self, now: float) -> float:
        due = [self._lost_at]
        due.append(self._suspect_at if self._round is None else min(self._round.probe_at, self._round.ends_at))
        if self._relay_lost_at is not None:
            due.append(self._relay_lost_by(self._relay_lost_at))
        return max(min(due), now)

    def _begin_round(self, probing: _Round, now: float) -> None:
        probing.began_at = probing.probe_at = now
        probing.in_flight_until = now + max(self._rtt_s, PROBE_REPEAT_S)
        probing.ends_at = now + self._window_s(probing.doubt)
        self._probe(probing, now, first=True)
        self._wake_at = min(self._wake_at, probing.probe_at)

    def _probe(self, probing: _Round, now: float, *, first: bool = False) -> None:
        probing.sent += 1
        probing.probe_at = now + PROBE_REPEAT_S
        self._events.append(ProbeWanted(first))

    def _was_stopped(self, late_s: float, now: float) -> None:
        self._grace_until = max(self._grace_until, now + STALL_GRACE_S)
        if self._round is not None:
            self._begin_round(self._round, now)
        if late_s > SUSPEND_S:
            self._events.append(PathWanted(f"this host was stopped for {late_s:.0f} s"))

    def _unanswered(self, probing: _Round, now: float, besides: dict[str, Any] | None = None) -> None:
        evidence: dict[str, Any] = {
            **(besides or {}),
            "told": probing.reason,
            "probes_sent": probing.sent,
            "probed_ms": round((now - probing.began_at) * 1000, 3),
        }
        if probing.doubt not in _CONCLUSIVE:
            self._not_suspect_until = now + PROBE_S
            self._events.append(PathWanted(probing.reason))
            return
        if probing.heard_at is not None:
            evidence["heard_while_leaving"] = True
        if probing.doubt == "reset":
            cause = Cause.PROCESS_DIED
        else:
            cause = told_cause(probing.cause)
            evidence["told_cause"] = probing.cause
        self._conclude(cause, evidence, now, since=probing.began_at)

    def _lose(self, evidence: dict[str, Any], now: float, *, since: float) -> None:
        """There is no path; say which part of it has failed."""
        if self._relay_lost_at is None:
            self._conclude(Cause.NETWORK_LOST, evidence, now, since=since)
        else:
            heard = {"last_seen_s_ago": round(now - self.last_alive, 3)}  # and not when the relay was lost
            self._conclude(
                Cause.RELAY_LOST, {**self._relay_evidence, **heard, **evidence}, now, since=self._relay_lost_at
            )

    def _conclude(self, cause: Cause, evidence: dict[str, Any], now: float, *, since: float) -> None:
        evidence = {"last_seen_s_ago": round(now - self.last_alive, 3), **evidence}
        if self._portal_saw is not None:
            evidence["portal_saw"] = self._portal_saw
        self._events.append(
            Verdict(
                cause=cause,
                initiated_by=initiator_of(cause),
                evidence=evidence,
                detection_ms=(now - since) * 1000,
            )
        )
