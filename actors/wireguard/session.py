"""A session: the transport keys of one handshake, a send counter, a replay window, and the time that is left.

Counters are the nonces, so a session never seals twice under one; when the counters or the time run out, it neither
seals nor opens (WireGuard paper, sections 5.4.6 and 6.2).

The topmost counter is reserved for one packet that is sealed ahead, to be sent by somebody else if we die. A receiver
takes it like any other, but its replay window moves to the end, so nothing sent earlier is accepted after it. That is
as it should be: it says goodbye.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..batch.contract import MAX_DATAGRAMS, Kernel, Opened, Opening, Sealed, Sealing
from ..batch.lanes import LaneKeys
from .drop import DropReason
from .handshake import TransportKeys
from .replay import ReplayWindow
from .snapshot import COUNTER_MARGIN, SessionSnapshot
from .timing import Limits
from .wire import TRANSPORT_HEADER_BYTES, encode_transport_header


class Session:
    """One pair of transport keys in use."""

    __slots__ = (
        "_keys",
        "_limits",
        "_opening",
        "_sealing",
        "_will",
        "_window",
        "counter",
        "established_at",
        "expires_at",
        "initiated",
        "local_index",
        "remote_index",
    )

    def __init__(self, keys: TransportKeys, limits: Limits, *, initiated: bool, now: float) -> None:
        self._keys = keys
        self._limits = limits
        self._window = ReplayWindow()
        self._will: bytes | None = None
        self._sealing: Sealing | None = None
        self._opening: Opening | None = None
        self.local_index = keys.local_index
        self.remote_index = keys.remote_index
        self.initiated = initiated
        """Whether we made the first message: then it is ours to replace this session in time."""
        self.established_at = now
        self.expires_at = now + limits.reject_after_time_s
        self.counter = array("Q", (0,))
        """`send_counter`, where a lane shares it (`batch.lanes`)."""

    @property
    def send_counter(self) -> int:
        """Counter of the next packet."""
        return self.counter[0]

    @send_counter.setter
    def send_counter(self, counter: int) -> None:
        self.counter[0] = counter

    @classmethod
    def resumed(cls, snapshot: SessionSnapshot, limits: Limits) -> Self:
        """Go on with a session of a predecessor, above all counters that it may have used."""
        session = cls(snapshot.keys, limits, initiated=snapshot.initiated, now=snapshot.established_at)
        session.expires_at = snapshot.expires_at
        session.send_counter = snapshot.send_counter + COUNTER_MARGIN
        session._window = ReplayWindow.restored(snapshot.highest, snapshot.words)
        session._will = snapshot.will
        return session

    def snapshot(self) -> SessionSnapshot:
        """Describe it to a successor. Seal nothing more after this."""
        return SessionSnapshot(
            keys=self._keys,
            initiated=self.initiated,
            established_at=self.established_at,
            expires_at=self.expires_at,
            send_counter=self.send_counter,
            highest=self._window.highest,
            words=self._window.words,
            will=self._will,
        )

    def can_seal(self, now: float) -> bool:
        """Say whether one more packet may be sent under these keys."""
        return now < self.expires_at and self.send_counter < self._limits.seal_before_messages

    def can_seal_frames(self, frames: int, now: float) -> bool:
        """Say whether as many packets may be sent as so many frames can stand for."""
        most = self.send_counter + frames * MAX_DATAGRAMS
        return now < self.expires_at and most <= self._limits.seal_before_messages

    def seal(self, plaintext: bytes) -> bytes:
        """Return a transport message; the caller has asked `can_seal`."""
        counter = self.send_counter
        self.send_counter = counter + 1
        return self._sealed(counter, plaintext)

    def seal_frames(
        self, kernel: Kernel, buffer: memoryview, spans: array[int], train: memoryview, channel: int | None
    ) -> Sequence[Sealed]:
        """Turn frames into transport messages (see `batch.contract`); the caller has asked `can_seal_frames`."""
        if self._sealing is None:
            self._sealing = kernel.sealing(self._keys.send_key, self.remote_index)
        mtu = self._limits.inner_mtu_bytes
        counter = self.send_counter
        sealed = self._sealing.seal_each(buffer, spans, train, counter=counter, mtu=mtu, channel=channel)
        self.send_counter = counter + sum([one.datagrams for one in sealed])
        return sealed

    def seal_last_will(self, plaintext: bytes) -> bytes:
        """Return the transport message with the reserved counter. There is one: whatever is asked for later, the first
        one is returned again, since two of them would share a nonce.
        """
        if self._will is None:
            self._will = self._sealed(self._limits.seal_before_messages, plaintext)
        return self._will

    def open(self, counter: int, datagram: bytes | memoryview, now: float) -> bytes | DropReason:
        """Return the plaintext of a transport message, or why there is none."""
        if now >= self.expires_at or counter >= self._limits.reject_after_messages:
            return DropReason.EXPIRED_SESSION
        if not self._window.is_fresh(counter):
            return DropReason.REPLAYED_PACKET
        sealed = memoryview(datagram)[TRANSPORT_HEADER_BYTES:]
        try:
            plaintext = _cipher(self._keys.receive_key).decrypt(bytes(4) + counter.to_bytes(8, "little"), sealed, None)
        except InvalidTag:
            return DropReason.BAD_TAG
        self._window.mark(counter)
        return plaintext

    def open_burst(
        self, kernel: Kernel, buffer: memoryview, spans: array[int], out: memoryview, now: float, *, coalesce: bool
    ) -> Opened:
        """Turn transport messages into frames in `out` (see `batch.contract`)."""
        if now >= self.expires_at:
            return Opened((), 0, 0, 0, 0, 0, 0, over_limit=len(spans) // 2)
        if self._opening is None:
            self._opening = kernel.opening(self._keys.receive_key, self._window)
        return self._opening.open(buffer, spans, out, limit=self._limits.reject_after_messages, coalesce=coalesce)

    def lane_keys(self) -> LaneKeys | None:
        """Return what a lane for ordinary packets has of a session; None: there are no keys made for many packets yet,
        which is so until some have come and gone.
        """
        if self._sealing is None or self._opening is None:
            return None
        return LaneKeys(
            sealing=self._sealing,
            opening=self._opening,
            counter=self.counter,
            local_index=self.local_index,
            expires_at=self.expires_at,
            seal_before=self._limits.seal_before_messages,
            reject_after=self._limits.reject_after_messages,
            mtu=self._limits.inner_mtu_bytes,
        )

    def wants_rekey_on_send(self, now: float) -> bool:
        """Say whether this send should start a new handshake (paper 6.2)."""
        if self.send_counter > self._limits.rekey_after_messages:
            return True
        return self.initiated and now >= self.established_at + self._limits.rekey_after_time_s

    def wants_rekey_on_receive(self, now: float) -> bool:
        """Say whether this receipt should start a new handshake, as the last chance before the end (paper 6.2)."""
        return self.initiated and now >= self.established_at + self._limits.last_chance_s

    def _sealed(self, counter: int, plaintext: bytes) -> bytes:
        header = encode_transport_header(self.remote_index, counter)
        return header + _cipher(self._keys.send_key).encrypt(bytes(4) + header[8:], plaintext, None)


def _cipher(key: bytes) -> ChaCha20Poly1305:
    """Return what seals or opens one packet. Kept, it would have 2.2 kB for each direction of an idle session; what is
    sealed and opened by the thousand has kernels.
    """
    return ChaCha20Poly1305(key)
