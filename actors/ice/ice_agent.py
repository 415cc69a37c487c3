"""The agent that tunnels use: one ICE session, and during a restart the next one beside it.

A restart (RFC 8445 section 9) is make before break: the new session gathers anew, on the same sockets but with relays
of its own and new credentials, while data keeps flowing over the old path, and the old session goes on looking for a
better one; when the new session has a path, sending moves over. The peer moves a round trip earlier or later, so the
old session listens on for a while before it is closed: nothing in flight is lost. If the old path falls silent
meanwhile, that is reported only when the new session has failed as well; that its relay is gone is reported at once.
How STUN servers saw the sockets is handed down.
"""

import asyncio
import logging
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from exeunt.runtime.wakeups import call_later

from .agent import (
    Address,
    Callbacks,
    Credentials,
    IceConfig,
    IceServer,
    Lost,
    NeverConnected,
    Path,
    RelayLoss,
    Route,
    ignore,
)
from .candidate import Candidate, MalformedCandidate, parse_candidate
from .connection import IceConnection, SessionCallbacks
from .early import EarlyCandidates
from .packing import Role
from .reflexive import ReflexiveMemory
from .snapshot import Snapshot
from .sockets import Sockets

logger = logging.getLogger(__name__)

OLD_SESSION_CLOSE_S = 2.0
"""How long a replaced session may take to release its relays."""
OLD_SESSION_LINGER_S = 2.0
"""More than a round trip on any path that is of use."""


_NOBODY = Callbacks(on_candidate=ignore, on_datagrams=ignore, on_path=ignore, on_lost=ignore)


