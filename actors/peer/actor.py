"""The peer-connection actor: ties a connection's machine to its path, its device and its owner.

Packets don't pass through its mailbox: they come between messages, on this worker's loop (`traffic`). Messages are for
candidates, closing, and questions.

Whatever ends it (a `Close`, a stop, its owner's death, its own exception), the same road is taken: goodbye, ending
recorded, owner told, relay released.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from pathlib import Path as FilePath
from typing import Any

import msgspec

from exeunt.runtime import Later, Refused, Terminated, receive
from exeunt.runtime.errors import Failure
from exeunt.runtime.inheritance import HAND_OVER

from ..endings import Cause, Ending, EndingBook, Initiator
from ..ice import Lost, Path
from ..ice.agent import RelayLoss
from ..portal.actor_messages import PortalSay
from ..portal.messages import FromPeer, RestartIce
from ..timing import GOODBYE_LATEST_S
from ..wireguard import PrefixedIndices
from .alarm import Alarm
from .carried import CarriedConnection
from .events import Connected, Ended, PathDoubted, PongReceived, SessionChanged
from .liveness import Doubt
from .messages import (
    AddCandidates,
    Close,
    DescribePeer,
    Hint,
    Moved,
    PeerConfig,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    PeerPathChanged,
    Ping,
    Pong,
    PortalDoubted,
    RestartPath,
    SetNetworks,
    SetServers,
    WillHeard,
)
from .paths import Paths
from .pings import Pings
from .record import description_of, ending_of, last_seen_s_ago
from .restarts import RestartWanted
from .succession import PeerSnapshot, inherit, lane_of, leave, shared_sockets, stop_reading
from .traffic import Traffic
from .tunnel_of import tunnel_of
from .will import Will

logger = logging.getLogger(__name__)

_DOUBTS: dict[str, Doubt] = {"left": "left", "reset": "reset", "silent": "silent", "ended": "ended"}
_REASON_CHARS = 64  # the portal takes no more


class PeerConnection(Traffic):
    """One connection to one peer. Lives in a `peers-*` worker, beside the device's pump."""

    def __init__(self, **config: Any) -> None:
        self.config = msgspec.convert(config, PeerConfig, builtin_types=(bytes,))
        self._initiator = self.config.side == "client"
        self._indices = PrefixedIndices(secrets.randbits(24))
        machine = CarriedConnection(
            tunnel_of(self.config, self._indices),
            initiator=self._initiator,
            identifier=lambda: os.urandom(8),
            lost_after_s=self.config.lost_after_s,
            idle_after_s=self.config.idle_after_s,
            mtu=self.config.mtu,
        )
        super().__init__(machine, Alarm(is_coarse=self.config.side != "client"))
        self._started_ns = time.time_ns()
        self._ending: asyncio.Future[Ending] | None = None
        self._is_gone = False
        self._gone: asyncio.Event | None = None
        self._pings = Pings(self.config.peer)
        self._rtt_ms: float | None = None
        self._path: Path | None = None

    # --- life ---

    def on_start(self) -> None:
        """Begin to look for a path. Not async: an actor that awaits nothing has no task, which takes 2 kB."""
        self._ending = self.node.loop.create_future()
        self._machine.farewells = self.node.resources.setdefault("farewells", self._machine.farewells)
        self.node.ref(self.config.owner).watch()
        left = inherit(self.node, self.config.connection) if self.config.inherits else None
        self._pump.attach(self, self.config.networks)
        self._paths = Paths(
            self.config,
            shared_sockets(self.node),
            resume=None if left is None else left.ice,
            say=self._say,
            on_datagrams=self._on_datagrams,
            on_path=self._on_path,
            on_broken=self._on_broken,
            on_lost=self._on_lost,
            on_failed=self._on_failed,
            on_restarted=self._machine.restarts.handle_over,
        )
        self._lane = lane_of(self.node, self._machine)
        self._indices.prefix = self._paths.claim(self._indices.prefix if left is None else left.indices[0])
        if left is None:
            self._paths.begin()
            logger.info("A connection begins", extra={"event": "connection_began", **self._who})
        else:
            self._go_on(left)

    async def on_stop(self) -> None:
        """Say goodbye, if that has not been done, and release everything; or leave it to a successor."""
        if self.exit_reason == HAND_OVER and self._hand_over():
            await self._release()
            return
        cause = Cause.SUPERVISOR_DIED if self.exit_reason == "supervisor_died" else Cause.SHUTTING_DOWN
        await self._close(cause, Initiator.SUPERVISOR, {"stopped": self.exit_reason})
        await self._part()

    async def on_crash(self, failure: Failure) -> None:
        """Say goodbye for a handler that failed: the peer is told what happened."""
        if self._paths is None:  # on_start failed: nothing has begun, and who asked for the start records why
            with contextlib.suppress(KeyError):
                self._pump.detach(self)
            return
        await self._close(Cause.WORKER_CRASHED, Initiator.SUPERVISOR, {"error": f"{failure.type}: {failure.message}"})
        await self._part()

    # --- messages ---

    @receive(AddCandidates)
    def on_add_candidates(self, message: AddCandidates) -> None:
        """Take the peer's candidates."""
        self.paths.take_candidates(message)

    @receive(SetServers)
    def on_set_servers(self, message: SetServers) -> None:
        """Use these relays from now on."""
        self.paths.set_servers(message.servers)

    @receive(RestartPath)
    def on_restart_path(self, message: RestartPath) -> None:
        """Look for a path with new credentials, beside the one in use."""
        if self._machine.handle_restart_began(message.generation, self._now()):
            self.paths.restart(message)

    @receive(Moved)
    def on_moved(self, message: Moved) -> None:
        """Check the path at once, and have others found."""
        self.paths.agent.hint(urgent=True)
        self._machine.handle_moved(message.reason, self._now())
        self._drain()

    @receive(SetNetworks)
    def on_set_networks(self, message: SetNetworks) -> None:
        """Route these inner networks here from now on."""
        if self._machine.state in ("connecting", "established"):  # else it has given its networks back
            self._pump.attach(self, message.networks)

    @receive(Hint)
    def on_hint(self, message: Hint) -> None:
        """Probe the peer at once."""
        doubt = _DOUBTS.get(message.kind, "hint")
        self._machine.handle_doubt(doubt, message.reason, self._now(), message.cause)
        self._drain()

    @receive(WillHeard)
    def on_will_heard(self, message: WillHeard) -> None:
        """The session can open it, if it is the peer's."""
        self._machine.handle_will(message.datagram, self._now())
        self._drain()

    @receive(Close)
    async def on_close(self, message: Close) -> PeerEnded:
        """Say goodbye; answer when it is acknowledged or given up."""
        cause, by = Cause(message.cause), Initiator(message.initiated_by)
        ending = await self._close(cause, by, dict(message.evidence), message.text)
        if self._machine.state != "lingering":  # else it has told us, and is still to be answered if it repeats that
            await self._release()
            self.stop()
        return PeerEnded(self.config.connection, ending)

    @receive(Terminated)
    async def on_terminated(self, message: Terminated) -> None:
        """The owner has ended: nobody is left who could ask for a goodbye, so say it; unless it has a successor."""
        if message.reason == HAND_OVER:
            self.node.ref(self.config.owner).watch()  # waits for the successor
            return
        failure = message.failure
        error = {} if failure is None else {"error": f"{failure.type}: {failure.message}"}
        cause = Cause.WORKER_CRASHED if message.abnormal else Cause.SHUTTING_DOWN
        await self._close(cause, Initiator.SUPERVISOR, {"owner": message.reason, **error})
        self.stop()

    @receive(Ping)
    def on_ping(self, message: Ping) -> Later:
        """Measure a round trip through the tunnel."""
        token = secrets.randbits(48)
        if not self._machine.handle_ping(token, self._now()):
            raise Refused("not_connected", f"{self.config.peer} is not connected")
        waiting = self._pings.begin(token)
        self._drain()
        return Later(self._pong(token, waiting, message.timeout_s))

    @receive(DescribePeer)
    def on_describe(self, _message: DescribePeer) -> PeerDescription:
        """Say how things are."""
        self._keep_lane()
        seen_s_ago, rtt_ms, now = self._last_seen_s_ago(), self._rtt_ms, self._now()
        return description_of(self.config, self._machine, self._path, rtt_ms=rtt_ms, seen_s_ago=seen_s_ago, now=now)

    # --- the agent's side ---

    def _on_path(self, path: Path) -> None:
        first, self._path, self._rtt_ms = self._path is None, path, path.rtt_ms
        extra = {"event": "path_changed", **self._who, "path": path.kind, "rtt_ms": round(path.rtt_ms, 3)}
        logger.info("A path was found" if first else "The path changed", extra=extra)
        self._machine.handle_path(path.rtt_ms, self._now())
        self._drain()
        self._renew_will()
        if not first:
            self._owner.tell(PeerPathChanged(self.config.connection, path.kind))

    def _on_broken(self, reason: RelayLoss) -> None:
        if self._machine.state == "established":  # before and after it, deadlines do
            self._on_lost(Lost(reason, self._last_seen_s_ago() or 0.0))

    def _on_lost(self, lost: Lost) -> None:
        if lost.reason == "relay_silent":  # a line that was cut looks the same: the timeout has to tell
            self._machine.handle_doubt("hint", "the relay does not answer", self._now())
        else:
            evidence = {"ice": lost.reason, "last_seen_s_ago": round(lost.last_seen_s_ago, 3)}
            cause = Cause.RELAY_LOST if lost.reason == "relay_lost" else Cause.NETWORK_LOST
            self._machine.handle_lost(cause, evidence, lost.last_seen_s_ago, self._now())
        self._drain()

    def _on_failed(self, evidence: dict[str, Any]) -> None:
        self._machine.handle_no_path(evidence, self._now())
        self._drain()

    # --- inside ---

    @property
    def _who(self) -> dict[str, str]:
        return {"connection": self.config.connection, "peer": self.config.peer}

    @property
    def _owner(self) -> Any:
        return self.node.ref(self.config.owner)

    def _say(self, message: FromPeer) -> None:
        self.node.ref(self.config.portal_link).tell(PortalSay(message))

    def _last_seen_s_ago(self) -> float | None:
        return last_seen_s_ago(self._machine.tunnel, self.paths.agent, self._now())

    def _react(self) -> None:
        self._transmit()
        while (event := self._machine.poll_event()) is not None:
            match event:
                case Connected(handshake_rtt_ms=rtt_ms):
                    self._connected(rtt_ms)
                case PongReceived(token=token, rtt_ms=rtt_ms):
                    self._rtt_ms = rtt_ms
                    self._pings.answered(token, rtt_ms)
                case SessionChanged():
                    self._renew_will()
                case PathDoubted():
                    self.paths.agent.hint(urgent=True)
                case RestartWanted():
                    self._want_restart(event)
                case Ended():
                    self._ended(event)
        if self._machine.state == "ended" and not self._is_gone:
            self._is_gone = True
            if self._gone is not None:
                self._gone.set()
            self.ref.stop("normal")  # nobody can need an acknowledgement any more

    def _hand_over(self) -> bool:
        """Leave the connection to the process that succeeds this one; False when it has to end instead."""
        self._end_lane()
        stop_reading(self.node)
        ice = self.paths.agent.snapshot()
        if self._machine.state != "established" or not self.node.deposits.is_kept:
            return False
        leave(self.node, self.config.connection, self._machine, self._indices, ice=ice, since_ns=self._started_ns)
        logger.info("A connection is handed over", extra={"event": "handed_over", **self._who})
        return True

    def _go_on(self, left: PeerSnapshot) -> None:
        """Be the successor."""
        now = self._now()
        self._indices.next, self._started_ns = left.indices[1], left.since_ns
        self._path, self._rtt_ms = self.paths.agent.path, left.rtt_ms
        self._machine.tunnel.resume(left.tunnel, now)
        self._machine.resume(left.rtt_ms, left.generation, now)
        if left.ice is None:
            self._machine.handle_moved("handed over without a path", now)
        self._renew_will()
        self.node.deposits.taken(self.config.connection)
        self._drain()
        logger.info("A connection goes on", extra={"event": "taken_over", **self._who})

    def _renew_will(self) -> None:
        """Deposit what is to be said if this worker dies: the session, or the way to the peer, is another one."""
        sealed = self._machine.seal_last_will(self._now())
        Will(self.node.deposits, self.config.connection, self.config.portal_link).renew(sealed, self.paths.agent)

    def _want_restart(self, wanted: RestartWanted) -> None:
        extra = {"event": "ice_restart_wanted", **self._who, "reason": wanted.reason}
        logger.info("Another path is wanted", extra=extra)
        if wanted.again:
            self._owner.tell(PortalDoubted(self.config.connection))
        self._say(RestartIce(connection=self.config.connection, reason=wanted.reason[:_REASON_CHARS]))

    def _connected(self, rtt_ms: float) -> None:
        kind = self._path.kind if self._path else "direct"
        extra = {"event": "connected", **self._who, "path": kind, "handshake_ms": round(rtt_ms, 3)}
        logger.info("A connection is up", extra=extra)
        self._owner.tell(PeerConnected(self.config.connection, kind, rtt_ms))

    def _ended(self, ended: Ended) -> None:
        """The ending is known: record it, tell the owner, take nothing more from the device."""
        self._pump.detach(self)
        Will(self.node.deposits, self.config.connection, self.config.portal_link).withdraw()
        tunnel, agent, now = self._machine.tunnel, self.paths.agent, self._now()
        ending = ending_of(self.config, ended, tunnel, agent, self._path, since_ns=self._started_ns, now=now)
        EndingBook(FilePath(self.config.endings_file)).write(ending)
        assert self._ending is not None
        if not self._ending.done():
            self._ending.set_result(ending)
        self._pings.give_up()
        self._owner.tell(PeerEnded(self.config.connection, ending))

    async def _close(self, cause: Cause, initiated_by: Initiator, evidence: dict[str, Any], text: str = "") -> Ending:
        """End the connection, or learn how it has ended already."""
        assert self._ending is not None
        self._machine.handle_close(cause, initiated_by, evidence, self._now(), text)
        self._drain()
        return await asyncio.wait_for(asyncio.shield(self._ending), GOODBYE_LATEST_S + 0.2)

    async def _part(self) -> None:
        """Release everything; before that, for a moment, acknowledge what the peer may say again."""
        self._machine.handle_leaving(self._now())
        self._drain()
        if self._machine.state == "lingering":
            self._gone = asyncio.Event()
            await self._gone.wait()
        await self._release()

    async def _release(self) -> None:
        """Close the agent: TURN allocations are released, sockets closed, no task stays. Idempotent."""
        self._end_lane()
        self._pump.detach(self)
        if self._paths is not None:
            await self._paths.release()
        self._alarm.cancel()

    async def _pong(self, token: int, waiting: asyncio.Future[float], timeout_s: float) -> Pong:
        rtt_ms = await self._pings.rtt_ms(token, waiting, timeout_s)
        return Pong.by(rtt_ms, self._path)
