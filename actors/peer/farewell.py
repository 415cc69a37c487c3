"""Goodbyes: what a peer's says, and ours, said until it is acknowledged, or its deadline is over. Pure.

Where many are said at once, by a gateway that leaves, their repetitions must not take the time in which the
acknowledgements are read: the more are under way in this process, the longer each waits before it is said again, and
the more time all of them have.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..endings import Cause, Initiator
from ..timing import (
    GOODBYE_DEADLINE_S,
    GOODBYE_LATEST_S,
    GOODBYE_PATIENCE_S,
    GOODBYE_REPEAT_MAX_S,
    GOODBYE_REPEAT_S,
    GOODBYE_WORK_S,
)
from ..wireguard import MessageType, Tunnel, classify
from .blame import initiator_of
from .control_packet import Goodbye, decode_control, encode_control, goodbye_reason, is_control
from .events import Ended

LAST_WILL: Final = encode_control(Goodbye(reason="worker_crashed", last_will=True))
"""What is said for us if our worker dies. It is the same in every session: nothing is known yet of how it will end."""


class Farewells:
    """How many goodbyes are under way in this process."""

    def __init__(self) -> None:
        self.under_way = 0
        self._most = 0
        """At once, since there was none."""

    def begin(self) -> None:
        """One more is under way."""
        self.under_way += 1
        self._most = max(self._most, self.under_way)

    def end(self) -> None:
        """One is over."""
        self.under_way -= 1
        if self.under_way == 0:
            self._most = 0

    @property
    def patience_s(self) -> float:
        """How long one is said, at the longest."""
        return min(GOODBYE_DEADLINE_S + max(self._most - 1, 0) * GOODBYE_PATIENCE_S, GOODBYE_LATEST_S)

    @property
    def repeat_s(self) -> float:
        """After how long one is said again, at the earliest."""
        return max(GOODBYE_REPEAT_S, self.under_way * GOODBYE_WORK_S)


class Farewell:
    """One goodbye, its repetitions, and what they came to. All times are seconds of one monotonic clock."""

    def __init__(
        self,
        cause: Cause,
        initiated_by: Initiator,
        evidence: dict[str, Any],
        *,
        identifier: bytes,
        text: str,
        others: Farewells,
        now: float,
    ) -> None:
        """`text` is for people, on the other side; `others` are said by the same process."""
        self._others = others
        others.begin()
        self.repeat_at = now
        """When it is to be said again."""
        self._ending = cause, initiated_by, evidence
        self._goodbye = Goodbye(reason=goodbye_reason(cause), identifier=identifier, text=text)
        self._began_at = now
        self._said = 0

    @property
    def deadline_at(self) -> float:
        """When the ending stands, unacknowledged. It moves while others begin."""
        return self._began_at + self._others.patience_s

    def say(self, rtt_ms: float, now: float) -> bytes:
        """Return the control packet that says it, once more."""
        self._said += 1
        answered_s = min(1.2 * rtt_ms / 1000, GOODBYE_REPEAT_MAX_S)
        self.repeat_at = now + max(self._others.repeat_s, answered_s)
        elapsed_ms = int((now - self._began_at) * 1000)
        return encode_control(msgspec.structs.replace(self._goodbye, elapsed_ms=elapsed_ms))

    def is_acknowledged_by(self, identifier: bytes) -> bool:
        """Say whether an acknowledgement with this identifier is for it."""
        return identifier == self._goodbye.identifier

    def ended(self, *, acknowledged: bool, now: float) -> Ended:
        """Return the ending that it has come to. Once."""
        self._others.end()
        cause, initiated_by, evidence = self._ending
        evidence = {**evidence, "goodbyes_sent": self._said}
        if acknowledged:
            evidence["acknowledged_ms"] = round((now - self._began_at) * 1000, 3)
        return Ended(
            cause=cause, initiated_by=initiated_by, evidence=evidence, detection_ms=0.0, acknowledged=acknowledged
        )


def unheard(cause: Cause, by: Initiator, evidence: dict[str, Any], detection_ms: float | None) -> Ended:
    """Return an ending of which nothing was said."""
    return Ended(cause=cause, initiated_by=by, evidence=evidence, detection_ms=detection_ms, acknowledged=None)


def will_in(tunnel: Tunnel, datagram: bytes, now: float) -> Goodbye | None:
    """Return the last will in a datagram that did not come on the path, if its session says that it is one."""
    packet = tunnel.handle_datagram(datagram, now) if classify(datagram) is MessageType.TRANSPORT else None
    goodbye = decode_control(packet) if packet is not None and is_control(packet) else None
    return goodbye if isinstance(goodbye, Goodbye) and goodbye.last_will else None


def told_ending(goodbye: Goodbye, rtt_ms: float) -> Ended:
    """Return the ending that a goodbye of the other side is."""
    plain = goodbye.reason == "unspecified"
    cause = Cause.SHUTTING_DOWN if plain else Cause(goodbye.reason)
    kind = "last will" if goodbye.last_will else "goodbye"
    evidence: dict[str, Any] = {"told": f"{kind} without a reason" if plain else f"{kind}: {goodbye.reason}"}
    if goodbye.text:
        evidence["text"] = goodbye.text
    return Ended(
        cause=cause,
        initiated_by=initiator_of(cause),
        evidence=evidence,
        # No synchronised clocks: the sender says how long it has been saying it, and half a round trip came on top. A
        # last will does not know.
        detection_ms=None if goodbye.last_will else goodbye.elapsed_ms + rtt_ms / 2,
        acknowledged=None if goodbye.last_will else True,
    )
