"""One WireGuard peer: handshakes, sessions and timers tied into a machine without I/O.

Inner packets go in by `encapsulate` and come out of `handle_datagram`; many at once, by `seal_frame` and
`handle_datagrams` (`transport`). After each call the owner drains `poll_transmit` and `poll_event` and sleeps no longer
than `poll_timeout` says. Addresses are outside: the owner knows where datagrams come from and where they go, and a
tunnel survives any change of path.

One side is the fixed initiator: it alone makes sessions when there is something to send, when one grows old or when the
peer falls silent, so that two handshakes do not compete. The other side answers whoever the peer is, and begins a
handshake only when told to by `connect`; who began a session renews it.

Whatever arrives is hostile until it authenticates. Until then nothing changes but a counter in `drops`.
"""

import random
import time
from collections.abc import Callable
from typing import Literal

from ..batch.choice import choose
from ..batch.contract import Kernel
from .cookie import Gate, Refused
from .drop import DropReason
from .events import HandshakeCompleted, HandshakeFailed, SessionExpired, TunnelEvent
from .handshake import StaticKeys
from .initiator import Initiator
from .mac import MacSigner, has_valid_mac1, mac1_key
from .noise import SealError
from .responder import Responder
from .session import Session
from .snapshot import TunnelSnapshot
from .timers import Timer, Timers
from .timing import Limits
from .transport import Transport
from .wire import MessageType, classify, decode_cookie_reply, decode_response


