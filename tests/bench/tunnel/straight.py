"""What a busy visitor has in place of a lane (`actors.batch.lanes`): its session's keys, its path, and books.

Where a client has a device, its ordinary packets do not come by its machine. A visitor has none, so its packets end in
Python, but they need not go by the machine either: they are opened, sealed and sent here, and the machine reads what
went by.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Final

from exeunt.actors.batch.contract import MAX_DATAGRAMS, Opened, Sealed
from exeunt.actors.batch.lanes import Books, LaneKeys
from exeunt.actors.ice.agent import Route
from exeunt.actors.ice.ancillary import segmented, sent_from
from exeunt.actors.ice.sockets import Sockets
from exeunt.actors.wireguard import Frame
from exeunt.actors.wireguard.session import Session

_HEAD: Final = struct.Struct("<II")
_DATA: Final = 4
_SPAN_BYTES: Final = 2 * array("I").itemsize


class Straight:
    """One session's. It is good as long as the connection has that session in use."""

    def __init__(self, session: Session, keys: LaneKeys) -> None:
        self.session = session
        self.head = _HEAD.pack(_DATA, keys["local_index"])
        """How its datagrams begin."""
        self._keys = keys
        self._begin()

    def _begin(self) -> None:
        self._opened: list[Opened] = []
        self._received_before_at = self._received_at = self._delivered_at = self._owed_at = 0.0
        self._sent = self._sent_octets = 0
        self._sent_at = self._unanswered_at = 0.0

    def open(self, buffer: memoryview, spans: bytes, out: memoryview, now: float) -> Sequence[Frame] | None:
        """Open a run of datagrams (see `contract.Received`); return the frames in `out`, which has the room that
        `Opening.open` needs. None: nothing was done, since they are too many, or too late.
        """
        if now >= self._keys["expires_at"] or len(spans) > MAX_DATAGRAMS * _SPAN_BYTES:
            return None
        opened = self._keys["opening"].open(buffer, array("I", spans), out, limit=self._keys["reject_after"])
        self._opened.append(opened)
        if opened.datagrams:
            if now != self._received_at:
                self._received_before_at = self._received_at
            self._received_at, self._unanswered_at = now, 0.0
        if opened.frames:
            self._delivered_at = now
        if opened.datagrams > opened.keepalives:
            self._owed_at = self._owed_at or now
        return opened.frames

    def seal(self, frame: memoryview, train: memoryview, now: float) -> Sealed | None:
        """Seal a frame; None: this session may not seal any more."""
        keys = self._keys
        counter = keys["counter"][0]
        if now >= keys["expires_at"] or counter + MAX_DATAGRAMS > keys["seal_before"]:
            return None
        sealed = keys["sealing"].seal(frame, train, counter=counter, mtu=keys["mtu"])
        keys["counter"][0] = counter + sealed.datagrams
        self._sent += sealed.datagrams
        self._sent_octets += sealed.total
        self._sent_at, self._owed_at = now, 0.0
        self._unanswered_at = self._unanswered_at or now
        return sealed

    def books(self) -> Books:
        """Return what went by since the last time."""
        books = Books(
            datagrams=sum(one.datagrams for one in self._opened),
            octets=sum(one.octets for one in self._opened),
            keepalives=sum(one.keepalives for one in self._opened),
            replayed=sum(one.replayed for one in self._opened),
            forged=sum(one.forged for one in self._opened),
            malformed=sum(one.malformed for one in self._opened),
            over_limit=sum(one.over_limit for one in self._opened),
            received_before_at=self._received_before_at,
            received_at=self._received_at,
            delivered_at=self._delivered_at,
            owed_at=self._owed_at,
            sent=self._sent,
            sent_octets=self._sent_octets,
            sent_at=self._sent_at,
            unanswered_at=self._unanswered_at,
        )
        self._begin()
        return books


class Outlet:
    """Sends trains on one direct path."""

    def __init__(self, sockets: Sockets, route: Route) -> None:
        """The path is one of these sockets'. Raises LookupError when it is not."""
        sender = sockets.sender(route.channel)
        if sender is None or route.destination is None or route.source is None:
            raise LookupError("this is no direct path")
        self._sender, self._sock = sender, sockets.descriptors()[route.channel]
        self._destination, self._ancillary = route.destination, sent_from(route.source)
        self._cuts = {0: self._ancillary}

    def send(self, train: memoryview, stride: int) -> None:
        """Send a train that one call takes, or what the socket has room for."""
        cut = stride if len(train) > stride else 0
        ancillary = self._cuts.get(cut)
        if ancillary is None:
            ancillary = self._cuts[cut] = (*self._ancillary, segmented(cut))
        try:
            self._sock.sendmsg((train,), ancillary, socket.MSG_DONTWAIT, self._destination)
        except OSError as error:
            number = error.errno or 0
            self._sender.send_rest(train, stride, self._ancillary, self._destination, ecn=0, error=number)
