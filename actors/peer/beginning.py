"""Whether a peer with whom there is no session yet will still come. Pure.

Nothing can be asked inside a tunnel that does not exist: all signs of life are ICE's, whose checks are authenticated.
So what the portal says of the peer weighs more than it does later (`liveness`):

    left, ended    the end, at once: it has told the portal why, and nobody is there to say goodbye
    reset          its process has probably died; it has, if no check of it comes within PROBE_S
    silent         nothing: the search for a path and the handshake have deadlines of their own
"""

from __future__ import annotations

from ..endings import Cause
from ..timing import PROBE_S
from .blame import initiator_of, told_cause
from .liveness import Doubt, Verdict


class Beginning:
    """What is known of the peer before the first handshake. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.reset: tuple[str, float] | None = None
        """What the portal said of a link that was reset, and when; None once a sign of life has come."""

    def handle_doubt(self, doubt: Doubt, reason: str, cause: str, now: float) -> Verdict | None:
        """The portal says that the peer is gone; return the end, if that is one."""
        if doubt in ("left", "ended"):
            told = told_cause(cause)
            if told is Cause.NETWORK_LOST:  # what it has lost, we have never had
                told = Cause.NEVER_CONNECTED
            return self._verdict(told, {"told": reason, "told_cause": cause, "portal_saw": doubt}, 0.0)
        if doubt == "reset" and self.reset is None:
            self.reset = reason, now
        return None

    def handle_alive(self, at: float) -> None:
        """A check of the peer came, or an answer of it."""
        if self.reset is not None and at > self.reset[1]:
            self.reset = None

    def handle_timeout(self, now: float) -> Verdict | None:
        """Return the end, if it is due."""
        if self.reset is None or now < self.reset[1] + PROBE_S:
            return None
        reason, began_at = self.reset
        return self._verdict(Cause.PROCESS_DIED, {"told": reason, "portal_saw": "reset"}, now - began_at)

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why."""
        return None if self.reset is None else (self.reset[1] + PROBE_S, "a peer whose link was reset has not come")

    @staticmethod
    def _verdict(cause: Cause, evidence: dict[str, object], took_s: float) -> Verdict:
        return Verdict(
            cause=cause,
            initiated_by=initiator_of(cause),
            evidence={"connected": False, **evidence},
            detection_ms=took_s * 1000,
        )
