"""Gathering: this host's addresses, what STUN servers see of them, and relayed ones (RFC 8445 section 5.1.1).

All servers are asked at once and each candidate is reported when it is found (trickle, RFC 8838): checks start on the
host candidates, and a server that is slow or dead delays nobody. Waiting ends at a cap; asking goes on longer, and what
is found after the end of candidates is a candidate too.

Where no STUN server has answered in time, but a relay has, we know the NAT's address and not our port there. Most NATs
keep the port if it is free, so the same port is offered: a guess, which costs a pair if it is wrong, and is all there
is if the server has died.
"""

import asyncio
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Protocol

from .agent import Address, IceConfig, IceServer, RelayLoss
from .candidate import Candidate, foundation, ip_version, priority
from .check_list import Base
from .hosts import host_addresses, resolve
from .reflexive import ReflexiveFound, ReflexiveMemory, ReflexiveMissed, ReflexiveQueries
from .relay import Relay
from .relays import Relays
from .sockets import HostBase, Sockets


class Session(Protocol):
    """What gathering reports to."""

    def take_base(self, base: Base) -> None:
        """A socket or relay is ready to check from."""

    def take_base_leaving(self, base_id: int) -> None:
        """A relay will be gone soon."""

    def take_base_doubted(self, base_id: int) -> None:
        """A relay may be gone."""

    def take_base_lost(self, base_id: int, reason: RelayLoss) -> None:
        """A relay is given up."""

    def take_reflexive(self, address: Address) -> None:
        """A STUN server sees us here."""

    def take_candidate(self, candidate: Candidate | None) -> None:
        """One candidate to tell the peer; None: that was the last."""

    def take_withdrawn(self, candidate: Candidate) -> None:
        """A candidate to take back."""

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        """STUN arrived at a local address."""

    def take_datagram(self, base_id: int, datagram: bytes, source: Address) -> None:
        """Something arrived at a base."""

    def take_batch(self, base_id: int, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Data arrived at a base."""

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
        memory: ReflexiveMemory,
        counters: Counter[str],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._session = session
        self._sockets = sockets
        self._memory = memory
        self._counters = counters
        self._now = now
        self._bases: dict[int, Base] = {}
        self._offered: tuple[Address, ...] = ()  # a set has 200 bytes, and these have a few elements
        self._queried: tuple[tuple[int, Address], ...] = ()
        self._unseen: tuple[int, ...] = ()
        """The bases of which some STUN server has not told in time how it sees them."""
        self._public_hosts: tuple[str, ...] = ()
        """The NAT's addresses, as relays saw them, also those that have gone since."""
        self._server_tasks: set[asyncio.Task[None]] = set()
        self._relays = Relays(config, self, counters=counters, now=now, buffer=sockets.buffer)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # an event has 800 bytes
        self._servers = config.servers
        self._has_begun = False
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
        self._has_begun = True
        self._ask(self._servers)
        self._end_if_done()
        await asyncio.wait({self._done}, timeout=self._config.gather_cap_s)
        if not self._done.done():
            self._counters["gather_capped"] += 1

    def _ask(self, servers: tuple[IceServer, ...]) -> None:
        for server in servers:
            if server.kind == "stun" or server.transport == "udp":
                self._start(self._query(server))  # every TURN server answers Binding requests too
            if server.kind == "turn" and self._config.allow_relay:
                self._relays.ask(server)

    def set_servers(self, servers: tuple[IceServer, ...]) -> None:
        """Ask servers that are new, and leave the relays that are not listed any more."""
        self._servers = servers
        self._relays.keep_only(tuple(server for server in servers if server.kind == "turn"))
        if self._has_begun:
            self._ask(servers)

    def note_path(self, base_id: int) -> None:
        """The path goes over this base from now on."""
        self._relays.note_path(base_id)

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
        for server, mapped in self._memory.of(host):
            self._offer_reflexive(base_id, server, mapped)

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
                self._queried += ((base.id, address),)
                self.queries.handle_query(base.id, address, self._now())
        self._session.pump()

    # What relays say

    def take_relay(self, candidate: Callable[[int], Candidate], relay: Relay) -> int:
        """Use a relay."""
        base_id = len(self._bases)
        self._add_base(Base(base_id, candidate(base_id)), relay)
        if relay.mapped_address[0] not in self._public_hosts:
            self._public_hosts += (relay.mapped_address[0],)
        self._guess()
        return base_id

    def take_relay_leaving(self, base_id: int) -> None:
        """Choose a relay no more, and tell the peer."""
        self._withdraw(base_id)
        self._session.take_base_leaving(base_id)

    def take_relay_doubted(self, base_id: int) -> None:
        """A relay may be gone."""
        self._session.take_base_doubted(base_id)

    def take_relay_gone(self, base_id: int, reason: RelayLoss) -> None:
        """A relay is given up; tell the peer, unless that was done when it began to leave."""
        self._withdraw(base_id)
        self.channels.pop(base_id, None)
        self._session.take_base_lost(base_id, reason)

    def take_relayed(self, base_id: int, datagram: bytes, source: Address) -> None:
        """Something arrived through a relay."""
        if not self._is_closed:
            self._session.take_datagram(base_id, datagram, source)

    def take_relayed_batch(
        self, base_id: int, buffer: memoryview, spans: "array[int]", source: Address, ecn: int
    ) -> None:
        """Data arrived through a relay."""
        if not self._is_closed:
            self._session.take_batch(base_id, buffer, spans, source, ecn)

    def take_relay_outcome(self) -> None:
        """One more server has answered or failed."""
        self._end_if_done()

    def _withdraw(self, base_id: int) -> None:
        candidate = self._bases[base_id].candidate
        if candidate.address in self._offered:
            self._offered = tuple(one for one in self._offered if one != candidate.address)
            self._session.take_withdrawn(candidate)

    def _add_base(self, base: Base, channel: HostBase | Relay) -> None:
        self._bases[base.id] = base
        self.channels[base.id] = channel
        self._offer(base.candidate)
        self._session.take_base(base)

    def _offer(self, candidate: Candidate) -> None:
        if candidate.address not in self._offered:  # RFC 8445 section 5.1.3: redundant otherwise
            self._offered += (candidate.address,)
            self._session.take_candidate(candidate)

    def take_answer(self, answer: ReflexiveFound | ReflexiveMissed) -> None:
        """Take what a STUN server answered, or that it did not."""
        if isinstance(answer, ReflexiveFound):
            self._take_reflexive(answer)
        else:
            if answer.base_id not in self._unseen:
                self._unseen += (answer.base_id,)
            self._guess()
        self._end_if_done()

    def _take_reflexive(self, found: ReflexiveFound) -> None:
        self._memory.remember(self._bases[found.base_id].candidate.address[0], found.server[0], found.mapped)
        self._offer_reflexive(found.base_id, found.server[0], found.mapped)

    def _guess(self) -> None:
        """Offer our own port at the NAT's address for the bases that nobody has told us of."""
        for base_id, public_host in itertools.product(self._unseen, self._public_hosts):
            host, port = self._bases[base_id].candidate.address
            if ip_version(host) == ip_version(public_host) and not self._memory.of(host):
                self._memory.remember(host, "", (public_host, port))
                self._offer_reflexive(base_id, "", (public_host, port))

    def _offer_reflexive(self, base_id: int, server: str, mapped: Address) -> None:
        base = self._bases[base_id].candidate
        self._session.take_reflexive(mapped)
        label = foundation("srflx", base.address[0], server)
        self._offer(Candidate(label, priority("srflx", 65535 - base_id), mapped, "srflx", base.address))

    def _end_if_done(self) -> None:
        if self._is_closed or self._done.done():
            return
        if self._server_tasks or self._relays.pending or len(self.queries):
            return
        self._done.set_result(None)
        self._session.take_candidate(None)

    async def close(self, timeout_s: float) -> None:
        """Release relays, close sockets, end every task; within `timeout_s`."""
        self._is_closed = True
        if not self._done.done():
            self._done.set_result(None)
        tasks = self._server_tasks | self._relays.close()
        self.channels.clear()
        self.hosts.clear()
        for task in self._server_tasks:
            task.cancel()
        await _end_all(tasks, timeout_s, self._counters)
        del self._session, self._relays  # they know each other: what is over need not wait for the collector


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