class Tunnel(Transport):
    """The tunnel to one peer.

    Keys are 32 raw bytes each; all times are seconds of one monotonic clock. `allocate_index` yields 32-bit session
    indices (see `PrefixedIndices`). `rng` decides timer jitter only. `persistent_keepalive_s` keeps a NAT mapping alive
    without traffic. `gate` judges handshake messages under load; leave it out where a demultiplexer in front of many
    tunnels has already asked it. `wall_clock_ns` stamps initiations. `kernel` is asked for when the first frame comes.

    Raises:
        ValueError: a key is malformed, or the keepalive interval is not positive.
    """

    def __init__(
        self,
        *,
        private_key: bytes,
        peer_public_key: bytes,
        preshared_key: bytes = bytes(32),
        initiator: bool,
        allocate_index: Callable[[], int],
        rng: random.Random,
        persistent_keepalive_s: float | None = None,
        limits: Limits | None = None,
        gate: Gate | None = None,
        wall_clock_ns: Callable[[], int] = time.time_ns,
        kernel: Callable[[], Kernel] = choose,
    ) -> None:
        if persistent_keepalive_s is not None and persistent_keepalive_s <= 0:
            raise ValueError("a keepalive interval is positive")
        limits = limits or Limits()
        timers = Timers(limits, rng, persistent_keepalive_s=persistent_keepalive_s, detects_silence=initiator)
        super().__init__(limits, timers, kernel)
        keys = StaticKeys(private_key, peer_public_key, preshared_key)
        self._is_initiator = initiator
        self._allocate_index = allocate_index
        self.gate = gate
        """Judges handshake messages; None: each that knows our key is looked at."""
        self._mac1_key = mac1_key(keys.public_key)
        self._signer = MacSigner(peer_public_key, self._limits.cookie_lifetime_s)
        self._initiator = Initiator(keys, self._signer, wall_clock_ns)
        self._responder = Responder(keys, self._signer, self._limits)
        self._queue: list[bytes] = []  # an empty deque has 700 bytes
        self._transmits: list[bytes] = []
        self._events: list[TunnelEvent] = []
        self._handshake_at: float | None = None
        self.handshakes_total = 0
        """Completed, in this process."""

    # What the owner sees.

    @property
    def queued_packets(self) -> int:
        """Inner packets that wait for a handshake."""
        return len(self._queue)

    @property
    def local_indices(self) -> frozenset[int]:
        """Indices under which datagrams for this tunnel may arrive now."""
        pending = self._initiator.local_index
        indices = {session.local_index for session in self._slots}
        return frozenset(indices if pending is None else indices | {pending})

    def handshake_age_s(self, now: float) -> float | None:
        """Return the time since a handshake last completed, or None if none ever did."""
        return None if self._handshake_at is None else now - self._handshake_at

    # Another process goes on with it.

    def snapshot(self) -> TunnelSnapshot:
        """Describe the tunnel to a successor. Use it no more after this: two users of one key would repeat a nonce."""
        previous, current, following = (
            None if session is None else session.snapshot()
            for session in (self._slots.previous, self._slots.current, self._slots.next)
        )
        return TunnelSnapshot(
            previous=previous,
            current=current,
            next=following,
            timers=self._timers.snapshot(),
            queue=tuple(self._queue),
            sent_timestamp_ns=self._initiator.timestamps.last_ns,
            received_timestamp=self._responder.newest_timestamp,
            rx_bytes=self._rx_bytes,
            tx_bytes=self._tx_bytes,
            last_received_at=self._last_received_at,
            last_sent_at=self._last_sent_at,
            handshake_at=self._handshake_at,
        )

    def resume(self, snapshot: TunnelSnapshot, now: float) -> None:
        """Go on where a predecessor stopped; this tunnel is new and has its keys.

        Raises:
            ValueError: the snapshot contradicts itself.
        """
        self._slots.resume(snapshot, self._limits)
        self._timers.resume(snapshot.timers)
        self._timers.handshake_ended()
        self._queue.extend(snapshot.queue)
        self._initiator.timestamps.last_ns = snapshot.sent_timestamp_ns
        self._responder.newest_timestamp = snapshot.received_timestamp
        self._rx_bytes, self._tx_bytes = snapshot.rx_bytes, snapshot.tx_bytes
        self._last_received_at, self._last_sent_at = snapshot.last_received_at, snapshot.last_sent_at
        self._handshake_at = snapshot.handshake_at
        if self._is_initiator and not self.can_send(now):
            self._renew(now)

    # Inputs.

    def connect(self, now: float) -> None:
        """Begin a handshake, whichever side we are; does nothing while one of ours is under way."""
        if self._initiator.local_index is None:
            self._send_initiation(self._initiator.start, now)

    def encapsulate(self, packet: bytes, now: float) -> bytes | None:
        """Seal an inner IP packet into a datagram to send, or queue it and return None while there is no session.

        Raises:
            ValueError: the packet is empty (that would be a keepalive).
        """
        if not packet:
            raise ValueError("an inner packet has at least a header")
        session = self._slots.current
        if session is None or not session.can_seal(now):
            self._enqueue(packet)
            if self._is_initiator:
                self._renew(now)
            return None
        return self._seal_data(session, packet, now)

    def handle_datagram(self, datagram: bytes | memoryview, now: float, source: bytes = b"") -> bytes | None:
        """Take in a datagram; return the inner packet if it carried one.

        `source` is the packed sender address (see `pack_source`); only the gate reads it.
        """
        match classify(datagram):
            case MessageType.TRANSPORT:
                return self._open(datagram, now)
            case MessageType.COOKIE_REPLY:
                if not self._signer.accept_cookie(decode_cookie_reply(datagram), now):
                    self._drops.add(DropReason.BAD_COOKIE_REPLY)
            case MessageType.INITIATION if self._admits(datagram, now, source):
                self._receive_initiation(datagram, now)
            case MessageType.RESPONSE if self._admits(datagram, now, source):
                self._receive_response(datagram, now)
            case None:
                self._drops.add(DropReason.NOT_WIREGUARD)
            case _:
                pass  # not admitted, and counted there
        return None

    def handle_timeout(self, now: float) -> None:
        """Do what is due at this time; harmless when nothing is."""
        while (timer := self._timers.take_due(now)) is not None:
            match timer:
                case Timer.SESSION_EXPIRES:
                    self._expire_sessions(now)
                case Timer.HANDSHAKE_GIVES_UP:
                    self._give_up(now)
                case Timer.HANDSHAKE_REPEATS:
                    self._send_initiation(self._initiator.repeat, now)
                case Timer.HANDSHAKE_MAY_START | Timer.PEER_SILENT:
                    self._renew(now)
                case Timer.PASSIVE_KEEPALIVE:
                    self._send_keepalive(now)
                case Timer.PERSISTENT_KEEPALIVE:
                    self._timers.arm_persistent_keepalive(now)
                    if not self._send_keepalive(now) and self._is_initiator:
                        self._renew(now)

    # Outputs.

    def poll_transmit(self) -> bytes | None:
        """Return the next datagram to send, or None."""
        return self._transmits.pop(0) if self._transmits else None

    def poll_event(self) -> TunnelEvent | None:
        """Return the next event, or None."""
        return self._events.pop(0) if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return (when, why) `handle_timeout` wants to be called next, or None for never."""
        return self._timers.next()

    # Sending.

    def _send_keepalive(self, now: float) -> bool:
        session = self._slots.current
        if session is None or not session.can_seal(now):
            return False
        self._transmits.append(self._seal(session, b"", now))
        return True

    def _send_initiation(self, make: Callable[[int, float], bytes], now: float) -> None:
        datagram = make(self._new_index(), now)
        self._transmits.append(datagram)
        self._note_sent(len(datagram), now)
        self._timers.initiation_sent(now, self._initiator.started_at)

    def _renew(self, now: float) -> None:
        """Begin a handshake unless one is under way; never sooner than REKEY_TIMEOUT after the last initiation."""
        if self._initiator.local_index is not None:
            return
        allowed_at = self._initiator.last_sent_at + self._limits.rekey_timeout_s
        if now < allowed_at:
            self._timers.handshake_deferred(allowed_at)
        else:
            self._send_initiation(self._initiator.start, now)

    def _enqueue(self, packet: bytes) -> None:
        self._queue.append(packet)
        if len(self._queue) > self._limits.queued_packets:
            self._queue.pop(0)
            self._drops.add(DropReason.QUEUE_OVERFLOW)

    def _flush(self, session: Session, now: float) -> None:
        while self._queue and session.can_seal(now):
            self._transmits.append(self._seal_data(session, self._queue.pop(0), now))

    # Receiving.

    def _admits(self, datagram: bytes | memoryview, now: float, source: bytes) -> bool:
        if self.gate is None:
            if not has_valid_mac1(self._mac1_key, datagram):
                self._drops.add(DropReason.BAD_MAC1)
                return False
            return True
        verdict = self.gate.admit(datagram, source, now)
        if isinstance(verdict, Refused):
            self._drops.add(verdict.reason)
            if verdict.cookie_reply is not None:
                self._transmits.append(verdict.cookie_reply)
            return False
        return True

    def _receive_initiation(self, datagram: bytes | memoryview, now: float) -> None:
        answer = self._responder.answer(datagram, self._new_index, now)
        if isinstance(answer, DropReason):
            self._drops.add(answer)
            return
        response, keys = answer
        if self.gate is not None:
            self.gate.note_authentic(now)
        self._note_received(len(datagram), now)
        self._slots.add_responded(Session(keys, self._limits, initiated=False, now=now))
        self._timers.set_session_expiry(self._slots.next_expiry())
        self._transmits.append(response)
        self._note_sent(len(response), now)

    def _receive_response(self, datagram: bytes | memoryview, now: float) -> None:
        try:
            finished = self._initiator.finish(decode_response(datagram), now)
        except SealError:
            self._drops.add(DropReason.BAD_HANDSHAKE)
            return
        if finished is None:
            self._drops.add(DropReason.UNEXPECTED_RESPONSE)
            return
        self._note_received(len(datagram), now)
        session = Session(finished.keys, self._limits, initiated=True, now=now)
        self._slots.add_initiated(session)
        self._complete(session, "initiator", finished.rtt_s, finished.initiations, now)
        if self._queue:
            self._flush(session, now)
        else:
            # The responder may not send before it has heard from us under the new keys (paper 6.5).
            self._send_keepalive(now)

    def _confirmed(self, session: Session, now: float) -> None:
        self._complete(session, "responder", now - session.established_at, 0, now)
        self._flush(session, now)

    # Handshakes and sessions end.

    def _complete(
        self, session: Session, role: Literal["initiator", "responder"], rtt_s: float, tries: int, now: float
    ) -> None:
        self._initiator.cancel()  # if the peer's handshake overtook ours, ours has lost its purpose
        self._timers.handshake_ended()
        self._timers.set_session_expiry(self._slots.next_expiry())
        self._handshake_at = now
        self.handshakes_total += 1
        self._events.append(
            HandshakeCompleted(
                role=role,
                local_index=session.local_index,
                remote_index=session.remote_index,
                rtt_ms=rtt_s * 1000,
                initiations=tries,
            )
        )

    def _give_up(self, now: float) -> None:
        self._initiator.cancel()
        self._timers.handshake_ended()
        self._drops.add(DropReason.QUEUE_ABANDONED, len(self._queue))
        self._queue.clear()
        self._events.append(
            HandshakeFailed(initiations=self._initiator.initiations, duration_s=now - self._initiator.started_at)
        )

    def _expire_sessions(self, now: float) -> None:
        if self._slots.drop_expired(now):
            self._events.append(SessionExpired(last_received_at=self._last_received_at))
        self._timers.set_session_expiry(self._slots.next_expiry())

    def _new_index(self) -> int:
        """Return an index that no live session of this tunnel has."""
        taken = self.local_indices
        while (index := self._allocate_index()) in taken:
            pass
        return index
