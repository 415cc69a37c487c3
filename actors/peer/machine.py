"""One connection to one peer, decided: from the first path to the last goodbye. Pure.

The machine owns the WireGuard tunnel and the goodbye. It is fed paths, datagrams, inner packets, closes and time;
it gives datagrams for the path, inner packets for the device, and facts. How it moves is the table `TRANSITIONS`::

    connecting ──handshake──▶ established ──close──▶ closing ──acknowledged / deadline──▶ ended
        │                        │                      │
        └──close / failed──▶     ├──lost / failed──▶ ended
              ended              └──goodbye──▶ lingering ──deadline──▶ ended

*closing*: we said goodbye and repeat it until it is acknowledged or its deadline is over. *lingering*: we were told
goodbye; the ending is known and reported, but our acknowledgement may be lost, so repetitions are still answered
for a while.

One `Ended` is reported, exactly once, when the ending is known: on the way into `lingering` or `ended`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from ..endings import Cause, Initiator
from ..timing import GOODBYE_DEADLINE_S, GOODBYE_REPEAT_MAX_S, GOODBYE_REPEAT_S, HANDSHAKE_S, LINGER_S
from ..wireguard import HandshakeCompleted, HandshakeFailed, Tunnel
from .control_packet import (
    Goodbye,
    GoodbyeAcknowledged,
    Malformed,
    Probe,
    ProbeReply,
    decode_control,
    encode_control,
    goodbye_reason,
    is_control,
)

State = Literal["connecting", "established", "closing", "lingering", "ended"]

TRANSITIONS: Mapping[State, Mapping[str, State]] = MappingProxyType(
    {
        "connecting": {"handshake": "established", "close": "ended", "failed": "ended", "goodbye": "lingering"},
        "established": {"close": "closing", "goodbye": "lingering", "lost": "ended", "failed": "ended"},
        "closing": {"acknowledged": "ended", "goodbye": "lingering", "deadline": "ended", "lost": "ended"},
        "lingering": {"deadline": "ended"},
        "ended": {},
    }
)

WAITING_PACKETS: Final = 128
"""Inner packets kept while there is no path; beyond it the oldest goes. Enough for the first requests of a browser."""

_DEADLINES: Final[Mapping[State, str]] = MappingProxyType(
    {
        "connecting": "the initiator's handshake is overdue",
        "closing": "goodbye deadline",
        "lingering": "linger is over",
    }
)
"""What each state's deadline is for."""

_INITIATED_BY: Final[Mapping[str, Initiator]] = MappingProxyType(
    {
        Cause.ACCESS_REVOKED: Initiator.PORTAL,
        Cause.ACCESS_EXPIRED: Initiator.PORTAL,
        Cause.PORTAL_DENIED: Initiator.PORTAL,
        Cause.PORTAL_DENIED: Initiator.PORTAL,
        Cause.WORKER_CRASHED: Initiator.SUPERVISOR,
        Cause.SUPERVISOR_DIED: Initiator.SUPERVISOR,
    }
)
"""Who ended it, where a goodbye's reason says more than that the peer sent it."""


LAST_WILL: Final = encode_control(Goodbye(reason="worker_crashed", last_will=True))
"""What is said for us if our worker dies. It is the same in every session: nothing is known yet of how it will end."""


class Connected(msgspec.Struct, frozen=True):
    """The first handshake is complete: packets flow."""

    handshake_rtt_ms: float


class PongReceived(msgspec.Struct, frozen=True):
    """A probe of ours came back. `token` is what `handle_ping` was given."""

    token: int
    rtt_ms: float


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The connection ended, and this is why."""

    cause: Cause
    initiated_by: Initiator
    evidence: dict[str, Any]
    detection_ms: float | None
    acknowledged: bool | None


class SessionChanged(msgspec.Struct, frozen=True):
    """The tunnel's keys are other ones: `seal_last_will` gives another datagram."""


Event = Connected | SessionChanged | PongReceived | Ended


