"""A session, as a program uses it: `Session.connect` gives the session and its event stream.

    session, events = await Session.connect(config)
    async for event in events:
        ...                                  # until the session is over
    outcome = await session.ended()

The handles live in the program's own process, the supervisor's; everything else lives in its workers. With
`engine="inline"` these are no processes: the whole session runs on the caller's thread and loop, which must run until
the stream has ended, or nobody says goodbye. `stop` begins the leave; it is over when the stream is: the event loop
has said its goodbyes, the last event was delivered, and no process is left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from exeunt.runtime import Actor, Directories, Outcome, Ref, Supervisor, receive
from exeunt.runtime.engine import Engine, Kind

from .device.actor import hand_over
from .endings import Cause
from .loop_config import LoopConfig
from .messages import (
    Deliver,
    DescribeSession,
    Disconnected,
    Event,
    PingPeer,
    Reset,
    SessionDescription,
    SetDns,
    SetInternetResource,
    StopSession,
    StreamEnded,
    Subscribe,
    Taken,
)
from .peer.messages import Pong
from .peer_workers import PEER_WORKERS_MAX, hand_over_path, peer_workers
from .portal.actor_messages import PortalAskEvidence, PortalEvidence
from .portal.messages import Evidence
from .portal.static import Listener
from .portal.url import websocket_url
from .timing import APPLICATION_LEAVE_S, LOST_AFTER_S
from .tree import PortalConfig, children, workers
from .wireguard.timing import INNER_MTU_BYTES

_MESSAGES = ("exeunt.actors.messages:MESSAGES",)
_PRELOAD = (
    "exeunt.actors.client_loop",
    "exeunt.actors.gateway_loop",
    "exeunt.actors.event_stream",
    "exeunt.actors.session_actor",
    "exeunt.actors.portal.actor",
    "exeunt.actors.peer.actor",
    "exeunt.actors.peer.static",
    "exeunt.actors.device.actor",
    "exeunt.actors.network.actor",
    "exeunt.actors.network.watch_actor",
)
"""Imported once in the fork server, so that a worker starts in some tens of milliseconds."""


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's end for peers that speak plain WireGuard."""

    port: int
    private_key: bytes
    """Stays the same when the gateway is started again: its peers know the public one."""
    hosts: tuple[str, ...]
    """By which it can be reached, the likeliest first."""

    def __repr__(self) -> str:
        return f"Listen(port={self.port})"


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a session needs to know."""

    side: str
    """`client` or `gateway`."""
    instance: str
    portal_url: str
    token_file: Path
    name: str
    external_id: str
    """The device's own lasting identity."""
    directories: Directories
    endings_file: Path
    device: str = "exeunt0"
    """The TUN device's name; with several workers the first one's."""
    mtu: int = INNER_MTU_BYTES
    """The device's, 1,280 to 1,400 bytes: the most that a path may be found to take."""
    peer_workers: int = 1
    """Processes that a gateway spreads its clients over, each with a TUN device. A client has one: its resources lead
    into one device, and packets wait there for whatever connection they will need.
    """
    lost_after_s: float = LOST_AFTER_S
    idle_after_s: float | None = None
    """A connection without traffic for so long is ended as `idle`; the next packet makes another. None: never."""
    relay_only: bool = False
    masquerade: bool = True
    listen: Listen | None = None
    """Where a gateway serves static peers; None: it doesn't."""
    manages_device: bool = True
    """False when the app brings its own device, by `set_tun`."""
    log_level: str = "INFO"


class Subscriber(Actor):
    """The user's end of the event stream: one event at a time, the next one when the user has taken it."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue(1)
        self.ended = False
        self.last: Event | None = None
        """What the stream could not tell any more, after all else."""
        self.undelivered = 0
        self._number = 0

    @receive(Deliver)
    async def on_deliver(self, message: Deliver) -> Taken:
        """Offer an event; the answer lets the stream go on."""
        if not 0 < message.number <= self._number:
            await self.queue.put(message.event)
            self._number = message.number
        return Taken()

    @receive(StreamEnded)
    def on_ended(self, message: StreamEnded) -> Taken:
        """There will be no more."""
        self.undelivered = message.undelivered
        self.end()
        return Taken()

    def end(self, last: Event | None = None) -> None:
        """Mark the end, behind an event that still waits for the user; `last` comes after that. Idempotent."""
        if not self.ended:
            self.ended, self.last = True, last
            with contextlib.suppress(asyncio.QueueFull):
                self.queue.put_nowait(None)


class EventStream:
    """What a session tells: an asynchronous iterator that ends when everything has been told and everybody has left."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events in order; end when the stream has drained."""
        while not (self._subscriber.ended and self._subscriber.queue.empty()):
            event = await self._subscriber.queue.get()
            if event is None:
                break
            yield event
        last, self._subscriber.last = self._subscriber.last, None
        if last is not None:
            yield last

    async def drain(self) -> list[Event]:
        """Collect what is still to come, until the stream ends."""
        return [event async for event in self]


