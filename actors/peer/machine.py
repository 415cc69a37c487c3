"""One connection to one peer, decided: from the first path to the last goodbye. Pure.

The machine owns the WireGuard tunnel, the goodbye and the verdict on a silent peer (`liveness`). It is fed paths,
datagrams, inner packets, hints, closes and time; it gives datagrams for the path, inner packets for the device, and
facts. How it moves is a table (`states`)::

    connecting ──handshake──▶ established ──close──▶ closing ──acknowledged / deadline──▶ ended
        │                        │                      │
        └──close / failed / lost ├──lost / failed──▶ ended
              ended              └──goodbye──▶ lingering ──deadline──▶ ended

*established*: `liveness` decides whether the peer is still there. What it concludes is *lost*, whatever the cause.

*closing*: we said goodbye and repeat it until it is acknowledged or its deadline is over. *lingering*: we were told
goodbye; the ending is known and reported, but our acknowledgement may be lost, so repetitions are still answered
for a while.

One `Ended` is reported, exactly once, when the ending is known: on the way into `lingering` or `ended`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from ..batch.contract import VNET_BYTES, Sealed
from ..device.frames import packets_of
from ..device.reach import BASE_MTU
from ..device.waiting import WAITING_PACKETS, WaitingPackets
from ..endings import Cause, Initiator
from ..timing import HANDSHAKE_S, LINGER_LEAVING_S, LINGER_S, LOST_AFTER_S
from ..wireguard import Frame, HandshakeCompleted, HandshakeFailed, Tunnel
from .beginning import Beginning
from .control_packet import (
    Goodbye,
    GoodbyeAcknowledged,
    Malformed,
    Probe,
    ProbeReply,
    decode_control,
    encode_control,
    has_control_mark,
    is_control,
)
from .events import Connected, Event, PathDoubted, PongReceived, SessionChanged
from .farewell import LAST_WILL, Farewell, Farewells, told_ending, unheard, will_in
from .idle import Idle
from .liveness import Doubt, Liveness, PathWanted, ProbeWanted, Verdict
from .path_mtu import PathMtu
from .probes import Probes
from .restarts import Restarts
from .states import DEADLINES, TRANSITIONS, State


class Connection:
    """The state of one connection. All times are seconds of one monotonic clock."""

    def __init__(
        self,
        tunnel: Tunnel,
        *,
        initiator: bool,
        identifier: Callable[[], bytes],
        lost_after_s: float = LOST_AFTER_S,
        idle_after_s: float | None = None,
        mtu: int = BASE_MTU,
    ) -> None:
        """`identifier` draws the 8 random bytes that a goodbye or a probe is recognised by. Without traffic for
        `idle_after_s` we end the connection; None: never. `mtu` is the device's, in bytes.
        """
        self.tunnel = tunnel
        self.state: State = "connecting"
        self.malformed_total = 0
        self.has_path = False
        self._initiator = initiator
        self._identifier = identifier
        self._lost_after_s = lost_after_s
        self._idle = Idle(idle_after_s)
        self._beginning = Beginning()
        self._liveness: Liveness | None = None
        self.restarts = Restarts()
        self._waiting = WaitingPackets(WAITING_PACKETS)
        self._transmits: list[bytes] = []  # an empty deque has 700 bytes
        self._events: list[Event] = []
        self.rtt_ms = 0.0
        """The round trip, as far as it is known."""
        self.farewells = Farewells()
        """Those of all connections of this process: to be replaced by the one that they share."""
        self._farewell: Farewell | None = None
        self._deadline_at: float | None = None
        self._probes = Probes(identifier)
        self.path_mtu = PathMtu(identifier, most=mtu)

    # --- in ---

    def handle_path(self, rtt_ms: float, now: float) -> None:
        """A path was agreed on, the first or another."""
        self.rtt_ms = rtt_ms
        first, self.has_path = not self.has_path, True
        if self._liveness is not None:
            self._liveness.handle_path(rtt_ms / 1000, now)
            self.path_mtu.handle_path(rtt_ms / 1000, now)
        if first and self.state == "connecting":
            if self._initiator:
                self.tunnel.connect(now)
            else:
                self._deadline_at = now + HANDSHAKE_S  # the responder's tunnel has no timer of its own for this
        self._drain_tunnel(now)

    def handle_packet(self, packet: bytes, now: float) -> None:
        """An inner packet from the device is to go to the peer. It waits, bounded, for the first handshake."""
        if self.state == "established":
            self._idle.last_traffic_at = now
            self._seal(packet, now)
            self._drain_tunnel(now)
        elif self.state == "connecting":
            self._waiting.put(packet)

    def handle_frames(
        self, buffer: memoryview, spans: array[int], train: memoryview, now: float, channel: int | None = None
    ) -> Sequence[Sealed] | None:
        """Frames of the device are to go to the peer; return the trains that the first of them have become. None: their
        packets go, or wait, one by one, as `handle_packet` has it.
        """
        sealed = self.tunnel.seal_frames(buffer, spans, train, now, channel) if self.state == "established" else None
        if sealed is not None:
            self._idle.last_traffic_at = now
            if self._liveness is not None:
                self._liveness.handle_sent(now)
            self._drain_tunnel(now)
        elif self.state in ("connecting", "established"):
            frames = [buffer[at : at + size] for at, size in zip(spans[::2], spans[1::2], strict=True)]
            for packet in (packet for frame in frames for packet in packets_of(frame)):
                self.handle_packet(packet, now)
        return sealed

    def handle_datagrams(
        self, buffer: memoryview, spans: array[int], out: memoryview, now: float, *, coalesce: bool = True
    ) -> Sequence[Frame]:
        """Take in a burst of datagrams of the path (see `Tunnel.handle_datagrams`); return the frames for the device
        that are in `out` now.
        """
        if self.state == "ended":
            return ()
        frames = self.tunnel.handle_datagrams(buffer, spans, out, now, coalesce=coalesce)
        if self._liveness is not None and self.tunnel.last_received_at == now:
            self._liveness.handle_alive(now)
        return self.handle_opened(out, frames, now)

    def handle_opened(self, out: memoryview, frames: Sequence[Frame], now: float) -> Sequence[Frame]:
        """Take in what a burst has become; return what of it is for the device."""
        self._drain_tunnel(now)
        if any(has_control_mark(out, start + VNET_BYTES) for start, _, _ in frames):
            frames = self._without_control(out, frames, now)
        elif self.state not in ("established", "connecting"):
            return ()
        if frames:
            self._idle.last_traffic_at = now
        return frames

    def handle_will(self, datagram: bytes, now: float) -> None:
        """Somebody brings what may be the peer's last will: the session knows whether it is."""
        if (goodbye := will_in(self.tunnel, datagram, now)) is not None:
            self._told_goodbye(goodbye, now)

    def handle_alive(self, at: float) -> None:
        """ICE has had an answer from the peer, or an authenticated request of it, at that time."""
        if self._liveness is not None:
            self._liveness.handle_alive(at, by_ice=True)
        else:
            self._beginning.handle_alive(at)

    def handle_doubt(self, doubt: Doubt, reason: str, now: float, cause: str = "") -> None:
        """Something suggests that the peer may be gone: probe it. `cause` is what the peer told the portal."""
        if self.state == "connecting":
            self._lose(self._beginning.handle_doubt(doubt, reason, cause, now))
        elif self.state == "established" and self._liveness is not None:
            self._liveness.handle_doubt(doubt, reason, now, cause)
            self._drain_liveness(now)

    def handle_moved(self, reason: str, now: float) -> None:
        """This host's network is another one: find another path."""
        if self.state in ("connecting", "established"):
            self.restarts.handle_wanted(reason, now, moved=True)
            self._events.extend(iter(self.restarts.poll_event, None))

    def handle_restart_began(self, generation: int, now: float) -> bool:
        """The portal has given both sides new credentials; False when they are not the newest, or come too late."""
        return self.state in ("connecting", "established") and self.restarts.handle_began(generation, now)

    def handle_close(
        self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any], now: float, text: str = ""
    ) -> None:
        """End it: say goodbye if anybody can hear it, with a `text` for people. Idempotent."""
        if self.state == "connecting":
            self._events.append(unheard(cause, initiated_by, evidence, 0.0))
            self._move("close")
        elif self.state == "established":
            is_theirs = cause is Cause.REPLACED and initiated_by is Initiator.PEER
            if is_theirs and self._liveness is not None and self._liveness.handle_replaced(evidence, now):
                self._drain_liveness(now)
                return
            self._move("close")
            self._farewell = Farewell(
                cause, initiated_by, evidence, identifier=self._identifier(), text=text, others=self.farewells, now=now
            )
            self._deadline_at = self._farewell.deadline_at
            self._say_goodbye(now)
            self._drain_tunnel(now)

    def handle_leaving(self, now: float) -> None:
        """We are about to go, once, and linger no longer than there is time for."""
        if self.state == "lingering" and self._deadline_at is not None:
            self._deadline_at += LINGER_LEAVING_S - LINGER_S
            self.handle_timeout(now)

    def handle_lost(self, cause: Cause, evidence: dict[str, Any], last_seen_s_ago: float, now: float) -> None:
        """The path is gone: nothing came from the peer for too long, or (`relay_lost`) its relay is gone."""
        if self.state == "established" and self._liveness is not None:
            if cause is Cause.RELAY_LOST:
                self._liveness.handle_relay_lost(evidence, now)
            else:
                self._liveness.handle_path_lost(evidence, last_seen_s_ago, now)
            self._drain_liveness(now)
        elif self.state == "closing":
            self._closed(acknowledged=False, now=now)
            self._move("lost")
        elif self.state == "connecting":
            self.handle_failed({"reason": "the path was lost before the first handshake", **evidence}, now)

    def handle_no_path(self, evidence: dict[str, Any], now: float) -> None:
        """ICE has found no path. Where there was a connection, whether it is lost is for `liveness` to say."""
        if self.state == "connecting":
            self.handle_failed(evidence, now)

    def handle_failed(self, evidence: dict[str, Any], now: float) -> None:
        """No path, or no handshake on it, could be had in time."""
        if self.state in ("connecting", "established"):
            cause = Cause.NEVER_CONNECTED if self.state == "connecting" else Cause.PROTOCOL_ERROR
            self._events.append(unheard(cause, Initiator.NETWORK, evidence, None))
            self._move("failed")

    def handle_ping(self, token: int, now: float) -> bool:
        """Send a probe; `PongReceived` tells its round trip. False while nothing can be sent."""
        if self.state != "established":
            return False
        self._seal(self._probes.begin(token, now), now)
        self._drain_tunnel(now)
        return True

    def resume(self, rtt_ms: float, generation: int, now: float) -> None:
        """Go on with an established connection of a predecessor, whose tunnel ours has resumed. Nobody is told."""
        self.has_path, self.restarts.generation = True, generation
        self._move("handshake")
        self._begin(rtt_ms, now)
        self._drain_tunnel(now)

    def seal_last_will(self, now: float) -> bytes | None:
        """Return the goodbye that is said if we die, the same one until `SessionChanged`; None: nobody can hear it."""
        return self.tunnel.seal_last_will(LAST_WILL, now) if self.state == "established" else None

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if self.state == "closing" and self._farewell is not None:
            self._deadline_at = self._farewell.deadline_at
            if now >= self._deadline_at:
                self._closed(acknowledged=False, now=now)
                self._move("deadline")
            elif now >= self._farewell.repeat_at:
                self._say_goodbye(now)
        elif self._deadline_at is not None and now >= self._deadline_at:
            if self.state == "lingering":
                self._move("deadline")
            else:
                self.handle_failed({"reason": "the peer did not complete a handshake"}, now)
        elif self.state == "connecting":
            self._lose(self._beginning.handle_timeout(now))
        elif self.state == "established":
            self._tend(now)
        if self.state in ("connecting", "established"):
            self.restarts.handle_timeout(now)
            self._events.extend(iter(self.restarts.poll_event, None))
        if self.state != "ended":
            self.tunnel.handle_timeout(now)
            self._drain_tunnel(now)

    # --- out ---

    def poll_transmit(self) -> bytes | None:
        """Return the next datagram for the path, or None."""
        return self._transmits.pop(0) if self._transmits else None

    def poll_event(self) -> Event | None:
        """Return the next fact, or None."""
        return self._events.pop(0) if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why; None when nothing is due ever."""
        if self.state == "ended":
            return None
        due: list[tuple[float, str] | None] = [self.tunnel.poll_timeout()]
        if self.state == "closing" and self._farewell is not None:
            due.append((self._farewell.repeat_at, "goodbye is repeated"))
        if self._deadline_at is not None:
            due.append((self._deadline_at, DEADLINES[self.state]))
        if self.state == "connecting":
            due += [self._beginning.poll_timeout(), self.restarts.poll_timeout()]
        if self.state == "established" and self._liveness is not None:
            due += [one.poll_timeout() for one in (self._liveness, self._idle, self.restarts, self.path_mtu)]
        return min((one for one in due if one is not None), default=None)

    # --- inside ---

    def _tend(self, now: float) -> None:
        """See whether the peer is alive, and whether anybody needs it."""
        idle_s = self._idle.handle_timeout(now)
        if idle_s is not None:
            self.handle_close(Cause.IDLE, Initiator.US, {"idle_s": round(idle_s, 3)}, now)
            return
        if self._liveness is not None:
            self._liveness.handle_timeout(now)
            self._drain_liveness(now)
        self.path_mtu.handle_timeout(self.tunnel, now)

    def _establish(self, handshake: HandshakeCompleted, now: float) -> None:
        self._move("handshake")
        # A check's round trip may have a retransmission in it, a handshake's a wait: the shorter is nearer.
        self._begin(min(self.rtt_ms, handshake.rtt_ms) if self.rtt_ms else handshake.rtt_ms, now)
        self._events.append(Connected(handshake.rtt_ms))
        if self._beginning.reset is not None:  # the handshake may have been under way when the peer died
            self.handle_doubt("reset", self._beginning.reset[0], now)
        for packet in self._waiting.take_all():
            self._seal(packet, now)

    def _begin(self, rtt_ms: float, now: float) -> None:
        self.rtt_ms = rtt_ms
        self._liveness = Liveness(lost_after_s=self._lost_after_s, now=now)
        self._liveness.handle_rtt(self.rtt_ms / 1000)
        self.path_mtu.handle_path(self.rtt_ms / 1000, now)
        self._idle.begin(now)

    def _drain_liveness(self, now: float) -> None:
        while self._liveness is not None and (event := self._liveness.poll_event()) is not None:
            if self.state != "established":
                continue
            match event:
                case ProbeWanted(first=first):
                    self._seal(self._probes.begin(0, now), now)
                    if first:
                        self._events.append(PathDoubted())
                case PathWanted(reason=reason):
                    self.restarts.handle_wanted(reason, now)
                    self._events.extend(iter(self.restarts.poll_event, None))
                case Verdict():
                    self._lose(event)

    def _lose(self, verdict: Verdict | None) -> None:
        """Take the peer for gone, if that is the verdict."""
        if verdict is not None:
            self._events.append(verdict.ended)
            self._move("lost")

    def _seal(self, packet: bytes, now: float, *, is_answer: bool = False) -> None:
        datagram = self.tunnel.encapsulate(packet, now)
        if datagram is not None:
            self._transmits.append(datagram)
        if self._liveness is not None and not is_answer:  # else each would probe the other one for its answer, for ever
            self._liveness.handle_sent(now)

    def _drain_tunnel(self, now: float) -> None:
        self._transmits.extend(iter(self.tunnel.poll_transmit, None))
        while (event := self.tunnel.poll_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                if self.state == "connecting":
                    self._establish(event, now)
                self._events.append(SessionChanged())
            elif isinstance(event, HandshakeFailed):
                if self._liveness is not None and now - self._liveness.last_alive >= event.duration_s:
                    continue  # not a word from the peer meanwhile: whether that is its end is for `liveness` to say
                self.handle_failed({"reason": "no handshake was answered", "initiations": event.initiations}, now)

    def _without_control(self, out: memoryview, frames: Sequence[Frame], now: float) -> list[Frame]:
        """Act on the control packets, and return what came before the connection's end."""
        left: list[Frame] = []
        for frame in frames:
            packet = out[frame[0] + VNET_BYTES : frame[1]]
            if is_control(packet):
                self._handle_control(bytes(packet), now)
                self._drain_tunnel(now)
            elif self.state in ("established", "connecting"):
                left.append(frame)
        return left

    def _handle_control(self, packet: bytes, now: float) -> None:
        match decode_control(packet):
            case Goodbye() as goodbye:
                self._told_goodbye(goodbye, now)
            case GoodbyeAcknowledged(identifier=identifier):
                if self.state == "closing" and self._farewell and self._farewell.is_acknowledged_by(identifier):
                    self._closed(acknowledged=True, now=now)
                    self._move("acknowledged")
            case Probe(identifier=identifier, timestamp=timestamp):
                if self.state == "established":
                    reply = ProbeReply(identifier=identifier, timestamp=timestamp)
                    self._seal(encode_control(reply), now, is_answer=True)
            case ProbeReply(identifier=identifier):
                self._probe_answered(identifier, now)
            case Malformed():
                self.malformed_total += 1
            case _:
                pass  # another data plane's, or a later version's

    def _probe_answered(self, identifier: bytes, now: float) -> None:
        answered = self._probes.answered(identifier, now)
        if answered is None:
            self.path_mtu.handle_reply(identifier, now)
            return
        token, rtt_s = answered
        self.rtt_ms = rtt_s * 1000
        if self._liveness is not None:
            self._liveness.handle_rtt(rtt_s)
            self._liveness.handle_alive(now, answers_probe=True)
        if token:
            self._events.append(PongReceived(token, self.rtt_ms))

    def _told_goodbye(self, goodbye: Goodbye, now: float) -> None:
        if goodbye.wants_acknowledgement and self.state != "ended":
            self._seal(encode_control(GoodbyeAcknowledged(identifier=goodbye.identifier)), now)
        if self.state in ("connecting", "established"):
            self._events.append(told_ending(goodbye, self.rtt_ms))
        elif self.state == "closing":
            # Both sides say goodbye at once: theirs proves that they know. Who is spoken for knows nothing any more.
            self._closed(acknowledged=not goodbye.last_will, now=now)
        else:
            return
        self._move("goodbye")
        self._deadline_at = now + LINGER_S

    def _say_goodbye(self, now: float) -> None:
        assert self._farewell is not None
        self._seal(self._farewell.say(self.rtt_ms, now), now)

    def _closed(self, *, acknowledged: bool, now: float) -> None:
        assert self._farewell is not None
        self._events.append(self._farewell.ended(acknowledged=acknowledged, now=now))

    def _move(self, event: str) -> None:
        self.state = TRANSITIONS[self.state][event]
        self._deadline_at = self._deadline_at if self.state in ("closing", "lingering") else None
