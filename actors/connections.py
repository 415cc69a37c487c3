"""The connections of a session: which there are, how they are started and ended, and who is told. The half of an event
loop that knows peers; `event_loop` is the other one, which knows the portal, the device and the order of leaving.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from exeunt.runtime import Actor, ChildSpec, ExeuntError, Message, Ref, Terminated, receive
from exeunt.runtime.inheritance import HAND_OVER

from . import posthumous
from .endings import Cause, Ending, EndingBook, Initiator
from .legacy import LoopLegacy
from .loop_config import LoopConfig, PeerRecord
from .messages import (
    ClaimDue,
    ConnectionEnded,
    ConnectionEstablished,
    Event,
    Publish,
    StartAnswered,
    TakeOverOverdue,
)
from .peer.messages import Close, PeerConnected, PeerEnded, PeerPathChanged, RelayServer
from .peer_spec import peer_spec
from .placement import Placement
from .portal import EndingReport
from .portal import messages as portal
from .portal.actor_messages import PortalClaim, PortalLinkStarted, PortalSay
from .starts import Starts
from .timing import PEER_CLOSE_S, TAKE_OVER_S

logger = logging.getLogger(__name__)

_ENDED_KEPT = 256  # connection ids that must not come back to life
_WORKER_LOST = frozenset({HAND_OVER, "worker_died"})  # why an actor is gone, with all others of its worker


class Connections(Actor):
    """Starts peer connections, watches them, records who serves what, and buries them."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = msgspec.convert(config, LoopConfig)
        self.joined: portal.Joined | None = None
        self.known_join = 0
        """The number of the link's join that `joined` is of."""
        self.relays: tuple[RelayServer, ...] = ()
        self.peers: dict[str, PeerRecord] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_KEPT)
        self.placement = Placement(self.config.peer_workers)
        self.starts = Starts(self)
        """Of `peers`, those whose actors are not there yet."""
        self._claiming = False
        self._book = EndingBook(Path(self.config.endings_file))

    # --- what a client's and a gateway's loop do differently ---

    def peer_started(self, record: PeerRecord) -> None:
        """The actor of a new connection is there, and nobody has told it to close."""
        raise NotImplementedError

    async def peer_not_started(self, record: PeerRecord, error: ExeuntError) -> None:
        """The actor of a new connection could not be started."""
        logger.warning("A connection could not be started", extra={"event": "start_failed", "error": str(error)})
        await self.bury(record, posthumous.not_started(record, self.config.side, error))

    async def peer_ended(self, record: PeerRecord, ending: Ending) -> None:
        """A connection has ended and is forgotten."""
        raise NotImplementedError

    # --- going on where a predecessor stopped ---

    def know(self, left: LoopLegacy) -> None:
        """Know all connections that the predecessor knew, and watch them in its place."""
        self.joined, self.relays = left.joined, left.relays
        self._ended.extend(left.ended)
        for record in left.peers:
            self.peers[record.connection] = record
            if record.handed_over:
                self.after(TAKE_OVER_S, TakeOverOverdue(record.connection))
            else:
                self.node.ref(record.address).watch()
        self._claim()

    def connections_legacy(self) -> dict[str, Any]:
        """Return what a successor has to know of the connections, by field of `LoopLegacy`."""
        return {
            "joined": self.joined,
            "relays": self.relays,
            "peers": tuple(self.peers.values()),
            "ended": tuple(self._ended),
        }

    # --- what they tell ---

    @receive(PeerConnected)
    def on_peer_connected(self, message: PeerConnected) -> None:
        """Packets flow."""
        record = self.peers.get(message.connection)
        if record is None:
            # Its start was given up on, and succeeded all the same: it must not live on unknown to anybody.
            for worker in self.config.peer_workers:
                self.node.ref(self.address_of(message.connection, worker)).tell(Close(Cause.REPLACED))
            return
        record.path = message.path
        if record.state == "connecting":
            record.state = "connected"
            self.publish(ConnectionEstablished(record.connection, record.peer, message.path))

    @receive(PeerPathChanged)
    def on_peer_path_changed(self, message: PeerPathChanged) -> None:
        """The path is another one."""
        record = self.peers.get(message.connection)
        if record is not None:
            record.path = message.path

    @receive(PeerEnded)
    async def on_peer_ended(self, message: PeerEnded) -> None:
        """Forget the connection, tell the portal and the user."""
        record = self.peers.pop(message.connection, None)
        if record is not None:
            await self._forget(record, message.ending)

    @receive(Terminated)
    async def on_terminated(self, message: Terminated) -> None:
        """A peer connection's actor is gone. If it could not say how its connection ended, we do."""
        record = next((one for one in self.peers.values() if one.address == message.address), None)
        if record is None:
            return
        if message.reason in _WORKER_LOST:
            self.placement.lost(record.worker, time.monotonic())
        if message.reason == HAND_OVER:
            record.handed_over = True
            self.after(TAKE_OVER_S, TakeOverOverdue(record.connection))
            return
        await self.bury(record, posthumous.crashed(record, self.config.side, message))

    def take_over(self, worker: str) -> None:
        """Have a restarted worker go on with the connections that its predecessor has handed over."""
        for record in self.peers.values():
            if record.worker == worker and record.handed_over and record.connection not in self.starts:
                assert record.spec is not None
                spec = msgspec.structs.replace(record.spec, args={**record.spec.args, "inherits": True})
                self.starts.begin(record.connection, spec)

    @receive(TakeOverOverdue)
    async def on_take_over_overdue(self, message: TakeOverOverdue) -> None:
        """No successor has come: the peer has been told that the worker crashed."""
        record = self.peers.get(message.connection)
        if record is not None and record.handed_over and record.connection not in self.starts:
            await self.bury(record, posthumous.not_taken_over(record, self.config.side, "no successor came in time"))

    async def bury(self, record: PeerRecord, ending: Ending) -> None:
        """Record an ending that nobody else will."""
        self.peers.pop(record.connection, None)
        self._book.write(ending)
        await self._forget(record, ending)

    async def _forget(self, record: PeerRecord, ending: Ending) -> None:
        record.state = "ended"
        self.starts.drop(record.connection)
        self._ended.append(record.connection)
        self.publish(ConnectionEnded(ending))
        report = EndingReport.of(ending)
        if not record.static:
            self.say(portal.ConnectionEnded(connection=record.connection, cause=ending.cause, report=report))
        self._claim()
        await self.peer_ended(record, ending)

    # --- how they start ---

    def start_peer(self, record: PeerRecord, **secrets: Any) -> None:
        """Have the actor of a connection started; `peer_started` or `peer_not_started` follows."""
        assert self.joined is not None
        spec = peer_spec(
            record,
            self.config,
            self.joined,
            servers=self.relays,
            owner=str(self.ref),
            portal_link=str(self.portal_link),
            secrets=secrets,
        )
        self.start_actor(record, spec)

    def start_actor(self, record: PeerRecord, spec: ChildSpec) -> None:
        """The same, with a spec."""
        record.started_ns = time.time_ns()
        record.spec = spec
        self.peers[record.connection] = record
        self.starts.begin(record.connection, spec)

    @receive(StartAnswered)
    async def on_start_answered(self, message: StartAnswered) -> None:
        """Go on with a connection whose actor is there, or won't be; it may have ended since."""
        if self.starts.is_answered(message.connection):
            await self._end_start(self.peers[message.connection])

    async def end_starts(self, within_s: float) -> None:
        """Wait for all that are being started; who is not there by then is given up."""
        await self.starts.wait(self.peers, within_s)
        for record in [one for one in self.peers.values() if one.connection in self.starts]:
            await self._end_start(record)

    async def _end_start(self, record: PeerRecord) -> None:
        """Watch an actor that has been started, and tell it what it has missed."""
        try:
            missed = self.starts.take(record.connection)
        except ExeuntError as error:
            if record.handed_over:
                await self.bury(record, posthumous.not_taken_over(record, self.config.side, str(error)))
            else:
                await self.peer_not_started(record, error)
            return
        is_new, record.handed_over = not record.handed_over, False
        actor = self.node.ref(record.address)
        actor.watch()
        for message in missed:
            actor.tell(message)
        if record.close is not None:
            actor.tell(record.close)
        if is_new:
            self._claim()
            if record.state != "closing":
                self.peer_started(record)

    # --- how they end ---

    def new_record(self, connection: str, *, peer: str, peer_id: str) -> PeerRecord:
        """Make the record of a connection, in the worker that has the fewest."""
        worker = self.placement.choose((record.worker for record in self.living()), time.monotonic())
        address = self.address_of(connection, worker)
        return PeerRecord(connection=connection, peer=peer, peer_id=peer_id, worker=worker, address=address)

    def address_of(self, connection: str, worker: str) -> str:
        """Return where a connection's actor lives."""
        return f"{self.ref.address.node}/{worker}/peer-{connection}"

    def was_ended(self, connection: str) -> bool:
        """Say whether a connection of that id has ended here, or is about to; it must not come back to life."""
        record = self.peers.get(connection)
        return connection in self._ended or (record is not None and record.state == "closing")

    def living(self) -> list[PeerRecord]:
        """Return the connections that have not been told to close."""
        return [record for record in self.peers.values() if record.state != "closing"]

    def end_peer(
        self, record: PeerRecord, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any] | None = None
    ) -> None:
        """Have a connection say goodbye; its `PeerEnded`, or its `Terminated`, follows. A peer who does not hear it
        must not hold up the others.
        """
        record.state = "closing"
        record.close = Close(cause, initiated_by, evidence or {})
        if record.connection not in self.starts:  # else it hears that last, once it is there
            self.node.ref(record.address).tell(record.close)

    async def close_peer(self, record: PeerRecord, cause: Cause, initiated_by: Initiator, text: str = "") -> None:
        """Have a connection say goodbye, and wait until it has."""
        record.state = "closing"
        within_s = PEER_CLOSE_S
        if record.connection in self.starts:
            deadline = self.node.loop.time() + PEER_CLOSE_S
            await self.starts.wait([record.connection], PEER_CLOSE_S)
            await self._end_start(record)
            if record.connection not in self.peers:
                return
            within_s = max(0.0, deadline - self.node.loop.time())
        try:
            close = Close(cause, initiated_by, text=text)
            answer: PeerEnded = await self.node.ref(record.address).ask(close, timeout_s=within_s)
        except ExeuntError as error:
            logger.warning(
                "A connection did not close",
                extra={"event": "close_failed", "connection": record.connection, "error": str(error)},
            )
            return  # what it said last, or its Terminated, may wait in our mailbox; only then is it for us to say
        if self.peers.pop(record.connection, None) is not None:
            await self._forget(record, answer.ending)

    # --- who is told ---

    def tell(self, record: PeerRecord, message: Message) -> None:
        """Tell a connection something: once its actor is there, if that is being started."""
        if not self.starts.keep(record.connection, message):
            self.node.ref(record.address).tell(message)

    def tell_peer(self, connection: str, message: Message) -> None:
        """The same, if there is one of that id."""
        record = self.peers.get(connection)
        if record is not None:
            self.tell(record, message)

    @property
    def portal_link(self) -> Ref:
        """The portal link."""
        return self.node.local("portal-link")

    def publish(self, event: Event) -> None:
        """Tell the user."""
        self.node.local("event-stream").tell(Publish(event))

    def say(self, message: portal.FromPeer) -> None:
        """Tell the portal."""
        self.portal_link.tell(PortalSay(message, self.known_join))

    def _claim(self) -> None:
        """Have the next join claim what lives now. A claim lists everything: one is enough for all that waits to be
        handled, as when everybody ends at once.
        """
        if not self._claiming:
            self._claiming = True
            self.ref.tell(ClaimDue())

    @receive(PortalLinkStarted)
    def on_portal_link_started(self, _message: PortalLinkStarted) -> None:
        """Another portal link than the one that was told: tell this one, before it can have joined."""
        self.known_join = 0  # it counts its own
        self._claim()

    @receive(ClaimDue)
    def on_claim_due(self, _message: ClaimDue) -> None:
        """Tell the portal link which connections live: not those whose actors have yet to be started."""
        self._claiming = False
        claimed = [
            one
            for one in self.peers.values()
            if not one.static and (one.handed_over or one.connection not in self.starts)
        ]
        self.portal_link.tell(
            PortalClaim({one.connection: (one.peer_id, tuple(sorted(one.resource_ids))) for one in claimed})
        )
