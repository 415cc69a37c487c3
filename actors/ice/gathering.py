"""Gathering: this host's addresses, what STUN servers see of them, and relayed ones (RFC 8445 section 5.1.1).

All servers are asked at once and each candidate is reported when it is found (trickle, RFC 8838): checks start on the
host candidates, and a server that is slow or dead delays nobody. Waiting ends at a cap; asking goes on a little longer.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Protocol

from aioice import stun

from .agent import Address, IceConfig, IceServer
from .candidate import Candidate, foundation, ip_version, priority
from .check_list import Base
from .hosts import host_addresses, resolve
from .reflexive import ReflexiveFound, ReflexiveMissed, ReflexiveQueries
from .relay import Relay
from .sockets import HostBase, Sockets

logger = logging.getLogger(__name__)

HIDDEN_V4: Address = ("0.0.0.0", 9)
"""A related address that tells nothing about us (RFC 9429 section 3.5.3)."""
HIDDEN_V6: Address = ("::", 9)
TCP_PREFERENCE_LOSS = 0x4000
"""A relay over TCP comes after those over UDP: below a tunnel it retransmits what the flows inside retransmit too."""


class Session(Protocol):
    """What gathering reports to."""

    def take_base(self, base: Base) -> None:
        """A socket or relay is ready to check from."""

    def take_base_lost(self, base_id: int) -> None:
        """A relay is gone."""

    def take_reflexive(self, address: Address) -> None:
        """A STUN server sees us here."""

    def take_candidate(self, candidate: Candidate | None) -> None:
        """One candidate to tell the peer; None: that was the last."""

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        """STUN arrived at a local address."""

    def take_datagram(self, base_id: int, datagram: bytes, source: Address) -> None:
        """Something arrived at a base."""

    def pump(self) -> None:
        """There are questions to send in `queries`."""


class Gathering:
    """The bases and relays of one session, from opening to release."""

    def __init__(
        self,
        config: IceConfig,
        session: Session,
        sockets: Sockets,
        *,
        counters: Counter[str],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._session = session
        self._sockets = sockets
        self._counters = counters
        self._now = now
        self._bases: dict[int, Base] = {}
        self._offered: set[Address] = set()
        self._queried: set[tuple[int, Address]] = set()
        self._server_tasks: set[asyncio.Task[None]] = set()
        self._is_done = asyncio.Event()
        self._is_closed = False
        self.queries = ReflexiveQueries()
        self.channels: dict[int, HostBase | Relay] = {}
        """What to send with, by base."""
        self.hosts: dict[str, int] = {}
        """The bases of the shared sockets, by local address."""

    async def run(self) -> None:
        """Take this host's addresses, ask servers; return when all have answered, or after `gather_cap_s`."""
        if not self._config.relay_only:
            for host in host_addresses(self._config.host_filter):
                self._open_host(host)
        for server in self._config.servers:
            if server.kind == "stun" or server.transport == "udp":
                self._start(self._query(server))  # every TURN server answers Binding requests too
            if server.kind == "turn" and self._config.allow_relay:
                self._start(self._allocate(server))
        self._end_if_done()
        try:
            async with asyncio.timeout(self._config.gather_cap_s):
                await self._is_done.wait()
        except TimeoutError:
            self._counters["gather_capped"] += 1

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._server_tasks.add(task)
        task.add_done_callback(self._server_tasks.discard)
        task.add_done_callback(lambda _: self._end_if_done())

    def resume(self, host: str) -> int:
        """Send from a local address that a predecessor sent from. Raises ValueError if that cannot be."""
        self._open_host(host)
        if host not in self.hosts:
            raise ValueError("there is no socket for the address of the pair to resume")
        return self.hosts[host]

    def _open_host(self, host: str) -> None:
        if host in self.hosts:
            return
        base_id = len(self._bases)
        try:
            base = self._sockets.base(host, self._session)
        except OSError:
            self._counters["host_not_bound"] += 1
            return
        self.hosts[host] = base_id
        preference = 65535 - base_id
        candidate = Candidate(foundation("host", host), priority("host", preference), base.address, "host")
        self._add_base(Base(base_id, candidate), base)

    async def _query(self, server: IceServer) -> None:
        try:
            addresses = await resolve(server.host, server.port)
        except OSError:
            self._counters["server_not_resolved"] += 1
            return
        for base in list(self._bases.values()):
            if base.candidate.type != "host":
                continue
            version = ip_version(base.candidate.address[0])
            address = next((a for a in addresses if ip_version(a[0]) == version), None)
            if address is not None and (base.id, address) not in self._queried:
                self._queried.add((base.id, address))
                self.queries.handle_query(base.id, address, self._now())
        self._session.pump()

    async def _allocate(self, server: IceServer) -> None:
        base_id: int | None = None

        def received(data: bytes, source: Address) -> None:
            if base_id is not None:
                self._session.take_datagram(base_id, data, source)

        def lost() -> None:
            if base_id is not None:
                self._lose_relay(base_id)

        try:
            relay = await Relay.allocate(
                server, on_datagram=received, on_lost=lost, counters=self._counters, now=self._now
            )
        except (OSError, TimeoutError, stun.TransactionError) as error:
            self._counters["relay_not_allocated"] += 1
            logger.debug(
                "A relay gave no address",
                extra={"server": server.host, "transport": server.transport, "error": repr(error)},
            )
            return
        base_id = len(self._bases)
        host = relay.address[0]
        related = relay.mapped_address
        if self._config.relay_only:
            related = HIDDEN_V4 if ip_version(host) == 4 else HIDDEN_V6
        # Among relays UDP comes first: TCP below a tunnel retransmits what the flows inside retransmit too.
        preference = 65535 - base_id - (0 if server.transport == "udp" else 0x4000)
        candidate = Candidate(
            foundation("relay", host, server.host),
            priority("relay", preference),
            relay.address,
            "relay",
            related,
        )
        self._add_base(Base(base_id, candidate), relay)

    def _add_base(self, base: Base, channel: HostBase | Relay) -> None:
        self._bases[base.id] = base
        self.channels[base.id] = channel
        self._offer(base.candidate)
        self._session.take_base(base)

    def _offer(self, candidate: Candidate) -> None:
        if candidate.address not in self._offered:  # RFC 8445 section 5.1.3: redundant otherwise
            self._offered.add(candidate.address)
            self._session.take_candidate(candidate)

    def take_answer(self, answer: ReflexiveFound | ReflexiveMissed) -> None:
        """Take what a STUN server answered, or that it did not."""
        if isinstance(answer, ReflexiveFound):
            self._take_reflexive(answer)
        self._end_if_done()

    def _take_reflexive(self, found: ReflexiveFound) -> None:
        base = self._bases[found.base_id].candidate
        self._session.take_reflexive(found.mapped)
        label = foundation("srflx", base.address[0], found.server[0])
        preference = 65535 - found.base_id
        self._offer(Candidate(label, priority("srflx", preference), found.mapped, "srflx", base.address))

    def _end_if_done(self) -> None:
        if self._server_tasks or len(self.queries) or self._is_done.is_set() or self._is_closed:
            return
        self._is_done.set()
        self._session.take_candidate(None)

    def _lose_relay(self, base_id: int) -> None:
        self._counters["relay_lost"] += 1
        self.channels.pop(base_id, None)
        self._session.take_base_lost(base_id)

    async def close(self, timeout_s: float) -> None:
        """Release relays, close sockets, end every task; within `timeout_s`."""
        self._is_closed = True
        self._is_done.set()
        releases: set[asyncio.Task[None]] = set()
        for channel in self.channels.values():
            if isinstance(channel, Relay):
                releases.add(asyncio.create_task(channel.release()))
        self.channels.clear()
        self.hosts.clear()
        servers = set(self._server_tasks)
        for task in servers:
            task.cancel()
        await _end_all(servers | releases, timeout_s, self._counters)


async def _end_all(tasks: set[asyncio.Task[None]], timeout_s: float, counters: Counter[str]) -> None:
    """Wait for the tasks, cancel what is left at the deadline, and see that they have ended."""
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, timeout=timeout_s)
    finally:
        for task in tasks:
            if not task.done():
                counters["relay_not_released"] += 1
                task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
