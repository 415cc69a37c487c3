"""Real programs in the laboratory: real processes, real ZeroMQ, real TUN devices and namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab import Delays, Lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and takes seconds."""
    here = Path(__file__).parent
    why = None
    if os.geteuid() != 0:
        why = "needs root: network namespaces, TUN devices and firewall rules"
    elif not Path("/dev/net/tun").exists():
        why = "needs /dev/net/tun"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def raise_curtain() -> Iterator[Callable[..., Stage]]:
    """Return a function that builds a stage with everybody on it; the stage is taken down after the test."""
    stages: list[Stage] = []

    def build(
        *,
        gateways: int = 1,
        client_nat: str = "port_restricted",
        gateway_nat: str = "port_restricted",
        delays: Delays | None = None,
    ) -> Stage:
        lab = Lab(gateways=gateways, client_nat=client_nat, gateway_nat=gateway_nat, delays=delays)
        stage = Stage(make_home(), gateways=gateways, lab=lab)
        stages.append(stage)
        stage.start_all()
        return stage

    yield build
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(raise_curtain: Callable[..., Stage]) -> Stage:
    """Everybody is on the stage: one gateway, both sides behind port-restricted NATs."""
    return raise_curtain()


@pytest.fixture
def without_client() -> Iterator[Stage]:
    """Everybody but the client is on the stage."""
    stage = Stage(make_home())
    try:
        stage.prepare()
        stage.start_resource()
        stage.start_portal_and_relay()
        stage.start_gateways()
        yield stage
    finally:
        stage.close()
