"""The ICE side of a peer connection: its agent, the searches that are under way, and what the peer is told of them.

The first search begins with the connection; a restart begins when the portal gives both sides new credentials, and
runs beside whatever path is in use. Candidates travel through the portal, tagged with the generation of the ICE
session that they belong to; those found in one turn of the loop go in one message.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from array import array
from collections.abc import Callable
from typing import Any

from ..ice import Callbacks, IceAgent, IceConfig, IceServer, Lost, NeverConnected, Path, Sockets
from ..ice.agent import Credentials, RelayLoss, ignore
from ..portal.messages import MAX_CANDIDATES, FromPeer, IceCandidates
from ..timing import CONNECT_S, CONSENT_INTERVAL_S, LOST_AFTER_S, RELEASE_S, RESTART_S
from .messages import AddCandidates, PeerConfig, RelayServer, RestartPath

logger = logging.getLogger(__name__)


class Paths:
    """The paths of one connection. Make it on a running event loop."""

    def __init__(
        self,
        config: PeerConfig,
        sockets: Sockets,
        *,
        resume: bytes | None = None,
        say: Callable[[FromPeer], None],
        on_datagrams: Callable[[memoryview, array[int], int], None],
        on_path: Callable[[Path], None],
        on_quiet: Callable[[], None],
        on_broken: Callable[[RelayLoss], None],
        on_lost: Callable[[Lost], None],
        on_failed: Callable[[dict[str, Any]], None],
        on_restarted: Callable[[int], None],
    ) -> None:
        """`resume` is the path of a predecessor (`IceAgent.snapshot`); `say` tells the portal; `on_failed` is told that
        no path could be found at first, or ever again, `on_restarted` that the restart of that generation is over,
        whatever came of it.
        """
        self._config = config
        self._say = say
        self._on_failed = on_failed
        self._on_restarted = on_restarted
        self._restart_s = min(RESTART_S, config.lost_after_s * RESTART_S / LOST_AFTER_S)
        self._loop = asyncio.get_running_loop()
        self._searches: set[asyncio.Task[None]] = set()
        self._found: list[tuple[int, str]] = []
        self._withdrawn: list[tuple[int, str]] = []
        self._telling = False
        self.agent = IceAgent(
            dataclasses.replace(ice_config(config), resume=resume),
            sockets=sockets,
            callbacks=Callbacks(
                on_candidate=self._on_candidate,
                on_withdrawn=self._on_withdrawn,
                on_datagrams=on_datagrams,
                on_path=on_path,
                on_quiet=on_quiet,
                on_broken=on_broken,
                on_lost=on_lost,
            ),
        )

    def claim(self, prefix: int) -> int:
        """Have what WireGuard sends to indices under a prefix come here; return the prefix, another one if this one is
        taken.
        """
        while True:
            try:
                self.agent.claim_indices(prefix)
            except ValueError:
                prefix = secrets.randbits(24)
            else:
                return prefix

    # --- searches ---

    def begin(self) -> None:
        """Look for the first path."""
        self._search(self._find_first())

    def restart(self, message: RestartPath) -> None:
        """Look for another path, with new credentials."""
        self._search(self._find_another(message))

    def set_servers(self, servers: tuple[RelayServer, ...]) -> None:
        """Use these STUN and TURN servers from now on; a path over another one moves."""
        self.agent.set_servers(ice_servers(servers))

    def take_candidates(self, message: AddCandidates) -> None:
        """Take, and give up, candidates of the peer."""
        for candidate in message.withdrawn:
            self.agent.withdraw_remote_candidate(candidate, message.generation)
        for candidate in message.candidates:
            self.agent.add_remote_candidate(candidate, message.generation)
        if message.end:
            self.agent.add_remote_candidate(None, message.generation)

    async def release(self) -> None:
        """End every search, release relays, close sockets. Idempotent."""
        searches = list(self._searches)
        for search in searches:
            search.cancel()
        if searches:
            await asyncio.wait(searches)
        await self.agent.close(RELEASE_S)
        self._say = self._on_failed = ignore  # it knows its owner, and its owner it: none need wait for the collector

    # --- inside ---

    def _search(self, search: Any) -> None:
        task: asyncio.Task[None] = self._loop.create_task(search)
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)

    async def _find_first(self) -> None:
        gathering = self._loop.create_task(self._gather())
        try:
            await self.agent.connect(CONNECT_S)
            await gathering  # relays found late are worth having: the direct path may not last
        except NeverConnected as error:
            self._failed({"ice": error.reason, "detail": error.detail})
        except Exception as error:
            logger.exception("The search for a path failed", extra={"event": "path_search_failed", **self._who})
            self._failed({"ice": "error", "error": type(error).__name__})
        finally:
            gathering.cancel()

    async def _gather(self) -> None:
        """Find our own candidates; without any, the peer's may still find us."""
        try:
            await self.agent.gather()
        except Exception:
            logger.exception("Candidates could not be gathered", extra={"event": "gathering_failed", **self._who})

    async def _find_another(self, message: RestartPath) -> None:
        credentials = Credentials(
            local_username=message.local_username,
            local_password=message.local_password,
            remote_username=message.remote_username,
            remote_password=message.remote_password,
        )
        extra = {**self._who, "generation": message.generation}
        logger.info("Paths are sought anew", extra={"event": "ice_restarted", **extra})
        try:
            await self.agent.restart(credentials, self._restart_s, message.generation)
        except NeverConnected as error:
            if error.reason == "closed":
                return  # a newer restart has taken over, or the connection has ended
            logger.info(
                "No other path was found",
                extra={"event": "ice_restart_failed", **extra, "reason": error.reason, "detail": error.detail},
            )
            self._on_restarted(message.generation)
            self._failed({"ice": error.reason, "detail": error.detail, "generation": message.generation})
        except Exception:
            logger.exception("The search for another path failed", extra={"event": "path_search_failed", **extra})
            self._on_restarted(message.generation)
        else:
            self._on_restarted(message.generation)

    def _failed(self, evidence: dict[str, Any]) -> None:
        """A search found nothing. That is an end only if there is no path, and no other search."""
        if self.agent.path is None and len(self._searches) <= 1:
            self._on_failed(evidence)

    @property
    def _who(self) -> dict[str, str]:
        return {"connection": self._config.connection, "peer": self._config.peer}

    # --- what the peer is told ---

    def _on_candidate(self, candidate: str, generation: int) -> None:
        self._found.append((generation, candidate))
        self._tell_soon()

    def _on_withdrawn(self, candidate: str, generation: int) -> None:
        self._withdrawn.append((generation, candidate))
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        found, self._found = self._found, []
        withdrawn, self._withdrawn = self._withdrawn, []
        for generation in sorted({one for one, _ in (*found, *withdrawn)}):
            mine = [candidate for of, candidate in found if of == generation]
            gone = [candidate for of, candidate in withdrawn if of == generation]
            self._tell_of(generation, mine, gone)

    def _tell_of(self, generation: int, found: list[str], withdrawn: list[str]) -> None:
        candidates = [candidate for candidate in found if candidate]
        end = len(candidates) < len(found)
        for start in range(0, max(len(candidates), len(withdrawn), 1), MAX_CANDIDATES):
            stop = start + MAX_CANDIDATES
            is_last = stop >= len(candidates)
            self._say(
                IceCandidates(
                    connection=self._config.connection,
                    candidates=tuple(candidates[start:stop]),
                    end=end and is_last,
                    generation=generation,
                    withdrawn=tuple(withdrawn[start:stop]),
                )
            )


def ice_config(config: PeerConfig) -> IceConfig:
    """Return an agent's configuration for a connection."""
    excluded = frozenset(config.excluded_hosts)
    return IceConfig(
        role="controlling" if config.side == "client" else "controlled",
        local_username=config.local_username,
        local_password=config.local_password,
        remote_username=config.remote_username,
        remote_password=config.remote_password,
        servers=ice_servers(config.servers),
        lost_after_s=config.lost_after_s,
        consent_interval_s=min(CONSENT_INTERVAL_S, config.lost_after_s / 4),
        relay_only=config.relay_only,
        host_filter=lambda host: host not in excluded and not host.startswith(("127.", "::1", "fe80:")),
    )


def ice_servers(servers: tuple[RelayServer, ...]) -> tuple[IceServer, ...]:
    """Return what an agent asks for its addresses: each relay, and over UDP each relay's STUN server as well."""
    found: list[IceServer] = []
    for server in servers:
        if server.transport == "udp":
            found.append(IceServer(kind="stun", host=server.host, port=server.port))
        found.append(
            IceServer(
                kind="turn",
                host=server.host,
                port=server.port,
                transport=server.transport,
                username=server.username,
                password=server.password,
            )
        )
    return tuple(found)
