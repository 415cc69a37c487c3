"""The peer-connection actor: ties a connection's machine to its path, its device and its owner.

Packets don't pass through its mailbox: the device's pump calls `send_packet`, the ICE agent calls back with
datagrams, both on this worker's loop, between messages. Messages are for candidates, closing, and questions.

Whatever ends it (a `Close`, a stop, its owner's death, its own exception), the same road is taken: goodbye, ending
recorded, owner told, relay released.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import time
from pathlib import Path as FilePath
from typing import Any

import msgspec

from exeunt.runtime import Actor, Later, Refused, Terminated, receive
from exeunt.runtime.errors import Failure
from exeunt.runtime.log import rfc3339

from ..device.pump import Pump
from ..endings import Cause, Ending, EndingBook, Initiator
from ..ice import Callbacks, IceAgent, IceConfig, IceServer, Lost, NeverConnected, Path, Sockets
from ..portal.actor_messages import PortalSay
from ..portal.messages import MAX_CANDIDATES, IceCandidates
from ..timing import CONNECT_S, CONSENT_INTERVAL_S, GOODBYE_DEADLINE_S, HANDSHAKE_REPEAT_S, HANDSHAKE_S, RELEASE_S
from ..wireguard import Limits, PrefixedIndices, Tunnel
from .machine import Connected, Connection, Ended, PongReceived
from .messages import (
    AddCandidates,
    Close,
    DescribePeer,
    Hint,
    PeerConfig,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    PeerPathChanged,
    Ping,
    Pong,
    SetNetworks,
)

logger = logging.getLogger(__name__)


class PeerConnection(Actor):
    """One connection to one peer. Lives in a `peers-*` worker, beside the device's pump."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = msgspec.convert(config, PeerConfig, builtin_types=(bytes,))
        self._initiator = self.config.side == "client"
        self._indices = PrefixedIndices(secrets.randbits(24))
        tunnel = Tunnel(
            private_key=self.config.private_key,
            peer_public_key=self.config.peer_public_key,
            preshared_key=self.config.preshared_key,
            initiator=self._initiator,
            allocate_index=self._indices,
            rng=random.Random(),  # noqa: S311 - timer jitter, not a key
            limits=Limits(rekey_timeout_s=HANDSHAKE_REPEAT_S, rekey_attempt_time_s=HANDSHAKE_S),
        )
        self._machine = Connection(tunnel, initiator=self._initiator, identifier=lambda: os.urandom(8))
        self._book = EndingBook(FilePath(self.config.endings_file))
        self._started_ns = time.time_ns()
        self._ending: asyncio.Future[Ending] | None = None
        self._gone: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._lingering: asyncio.Task[None] | None = None
        self._finding: asyncio.Task[None] | None = None
        self._found: list[str] = []
        self._telling = False
        self._pings: dict[int, asyncio.Future[float]] = {}
        self._rtt_ms: float | None = None
        self._path: Path | None = None

    # --- life ---

    async def on_start(self) -> None:
        """Begin to look for a path."""
        self._ending = self.node.loop.create_future()
        self._gone = asyncio.Event()
        self._agent = IceAgent(
            self._ice_config(),
            Callbacks(
                on_candidate=self._on_candidate,
                on_datagram=self._on_datagram,
                on_path=self._on_path,
                on_lost=self._on_lost,
            ),
            sockets=self._sockets,
        )
        self._claim_indices()
        self.node.ref(self.config.owner).watch()
        self._pump.attach(self, self.config.networks)
        self._finding = self.node.loop.create_task(self._find_path())
        logger.info("A connection begins", extra={"event": "connection_began", **self._who})

    async def on_stop(self) -> None:
        """Say goodbye, if that has not been done, and release everything."""
        cause = Cause.SUPERVISOR_DIED if self.exit_reason == "supervisor_died" else Cause.SHUTTING_DOWN
        await self._close(cause, Initiator.SUPERVISOR, {"stopped": self.exit_reason})
        await self._release()

    async def on_crash(self, failure: Failure) -> None:
        """Say goodbye for a handler that failed: the peer is told what happened."""
        if self._finding is None:  # on_start failed: nothing has begun, and who asked for the start records why
            with contextlib.suppress(KeyError):
                self._pump.detach(self)
            return
        await self._close(Cause.WORKER_CRASHED, Initiator.SUPERVISOR, {"error": f"{failure.type}: {failure.message}"})
        await self._release()

    # --- messages ---

    @receive(AddCandidates)
    def on_add_candidates(self, message: AddCandidates) -> None:
        """Take the peer's candidates."""
        for candidate in message.candidates:
            self._agent.add_remote_candidate(candidate)
        if message.end:
            self._agent.add_remote_candidate(None)

    @receive(SetNetworks)
    def on_set_networks(self, message: SetNetworks) -> None:
        """Route these inner networks here from now on."""
        if self._machine.state in ("connecting", "established"):  # else it has given its networks back
            self._pump.attach(self, message.networks)

    @receive(Hint)
    def on_hint(self, _message: Hint) -> None:
        """Check the path at once."""
        self._agent.hint()

    @receive(Close)
    async def on_close(self, message: Close) -> PeerEnded:
        """Say goodbye; answer when it is acknowledged or given up."""
        ending = await self._close(Cause(message.cause), Initiator(message.initiated_by), dict(message.evidence))
        await self._release()
        self.stop()
        return PeerEnded(self.config.connection, ending)

    @receive(Terminated)
    async def on_terminated(self, message: Terminated) -> None:
        """The owner has ended: nobody is left who could ask for a goodbye, so say it."""
        evidence: dict[str, Any] = {"owner": message.reason}
        if message.failure is not None:
            evidence["error"] = f"{message.failure.type}: {message.failure.message}"
        cause = Cause.WORKER_CRASHED if message.abnormal else Cause.SHUTTING_DOWN
        await self._close(cause, Initiator.SUPERVISOR, evidence)
        self.stop()

    @receive(Ping)
    def on_ping(self, message: Ping) -> Later:
        """Measure a round trip through the tunnel."""
        token = secrets.randbits(48)
        if not self._machine.handle_ping(token, self._now()):
            raise Refused("not_connected", f"{self.config.peer} is not connected")
        waiting = self._pings[token] = self.node.loop.create_future()
        self._drain()
        return Later(self._pong(token, waiting, message.timeout_s))

    @receive(DescribePeer)
    def on_describe(self, _message: DescribePeer) -> PeerDescription:
        """Say how things are."""
        tunnel, path = self._machine.tunnel, self._path
        return PeerDescription(
            connection=self.config.connection,
            peer=self.config.peer,
            state=self._machine.state,
            path=path.kind if path else None,
            endpoint=f"{path.remote[0]}:{path.remote[1]}" if path else None,
            rtt_ms=self._rtt_ms,
            handshake_age_s=tunnel.handshake_age_s(self._now()),
            rx_bytes=tunnel.rx_bytes,
            tx_bytes=tunnel.tx_bytes,
        )

    # --- the pump's side ---

    def send_packet(self, packet: bytes) -> None:
        """Send an inner packet to the peer. The pump calls this."""
        now = self._now()
        self._machine.handle_packet(packet, now)
        self._transmit()
        self._set_timer(now)

    # --- the agent's side ---

    def _on_datagram(self, datagram: bytes) -> None:
        now = self._now()
        packet = self._machine.handle_datagram(datagram, now)
        if self._machine.tunnel.last_received_at == now:
            self._agent.note_alive()
        if packet is not None:
            self._pump.deliver(self, packet)
        self._drain()

    def _on_path(self, path: Path) -> None:
        first, self._path, self._rtt_ms = self._path is None, path, path.rtt_ms
        extra = {"event": "path_changed", **self._who, "path": path.kind, "rtt_ms": round(path.rtt_ms, 3)}
        logger.info("A path was found" if first else "The path changed", extra=extra)
        self._machine.handle_path(path.rtt_ms, self._now())
        self._drain()
        if not first:
            self._owner.tell(PeerPathChanged(self.config.connection, path.kind))

    def _on_lost(self, lost: Lost) -> None:
        evidence = {"ice": lost.reason, "last_seen_s_ago": round(lost.last_seen_s_ago, 3)}
        cause = Cause.RELAY_LOST if lost.reason == "relay_lost" else Cause.NETWORK_LOST
        self._machine.handle_lost(cause, evidence, lost.last_seen_s_ago, self._now())
        self._drain()

    def _on_candidate(self, candidate: str, _generation: int) -> None:
        """Gather what is found in one turn of the loop into one message."""
        self._found.append(candidate)
        if not self._telling:
            self._telling = True
            self.node.loop.call_soon(self._tell_candidates)

    def _tell_candidates(self) -> None:
        self._telling = False
        found, self._found = self._found, []
        candidates = [candidate for candidate in found if candidate]
        end = len(candidates) < len(found)
        for start in range(0, max(len(candidates), 1), MAX_CANDIDATES):
            batch = tuple(candidates[start : start + MAX_CANDIDATES])
            last = start + MAX_CANDIDATES >= len(candidates)
            message = IceCandidates(connection=self.config.connection, candidates=batch, end=end and last)
            self.node.ref(self.config.portal_link).tell(PortalSay(message))

    # --- inside ---

    @property
    def _who(self) -> dict[str, str]:
        return {"connection": self.config.connection, "peer": self.config.peer}

    @property
    def _owner(self) -> Any:
        return self.node.ref(self.config.owner)

    @property
    def _pump(self) -> Pump:
        pump: Pump = self.node.resources["pump"]
        return pump

    @property
    def _sockets(self) -> Sockets:
        """The sockets that all connections of this worker share."""
        sockets: Sockets = self.node.resources.setdefault("sockets", Sockets())
        return sockets

    def _claim_indices(self) -> None:
        """Have what WireGuard sends to this connection's indices come here, under a prefix that nobody else has."""
        while True:
            with contextlib.suppress(ValueError):
                self._agent.claim_indices(self._indices.prefix)
                return
            self._indices.prefix = secrets.randbits(24)

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def _ice_config(self) -> IceConfig:
        config = self.config
        servers: list[IceServer] = []
        for server in config.servers:
            if server.transport == "udp":
                servers.append(IceServer(kind="stun", host=server.host, port=server.port))
            servers.append(
                IceServer(
                    kind="turn",
                    host=server.host,
                    port=server.port,
                    transport=server.transport,
                    username=server.username,
                    password=server.password,
                )
            )
        excluded = frozenset(config.excluded_hosts)
        return IceConfig(
            role="controlling" if self._initiator else "controlled",
            local_username=config.local_username,
            local_password=config.local_password,
            remote_username=config.remote_username,
            remote_password=config.remote_password,
            servers=tuple(servers),
            lost_after_s=config.lost_after_s,
            consent_interval_s=min(CONSENT_INTERVAL_S, config.lost_after_s / 4),
            relay_only=config.relay_only,
            host_filter=lambda host: host not in excluded and not host.startswith(("127.", "::1", "fe80:")),
        )

    async def _find_path(self) -> None:
        gathering = self.node.loop.create_task(self._gather())
        try:
            await self._agent.connect(CONNECT_S)
            await gathering  # relays found late are worth having: the direct path may not last
        except NeverConnected as error:
            self._machine.handle_failed({"ice": error.reason, "detail": error.detail}, self._now())
            self._drain()
        except Exception as error:
            logger.exception("The search for a path failed", extra={"event": "path_search_failed", **self._who})
            self._machine.handle_failed({"ice": "error", "error": type(error).__name__}, self._now())
            self._drain()
        finally:
            gathering.cancel()

    async def _gather(self) -> None:
        """Find our own candidates; without any, the peer's may still find us."""
        try:
            await self._agent.gather()
        except Exception:
            logger.exception("Candidates could not be gathered", extra={"event": "gathering_failed", **self._who})

    def _transmit(self) -> None:
        while (datagram := self._machine.poll_transmit()) is not None:
            self._agent.send(datagram)

    def _drain(self) -> None:
        self._transmit()
        while (event := self._machine.poll_event()) is not None:
            match event:
                case Connected(handshake_rtt_ms=rtt_ms):
                    self._connected(rtt_ms)
                case PongReceived(token=token, rtt_ms=rtt_ms):
                    self._rtt_ms = rtt_ms
                    waiting = self._pings.pop(token, None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(rtt_ms)
                case Ended():
                    self._ended(event)
        if self._machine.state == "ended" and self._gone is not None:
            self._gone.set()
        self._set_timer(self._now())

    def _connected(self, rtt_ms: float) -> None:
        kind = self._path.kind if self._path else "direct"
        extra = {"event": "connected", **self._who, "path": kind, "handshake_ms": round(rtt_ms, 3)}
        logger.info("A connection is up", extra=extra)
        self._owner.tell(PeerConnected(self.config.connection, kind, rtt_ms))

    def _ended(self, ended: Ended) -> None:
        """The ending is known: record it, tell the owner, take nothing more from the device."""
        self._pump.detach(self)
        tunnel = self._machine.tunnel
        last_seen = tunnel.last_received_at
        now_ns = time.time_ns()
        ending = Ending(
            connection=self.config.connection,
            peer=self.config.peer,
            side=self.config.side,
            cause=ended.cause,
            initiated_by=ended.initiated_by,
            evidence=ended.evidence,
            detection_ms=None if ended.detection_ms is None else round(ended.detection_ms, 3),
            acknowledged=ended.acknowledged,
            started_at=rfc3339(self._started_ns),
            ended_at=rfc3339(now_ns),
            last_seen_at=None if last_seen is None else rfc3339(now_ns - int((self._now() - last_seen) * 1e9)),
            rx_bytes=tunnel.rx_bytes,
            tx_bytes=tunnel.tx_bytes,
            path=self._path.kind if self._path else None,
        )
        self._book.write(ending)
        assert self._ending is not None
        if not self._ending.done():
            self._ending.set_result(ending)
        for waiting in self._pings.values():
            waiting.cancel()
        self._owner.tell(PeerEnded(self.config.connection, ending))
        if self._machine.state != "ended":
            self._gone_later()
        else:
            self.ref.stop("normal")

    def _gone_later(self) -> None:
        """Stop by ourselves once nobody can need an acknowledgement any more."""
        assert self._gone is not None
        gone = self._gone

        async def leave() -> None:
            await gone.wait()
            self.ref.stop("normal")

        self._lingering = self.node.loop.create_task(leave())

    async def _close(self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any]) -> Ending:
        """End the connection, or learn how it has ended already."""
        assert self._ending is not None
        self._machine.handle_close(cause, initiated_by, evidence, self._now())
        self._drain()
        return await asyncio.wait_for(asyncio.shield(self._ending), GOODBYE_DEADLINE_S + 0.2)

    async def _release(self) -> None:
        """Close the agent: TURN allocations are released, sockets closed, no task stays. Idempotent."""
        self._pump.detach(self)
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait({self._finding})
        await self._agent.close(RELEASE_S)
        if self._lingering is not None:
            self._lingering.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _pong(self, token: int, waiting: asyncio.Future[float], timeout_s: float) -> Pong:
        try:
            rtt_ms = await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            raise Refused("timeout", f"{self.config.peer} did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            raise Refused("not_connected", f"the connection to {self.config.peer} ended") from None
        finally:
            self._pings.pop(token, None)
        return Pong(rtt_ms, self._path.kind if self._path else "direct")

    def _set_timer(self, now: float) -> None:
        """Wake up in time. A timer that comes too early is left: it costs one look, and not two calls a packet."""
        timeout = self._machine.poll_timeout()
        if timeout is None or (self._timer is not None and self._timer_at <= timeout[0]):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = timeout[0]
        self._timer = self.node.loop.call_later(max(0.0, timeout[0] - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._machine.handle_timeout(self._now())
        self._drain()
