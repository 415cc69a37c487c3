"""The portal machine with its clock, its database and its sessions' queues attached."""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Callable

from exeunt.actors.portal.codec import encode
from exeunt.actors.portal.messages import PeerKind

from .directory import Identity
from .events import CloseSession, Output, SessionFact, Transmit
from .machine import PortalCounters, PortalMachine
from .store import SessionEvent, Store

POLL_INTERVAL_S = 0.1
"""How often to look whether an administrator has changed something; a look costs a few microseconds."""

QUEUE_LIMIT = 512
"""Messages that wait for a slow reader. The longest lists are single messages, so this is a stuck peer."""

_log = logging.getLogger(__name__)

_SENTENCES = {
    "signed_in": "A peer has signed in.",
    "left": "A peer has said goodbye.",
    "lost": "A peer was lost.",
    "replaced": "A peer has come back before its old session ended.",
    "revoked": "A peer's token was revoked.",
    "authorized": "A client was authorized.",
    "access_revoked": "A client's access was revoked.",
    "ended": "A connection has ended.",
}


class PeerQueue:
    """What waits to be written to one session.

    Ends with a `CloseSession`, or is `lost` when nobody reads it.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[str | CloseSession] = asyncio.Queue(QUEUE_LIMIT)
        self.lost = asyncio.Event()

    def put(self, item: str | CloseSession) -> None:
        """Add a frame, or the order to close."""
        try:
            self._waiting.put_nowait(item)
        except asyncio.QueueFull:
            self.lost.set()

    async def get(self) -> str | CloseSession:
        """The next one."""
        return await self._waiting.get()


class PortalIO:
    """One running portal. Use it on one asyncio loop; the store is its own until `close`."""

    def __init__(
        self,
        store: Store,
        *,
        rng: random.Random,
        now: Callable[[], float] = time.monotonic,
        authorization_lifetime_s: float | None = None,
    ) -> None:
        self._store = store
        self._now = now
        self._unix_offset_s = time.time() - now()
        # The number first: a change between the two is then seen as one, rather than missed.
        self._change_number = store.change_number()
        self._machine = PortalMachine(
            store.directory(),
            rng=rng,
            unix_offset_s=self._unix_offset_s,
            authorization_lifetime_s=authorization_lifetime_s,
        )
        self._queues: dict[int, PeerQueue] = {}
        self._last_session = 0
        self._timer: asyncio.TimerHandle | None = None
        self._poll: asyncio.TimerHandle | None = None

    @property
    def counters(self) -> PortalCounters:
        """What peers sent that came to nothing."""
        return self._machine.counters

    def start(self) -> None:
        """Begin to watch the database."""
        self._poll = asyncio.get_running_loop().call_later(POLL_INTERVAL_S, self._on_poll)

    def close(self) -> None:
        """Stop watching, and close the database."""
        for handle in (self._poll, self._timer):
            if handle is not None:
                handle.cancel()
        self._store.close()

    def authenticate(self, kind: PeerKind, token: str) -> Identity | None:
        """Whom a token signs in as that kind of peer."""
        identity = self._store.authenticate(token)
        if identity is None or identity.kind != kind:
            return None
        # A token may be used the moment after it was made, before the next look at the database.
        self._look()
        return identity

    def open(self, identity: Identity) -> tuple[int, PeerQueue]:
        """A websocket has been accepted. Its number, and where its messages will be."""
        self._last_session += 1
        queue = self._queues[self._last_session] = PeerQueue()
        self._machine.handle_opened(self._last_session, identity, self._now())
        self._drain()
        return self._last_session, queue

    def frame(self, session_id: int, frame: str | bytes) -> None:
        """A frame arrived."""
        self._machine.handle_frame(session_id, frame, self._now())
        self._drain()

    def closed(self, session_id: int) -> None:
        """A websocket has ended."""
        self._queues.pop(session_id, None)
        self._machine.handle_closed(session_id, self._now())
        self._drain()

    # Inside.

    def _on_poll(self) -> None:
        self.start()
        try:
            self._look()
        except sqlite3.OperationalError as error:  # locked, or a full disk: the next look may succeed
            _log.warning("The portal's database could not be read.", extra={"error": str(error)})

    def _look(self) -> None:
        number = self._store.change_number()
        if number != self._change_number:
            directory = self._store.directory()
            self._change_number = number
            self._machine.handle_directory(directory, self._now())
            self._drain()

    def _on_timer(self) -> None:
        self._timer = None
        self._machine.handle_timeout(self._now())
        self._drain()

    def _drain(self) -> None:
        while (output := self._machine.poll_transmit()) is not None:
            self._carry_out(output)
        while (fact := self._machine.poll_event()) is not None:
            self._record(fact)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        timeout = self._machine.poll_timeout()
        if timeout is not None:
            delay_s = max(0.0, timeout[0] - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _carry_out(self, output: Output) -> None:
        queue = self._queues.get(output.session)
        if queue is not None:
            queue.put(encode(output.message) if isinstance(output, Transmit) else output)

    def _record(self, fact: SessionFact) -> None:
        _log.info(
            _SENTENCES[fact.kind],
            extra={"event": fact.kind, "peer_kind": fact.peer_kind, "peer": fact.peer_id, "detail": fact.detail},
        )
        try:
            at = self._now() + self._unix_offset_s
            self._store.record(SessionEvent(at, fact.kind, fact.peer_id, fact.detail))
        except sqlite3.OperationalError as error:  # the record is worth less than the portal
            _log.warning("A session event could not be recorded.", extra={"error": str(error)})
