"""Wires take their time, spoil packets as they are told, and are gone with their laboratory."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from exeunt.clients.lab import Delays, Impairment, Lab, LabError, occupants
from exeunt.clients.lab.internet import PORTAL_ADDRESS, RELAY_ADDRESSES

from .behaviour import udp
from .conftest import BuildLab

DELAYS = Delays(edge_ms=10, relay_ms=30, portal_ms=50)
LATE_MS = 5.0
"""How late the most punctual packet may be: a millisecond at each of four passages, and one for the rest."""
PORT = 3478
TIMES = 11


def rtt_ms(one: socket.socket, other: socket.socket) -> float:
    """The shortest of some round trips from `one` to `other` and back: what a busy machine adds is not the wire's."""
    took: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        one.sendto(b"ping", other.getsockname())
        other.sendto(*other.recvfrom(100))
        one.recv(100)
        took.append((time.perf_counter() - began) * 1000)
    return min(took)


def test_each_line_takes_its_time(build_lab: BuildLab) -> None:
    lab = build_lab("port_restricted", "none", delays=DELAYS)
    with (
        udp(lab.client, "10.1.0.2") as client,
        udp(lab.gateways[0], "198.19.2.2", PORT) as gateway,
        udp(lab.relay, RELAY_ADDRESSES[1], PORT) as relay,
        udp(lab.portal, PORTAL_ADDRESS, PORT) as portal,
    ):
        for place, one_way_ms in ((gateway, 10 + 10), (relay, 10 + 30), (portal, 10 + 50)):
            assert 2 * one_way_ms <= rtt_ms(client, place) < 2 * one_way_ms + LATE_MS


def test_a_wire_can_be_made_worse_and_better_again(build_lab: BuildLab) -> None:
    lab = build_lab("port_restricted", "none", delays=Delays())
    with udp(lab.client, "10.1.0.2") as client, udp(lab.gateways[0], "198.19.2.2", PORT) as gateway:
        assert rtt_ms(client, gateway) < LATE_MS
        lab.impair(lab.client_site, Impairment(delay_ms=40))
        lab.impair(lab.gateway_site, Impairment(delay_ms=5))
        assert 90 <= rtt_ms(client, gateway) < 90 + LATE_MS
        lab.impair(lab.client_site, Impairment())
        lab.impair(lab.gateway_site, Impairment())
        assert rtt_ms(client, gateway) < LATE_MS


def received(lab: Lab, count: int) -> list[int]:
    """Send numbered datagrams from the client to the gateway; return the numbers that came, as they came."""
    with udp(lab.client, "10.1.0.2") as client, udp(lab.gateways[0], "198.19.2.2", PORT) as gateway:
        gateway.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        for number in range(count):
            client.sendto(b"%d" % number, gateway.getsockname())
            if number % 50 == 49:
                time.sleep(0.001)  # a device holds 500 packets, and the wires' process needs its turn
        lab.impair(lab.client_site, Impairment())
        came: list[int] = []
        gateway.settimeout(0.2)  # longer than anything is held back
        while True:
            try:
                came.append(int(gateway.recv(100)))
            except TimeoutError:
                return came


def test_packets_are_lost_doubled_and_reordered(build_lab: BuildLab) -> None:
    lab = build_lab("port_restricted", "none", delays=Delays())
    assert received(lab, 500) == list(range(500))
    lab.impair(lab.client_site, Impairment(loss_percent=20, duplicate_percent=10, reorder_percent=5))
    came = received(lab, 2000)
    # Binomial, n = 2000, p = 0.2: 400 lost, standard deviation 18; of 1600 left 160 doubled, 12.
    assert 290 < 2000 - len(set(came)) < 510
    assert 85 < len(came) - len(set(came)) < 235
    first_of_each = list(dict.fromkeys(came))
    assert first_of_each != sorted(first_of_each)


@pytest.mark.slow
def test_a_rate_is_kept_to(build_lab: BuildLab) -> None:
    lab = build_lab("port_restricted", "none", delays=Delays())
    lab.impair(lab.client_site, Impairment(rate_mbit_s=8))
    with udp(lab.client, "10.1.0.2") as client, udp(lab.gateways[0], "198.19.2.2", PORT) as gateway:
        payload = bytes(972)  # 1,000 bytes with its headers: 1 ms each
        began = time.perf_counter()
        for _ in range(90):
            client.sendto(payload, gateway.getsockname())
        for _ in range(90):
            gateway.recv(2000)
        assert time.perf_counter() - began > 0.089


def test_the_process_of_the_wires_leaves_with_the_laboratory(build_lab: BuildLab) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lab = build_lab(delays=DELAYS)
    identities = [namespace.identity for namespace in lab.namespaces]
    ((_, pids),) = occupants(identities).items()
    assert len(pids) == 1
    lab.close()
    assert occupants(identities) == {}
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(LabError, match="closed"):
        lab.impair(lab.client_site, Impairment())


def test_a_process_of_the_wires_that_died_is_noticed(build_lab: BuildLab) -> None:
    lab = build_lab(delays=DELAYS)
    ((_, (pid,)),) = occupants([lab.internet.identity]).items()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LabError, match="ended"):
        lab.impair(lab.client_site, Impairment())


def test_building_costs_less_than_half_a_second(build_lab: BuildLab) -> None:
    """Of this process's time, since a busy machine's clock says nothing of us; on an idle one it is all there is."""
    before = time.process_time()
    build_lab("carrier", "double", delays=DELAYS)
    assert time.process_time() - before < 0.5
