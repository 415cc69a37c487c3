"""A link on the way that is narrower than the tunnel takes for granted, with and without anybody saying so.

With 1,300 bytes of it, 1,232 are left for a packet in the tunnel, and the device has an MTU of 1,280.
"""

from __future__ import annotations

import socket
import subprocess
import time
from functools import partial

import pytest

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import download
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab import Lab
from exeunt.clients.lab.faults import swallow
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

LINK_MTU = 1300
FITTING_MSS = 1232 - 40
SIZE = 3_000_000
BEGINS_S = 8.0
"""Until a download begins and is over; what is lost has to be repeated by TCP, whose timer doubles."""


@pytest.mark.parametrize("silence", ["said", "not said", "fragments dropped"])
def test_a_download_does_not_stall(silence: str) -> None:
    lab = Lab()
    stage = Stage(make_home(), lab=lab)
    try:
        for router, device in ((lab.internet, "to-client"), (lab.client_site.nat, "wan")):
            command = ["ip", "link", "set", device, "mtu", str(LINK_MTU)]
            router.run(partial(subprocess.run, command, check=True))
            if silence != "said":
                swallow(router, fragments=silence == "fragments dropped")
        stage.start_all()
        began = time.monotonic()
        got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket)
        took_s = time.monotonic() - began
        assert got.sha256_ok
        assert took_s < BEGINS_S
        print(f"\n{SIZE * 1e-6:.0f} MB in {took_s:.2f} s, with the connection")
        deadline = began + BEGINS_S
        while (mss := _mss(stage)) > FITTING_MSS:
            assert time.monotonic() < deadline, f"segments of {mss} bytes"
        assert [peer["path_mtu_bytes"] for peer in stage.client.status()["peers"]] == [1232]
        began = time.monotonic()
        assert download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket).sha256_ok
        print(f"then in {time.monotonic() - began:.2f} s, in segments of {mss} bytes")
    finally:
        stage.close()


def _mss(stage: Stage) -> int:
    """The segments that a new connection sends."""
    with stage.open_socket(3.0) as sock:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
