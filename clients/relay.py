"""The relay's sockets: what `exeunt.actors.turn.Server` decides, done with UDP on an asyncio loop.

One socket per address family talks to clients (four where NAT behaviour discovery is served, see
`exeunt.clients.relay_listeners`), one per allocation to its peers. The loop watches plain
sockets instead of datagram transports, because a relay must *drop* what a full socket does not take (a
transport would queue it without bound), and because an error of one ``sendto`` (an unreachable network, a
refused port) says something about one peer only: it is counted, and the allocation lives.
"""

import asyncio
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from exeunt.actors.ice.ancillary import ANCILLARY_BYTES, arrival_of
from exeunt.actors.turn import (
    AllocationClosed,
    AllocationOpened,
    Event,
    Listener,
    RelayedPortChosen,
    Server,
    Transmit,
)

from .relay_config import RelayConfig, RelayStartError, settings_for
from .relay_listeners import Listeners
from .relay_sockets import Address, address_of, allow_sockets, errno_name, family_of, udp_socket
from .relay_trains import runs, send_run

__all__ = ["Relay", "RelayConfig", "RelayStartError", "serve", "serve_until"]

log = logging.getLogger(__name__)

DATAGRAMS_PER_WAKE = 64  # enough to spare the loop its overhead and to make up trains, few enough to be fair to others
MAX_DATAGRAM_BYTES = 65_535
OTHER_DESCRIPTORS = 64  # listeners, the loop's own, logs
CLOCK_INTERVAL_S = 30.0  # how soon a corrected calendar is noticed; credentials live for minutes at least