class Session:
    """A running session. Make one with `connect`."""

    def __init__(self, config: SessionConfig, supervisor: Supervisor, subscriber: Subscriber) -> None:
        self.config = config
        self.supervisor = supervisor
        self._subscriber = subscriber
        self._ending = asyncio.get_running_loop().create_task(self._end_stream())
        self._insisting: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, config: SessionConfig, *, engine: Engine | Kind = "processes"
    ) -> tuple[Session, EventStream]:
        """Start a session's workers and actors; it signs in by itself. `engine` says where workers run: each a
        process, or all of them here (`inline`). Raises ExeuntError or RuntimeError when they can't start, and
        ValueError for so many peers workers as there can't be.
        """
        if not 1 <= config.peer_workers <= (1 if config.side == "client" else PEER_WORKERS_MAX):
            raise ValueError(f"a {config.side} cannot have {config.peer_workers} workers for its peers")
        key = X25519PrivateKey.generate()  # lives as long as the session, in memory only
        names = peer_workers(config.peer_workers)
        loop = LoopConfig(
            instance=config.instance,
            side=config.side,
            private_key=key.private_bytes_raw(),
            device=config.device,
            mtu=config.mtu,
            ipc=str(config.directories.ipc),
            endings_file=str(config.endings_file),
            peer_workers=names,
            lost_after_s=config.lost_after_s,
            idle_after_s=config.idle_after_s,
            relay_only=config.relay_only,
            masquerade=config.masquerade,
            listen_port=0 if config.listen is None else config.listen.port,
            listen_key=b"" if config.listen is None else config.listen.private_key,
            manages_device=config.manages_device,
        )
        portal = PortalConfig(
            url=websocket_url(config.portal_url, "client" if config.side == "client" else "gateway"),
            token_file=str(config.token_file),
            name=config.name,
            external_id=config.external_id,
            public_key=_public(key),
            listener=None if config.listen is None else _listener(config.listen),
        )
        supervisor = Supervisor(
            config.instance,
            workers=workers(names),
            children=children(config.instance, loop=loop, portal=portal),
            directories=config.directories,
            messages=_MESSAGES,
            preload=_PRELOAD,
            log_level=config.log_level,
            engine=engine,
        )
        await supervisor.start()
        subscriber = Subscriber()
        ref = supervisor.node.start(subscriber, "events")
        supervisor.ref("event-stream").tell(Subscribe(str(ref)))
        session = cls(config, supervisor, subscriber)
        return session, EventStream(subscriber)

    # --- commands ---

    def stop(self, cause: Cause = Cause.SHUTTING_DOWN, text: str = "") -> None:
        """Begin to leave; `ended` says when it is over. The first cause stands. `text` is shown to people on the other
        side, as evidence: `upgrade`, say.
        """
        self._ref.tell(StopSession(cause, text=text))
        if self._insisting is None:
            self._insisting = asyncio.get_running_loop().create_task(self._insist())

    def reset(self, reason: str) -> None:
        """The network changed: connect to the portal anew, check every path."""
        self._ref.tell(Reset(reason))

    def set_dns(self, servers: tuple[str, ...]) -> None:
        """Tell the system's DNS servers."""
        self._ref.tell(SetDns(servers))

    def set_tun(self, descriptor: int) -> None:
        """Use this TUN device; a duplicate of the descriptor is taken. Raises OSError when the worker is not there."""
        hand_over(Path(hand_over_path(self.config.directories.ipc, peer_workers(1)[0])), descriptor)

    def set_internet_resource(self, *, enabled: bool) -> None:
        """Use, or don't, resources that cover the whole Internet."""
        self._ref.tell(SetInternetResource(enabled))

    async def describe(self) -> SessionDescription:
        """Return how things are."""
        answer: SessionDescription = await self._ref.ask(DescribeSession())
        return answer

    async def ping(self, peer: str, timeout_s: float = 5.0) -> Pong:
        """Measure a round trip. Raises Refused (`no_such_peer`, `not_connected`, `timeout`)."""
        pong: Pong = await self._ref.ask(PingPeer(peer, timeout_s), timeout_s=timeout_s + 2)
        return pong

    async def evidence(self, connection: str, timeout_s: float = 2.0) -> Evidence | None:
        """Ask the portal what it knows of a connection that ended; None if it cannot be asked, or does not answer."""
        question = PortalAskEvidence(connection, timeout_s)
        answer: PortalEvidence = await self.supervisor.ref("portal-link").ask(question, timeout_s=timeout_s + 1)
        return answer.evidence

    async def ended(self) -> Outcome:
        """Return when everybody has left and no process is left."""
        outcome = await self.supervisor.wait()
        await asyncio.wait({self._ending})
        if self._insisting is not None:
            self._insisting.cancel()
            await asyncio.wait({self._insisting})
        return outcome

    def force(self) -> None:
        """Kill everything at once: the second Ctrl-C."""
        self.supervisor.force()

    @property
    def _ref(self) -> Ref:
        return self.supervisor.ref("session")

    async def _end_stream(self) -> None:
        """Nothing outlives its runtime, neither stream nor file: where the workers were killed, nobody was left to say
        that the one ended, and to remove the other.
        """
        outcome = await self.supervisor.wait()
        self._sweep()
        lost = Disconnected(f"the session's processes ended: {outcome.reason}") if outcome.failed else None
        self._subscriber.end(lost)

    def _sweep(self) -> None:
        for worker in peer_workers(self.config.peer_workers):
            with contextlib.suppress(OSError):  # it is not there, or not ours to remove
                Path(hand_over_path(self.config.directories.ipc, worker)).unlink()

    async def _insist(self) -> None:
        """If the orderly leave takes longer than all its deadlines together, end the workers."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.supervisor.wait(), APPLICATION_LEAVE_S)
            return
        await self.supervisor.leave("shutdown")


def _listener(listen: Listen) -> Listener:
    public_key = _public(X25519PrivateKey.from_private_bytes(listen.private_key))
    return Listener(public_key=public_key, port=listen.port, hosts=listen.hosts)


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
