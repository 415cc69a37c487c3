"""What passes a peer-connection actor between its messages: frames of the device, datagrams of the path, and time.

The pump calls with frames, the ICE agent with bursts of datagrams, the loop when something is due; then what the
machine has to say is done. Most packets do not come by here at all, but by the connection's lane (`lane`).
"""

from __future__ import annotations

import time
from array import array

from exeunt.runtime import Actor

from ..device.pump import Pump
from ..ice.agent import PathAgent
from ..ice.whole import send_whole
from .alarm import Alarm
from .carried import CarriedConnection
from .lane import PeerLane
from .paths import Paths


class Traffic(Actor):
    """The half of the actor that packets meet."""

    def __init__(self, machine: CarriedConnection, alarm: Alarm) -> None:
        super().__init__()
        self._machine = machine
        self.reach = machine.path_mtu.reach
        self._alarm = alarm
        self._paths: Paths | None = None
        self._lane: PeerLane | None = None

    @property
    def paths(self) -> Paths:
        """The ICE side of it; there is none before `on_start`."""
        assert self._paths is not None
        return self._paths

    @property
    def agent(self) -> PathAgent:
        """What finds the paths."""
        return self.paths.agent

    # --- the pump's side ---

    def send_frames(self, buffer: memoryview, spans: array[int]) -> int:
        """Send what the device has read: at `flush`, or before. The pump calls this, as what follows."""
        self._keep_lane()
        agent, machine, now = self.paths.agent, self._machine, self._now()
        channel = agent.channel
        return self._pump.trains.take(
            buffer,
            spans,
            lambda mine, at, train: machine.handle_frames(mine, at, train, now, channel),
            agent.send_train,
        )

    def send_packet(self, packet: bytes) -> None:
        """Send an inner packet; from the start, when there is nothing yet that could."""
        self._machine.handle_packet(packet, self._now())
        if self._paths is not None:
            self.flush()

    def flush(self) -> None:
        """Send what waits for more of its kind."""
        self._pump.trains.flush(self.paths.agent.send_train)
        self._transmit()
        self._set_timer_soon(self._now())
        self._keep_lane()

    # --- the agent's side ---

    def _on_datagrams(self, buffer: memoryview, spans: array[int], ecn: int) -> None:
        self._keep_lane()
        now, pump, out = self._now(), self._pump, self._pump.out(buffer, len(spans) // 2)
        frames = self._machine.handle_datagrams(buffer, spans, out, now, coalesce=pump.merges)
        if self._machine.tunnel.last_received_at == now:
            self.paths.agent.note_alive()
        pump.deliver(self, out, frames, ecn)
        self.attend(now)

    # --- the lane's side ---

    def attend(self, now: float) -> None:
        """Do what follows from what came, or went."""
        self._react()
        self._set_timer_soon(now)
        self._keep_lane()

    def _keep_lane(self) -> None:
        if self._lane is not None:
            self._lane.refresh(self)

    def _end_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()

    # --- what follows ---

    def _react(self) -> None:
        """Do what the machine says."""
        raise NotImplementedError

    def _drain(self) -> None:
        self._react()
        self._set_timer(self._now())
        self._keep_lane()

    def _transmit(self) -> None:
        while (datagram := self._machine.poll_transmit()) is not None:
            self.paths.agent.send(datagram)
        while (datagram := self._machine.path_mtu.poll_transmit()) is not None:
            send_whole(self.paths.agent, datagram)

    def _set_timer_soon(self, now: float) -> None:
        if not self._alarm.may_wait(self.node.loop, now, self._on_timer):
            self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if (timeout := self._machine.poll_timeout()) is not None:
            self._alarm.set(self.node.loop, timeout, now, self._on_timer)

    def _on_timer(self) -> None:
        self._keep_lane()
        if (alive_at := self.paths.agent.last_alive) is not None:
            self._machine.handle_alive(alive_at)
        self._machine.handle_timeout(self._now())
        self._drain()

    @property
    def _pump(self) -> Pump:
        pump: Pump = self.node.resources["pump"]
        return pump

    @staticmethod
    def _now() -> float:
        return time.monotonic()
