"""The portal machine with its clock, its database and its sessions' queues attached."""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Callable

from exeunt.actors.portal.codec import encode
from exeunt.actors.portal.messages import Evidence, PeerKind

from .bell import Bell
from .counters import PortalCounters
from .directory import Identity
from .events import (
    ClosedHow,
    CloseSession,
    ConnectionMade,
    EndReported,
    Fact,
    ListenerKnown,
    Output,
    SessionFact,
    TellEvidence,
    Transmit,
)
from .machine import PortalMachine
from .store import Present, SessionEvent, Store

POLL_INTERVAL_S = 0.1
"""How often to look whether an administrator has changed something; a look costs a few microseconds. Who rings the bell
has us look at once.
"""

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
    "ice_restarted": "A connection's ends find paths anew.",
    "ended": "A connection has ended.",
    "last_will": "What an end had left to be said was passed on.",
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
        bell: Bell | None = None,
    ) -> None:
        self._store = store
        self._bell = bell
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
        """Begin to watch the database; nobody is present yet."""
        self._store.set_absent()
        if self._bell is not None:
            self._bell.listen(self._look_safely)
        self._watch()

    def stopping(self) -> None:
        """Sessions that end from now on are ended by the portal: nothing follows for their peers."""
        self._machine.handle_stopping()

    def close(self) -> None:
        """Stop watching, and close the database."""
        for handle in (self._poll, self._timer):
            if handle is not None:
                handle.cancel()
        if self._bell is not None:
            self._bell.close()
        self._store.set_absent()
        self._store.close()

    def _watch(self) -> None:
        self._poll = asyncio.get_running_loop().call_later(POLL_INTERVAL_S, self._on_poll)

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

    def closed(self, session_id: int, how: ClosedHow) -> None:
        """A websocket has ended."""
        self._queues.pop(session_id, None)
        self._machine.handle_closed(session_id, how, self._now())
        self._drain()

    # Inside.

    def _on_poll(self) -> None:
        self._watch()
        self._look_safely()

    def _look_safely(self) -> None:
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
        if queue is None:
            return
        match output:
            case Transmit(message=message):
                queue.put(encode(message))
            case TellEvidence(ref=ref, connection=connection, peer_id=peer_id):
                queue.put(encode(self._evidence(ref, connection, peer_id)))
            case CloseSession():
                queue.put(output)

    def _evidence(self, ref: int, connection: str, peer_id: str) -> Evidence:
        try:
            return self._store.endings.evidence(ref, connection, peer_id)
        except sqlite3.OperationalError as error:  # to be asked again
            _log.warning("Evidence could not be read.", extra={"error": str(error)})
            return Evidence(ref=ref, connection=connection)

    def _record(self, fact: Fact) -> None:
        at = self._now() + self._unix_offset_s
        try:
            match fact:
                case SessionFact():
                    self._record_event(fact, at)
                case ConnectionMade():
                    self._store.endings.add(fact.connection, fact.client_id, fact.gateway_id, at)
                case EndReported():
                    self._store.endings.report(fact.connection, fact.peer_id, fact.cause, fact.report, at)
                case ListenerKnown():
                    self._store.static_peers.set_listener(fact.gateway_id, fact.listener)
        except sqlite3.OperationalError as error:  # the record is worth less than the portal
            _log.warning("Something could not be recorded.", extra={"what": type(fact).__name__, "error": str(error)})

    def _record_event(self, fact: SessionFact, at: float) -> None:
        _log.info(
            _SENTENCES[fact.kind],
            extra={
                "event": fact.kind,
                "peer_kind": fact.peer_kind,
                "peer": fact.peer_id,
                "detail": fact.detail,
                **({"connection": fact.connection} if fact.connection else {}),
            },
        )
        self._store.record(SessionEvent(at, fact.kind, fact.peer_id, fact.detail, fact.connection))
        match fact.kind:
            case "signed_in":
                self._store.set_present(Present(fact.peer_id, at, fact.detail))
            case "left" | "lost" | "replaced" | "revoked":
                self._store.set_absent(fact.peer_id)
            case _:
                pass
