"""Two connections, a wire between them that can lose and delay, and a clock that moves only when told."""

import heapq
import itertools
import random
from array import array
from collections.abc import Callable

from exeunt.actors.batch.contract import OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.peer.events import Connected, Ended, Event, PongReceived
from exeunt.actors.peer.machine import Connection
from exeunt.actors.peer.states import TRANSITIONS, State
from exeunt.actors.wireguard import Limits, PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import SIDES, Side, public_key

PRIVATE_KEYS: dict[Side, bytes] = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}


def other(side: Side) -> Side:
    return "gateway" if side == "client" else "client"


def counting(seed: int) -> Callable[[], bytes]:
    """Identifiers that are never zero, and differ between the sides."""
    count = itertools.count(1)
    return lambda: bytes([seed]) + next(count).to_bytes(7, "big")


def reachable_from(state: State) -> set[State]:
    """Return the states that the table leads to from this one, itself among them."""
    found: set[State] = set()
    todo: list[State] = [state]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo.extend(TRANSITIONS[one].values())
    return found


class ConnectionPair:
    """Order is kept; each datagram takes half of `rtt_ms`. `carried` has all that were sent, also the lost."""

    def __init__(
        self, *, rtt_ms: float = 20.0, loss: float = 0.0, seed: int = 1, idle_after_s: float | None = None
    ) -> None:
        """Only the client ends it when it is idle."""
        self.idle_after_s = idle_after_s
        self.now = 1000.0
        self.rtt_ms = rtt_ms
        self.loss = loss
        self.lost: Callable[[Side, bytes], bool] = lambda _side, _datagram: False
        self.carried: list[tuple[Side, bytes]] = []
        self.packets: dict[Side, list[bytes]] = {"client": [], "gateway": []}
        self.events: dict[Side, list[Event]] = {"client": [], "gateway": []}
        self._rng = random.Random(seed)
        self._count = itertools.count()
        self._under_way: list[tuple[float, int, Side, bytes]] = []
        self.connections: dict[Side, Connection] = {side: self._connection(side) for side in SIDES}
        self.client = self.connections["client"]
        self.gateway = self.connections["gateway"]

    # --- what happens ---

    def connect(self) -> None:
        """Give both a path, and let them shake hands."""
        for side in reversed(SIDES):
            self.connections[side].handle_path(self.rtt_ms, self.now)
        self.settle()
        self.advance(3 * self.rtt_ms / 1000)

    def close(self, side: Side, cause: Cause = Cause.SIGNED_OUT, by: Initiator = Initiator.US) -> None:
        self.connections[side].handle_close(cause, by, {}, self.now)
        self.settle()

    def send(self, side: Side, packet: bytes) -> None:
        self.connections[side].handle_packet(packet, self.now)
        self.settle()

    def send_frame(self, side: Side, frame: bytes) -> bool:
        """Send a frame of the device; False: it went, or waits, packet by packet."""
        train = memoryview(bytearray(TRAIN_BYTES))
        buffer, spans = memoryview(bytearray(frame)), array("I", (0, len(frame)))
        sealed = self.connections[side].handle_frames(buffer, spans, train, self.now)
        for one in sealed or ():
            whole = train[: one.total]
            for at in range(0, one.total, one.stride):
                self._carry(side, bytes(whole[at : at + one.stride]))
        self.settle()
        return sealed is not None

    def inject(self, sender: Side, packet: bytes) -> None:
        """Have one side's tunnel carry any inner packet: what an authenticated but hostile peer can do."""
        datagram = self.connections[sender].tunnel.encapsulate(packet, self.now)
        assert datagram is not None
        self.deliver(other(sender), datagram)

    def deliver(self, side: Side, datagram: bytes) -> None:
        self.deliver_burst(side, [datagram])

    def deliver_burst(self, side: Side, datagrams: list[bytes]) -> None:
        """Have datagrams arrive at once. Packets are not merged, so each frame is one."""
        buffer, spans = memoryview(bytearray().join(datagrams)), array("I")
        for datagram in datagrams:
            spans.extend((sum(spans[1::2]), len(datagram)))
        out = memoryview(bytearray(len(buffer) + OUT_BYTES_EACH * len(datagrams)))
        frames = self.connections[side].handle_datagrams(buffer, spans, out, self.now, coalesce=False)
        self.packets[side] += [bytes(out[start + VNET_BYTES : end]) for start, end, _ in frames]
        self.settle()

    def bring_will(self, side: Side, datagram: bytes) -> None:
        """Have somebody bring what he says is the other side's last will."""
        self.connections[side].handle_will(datagram, self.now)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, serving every timer and delivering every datagram at its own time."""
        until = self.now + seconds
        while (wake := self._next_wake()) is not None and wake <= until:
            self.now = max(self.now, wake)
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, receiver, datagram = heapq.heappop(self._under_way)
                self.deliver(receiver, datagram)
            for side in SIDES:
                due = self.connections[side].poll_timeout()
                if due is not None and due[0] <= self.now:
                    self.connections[side].handle_timeout(self.now)
            self.settle()
        self.now = until

    def settle(self) -> None:
        """Put on the wire what either side has to send, and note what it says."""
        for side in SIDES:
            connection = self.connections[side]
            while (datagram := connection.poll_transmit()) is not None:
                self._carry(side, datagram)
            while (event := connection.poll_event()) is not None:
                self.events[side].append(event)

    # --- what was seen ---

    def endings(self, side: Side) -> list[Ended]:
        return [event for event in self.events[side] if isinstance(event, Ended)]

    def ending(self, side: Side) -> Ended:
        (ended,) = self.endings(side)
        return ended

    def connected(self, side: Side) -> list[Connected]:
        return [event for event in self.events[side] if isinstance(event, Connected)]

    def pongs(self, side: Side) -> list[PongReceived]:
        return [event for event in self.events[side] if isinstance(event, PongReceived)]

    # --- inside ---

    def _carry(self, side: Side, datagram: bytes) -> None:
        self.carried.append((side, datagram))
        if self._rng.random() >= self.loss and not self.lost(side, datagram):
            arrival = self.now + self.rtt_ms / 2000
            heapq.heappush(self._under_way, (arrival, next(self._count), other(side), datagram))

    def _next_wake(self) -> float | None:
        wakes = [due[0] for side in SIDES if (due := self.connections[side].poll_timeout()) is not None]
        if self._under_way:
            wakes.append(self._under_way[0][0])
        return min(wakes, default=None)

    def _connection(self, side: Side) -> Connection:
        number = SIDES.index(side) + 1
        tunnel = Tunnel(
            private_key=PRIVATE_KEYS[side],
            peer_public_key=public_key(PRIVATE_KEYS[other(side)]),
            preshared_key=b"\x07" * 32,
            initiator=side == "client",
            allocate_index=PrefixedIndices(number),
            rng=random.Random(number),
            limits=Limits(rekey_attempt_time_s=20.0),
            wall_clock_ns=lambda: 1_800_000_000 * 10**9 + int(self.now * 10**9),
        )
        return Connection(
            tunnel,
            initiator=side == "client",
            identifier=counting(number),
            idle_after_s=self.idle_after_s if side == "client" else None,
        )