class Relay:
    """A running relay. Made by `serve`; lives on the loop that made it until `close`."""

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._errors: Counter[str] = Counter()
        self._relayed: dict[int, socket.socket] = {}
        self._buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        try:
            self._listening = Listeners(config)
        except ValueError as error:
            raise RelayStartError(str(error)) from error
        try:
            settings = settings_for(config, self._listening.primary, self._listening.origins)
        except (ValueError, RelayStartError) as error:
            self._listening.close()
            raise RelayStartError(str(error)) from error
        now = time.monotonic()
        self._server = Server(settings, random.SystemRandom(), os.urandom(32), now, time.time())
        for listener, listening in self._listening:
            self._loop.add_reader(listening, self._read_clients, listener, listening)
        self._clock = self._loop.call_later(CLOCK_INTERVAL_S, self._tell_clock)

    @property
    def listening(self) -> tuple[Address, ...]:
        """Where clients reach it, with the ports that were really bound."""
        return tuple(address_of(each) for each in self._listening.primary.values())

    @property
    def other_listening(self) -> tuple[Address, ...]:
        """The second address of each family that has one."""
        return tuple(each.other for each in self._listening.origins)

    @property
    def allocations(self) -> int:
        """How many allocations there are now."""
        return len(self._relayed)

    @property
    def counters(self) -> dict[str, int]:
        """Totals since the start, those of the sockets' errors among them (``error_…``)."""
        totals = {name: getattr(self._server.counters, name) for name in self._server.counters.__slots__}
        return totals | {f"error_{name}": count for name, count in sorted(self._errors.items())}

    def close(self) -> None:
        """Leave: every allocation ends, every socket is closed. Closing twice is fine."""
        self._server.handle_close(time.monotonic())
        self._drain()
        self._clock.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for _, listening in self._listening:
            self._loop.remove_reader(listening)
        self._listening.close()
        for relayed in self._relayed.values():
            relayed.close()

    # Reading

    def _read_clients(self, listener: Listener, listening: socket.socket) -> None:
        """Data is relayed when all has been read, so that it goes in trains. But what a datagram brought about is done
        before the next one: who asks for an allocation and takes leave of it in one breath must find it open.
        """
        now = time.monotonic()
        for data, source in self._received(listening):
            self._server.handle_datagram(data, source, now, listener)
            if self._server.has_events:
                self._drain()
        self._drain()

    def _read_peers(self, allocation: int, relayed: socket.socket) -> None:
        now = time.monotonic()
        for data, source in self._received(relayed):
            self._server.handle_relayed(data, allocation, source, now)
        self._drain()

    def _received(self, source: socket.socket) -> list[tuple[bytes, Address]]:
        received: list[tuple[bytes, Address]] = []
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                size, ancillary, _, address = source.recvmsg_into((self._buffer,), ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError as error:  # an ICMP error that the kernel kept for us: it concerns one peer
                self._count(error)
                continue
            data, sender = bytes(self._buffer[:size]), (address[0], address[1])
            each = arrival_of(tuple(ancillary)).segment or size
            received.extend((data[at : at + each], sender) for at in range(0, max(size, 1), max(each, 1)))
            if len(received) >= DATAGRAMS_PER_WAKE:
                break
        return received

    # Doing what the machine says

    def _drain(self) -> None:
        """Send and do everything; an event's answer may lead to more of both."""
        while True:
            for run in runs(iter(self._server.poll_transmit, None)):
                self._send(run)
            event = self._server.poll_event()
            if event is None:
                break
            self._obey(event)
        self._set_timer()

    def _send(self, run: list[Transmit]) -> None:
        first = run[0]
        if first.allocation is None:
            through = self._listening.find(family_of(first.destination[0]), first.listener)
        else:
            through = self._relayed.get(first.allocation)
        if through is not None:
            send_run(through, [each.data for each in run], first.destination, self._count)

    def _obey(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, RelayedPortChosen):
            if self._open(event):
                self._server.handle_port_opened(event.allocation, now)
            else:
                self._server.handle_port_refused(event.allocation, now)
        elif isinstance(event, AllocationOpened):
            log.info("A relay allocation was opened", extra=msgspec.structs.asdict(event))
        else:
            self._closed(event)

    def _open(self, chosen: RelayedPortChosen) -> bool:
        family = socket.AF_INET if chosen.family == 4 else socket.AF_INET6
        try:
            relayed = udp_socket((self._relaying_host(family), chosen.port))
        except OSError as error:
            self._count(error)
            return False
        self._relayed[chosen.allocation] = relayed
        self._loop.add_reader(relayed, self._read_peers, chosen.allocation, relayed)
        return True

    def _relaying_host(self, family: socket.AddressFamily) -> str:
        """Answer where relayed ports are bound: not at the public address, which may be a NAT's."""
        if family in self._listening.primary:
            return address_of(self._listening.primary[family])[0]
        return "0.0.0.0" if family == socket.AF_INET else "::"

    def _closed(self, event: AllocationClosed) -> None:
        relayed = self._relayed.pop(event.allocation, None)
        if relayed is not None:
            self._loop.remove_reader(relayed)
            relayed.close()
        log.info("A relay allocation was closed", extra=msgspec.structs.asdict(event))

    def _count(self, error: OSError) -> None:
        self._errors[errno_name(error)] += 1

    # Time

    def _set_timer(self) -> None:
        timeout = self._server.poll_timeout()
        when = None if timeout is None else timeout[0]
        if when == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = None
        if when is not None:
            self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer_at = None
        self._server.handle_timeout(time.monotonic())
        self._drain()

    def _tell_clock(self) -> None:
        self._server.handle_clock(time.monotonic(), time.time())
        self._clock = self._loop.call_later(CLOCK_INTERVAL_S, self._tell_clock)


async def serve(config: RelayConfig) -> Relay:
    """Start a relay on the running loop. Raises `RelayStartError`."""
    return Relay(config)


async def serve_until(stop: asyncio.Event, config: RelayConfig, ready: Callable[[], None]) -> None:
    """Run a relay until ``stop`` is set; ``ready`` is called once clients can reach it.

    Raises:
        RelayStartError: it can't start.
    """
    if (sockets := allow_sockets(config.max_allocations + OTHER_DESCRIPTORS)) < config.max_allocations:
        log.warning("This process may open fewer sockets than allocations", extra={"sockets": sockets})
    relay = await serve(config)
    try:
        log.info("Relay is ready", extra={"ports": [port for _host, port in relay.listening]})
        ready()
        await stop.wait()
    finally:
        served = relay.counters
        relay.close()
        log.info("Relay has left", extra=served)
