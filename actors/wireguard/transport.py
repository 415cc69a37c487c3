"""What is carried under the sessions of one tunnel, packet by packet or many at once.

The half of `tunnel` that knows no handshakes: it seals under the current session, opens under whichever a datagram
names, counts, and tells the timers. That another session is wanted, or that one has been confirmed, is for the other
half to act on.

One by one or a frame and a burst at a time, the outcome is the same: counters, drops, timers and wishes to renew.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ..batch.contract import OUT_BYTES_EACH, Kernel, Sealed
from ..batch.lanes import Books
from .drop import DropCounts, DropReason
from .inner import pad, unpad
from .key_slots import KeySlots
from .runs import runs_of
from .session import Session
from .timers import Timers
from .timing import Limits
from .wire import CHANNEL_BYTES, decode_transport_header

Frame: TypeAlias = tuple[int, int, int]
"""(start, end, packets) of a frame in a buffer."""


class Transport:
    """Sessions in use. `kernel` is asked for when the first frame or burst comes."""

    def __init__(self, limits: Limits, timers: Timers, kernel: Callable[[], Kernel]) -> None:
        self._limits = limits
        self._timers = timers
        self._kernel = kernel
        self._slots = KeySlots()
        self._drops = DropCounts()
        self._rx_bytes = 0
        self._tx_bytes = 0
        self._last_received_at: float | None = None
        self._last_sent_at: float | None = None

    # What the owner sees.

    @property
    def last_received_at(self) -> float | None:
        """When the last authenticated datagram came in: the proof that the peer is alive."""
        return self._last_received_at

    @property
    def last_sent_at(self) -> float | None:
        """When the last datagram was handed out."""
        return self._last_sent_at

    @property
    def rx_bytes(self) -> int:
        """Bytes of authenticated datagrams received, handshakes and overhead included."""
        return self._rx_bytes

    @property
    def tx_bytes(self) -> int:
        """Bytes of datagrams handed out, handshakes and overhead included."""
        return self._tx_bytes

    @property
    def drops(self) -> Mapping[DropReason, int]:
        """How many datagrams and packets were dropped, by reason: a snapshot."""
        return self._drops.snapshot()

    def can_send(self, now: float) -> bool:
        """Say whether a packet would be sealed at once."""
        return self._slots.current is not None and self._slots.current.can_seal(now)

    # Sending.

    def seal_frame(self, frame: memoryview, train: memoryview, now: float, channel: int | None = None) -> Sealed | None:
        """Seal one frame; see `seal_frames`."""
        sealed = self.seal_frames(frame, array("I", (0, len(frame))), train, now, channel)
        return None if sealed is None else sealed[0]

    def seal_frames(
        self, buffer: memoryview, spans: array[int], train: memoryview, now: float, channel: int | None = None
    ) -> Sequence[Sealed] | None:
        """Seal all that frames stand for into trains of datagrams; `batch.contract` says what these are, and when there
        are fewer of the one than of the other.

        None: there is no session that could. Then nothing has happened, and each packet is to go to `encapsulate`.
        """
        session = self._slots.current
        if session is None or not session.can_seal_frames(len(spans) // 2, now):
            return None
        before = session.send_counter
        sealed = session.seal_frames(self._kernel(), buffer, spans, train, channel)
        datagrams = session.send_counter - before
        if datagrams:
            around = 0 if channel is None else CHANNEL_BYTES
            self._sealed(session, sum([one.total for one in sealed]) - around * datagrams, now)
            self._timers.data_sent(now)
        return sealed

    def seal_last_will(self, packet: bytes, now: float) -> bytes | None:
        """Seal an inner packet ahead, to be sent by somebody else when we no longer can; None without a session.

        Each session has one such datagram, the one it was first asked for. It is no packet of ours: nothing is counted
        and no timer moves. Ask again after each `HandshakeCompleted`.
        """
        session = self._slots.current
        if session is None or now >= session.expires_at:
            return None
        return session.seal_last_will(pad(packet, self._limits.inner_mtu_bytes))

    def _seal_data(self, session: Session, packet: bytes, now: float) -> bytes:
        datagram = self._seal(session, pad(packet, self._limits.inner_mtu_bytes), now)
        self._timers.data_sent(now)
        return datagram

    def _seal(self, session: Session, plaintext: bytes, now: float) -> bytes:
        datagram = session.seal(plaintext)
        self._sealed(session, len(datagram), now)
        return datagram

    def _sealed(self, session: Session, octets: int, now: float) -> None:
        self._note_sent(octets, now)
        if session.wants_rekey_on_send(now):
            self._renew(now)

    def _note_sent(self, octets: int, now: float) -> None:
        self._tx_bytes += octets
        self._last_sent_at = now
        self._timers.sent(now)

    # Receiving.

    def handle_datagrams(
        self, buffer: memoryview, spans: array[int], out: memoryview, now: float, *, coalesce: bool = True
    ) -> list[Frame]:
        """Take in a burst of datagrams (`spans` are their offsets and lengths in the buffer, which is overwritten);
        return the frames that are in `out` now, those of a flow in order.
        """
        index = self._kernel().index_of(buffer, spans)
        if index is not None:  # all are of one session, as nearly always
            return list(self._open_run(index, buffer, spans, out, now, coalesce=coalesce))
        frames: list[Frame] = []
        used = 0
        for index, run in runs_of(buffer, spans):
            if index is None:
                self.handle_datagram(bytes(buffer[run[0] : run[0] + run[1]]), now)
                continue
            for start, end, packets in self._open_run(index, buffer, run, out[used:], now, coalesce=coalesce):
                frames.append((used + start, used + end, packets))
            used += sum(run[1::2]) + OUT_BYTES_EACH * (len(run) // 2)
        return frames

    def handle_datagram(self, datagram: bytes | memoryview, now: float, source: bytes = b"") -> bytes | None:
        """Take in one datagram of any kind."""
        raise NotImplementedError

    def _open(self, datagram: bytes | memoryview, now: float) -> bytes | None:
        """Open one transport message; return the packet, if there is one in it."""
        local_index, counter = decode_transport_header(datagram)
        session = self._slots.find(local_index)
        if session is None:
            self._drops.add(DropReason.UNKNOWN_INDEX)
            return None
        plaintext = session.open(counter, datagram, now)
        if isinstance(plaintext, DropReason):
            self._drops.add(plaintext)
            return None
        self._opened(session, len(datagram), now, is_data=bool(plaintext))
        if not plaintext:
            return None
        packet = unpad(plaintext)
        if packet is None:
            self._drops.add(DropReason.BAD_INNER_PACKET)
        return packet

    def _open_run(
        self, index: int, buffer: memoryview, run: array[int], out: memoryview, now: float, *, coalesce: bool
    ) -> Sequence[Frame]:
        """Open transport messages that name the same session."""
        session = self._slots.find(index)
        if session is None:
            self._drops.add(DropReason.UNKNOWN_INDEX, len(run) // 2)
            return ()
        opened = session.open_burst(self._kernel(), buffer, run, out, now, coalesce=coalesce)
        if opened.malformed or opened.datagrams < len(run) // 2:
            self._drops.add(DropReason.REPLAYED_PACKET, opened.replayed)
            self._drops.add(DropReason.BAD_TAG, opened.forged)
            self._drops.add(DropReason.BAD_INNER_PACKET, opened.malformed)
            self._drops.add(DropReason.EXPIRED_SESSION, opened.over_limit)
        if opened.datagrams:
            self._opened(session, opened.octets, now, is_data=opened.datagrams > opened.keepalives)
        return opened.frames

    @property
    def current(self) -> Session | None:
        """The session that is sealed under."""
        return self._slots.current

    def handle_books(self, books: Books, now: float) -> None:
        """Take note of what went by the lane of the current session, as if it had all come by here."""
        self._drops.add(DropReason.REPLAYED_PACKET, books.replayed)
        self._drops.add(DropReason.BAD_TAG, books.forged)
        self._drops.add(DropReason.BAD_INNER_PACKET, books.malformed)
        self._drops.add(DropReason.EXPIRED_SESSION, books.over_limit)
        if books.sent:
            self._note_sent(books.sent_octets, books.sent_at)
        if books.datagrams:
            self._note_received(books.octets, books.received_at)
            if books.sent_at > books.received_at:
                self._timers.sent(books.sent_at)  # of the two the later counts
        if books.owed_at:
            self._timers.data_received(books.owed_at)
        if books.unanswered_at:
            self._timers.data_sent(books.unanswered_at)
        session = self._slots.current
        if session is None:
            return
        if (books.sent and session.wants_rekey_on_send(now)) or (
            books.datagrams and session.wants_rekey_on_receive(now)
        ):
            self._renew(now)

    def _opened(self, session: Session, octets: int, now: float, *, is_data: bool) -> None:
        """Something authentic came in under a session."""
        self._note_received(octets, now)
        if self._slots.confirm(session):
            self._confirmed(session, now)
        current = self._slots.current
        if current is not None and current.wants_rekey_on_receive(now):
            self._renew(now)
        if is_data:
            self._timers.data_received(now)

    def _note_received(self, octets: int, now: float) -> None:
        self._rx_bytes += octets
        self._last_received_at = now
        self._timers.received(now)

    # What the other half does about it.

    def _renew(self, now: float) -> None:
        """Another session is wanted."""
        raise NotImplementedError

    def _confirmed(self, session: Session, now: float) -> None:
        """The peer has shown that it has the keys of the session that waited for it, which is the current one now."""
        raise NotImplementedError
