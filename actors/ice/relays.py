"""The relays of one session: allocated all at once, the nearest preferred, moved away from before they go.

A relay is told to the peer as soon as its server answers; its priority says how far it is, so that of two relays that
work the nearer one is nominated. Over TCP a relay comes after those over UDP, whatever the distance: below a tunnel TCP
retransmits what the flows inside retransmit too.

    asked for ──► allocated ──► in use ──┬─► lost: the candidate is withdrawn, the server asked again, ever less often
                                         └─► leaving: its server was taken off the list. The candidate is withdrawn, the
                                             path moves elsewhere, and only then the allocation is released
"""

import asyncio
import logging
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from aioice import stun

from .agent import Address, IceConfig, IceServer, RelayLoss
from .candidate import Candidate, foundation, ip_version, priority
from .relay import Relay

logger = logging.getLogger(__name__)

HIDDEN_V4: Address = ("0.0.0.0", 9)
"""A related address that tells nothing about us (RFC 9429 section 3.5.3)."""
HIDDEN_V6: Address = ("::", 9)
PREFERENCE_PER_MS = 8
MAX_DISTANCE = 0x3000
"""Steps of 1/8 ms; relays farther than 1.5 s are equally far."""
TCP_PREFERENCE_LOSS = 0x4000
DRAIN_S = 8.0
"""How long a path may take to move away from a relay that is leaving: checks and a nomination over a slow path."""
STRAGGLERS_S = 2.0
"""What the peer sent over it before it moved too."""
RELEASE_S = 2.0
ASK_AGAIN_S, ASK_AGAIN_LONGEST_S = 2.0, 60.0

Key = tuple[str, int, str]
"""What makes two entries the same relay: host, port, transport. Credentials change with time."""


class RelayUser(Protocol):
    """What hears of relays: the gathering of a session."""

    def take_relay(self, candidate: Callable[[int], Candidate], relay: Relay) -> int:
        """Use a relay; it answers with the id of the new base, which its candidate is made for."""
        ...

    def take_relay_leaving(self, base_id: int) -> None:
        """Choose it no more."""

    def take_relay_doubted(self, base_id: int) -> None:
        """Somebody says that its server is not there."""

    def take_relay_gone(self, base_id: int, reason: RelayLoss) -> None:
        """It is given up, or left."""

    def take_relayed(self, base_id: int, datagram: bytes, source: Address) -> None:
        """STUN, or something that was sent outside of channels, arrived through it."""

    def take_relayed_batch(
        self, base_id: int, buffer: memoryview, spans: "array[int]", source: Address, ecn: int
    ) -> None:
        """Data arrived through it."""

    def take_relay_outcome(self) -> None:
        """One more server has answered or failed."""


