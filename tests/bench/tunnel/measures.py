"""What is measured of each subject. Each measure returns figures by name; a `_alone` figure is of a line that cuts
trains of datagrams and joins none."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import psutil

from exeunt.actors.wireguard.testing import TunnelPair
from exeunt.runtime.control import ControlClient

from . import traffic
from .subjects import SIDES, Exeunt, Side, Subject

Figures = dict[str, float]
Measure = Callable[[Subject, float], Figures]
"""Of a subject, for so many seconds."""

_IDLE_PINGS, _IDLE_INTERVAL_S = 200, 0.005
_LOADED_INTERVAL_S = 0.004
_ASK_INTERVAL_S = 0.005
_HANDSHAKES = 200


def tcp(subject: Subject, seconds: float, *, streams: int, suffix: str = "") -> Figures:
    """TCP both ways, one after the other, and what the tunnel's processes spent on it.

    Without suffix `_down` or `_up`, a rate is the mean of both ways. CPU is of all of a side's processes, user and
    system time, for each gigabyte (10⁹ bytes of payload) of both ways.
    """
    prefix = f"tcp{streams}"
    before, rates, moved = _spent(subject), dict[str, float](), 0
    for way in ("down", "up"):
        with traffic.Stream(
            subject.client, subject.resource, down=way == "down", streams=streams, seconds=seconds
        ) as stream:
            found = stream.finish()
        rates[way] = found.mbit_s
        moved += found.total_bytes
    spent = {side: (after - before[side]) / (moved / 1e9) for side, after in _spent(subject).items()}
    figures = {f"{prefix}_{way}{suffix}_mbit_s": rate for way, rate in rates.items()}
    figures[f"{prefix}{suffix}_mbit_s"] = sum(rates.values()) / len(rates)
    if streams == 1 and subject.processes("client"):
        figures |= {f"cpu_s_per_gb_{side}{suffix}": value for side, value in spent.items()}
        figures[f"cpu_s_per_gb{suffix}"] = sum(spent.values())
    return figures


def tcp1(subject: Subject, seconds: float) -> Figures:
    return tcp(subject, seconds, streams=1)


def tcp4(subject: Subject, seconds: float) -> Figures:
    return tcp(subject, seconds, streams=4)


def tcp1_alone(subject: Subject, seconds: float) -> Figures:
    with subject.line.datagrams_alone():
        return tcp(subject, seconds, streams=1, suffix="_alone")


def tcp4_alone(subject: Subject, seconds: float) -> Figures:
    with subject.line.datagrams_alone():
        return tcp(subject, seconds, streams=4, suffix="_alone")


def udp(subject: Subject, _seconds: float) -> Figures:
    """Datagrams of 1,200 bytes from the client, as fast as less than 0.5 % are lost."""
    return {"udp_pps": traffic.loss_free_per_s(subject.client, subject.resource)}


def ping(subject: Subject, _seconds: float) -> Figures:
    """Round trips while nothing else happens."""
    trips = sorted(traffic.trips_ms(subject.client, _IDLE_PINGS, _IDLE_INTERVAL_S))
    return {"ping_p50_ms": _quantile(trips, 0.5), "ping_p99_ms": _quantile(trips, 0.99)}


def ping_loaded(subject: Subject, seconds: float) -> Figures:
    """Round trips while a download takes all that the tunnel has."""
    with traffic.Stream(subject.client, subject.resource, down=True, streams=1, seconds=seconds + 1) as stream:
        trips = sorted(traffic.trips_ms(subject.client, int(seconds / _LOADED_INTERVAL_S), _LOADED_INTERVAL_S))
        stream.finish()
    return {"ping_loaded_p50_ms": _quantile(trips, 0.5), "ping_loaded_p99_ms": _quantile(trips, 0.99)}


def connect(subject: Subject, _seconds: float) -> Figures:
    """A client that starts and signs in, and then the first packet: to the portal, ICE, handshake, TCP, a byte."""
    assert isinstance(subject, Exeunt)
    sign_in_ms, connect_ms = subject.sign_in_again()
    return {"sign_in_ms": sign_in_ms, "connect_ms": connect_ms}


def control(subject: Subject, seconds: float) -> Figures:
    """Questions to the connection's actor, in the worker that carries the packets, while nothing else happens and while
    a download takes all that the tunnel has: through the gateway's control socket, two other processes, and back.
    """
    assert isinstance(subject, Exeunt)
    traffic.trips_ms(subject.client, 1, _IDLE_INTERVAL_S)  # whoever is asked is there
    idle = _answers_ms(subject, _IDLE_PINGS)
    with traffic.Stream(subject.client, subject.resource, down=True, streams=1, seconds=seconds + 1) as stream:
        loaded = _answers_ms(subject, int(seconds / _ASK_INTERVAL_S))
        stream.finish()
    return {
        "control_p50_ms": _quantile(idle, 0.5),
        "control_p99_ms": _quantile(idle, 0.99),
        "control_loaded_p50_ms": _quantile(loaded, 0.5),
        "control_loaded_p99_ms": _quantile(loaded, 0.99),
    }


def _answers_ms(subject: Exeunt, count: int) -> list[float]:
    player, taken = subject.player("gateway"), list[float]()
    with ControlClient(player.paths.control_socket(player.name)) as program:
        for _ in range(count):
            began = time.monotonic()
            peers = program.request("status")["peers"]
            if not peers:
                raise traffic.TrafficFailed("the gateway has no peer to ask about")
            taken.append((time.monotonic() - began) * 1000)
            time.sleep(max(0.0, _ASK_INTERVAL_S - taken[-1] / 1000))
    return sorted(taken)


def handshake() -> Figures:
    """Handshakes in memory, one after another: the processor's time of each side, key generation included."""
    spent: dict[Side, float] = dict.fromkeys(SIDES, 0.0)
    for number in range(_HANDSHAKES):
        for side, took in _handshake(number).items():
            spent[side] += took
    figures = {f"handshake_cpu_ms_{side}": value * 1000 / _HANDSHAKES for side, value in spent.items()}
    return figures | {"handshake_cpu_ms": sum(figures.values())}


