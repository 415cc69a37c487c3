"""Downloads with and without what the kernel can do for us, on either side: every byte is right."""

from __future__ import annotations

import time

import pytest

from exeunt.actors.network.actor import OFFLOADS_VARIABLE
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import download
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

SIZE = 40_000_000


@pytest.mark.parametrize("gateway", ["1", "0"], ids=["gateway", "plain gateway"])
@pytest.mark.parametrize("client", ["1", "0"], ids=["client", "plain client"])
def test_a_download_is_right(monkeypatch: pytest.MonkeyPatch, client: str, gateway: str) -> None:
    stage = Stage(make_home())
    try:
        stage.prepare()
        stage.start_resource()
        stage.start_portal_and_relay()
        monkeypatch.setenv(OFFLOADS_VARIABLE, gateway)
        stage.start_gateways()
        monkeypatch.setenv(OFFLOADS_VARIABLE, client)
        stage.start_client()
        assert download(RESOURCE_ADDRESS, 1000, open_socket=stage.open_socket).sha256_ok
        began = time.monotonic()
        got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket)
        took_s = time.monotonic() - began
        assert got.sha256_ok
        print(f"\nclient {client}, gateway {gateway}: {SIZE * 8e-6 / took_s:.0f} Mbit/s")
    finally:
        stage.close()