class Connection:
    """The state of one connection. All times are seconds of one monotonic clock."""

    def __init__(self, tunnel: Tunnel, *, initiator: bool, identifier: Callable[[], bytes]) -> None:
        """`identifier` draws the 8 random bytes that a goodbye or a probe is recognised by."""
        self.tunnel = tunnel
        self.state: State = "connecting"
        self.malformed_total = 0
        self.has_path = False
        self._initiator = initiator
        self._identifier = identifier
        self._waiting: deque[bytes] = deque(maxlen=WAITING_PACKETS)
        self._transmits: deque[bytes] = deque()
        self._events: deque[Event] = deque()
        self._rtt_ms = 0.0
        self._goodbye: Goodbye | None = None
        self._close_cause: tuple[Cause, Initiator, dict[str, Any]] | None = None
        self._goodbye_began = 0.0
        self._repeat_at = 0.0
        self._goodbyes_sent = 0
        self._deadline_at: float | None = None
        self._probes: dict[bytes, tuple[int, float]] = {}

    # --- in ---

    def handle_path(self, rtt_ms: float, now: float) -> None:
        """A path was agreed on, the first or another."""
        self._rtt_ms = rtt_ms
        first, self.has_path = not self.has_path, True
        if first and self.state == "connecting":
            if self._initiator:
                self.tunnel.connect(now)
            else:
                self._deadline_at = now + HANDSHAKE_S  # the responder's tunnel has no timer of its own for this
            while self._waiting:
                self._seal(self._waiting.popleft(), now)
        self._drain_tunnel(now)

    def handle_packet(self, packet: bytes, now: float) -> None:
        """An inner packet from the device is to go to the peer. It waits, bounded, while there is no path."""
        if self.state == "established":
            self._seal(packet, now)
            self._drain_tunnel(now)
        elif self.state == "connecting":
            if self.has_path:
                self._seal(packet, now)
                self._drain_tunnel(now)
            else:
                self._waiting.append(packet)

    def handle_datagram(self, datagram: bytes, now: float) -> bytes | None:
        """Take in a datagram of the path; return the inner packet for the device, if it carried one."""
        if self.state == "ended":
            return None
        packet = self.tunnel.handle_datagram(datagram, now)
        self._drain_tunnel(now)
        if packet is None:
            return None
        if is_control(packet):
            self._handle_control(packet, now)
            self._drain_tunnel(now)
            return None
        return packet if self.state in ("established", "connecting") else None

    def handle_close(self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any], now: float) -> None:
        """End it: say goodbye if anybody can hear it. Idempotent."""
        if self.state == "connecting":
            self._end(cause, initiated_by, evidence, detection_ms=0.0, acknowledged=None)
            self._move("close")
        elif self.state == "established":
            self._move("close")
            self._close_cause = (cause, initiated_by, evidence)
            self._goodbye = Goodbye(reason=goodbye_reason(cause), identifier=self._identifier())
            self._goodbye_began = now
            self._deadline_at = now + GOODBYE_DEADLINE_S
            self._say_goodbye(now)
            self._drain_tunnel(now)

    def handle_lost(self, cause: Cause, evidence: dict[str, Any], last_seen_s_ago: float, now: float) -> None:
        """The path is gone: nothing came from the peer for too long."""
        if self.state == "established":
            self._end(cause, Initiator.NETWORK, evidence, detection_ms=last_seen_s_ago * 1000, acknowledged=None)
            self._move("lost")
        elif self.state == "closing":
            self._closed(acknowledged=False, now=now)
            self._move("lost")
        elif self.state == "connecting":
            self.handle_failed({"reason": "the path was lost before the first handshake", **evidence}, now)

    def handle_failed(self, evidence: dict[str, Any], now: float) -> None:
        """No path, or no handshake on it, could be had in time."""
        if self.state in ("connecting", "established"):
            cause = Cause.NEVER_CONNECTED if self.state == "connecting" else Cause.PROTOCOL_ERROR
            self._end(cause, Initiator.NETWORK, evidence, detection_ms=None, acknowledged=None)
            self._move("failed")

    def handle_ping(self, token: int, now: float) -> bool:
        """Send a probe; `PongReceived` tells its round trip. False while nothing can be sent."""
        if self.state != "established":
            return False
        identifier = self._identifier()
        self._probes[identifier] = (token, now)
        while len(self._probes) > 64:  # unanswered ones: the oldest are forgotten
            del self._probes[next(iter(self._probes))]
        self._seal(encode_control(Probe(identifier=identifier, timestamp=int(now * 1e9))), now)
        self._drain_tunnel(now)
        return True

    def seal_last_will(self, now: float) -> bytes | None:
        """Return the datagram that says goodbye for us if we die without a word; None while there is nobody to hear it.

        It is the same one until `SessionChanged`.
        """
        return self.tunnel.seal_last_will(LAST_WILL, now) if self.state == "established" else None

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self.state == "closing":
            if self._deadline_at is not None and now >= self._deadline_at:
                self._closed(acknowledged=False, now=now)
                self._move("deadline")
            elif now >= self._repeat_at:
                self._say_goodbye(now)
        elif self._deadline_at is not None and now >= self._deadline_at:
            if self.state == "lingering":
                self._move("deadline")
            else:
                self.handle_failed({"reason": "the peer did not complete a handshake"}, now)
        if self.state != "ended":
            self.tunnel.handle_timeout(now)
            self._drain_tunnel(now)

    # --- out ---

    def poll_transmit(self) -> bytes | None:
        """Return the next datagram for the path, or None."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> Event | None:
        """Return the next fact, or None."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why; None when nothing is due ever."""
        if self.state == "ended":
            return None
        due = [timeout for timeout in (self.tunnel.poll_timeout(),) if timeout is not None]
        if self.state == "closing":
            due.append((self._repeat_at, "goodbye is repeated"))
        if self._deadline_at is not None:
            due.append((self._deadline_at, _DEADLINES[self.state]))
        return min(due, default=None)

    # --- inside ---

    def _seal(self, packet: bytes, now: float) -> None:
        datagram = self.tunnel.encapsulate(packet, now)
        if datagram is not None:
            self._transmits.append(datagram)

    def _drain_tunnel(self, now: float) -> None:
        while (datagram := self.tunnel.poll_transmit()) is not None:
            self._transmits.append(datagram)
        while (event := self.tunnel.poll_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                if self.state == "connecting":
                    self._move("handshake")
                    # A check's round trip may have a retransmission in it, a handshake's a wait: the shorter is nearer.
                    self._rtt_ms = min(self._rtt_ms, event.rtt_ms) if self._rtt_ms else event.rtt_ms
                    self._events.append(Connected(event.rtt_ms))
                self._events.append(SessionChanged())
            elif isinstance(event, HandshakeFailed):
                evidence = {"reason": "no handshake was answered", "initiations": event.initiations}
                self.handle_failed(evidence, now)

    def _handle_control(self, packet: bytes, now: float) -> None:
        match decode_control(packet):
            case Goodbye() as goodbye:
                self._told_goodbye(goodbye, now)
            case GoodbyeAcknowledged(identifier=identifier):
                if self.state == "closing" and self._goodbye is not None and identifier == self._goodbye.identifier:
                    self._closed(acknowledged=True, now=now)
                    self._move("acknowledged")
            case Probe(identifier=identifier, timestamp=timestamp):
                if self.state == "established":
                    self._seal(encode_control(ProbeReply(identifier=identifier, timestamp=timestamp)), now)
            case ProbeReply(identifier=identifier):
                probe = self._probes.pop(identifier, None)
                if probe is not None:
                    self._rtt_ms = (now - probe[1]) * 1000
                    self._events.append(PongReceived(probe[0], self._rtt_ms))
            case Malformed():
                self.malformed_total += 1
            case _:
                pass  # another data plane's, or a later version's

    def _told_goodbye(self, goodbye: Goodbye, now: float) -> None:
        if goodbye.wants_acknowledgement and self.state != "ended":
            self._seal(encode_control(GoodbyeAcknowledged(identifier=goodbye.identifier)), now)
        if self.state in ("connecting", "established"):
            plain = goodbye.reason == "unspecified"
            cause = Cause.SHUTTING_DOWN if plain else Cause(goodbye.reason)
            kind = "last will" if goodbye.last_will else "goodbye"
            evidence: dict[str, Any] = {"told": f"{kind} without a reason" if plain else f"{kind}: {goodbye.reason}"}
            if goodbye.text:
                evidence["text"] = goodbye.text
            self._end(
                cause,
                _INITIATED_BY.get(cause, Initiator.PEER),
                evidence,
                # No synchronised clocks: the sender says how long it has been saying it, half a round trip came on top.
                # A last will does not know.
                detection_ms=None if goodbye.last_will else goodbye.elapsed_ms + self._rtt_ms / 2,
                acknowledged=None if goodbye.last_will else True,
            )
        elif self.state == "closing":
            # Both sides say goodbye at once: theirs proves that they know. Who is spoken for knows nothing any more.
            self._closed(acknowledged=not goodbye.last_will, now=now)
        else:
            return
        self._move("goodbye")
        self._deadline_at = now + LINGER_S

    def _say_goodbye(self, now: float) -> None:
        assert self._goodbye is not None
        elapsed_ms = int((now - self._goodbye_began) * 1000)
        self._seal(encode_control(msgspec.structs.replace(self._goodbye, elapsed_ms=elapsed_ms)), now)
        self._goodbyes_sent += 1
        self._repeat_at = now + min(max(GOODBYE_REPEAT_S, 1.2 * self._rtt_ms / 1000), GOODBYE_REPEAT_MAX_S)

    def _closed(self, *, acknowledged: bool, now: float) -> None:
        assert self._close_cause is not None
        cause, initiated_by, evidence = self._close_cause
        evidence = {**evidence, "goodbyes_sent": self._goodbyes_sent}
        if acknowledged:
            evidence["acknowledged_ms"] = round((now - self._goodbye_began) * 1000, 3)
        self._end(cause, initiated_by, evidence, detection_ms=0.0, acknowledged=acknowledged)

    def _end(
        self,
        cause: Cause,
        initiated_by: Initiator,
        evidence: dict[str, Any],
        *,
        detection_ms: float | None,
        acknowledged: bool | None,
    ) -> None:
        self._events.append(
            Ended(
                cause=cause,
                initiated_by=initiated_by,
                evidence=evidence,
                detection_ms=detection_ms,
                acknowledged=acknowledged,
            )
        )

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state][event]
        self._deadline_at = self._deadline_at if self.state in ("closing", "lingering") else None