def _handshake(seed: int) -> dict[Side, float]:
    pair, clock = TunnelPair(seed=seed), time.thread_time
    began = clock()
    pair.client.connect(pair.now)
    initiation = pair.client.poll_transmit()
    made = clock()
    assert initiation is not None
    pair.gateway.handle_datagram(initiation, pair.now)
    response = pair.gateway.poll_transmit()
    answered = clock()
    assert response is not None
    pair.client.handle_datagram(response, pair.now)
    done = clock()
    assert pair.client.can_send(pair.now)
    return {"client": (made - began) + (done - answered), "gateway": answered - made}


def _spent(subject: Subject) -> dict[Side, float]:
    """Processor seconds of a side's processes so far."""
    return {side: spent_s(subject.processes(side)) for side in SIDES}


def spent_s(processes: Iterable[psutil.Process]) -> float:
    """User and system time of these processes so far, in seconds."""
    times = [process.cpu_times() for process in processes]
    return math.fsum(one.user + one.system for one in times)


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


EVERYBODYS: dict[str, Measure] = {
    "tcp1": tcp1,
    "tcp4": tcp4,
    "tcp1_alone": tcp1_alone,
    "tcp4_alone": tcp4_alone,
    "udp": udp,
    "ping": ping,
    "ping_loaded": ping_loaded,
}
OURS: dict[str, Measure] = {"connect": connect, "control": control}
"""Measured of our own subjects only."""


def _of_tcp(streams: int, suffix: str = "") -> tuple[str, ...]:
    rates = tuple(f"tcp{streams}{way}{suffix}_mbit_s" for way in ("", "_down", "_up"))
    spent = tuple(f"cpu_s_per_gb{side}{suffix}" for side in ("", "_client", "_gateway"))
    return rates + (spent if streams == 1 else ())


def _of_relay(prefix: str) -> tuple[str, ...]:
    rates = tuple(f"{prefix}_{what}{way}_mbit_s" for what in ("tcp1", "ceiling") for way in ("", "_down", "_up"))
    return (*rates, f"{prefix}_cpu_s_per_gb")


PRODUCED: dict[str, tuple[str, ...]] = {
    "tcp1": _of_tcp(1),
    "tcp4": _of_tcp(4),
    "tcp1_alone": _of_tcp(1, "_alone"),
    "tcp4_alone": _of_tcp(4, "_alone"),
    "udp": ("udp_pps",),
    "ping": ("ping_p50_ms", "ping_p99_ms"),
    "ping_loaded": ("ping_loaded_p50_ms", "ping_loaded_p99_ms"),
    "connect": ("sign_in_ms", "connect_ms"),
    "control": ("control_p50_ms", "control_p99_ms", "control_loaded_p50_ms", "control_loaded_p99_ms"),
    "handshake": ("handshake_cpu_ms", "handshake_cpu_ms_client", "handshake_cpu_ms_gateway"),
    "relay": _of_relay("relay"),
    "embedded_relay": _of_relay("embedded_relay"),
}
"""The figures of each measure, in the order of the table."""