class IceAgent:
    """Finds a path to one peer and keeps it. Implements `PathAgent`. Make it on a running event loop."""

    def __init__(
        self,
        config: IceConfig,
        callbacks: Callbacks,
        *,
        sockets: Sockets | None = None,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._callbacks = callbacks
        self._now = now
        self._counters: Counter[str] = Counter()
        self._next: IceConnection | None = None
        self._deferred_loss: Lost | None = None
        self._lingering: dict[IceConnection, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._early = EarlyCandidates()
        self._reflexive = ReflexiveMemory()
        self._arrived: tuple[int | str, Address] | None = None
        snapshot = None if config.resume is None else Snapshot.decode(config.resume)
        self._sockets = Sockets(now=now, counters=self._counters) if sockets is None else sockets
        self._rng = rng or self._sockets.rng
        self._sockets.acquire(self)
        self._generation = 0 if snapshot is None else snapshot.generation
        self._current = self._begin(snapshot)

    def _begin(self, snapshot: Snapshot | None) -> IceConnection:
        if snapshot is None:
            return self._new_session(self._config.credentials, self._generation)
        try:
            session = self._new_session(snapshot.credentials, snapshot.generation, role=snapshot.role)
            for remote in snapshot.remotes:
                self._sockets.table.know(remote.address, self, proven=remote == snapshot.remote)
            session.resume(snapshot)
        except BaseException:
            self._is_closed = True
            self._sockets.release(self)
            raise
        return session

    @property
    def path(self) -> Path | None:
        """The path in use."""
        return self._current.path

    @property
    def counters(self) -> Counter[str]:
        """What was dropped or went wrong, by kind."""
        return self._counters

    async def gather(self) -> None:
        """Find local candidates."""
        await self._current.gather()

    def add_remote_candidate(self, candidate: str | None, generation: int = 0) -> None:
        """Take a candidate line for the session of its generation; None or "" is the end of candidates."""
        parsed = self._parse(candidate) if candidate else None
        if candidate and parsed is None:
            return
        session = self._session_of(generation)
        if session is not None:
            self._add(session, parsed)
        elif generation <= self._generation:
            self._counters["candidate_of_past_generation"] += 1
        elif not self._early.hold(generation, parsed):
            self._counters["early_candidate_over_limit"] += 1

    def _add(self, session: IceConnection, candidate: Candidate | None) -> None:
        if candidate is not None:
            self._sockets.table.know(candidate.address, self, proven=False)
        session.add_remote_candidate(candidate)

    def withdraw_remote_candidate(self, candidate: str, generation: int = 0) -> None:
        """Stop using a candidate of the peer."""
        parsed, session = self._parse(candidate), self._session_of(generation)
        if parsed is not None and session is not None:
            session.withdraw_remote_candidate(parsed)
        elif parsed is not None:
            self._early.forget(generation, parsed)

    async def connect(self, timeout_s: float) -> Path:
        """Check pairs until one is agreed on. Raises NeverConnected."""
        return await self._current.connect(timeout_s)

    def send(self, datagram: bytes | memoryview) -> None:
        """Send on the path in use, or drop."""
        self._current.send(datagram)

    @property
    def channel(self) -> int | None:
        """The channel whose header may stand before each datagram of a train; None: the path in use has none."""
        return self._current.channel

    def send_train(self, train: memoryview, stride: int, total: int, ecn: int = 0) -> int:
        """Send a train on the path in use; return how many of its datagrams were handed over."""
        return self._current.send_train(train[:total], stride, ecn) if total else 0

    def note_alive(self, at: float | None = None) -> None:
        """Say that an authenticated packet of the peer has just arrived; or on the path in use, at that time."""
        if self._arrived is None or at is not None:
            self._current.note_alive(at)
        else:
            self._current.note_alive_from(*self._arrived)

    def note_sent(self, at: float) -> None:
        """Say that data was sent on the path in use at that time, though not by us."""
        self._current.note_sent(at)

    def claim_indices(self, prefix: int) -> None:
        """Take what WireGuard sends to indices with these upper 24 bits, from wherever it comes.

        Without a claim an agent gets what comes from addresses of its peer. Raises ValueError if the prefix is
        another agent's.
        """
        self._sockets.table.claim(prefix, self)

    def take_batch(self, host: str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Take datagrams from the shared sockets. `Sockets` calls this."""
        self._deliver(host, buffer, spans, source, ecn)

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Look after a destination of which ICMP says that it cannot be reached. `Sockets` calls this."""
        self._current.take_unreachable(destination, refused=refused)

    def _deliver(self, base: int | str, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        if self._is_closed:
            return
        self._arrived = base, source
        try:
            self._callbacks.on_datagrams(buffer, spans, ecn)
        finally:
            self._arrived = None

    @property
    def last_alive(self) -> float | None:
        """When the peer last gave an authenticated sign of life, in seconds of the monotonic clock."""
        sign, later = self._current.last_alive, None if self._next is None else self._next.last_alive
        return later if sign is None or (later is not None and later > sign) else sign

    def route(self) -> Route | None:
        """Say how somebody else could send on the path in use."""
        return self._current.route()

    def channel_descriptor(self, channel: str) -> int | None:
        """Return the descriptor of the channel of the route in use; it stays ours."""
        return self._current.channel_descriptor(channel)

    def snapshot(self) -> bytes | None:
        """Return what a successor needs to go on with a direct path; None: there is no such path."""
        snapshot = self._current.snapshot()
        return None if snapshot is None else snapshot.encode()

    def hint(self, urgent: bool = False) -> None:
        """Say that the network may have changed: the path is checked at once. Nothing ends by a hint alone."""
        self._current.hint(urgent=urgent)

    def set_servers(self, servers: tuple[IceServer, ...]) -> None:
        """Use these servers from now on, without a restart: what is new is asked, what is gone is left."""
        self._config = replace(self._config, servers=servers)
        for session in (self._current, self._next):
            if session is not None and not self._is_closed:
                session.set_servers(servers)

    async def restart(self, credentials: Credentials, timeout_s: float, generation: int) -> Path:
        """Find a path anew while the old one stays in use. Raises NeverConnected, ValueError."""
        if self._is_closed:
            raise NeverConnected("closed")
        if generation <= self._generation:
            raise ValueError("a restart needs a generation of its own, larger than those before")
        if self._next is not None:
            self._retire(self._next)  # a newer restart replaces an older one, whose caller sees "closed"
        self._generation = generation
        session = self._next = self._new_session(credentials, generation)
        for candidate in self._early.take(generation):
            self._add(session, candidate)
        gathering = asyncio.create_task(session.gather())
        try:
            path = await session.connect(timeout_s)
        except BaseException:
            self._retire(session)
            if self._next is session:
                self._next = None
                self._report_deferred_loss()
            raise
        finally:
            gathering.cancel()
            await asyncio.gather(gathering, return_exceptions=True)
        old, self._current, self._next = self._current, session, None
        self._deferred_loss = None
        self._linger(old)
        self._path_changed(path)
        return path

    async def close(self, timeout_s: float) -> None:
        """Release everything within `timeout_s`. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in self._lingering.values():
            timer.cancel()
        sessions = [session for session in (self._current, self._next, *self._lingering) if session is not None]
        self._lingering.clear()
        self._next = None
        tasks = self._closing | {asyncio.create_task(session.close(timeout_s)) for session in sessions}
        try:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:  # a session replaced a moment ago, which had a deadline of its own
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._sockets.release(self)
            self._callbacks = _NOBODY

    def _session_of(self, generation: int) -> IceConnection | None:
        return next((s for s in (self._next, self._current) if s is not None and s.generation == generation), None)

    def _parse(self, line: str) -> Candidate | None:
        try:
            return parse_candidate(line)
        except MalformedCandidate:
            self._counters["malformed_candidate"] += 1
            return None

    def _new_session(self, credentials: Credentials, generation: int, *, role: Role | None = None) -> IceConnection:
        session: IceConnection

        def batch(base_id: int, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
            # A relay of another session numbers its bases otherwise, and says nothing of the selected pair.
            self._deliver(base_id if session is self._current else "", buffer, spans, source, ecn)

        callbacks = SessionCallbacks(
            on_candidate=self._callbacks.on_candidate,
            on_withdrawn=self._callbacks.on_withdrawn,
            on_batch=batch,
            on_proven=self._prove,
            on_path=self._take_path,
            on_broken=self._take_break,
            on_lost=self._take_loss,
        )
        session = IceConnection(
            self._config,
            credentials,
            callbacks,
            self._sockets,
            generation=generation,
            memory=self._reflexive,
            counters=self._counters,
            now=self._now,
            rng=self._rng,
            role=role,
        )
        return session

    # What sessions say

    def _take_path(self, session: IceConnection, path: Path) -> None:
        if session is self._current:
            self._path_changed(path)

    def _take_loss(self, session: IceConnection, loss: Lost) -> None:
        if session is self._current:
            self._deferred_loss = loss
            # That a relay is gone is no silence that a new session may end: the owner counts from now.
            if self._next is None or loss.reason == "relay_lost":
                self._report_deferred_loss()

    def _take_break(self, session: IceConnection, reason: RelayLoss) -> None:
        if session is self._current and not self._is_closed:
            self._callbacks.on_broken(reason)

    def _prove(self, address: Address) -> None:
        if not self._is_closed:
            self._sockets.table.know(address, self, proven=True)

    def _path_changed(self, path: Path) -> None:
        kinds = {"kind": path.kind, "local_type": path.local_type, "remote_type": path.remote_type}
        logger.info("The path to the peer is settled", extra={**kinds, "rtt_ms": round(path.rtt_ms, 1)})
        logger.debug("Addresses of the path", extra={"local": path.local, "remote": path.remote})
        self._callbacks.on_path(path)

    def _report_deferred_loss(self) -> None:
        loss, self._deferred_loss = self._deferred_loss, None
        if loss is not None and not self._is_closed:
            seconds = round(loss.last_seen_s_ago, 1)
            logger.info("The path to the peer is lost", extra={"reason": loss.reason, "last_seen_s_ago": seconds})
            self._callbacks.on_lost(loss)

    def _linger(self, session: IceConnection) -> None:
        loop = asyncio.get_running_loop()
        self._lingering[session] = call_later(loop, OLD_SESSION_LINGER_S, "an old session goes", self._retire, session)

    def _retire(self, session: IceConnection) -> None:
        self._lingering.pop(session, None)
        task = asyncio.create_task(session.close(OLD_SESSION_CLOSE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
