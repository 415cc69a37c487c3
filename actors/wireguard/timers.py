"""The timers of a tunnel: what arms, what clears and what fires each of them.

    timer                  armed by                         cleared by             fires after
    session expires        a new session                    –                      REJECT_AFTER_TIME
    handshake gives up     the first initiation             a finished handshake   REKEY_ATTEMPT_TIME
    handshake repeats      every initiation                 a finished handshake   REKEY_TIMEOUT + jitter
    handshake may start    a need for one too soon          a finished handshake   REKEY_TIMEOUT since the last
    peer silent            data sent, if not yet armed      anything received      KEEPALIVE + REKEY_TIMEOUT + jitter
    passive keepalive      data received, if not yet armed  anything sent          KEEPALIVE_TIMEOUT
    persistent keepalive   anything sent or received        –                      the configured interval

"Anything" means authenticated, handshakes and keepalives included; "data" excludes those (WireGuard paper, section 6).
The paper's last timer, which erases all keys after three times REJECT_AFTER_TIME, has nothing left to do here: a
session's keys go when it expires, a handshake's when it ends or gives up.
"""

import enum
import random

from .timing import Limits


class Timer(enum.StrEnum):
    """The reasons to wake up. Of several that are due, the one listed first is served first."""

    SESSION_EXPIRES = "session expires"
    HANDSHAKE_GIVES_UP = "handshake gives up"
    HANDSHAKE_REPEATS = "handshake repeats"
    HANDSHAKE_MAY_START = "handshake may start"
    PEER_SILENT = "peer silent after data"
    PASSIVE_KEEPALIVE = "passive keepalive"
    PERSISTENT_KEEPALIVE = "persistent keepalive"


class Timers:
    """Deadlines by reason. Told what happened, asked what is due.

    `detects_silence` is off for a side that leaves it to the other one to make new sessions.
    """

    def __init__(
        self,
        limits: Limits,
        rng: random.Random,
        *,
        persistent_keepalive_s: float | None,
        detects_silence: bool,
    ) -> None:
        self._limits = limits
        self._rng = rng
        self._persistent_keepalive_s = persistent_keepalive_s
        self._detects_silence = detects_silence
        self._due: dict[Timer, float] = {}
        self._silence_jitter_s = self._jitter_s()
        """Drawn for each silence, and not for each packet that could begin one."""

    def data_sent(self, now: float) -> None:
        """Inner data left: from now on we expect to hear something."""
        if self._detects_silence and Timer.PEER_SILENT not in self._due:
            self._due[Timer.PEER_SILENT] = now + self._limits.silence_s + self._silence_jitter_s

    def data_received(self, now: float) -> None:
        """Inner data came in: from now on the peer expects to hear something."""
        if Timer.PASSIVE_KEEPALIVE not in self._due:
            self._due[Timer.PASSIVE_KEEPALIVE] = now + self._limits.keepalive_timeout_s

    def sent(self, now: float) -> None:
        """Anything that authenticates left."""
        self._due.pop(Timer.PASSIVE_KEEPALIVE, None)
        self.arm_persistent_keepalive(now)

    def received(self, now: float) -> None:
        """Anything that authenticates came in."""
        self._due.pop(Timer.PEER_SILENT, None)
        self.arm_persistent_keepalive(now)

    def initiation_sent(self, now: float, started_at: float) -> None:
        """An initiation left, the first of its attempt at `started_at`."""
        self._due[Timer.HANDSHAKE_REPEATS] = now + self._limits.rekey_timeout_s + self._jitter_s()
        self._due[Timer.HANDSHAKE_GIVES_UP] = started_at + self._limits.rekey_attempt_time_s

    def handshake_deferred(self, when: float) -> None:
        """A handshake is wanted, but the last initiation was too short a time ago."""
        self._due[Timer.HANDSHAKE_MAY_START] = when

    def handshake_ended(self) -> None:
        """The attempt under way was answered or given up."""
        self._due.pop(Timer.HANDSHAKE_MAY_START, None)
        self._due.pop(Timer.HANDSHAKE_REPEATS, None)
        self._due.pop(Timer.HANDSHAKE_GIVES_UP, None)

    def set_session_expiry(self, when: float | None) -> None:
        """State when the next session expires, or that there is none."""
        if when is None:
            self._due.pop(Timer.SESSION_EXPIRES, None)
        else:
            self._due[Timer.SESSION_EXPIRES] = when

    def arm_persistent_keepalive(self, now: float) -> None:
        """Start the interval anew, if there is one."""
        if self._persistent_keepalive_s is not None:
            self._due[Timer.PERSISTENT_KEEPALIVE] = now + self._persistent_keepalive_s

    def take_due(self, now: float) -> Timer | None:
        """Return one timer that is due and disarm it, or None when none is."""
        if not self._due or min(self._due.values()) > now:
            return None
        for timer in Timer:
            if self._due.get(timer, now + 1) <= now:
                del self._due[timer]
                if timer is Timer.PEER_SILENT:
                    self._silence_jitter_s = self._jitter_s()
                return timer
        return None

    def snapshot(self) -> dict[str, float]:
        """Return when each is due, by its name."""
        return {timer.value: when for timer, when in self._due.items()}

    def resume(self, due: dict[str, float]) -> None:
        """Go on as another one was. Raises ValueError for a name that is none."""
        self._due = {Timer(name): when for name, when in due.items()}

    def next(self) -> tuple[float, str] | None:
        """Return (when, why) of the earliest deadline."""
        if not self._due:
            return None
        timer = min(self._due, key=self._due.__getitem__)
        return self._due[timer], timer.value

    def _jitter_s(self) -> float:
        return self._rng.uniform(0, self._limits.rekey_timeout_jitter_s)
