"""One ICE session with its bases, relays and clock: the shell around `IceMachine`.

Everything that the machine says is done here at once: datagrams are sent, facts become callbacks, and one timer is
set for the next moment that it names. A restart makes a new session; `IceAgent` holds the one in use.
"""

import asyncio
import random
import secrets
from array import array
from collections import Counter
from collections.abc import Callable

from . import binding
from .agent import (
    Address,
    Credentials,
    IceConfig,
    IceServer,
    Lost,
    NeverConnected,
    NeverReason,
    Path,
    RelayLoss,
    Route,
)
from .candidate import Candidate
from .channel_burst import CHANNEL_HEADER, is_channel_data
from .check_list import Base
from .clock import PUT_OFF_S, SessionClock
from .gathering import Gathering
from .machine import IceMachine
from .messages import AddressProven, Event, PathBroken, PathLost, PathSelected
from .packing import Role
from .reflexive import ReflexiveMemory, ReflexiveQueries
from .relay import Relay
from .reports import NOBODY, SessionCallbacks
from .snapshot import Snapshot
from .sockets import HostBase, Sockets


class IceConnection(SessionClock):
    """One session: `gather` and `connect` may run side by side; `close` ends both."""

    def __init__(
        self,
        config: IceConfig,
        credentials: Credentials,
        callbacks: SessionCallbacks,
        sockets: Sockets,
        *,
        generation: int,
        memory: ReflexiveMemory,
        counters: Counter[str],
        now: Callable[[], float],
        rng: random.Random,
        role: Role | None = None,
    ) -> None:
        self.generation = generation
        self._config = config
        self._callbacks = callbacks
        self._counters = counters
        machine = IceMachine(
            role=role or Role(config.role == "controlling", secrets.randbits(64)),
            credentials=credentials,
            consent_interval_s=config.consent_interval_s,
            lost_after_s=config.lost_after_s,
            rng=rng,
            counters=counters,
        )
        self._credentials = credentials
        self._fragment = credentials.local_username
        sockets.table.add_session(self._fragment, self)
        self._gathering = Gathering(config, self, sockets, memory=memory, counters=counters, now=now)
        super().__init__(machine, self._gathering.queries, sockets, now)
        self._outcome: asyncio.Future[Path] | None = None
        self._is_lost = False
        self.path: Path | None = None

    async def gather(self) -> None:
        """Find local candidates; return when all servers have answered or given up, or after `gather_cap_s`."""
        await self._gathering.run()

    # What gathering found

    def take_base(self, base: Base) -> None:
        """Check from another socket or relay too."""
        self._machine.handle_base(base, self._now())
        self.pump()

    def take_reflexive(self, address: Address) -> None:
        """An address of ours as a STUN server sees it."""
        self._machine.handle_reflexive(address)

    def take_candidate(self, candidate: Candidate | None) -> None:
        """Tell the peer one more candidate, or that there are no more."""
        self._callbacks.on_candidate("" if candidate is None else candidate.to_sdp(), self.generation)
        if candidate is None:
            self._machine.handle_local_end(self._now())
            self.pump()

    def take_base_leaving(self, base_id: int) -> None:
        """A relay will go soon."""
        self._machine.handle_base_leaving(base_id, self._now())
        self.pump()

    def take_base_doubted(self, base_id: int) -> None:
        """A relay may be gone: see what else works, if the path leads through it."""
        pair = self._asleep.selected
        if pair is not None and pair.base.id == base_id:
            self._machine.handle_hint(self._now())
            self.pump()

    def take_withdrawn(self, candidate: Candidate) -> None:
        """Tell the peer that a candidate does not work any more."""
        self._callbacks.on_withdrawn(candidate.to_sdp(), self.generation)

    def set_servers(self, servers: tuple[IceServer, ...]) -> None:
        """The list of servers has changed."""
        self._gathering.set_servers(servers)

    def take_base_lost(self, base_id: int, reason: RelayLoss) -> None:
        """A relay is given up."""
        self._machine.handle_base_lost(base_id, reason, self._now())
        self.pump()

    # Finding and keeping the path

    def add_remote_candidate(self, candidate: Candidate | None) -> None:
        """Take a candidate of the peer; None: there are no more."""
        if candidate is None:
            self._machine.handle_remote_end(self._now())
        else:
            self._machine.handle_remote_candidate(candidate, self._now())
        self.pump()

    def withdraw_remote_candidate(self, candidate: Candidate) -> None:
        """Move away from a candidate that the peer has taken back."""
        self._machine.handle_remote_withdrawn(candidate, self._now())
        self.pump()

    async def connect(self, timeout_s: float) -> Path:
        """Check until a pair is agreed on. Raises NeverConnected."""
        if self._is_closed or self._is_lost:
            raise NeverConnected("closed")
        if self.path is not None:
            return self.path
        if self._outcome is None:
            self._outcome = self._loop.create_future()
        self._machine.handle_start(self._now())
        self.pump()
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._outcome)
        except TimeoutError:
            raise self._never_connected("timed_out") from None

    def resume(self, snapshot: Snapshot) -> None:
        """Go on where a predecessor was. Raises ValueError if the sockets do not allow it."""
        self._machine.handle_resume(self._gathering.resume(snapshot.host), snapshot, self._now())
        pair = self._asleep.selected
        self.path = None if pair is None else pair.path
        self._loop.call_soon(self.pump)

    def snapshot(self) -> Snapshot | None:
        """Return what a successor needs; None unless a path over the shared sockets is up."""
        pair = self._asleep.selected
        if pair is None or not isinstance(self._gathering.channels.get(pair.base.id), HostBase):
            return None
        role = self._asleep.role
        return Snapshot(
            generation=self.generation,
            local_username=self._credentials.local_username,
            local_password=self._credentials.local_password,
            remote_username=self._credentials.remote_username,
            remote_password=self._credentials.remote_password,
            controlling=role.controlling,
            tie_breaker=role.tie_breaker,
            host=pair.base.candidate.address[0],
            local_type=pair.local_type,
            remote=pair.remote,
            remotes=tuple(self._asleep.remotes),
            rtt_ms=pair.rtt_ms,
            last_alive=self._informed.last_alive,
        )

    def route(self) -> Route | None:
        """Say how somebody else could send on the path in use."""
        pair = self._asleep.selected
        channel = self._gathering.channels.get(pair.base.id) if pair is not None else None
        if pair is None or channel is None:
            return None
        if isinstance(channel, HostBase):
            return channel.route(pair.remote.address)
        return channel.route(f"relay-{self.generation}.{pair.base.id}", pair.remote.address)

    def channel_descriptor(self, channel: str) -> int | None:
        """Return the descriptor of a channel that `route` named."""
        pair, route = self._asleep.selected, self.route()
        if pair is None or route is None or route.channel != channel:
            return None
        return self._gathering.channels[pair.base.id].descriptor()

    def send(self, datagram: bytes | memoryview) -> None:
        """Send on the selected pair, or drop."""
        pair = self._asleep.selected
        channel = self._gathering.channels.get(pair.base.id) if pair is not None else None
        if pair is None or channel is None:
            self._counters["send_without_path"] += 1
            return
        channel.sendto(datagram, pair.remote.address)
        self.note_sent(self._now())

    @property
    def channel(self) -> int | None:
        """The channel of a relay that a train's datagrams may bear the headers of; None: they bear none."""
        pair = self._asleep.selected
        channel = self._gathering.channels.get(pair.base.id) if pair is not None else None
        return channel.channel(pair.remote.address) if pair is not None and isinstance(channel, Relay) else None

    def send_train(self, train: memoryview, stride: int, ecn: int) -> int:
        """Send a train on the selected pair, or drop it; return how many datagrams went."""
        pair = self._asleep.selected
        channel = self._gathering.channels.get(pair.base.id) if pair is not None else None
        if pair is None or channel is None:
            self._counters["send_without_path"] += -(-len(train) // stride)
            return 0
        there = pair.remote.address
        if isinstance(channel, HostBase) and is_channel_data(train[0]):  # sealed for a relay that was left just now
            pieces = (train[at + CHANNEL_HEADER.size : at + stride] for at in range(0, len(train), stride))
            sent = sum(channel.sendto(piece, there) for piece in pieces)
        else:
            sent = channel.send_train(train, stride, there, ecn)
        self.note_sent(self._now())
        return sent

    def note_sent(self, at: float) -> None:
        """Data was sent on the selected pair."""
        if self._machine.handle_sent(at):
            self._set_timer()

    def note_alive(self, at: float | None = None) -> None:
        """An authenticated packet arrived, now or then."""
        self._machine.handle_alive(self._now() if at is None else at)

    def note_alive_from(self, base: int | str, source: Address) -> None:
        """An authenticated packet arrived: at a base or a local address of the shared sockets, from somewhere."""
        base_id = self._gathering.hosts.get(base) if isinstance(base, str) else base
        pair = self._asleep.selected
        if base_id is None or pair is None or (source == pair.remote.address and base_id == pair.base.id):
            self._machine.handle_alive(self._now())
        else:
            self._machine.handle_stray(base_id, source, self._now())
            self.pump()

    def take_unreachable(self, destination: Address, *, refused: bool) -> None:
        """Somebody says that a destination cannot be reached: see whether that is true, if it is the selected one."""
        pair = self._asleep.selected
        if pair is not None and pair.remote.address == destination:
            self._counters["path_refused" if refused else "path_unreachable"] += 1
            self.hint(urgent=True)

    def take_stun(self, host: str, datagram: bytes, source: Address) -> None:
        """Take STUN that arrived at a local address."""
        base_id = self._gathering.hosts.get(host)
        channel = None if base_id is None else self._gathering.channels.get(base_id)
        if base_id is None or channel is None:
            self._counters["stun_to_other_address"] += 1
        elif not self._is_closed:
            now = self._now()
            answer = self._machine.answer_consent(base_id, datagram, source, now)
            if answer is None:
                self.take_datagram(base_id, datagram, source)
            else:
                channel.sendto(answer, source)
                if isinstance(channel, HostBase):
                    self._rest(channel)
                if self._answerer is None and self._timer_at - now < PUT_OFF_S:
                    self._put_off(now)

    @property
    def watches(self) -> bool:
        """Whether `on_quiet` will tell when the peer has not been heard any more for a while."""
        return not self._is_closed and self._informed.watches(self._now())

    @property
    def last_alive(self) -> float | None:
        """When the peer last gave an authenticated sign of life; None: never."""
        return self._informed.last_alive

    def tell_quiet(self) -> None:
        """The peer has not been heard for a while."""
        self._callbacks.on_quiet(self)

    def hint(self, *, urgent: bool) -> None:
        """Something says that the network changed: check the path now, and our relay if it leads through one."""
        pair = self._asleep.selected
        channel = self._gathering.channels.get(pair.base.id) if pair is not None else None
        if isinstance(channel, Relay):
            channel.question()
        self._machine.handle_hint(self._now(), urgent=urgent)
        self.pump()

    def take_datagram(self, base_id: int, datagram: bytes, source: Address) -> None:
        """Take a datagram from a socket or relay: data goes up, STUN goes to whom it concerns."""
        if not binding.is_stun(datagram):
            self.take_batch(base_id, memoryview(bytearray(datagram)), array("I", (0, len(datagram))), source, 0)
            return
        if self._is_closed:
            return
        now = self._now()
        changed = self._queries.handle_response(base_id, datagram, source, now)
        if changed or self._machine.handle_datagram(base_id, datagram, source, now):
            self.pump()
        else:
            self._transmit(self._asleep)
        if self._asleep.is_controlling:
            self._put_off(self._now())

    def take_batch(self, base_id: int, buffer: memoryview, spans: "array[int]", source: Address, ecn: int) -> None:
        """Take data from a relay."""
        self._callbacks.on_batch(base_id, buffer, spans, source, ecn)

    def _never_connected(self, reason: NeverReason) -> NeverConnected:
        pairs = self._machine.pairs
        answered = sum(pair.valid_since is not None for pair in pairs)
        bases = len(self._gathering.channels)
        detail = f"{bases} local addresses, {len(pairs)} pairs checked, {answered} of them answered"
        return NeverConnected(reason, detail)

    # The machine's outputs

    def pump(self) -> None:
        """Do everything that the machines have to say, and set the timer."""
        if self._is_closed:
            return
        self._transmit(self._queries)
        self._transmit(self._asleep)
        while (answer := self._queries.poll_event()) is not None:
            self._gathering.take_answer(answer)
        while (event := self._machine.poll_event()) is not None:
            self._report(event)
        self._set_timer()

    def _transmit(self, source: IceMachine | ReflexiveQueries) -> None:
        while (transmit := source.poll_transmit()) is not None:
            channel = self._gathering.channels.get(transmit.base_id)
            if channel is not None:
                channel.ask(transmit.payload, transmit.destination)

    def _report(self, event: Event) -> None:
        outcome = self._outcome
        if isinstance(event, PathSelected):
            self.path = event.path
            pair = self._asleep.selected
            if pair is not None:
                self._gathering.note_path(pair.base.id)
            if outcome is not None and not outcome.done():
                outcome.set_result(event.path)
            self._callbacks.on_path(self, event.path)
        elif isinstance(event, PathBroken):
            self._callbacks.on_broken(self, event.reason)
        elif isinstance(event, PathLost):
            self.path = None
            self._is_lost = True
            self._callbacks.on_lost(self, Lost(event.reason, event.last_seen_s_ago))
        elif isinstance(event, AddressProven):
            self._callbacks.on_proven(event.address)
        elif outcome is not None and not outcome.done():
            outcome.set_exception(self._never_connected(event.reason))
            outcome.exception()  # retrieved: nobody may be waiting any more

    # The end

    async def close(self, timeout_s: float) -> None:
        """Release relays, close sockets, end every task; within `timeout_s`."""
        if self._is_closed:
            return
        self._is_closed = True
        self.end_rest()
        self._sockets.table.remove_session(self._fragment, self)
        self.path = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(NeverConnected("closed"))
            self._outcome.exception()  # retrieved: nobody may be waiting any more
        await self._gathering.close(timeout_s)
        self._callbacks = NOBODY  # the demultiplexer knows the session for a while; it must not keep its owner
