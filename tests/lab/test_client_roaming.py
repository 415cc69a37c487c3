"""The whole client through a NAT that forgets: what flows in its tunnel pauses, and is complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import Download, download
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SIZE = 40_000_000
DISTURB_AFTER = 5_000_000
GAP_S = 4.0
"""The path heals within 2 s; TCP, which doubles its pauses, may notice up to as much later."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A client behind a port-restricted NAT, and a gateway that is reachable for everybody."""
    with Stage(make_home(), gateway_nat="none") as built:
        built.start_all()
        yield built


@pytest.mark.parametrize("how", ["rebind", "roam"])
def test_a_download_survives_a_nat_that_forgot(stage: Stage, how: str) -> None:
    site = stage.lab.client_site
    disturb: Callable[[], object] = (
        (lambda: stage.lab.rebind(site)) if how == "rebind" else (lambda: stage.lab.roam(site, 77))
    )
    underway, sizes = threading.Event(), list[int]()

    def progress(got: Download) -> None:
        if got.received >= DISTURB_AFTER and not underway.is_set():
            sizes.append(got.received)
            underway.set()

    def disturb_it() -> None:
        if underway.wait(60):
            disturb()

    disturbing = threading.Thread(target=disturb_it)
    disturbing.start()
    got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket, on_progress=progress)
    disturbing.join()
    print(f"the longest pause is {got.longest_gap_s:.2f} s, {got.connections} connections, {got.mbit_s:.0f} Mbit/s")
    assert got.sha256_ok
    assert got.longest_gap_s < GAP_S
    assert stage.client.endings() == []
    assert stage.gateways[0].endings() == []
    assert {peer["path"] for peer in stage.client.status()["peers"]} == {"direct"}


CUT_S = 18.0
"""Longer than it takes to call the network lost."""
BACK_WITHIN_S = 4.0


def test_when_the_network_is_back_the_next_download_begins_at_once(stage: Stage) -> None:
    """Also where TCP has backed off: the link to the portal is opened anew."""
    download(RESOURCE_ADDRESS, 100_000, open_socket=stage.open_socket)
    stage.lab.cut(stage.lab.client_site)
    time.sleep(CUT_S)
    stage.lab.heal(stage.lab.client_site)
    began = time.monotonic()
    got = download(RESOURCE_ADDRESS, 100_000, open_socket=stage.open_socket)
    took_s = time.monotonic() - began
    print(f"the next download was complete {took_s:.2f} s after the network was back")
    assert got.sha256_ok
    assert [ending.cause for ending in stage.client.endings()] == ["network_lost"]
    assert took_s < BACK_WITHIN_S