class Relays:
    """All of them, from the question to the release."""

    def __init__(
        self,
        config: IceConfig,
        user: RelayUser,
        *,
        counters: Counter[str],
        now: Callable[[], float],
        buffer: memoryview,
    ) -> None:
        self._config = config
        self._user = user
        self._counters = counters
        self._now = now
        self._buffer = buffer
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._asking_again: dict[Key, asyncio.Task[None]] = {}
        self._bases: dict[Key, int] = {}
        self._in_use: dict[int, Relay] = {}
        self._leaving: dict[int, asyncio.Event] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._seen_out: set[asyncio.Task[None]] = set()
        self._path_base: int | None = None

    @property
    def pending(self) -> int:
        """How many servers have not answered yet, apart from those that are asked again."""
        return len(self._asking)

    def ask(self, server: IceServer) -> None:
        """Ask a server for a relayed address; nothing if it was asked already."""
        key = _key(server)
        if key not in self._asking and key not in self._asking_again and key not in self._bases:
            self._start(self._asking, server, after_s=0.0)

    def _start(self, tasks: dict[Key, asyncio.Task[None]], server: IceServer, *, after_s: float) -> None:
        key = _key(server)

        def ended(task: asyncio.Task[None]) -> None:
            if tasks.get(key) is task:
                del tasks[key]
            self._user.take_relay_outcome()

        tasks[key] = asyncio.create_task(self._allocate(server, after_s))
        tasks[key].add_done_callback(ended)

    async def _allocate(self, server: IceServer, after_s: float) -> None:
        again_s = min(max(after_s * 2, ASK_AGAIN_S), ASK_AGAIN_LONGEST_S)
        base_id: int | None = None

        def received(data: bytes, source: Address) -> None:
            if base_id is not None:
                self._user.take_relayed(base_id, data, source)

        def received_batch(buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
            if base_id is not None:
                self._user.take_relayed_batch(base_id, buffer, spans, source, ecn)

        def lost() -> None:
            if base_id is not None and base_id in self._in_use:
                self._lose(server, base_id, again_s)

        def doubted() -> None:
            if base_id is not None and base_id in self._in_use:
                self._user.take_relay_doubted(base_id)

        await asyncio.sleep(after_s)
        while True:
            try:
                relay = await Relay.allocate(
                    server,
                    on_datagram=received,
                    on_datagrams=received_batch,
                    on_lost=lost,
                    on_doubted=doubted,
                    counters=self._counters,
                    now=self._now,
                    buffer=self._buffer,
                )
                break
            except (OSError, TimeoutError, stun.TransactionError) as error:
                self._counters["relay_not_allocated"] += 1
                logger.debug(
                    "A relay gave no address",
                    extra={"server": server.host, "transport": server.transport, "error": repr(error)},
                )
                if not after_s:
                    return
            await asyncio.sleep(again_s)
            again_s = min(again_s * 2, ASK_AGAIN_LONGEST_S)
        base_id = self._user.take_relay(lambda number: self._candidate(number, server, relay), relay)
        self._in_use[base_id] = relay
        self._bases[_key(server)] = base_id

    def _candidate(self, base_id: int, server: IceServer, relay: Relay) -> Candidate:
        host = relay.address[0]
        related = relay.mapped_address
        if self._config.relay_only:
            related = HIDDEN_V4 if ip_version(host) == 4 else HIDDEN_V6
        distance = min(int(relay.rtt_ms * PREFERENCE_PER_MS), MAX_DISTANCE)
        preference = 65535 - base_id - distance - (0 if server.transport == "udp" else TCP_PREFERENCE_LOSS)
        label = foundation("relay", host, server.host)
        return Candidate(label, priority("relay", preference), relay.address, "relay", related)

    def _lose(self, server: IceServer, base_id: int, again_s: float) -> None:
        self._counters["relay_lost"] += 1
        relay = self._in_use.pop(base_id)
        relay.abandon()
        leaving = self._leaving.get(base_id)
        if self._bases.get(_key(server)) == base_id:
            del self._bases[_key(server)]
        if leaving is not None:
            leaving.set()
        else:
            self._start(self._asking_again, server, after_s=again_s)
        self._user.take_relay_gone(base_id, "relay_silent" if relay.is_silent else "relay_lost")

    # Another list of servers

    def keep_only(self, servers: tuple[IceServer, ...]) -> None:
        """Stop asking, and leave, those that are not among these."""
        kept = {_key(server) for server in servers}
        for tasks in (self._asking, self._asking_again):
            for key in [key for key in tasks if key not in kept]:
                task = tasks.pop(key)
                task.cancel()  # it gives back what it may have been given
                self._see_out(task)
        for key in [key for key in self._bases if key not in kept]:
            base_id = self._bases.pop(key)
            moved = self._leaving[base_id] = asyncio.Event()
            self._user.take_relay_leaving(base_id)
            if base_id != self._path_base:
                moved.set()
            task = asyncio.create_task(self._drain(base_id, moved))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    def _see_out(self, task: asyncio.Task[None]) -> None:
        """Keep a task that takes leave of a server, until it has."""
        self._seen_out.add(task)
        task.add_done_callback(self._seen_out.discard)

    def note_path(self, base_id: int) -> None:
        """The path goes over this base from now on."""
        self._path_base = base_id
        for leaving, moved in self._leaving.items():
            if leaving != base_id:
                moved.set()

    async def _drain(self, base_id: int, moved: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await moved.wait()
            await asyncio.sleep(STRAGGLERS_S)
        except TimeoutError:
            self._counters["relay_left_with_path"] += 1
        del self._leaving[base_id]
        relay = self._in_use.pop(base_id, None)
        if relay is None:
            return
        self._user.take_relay_gone(base_id, "relay_lost")
        self._see_out(asyncio.create_task(self._release(relay)))

    async def _release(self, relay: Relay) -> None:
        try:
            async with asyncio.timeout(RELEASE_S):
                await relay.release()
        except TimeoutError:
            self._counters["relay_not_released"] += 1

    def close(self) -> set[asyncio.Task[None]]:
        """Ask nobody any more, and release what there is; return the tasks that do it."""
        tasks = {*self._asking.values(), *self._asking_again.values()} | self._draining
        for task in tasks:
            task.cancel()
        releases = {asyncio.create_task(relay.release()) for relay in self._in_use.values()}
        self._in_use.clear()
        self._bases.clear()
        return tasks | self._seen_out | releases


def _key(server: IceServer) -> Key:
    return server.host, server.port, server.transport
