"""wireguard-go as a static peer of the real gateway: portal and gateway are programs, and it is told nothing but what
`exeunt admin peer add` has written for it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.router import Router, run
from tests.system.test_live_restart import restart

from exeunt.actors.endings import Cause, Initiator
from exeunt.clients import app
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import RESOURCE_NAME, Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and TUN devices"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun"),
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in ("wireguard-go", "wg", "wg-quick")),
        reason="wireguard-go and wireguard-tools are not installed",
    ),
]

PORT = 51820
OTHER_ADDRESS = "10.20.0.11"
"""In the resource's network, and no resource."""
UNREACHABLE_S = 1.5
"""So long is nothing waited for that must not come."""

Add = Callable[..., Router]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Portal, relay, gateway and resource; nobody has signed in. The gateway can be reached, the client's site is
    behind a NAT.
    """
    stage = Stage(make_home(), gateway_nat="none")
    try:
        stage.prepare()
        with contextlib.closing(Store(stage.database)) as store:
            administration.remove_resource(store, RESOURCE_NAME)
            administration.add_resource(store, RESOURCE_NAME, f"{RESOURCE_ADDRESS}/32", site=None)
        stage.start_resource()
        stage.lab.resource.configure(addresses={"lan": [f"{OTHER_ADDRESS}/24"]})
        stage.start_portal_and_relay()
        stage.start_gateways("--listen", str(PORT))
        yield stage
    finally:
        stage.close()


@pytest.fixture
def add(stage: Stage, tmp_path: Path) -> Iterator[Add]:
    """Announces a router with `exeunt admin peer add`, and starts it at the client's site."""
    routers: list[Router] = []

    def build(name: str, *options: str, prepare: Callable[[Path], None] = lambda _: None) -> Router:
        file = tmp_path / f"{name}.conf"
        assert admin(stage, "add", name, "--generate", "--output", str(file), *options) == 0
        prepare(file)
        routers.append(Router(stage.lab.client, file))
        return routers[-1]

    yield build
    for router in routers:
        router.close()


def admin(stage: Stage, *words: str) -> int:
    return app.run(["admin", "peer", *words, "--database", str(stage.database)])


def peers(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.gateways[0].status()["peers"]
    return found


def test_a_router_uses_what_it_may_and_nothing_else_until_it_is_removed(stage: Stage, add: Add, tmp_path: Path) -> None:
    gateway = stage.gateways[0]
    preshared = tmp_path / "preshared"
    preshared.write_text(run("wg", "genpsk"))
    router = add("router", "--preshared-key-file", str(preshared), "--persistent-keepalive", "25")
    assert router.pings(RESOURCE_ADDRESS)
    assert router.downloads(RESOURCE_ADDRESS, 3_000_000)
    (shown,) = peers(stage)
    assert (shown["peer"], shown["path"], shown["state"]) == ("router", "wireguard", "established")
    assert shown["endpoint"].startswith("198.51.100.2:")
    assert shown["handshake_age_s"] < 60
    assert shown["tx_bytes"] > 3_000_000

    listener = stage.lab.resource.run(lambda: socket.create_server((OTHER_ADDRESS, 80)))
    with contextlib.closing(listener):
        router.allow(f"{OTHER_ADDRESS}/32")
        assert not router.reaches(OTHER_ADDRESS, UNREACHABLE_S)

    handshakes = shown["handshakes"]
    stage.lab.rebind(stage.lab.client_site)
    assert router.pings(RESOURCE_ADDRESS)
    router.move()
    assert router.downloads(RESOURCE_ADDRESS, 1_000_000)
    assert peers(stage)[0]["endpoint"] != shown["endpoint"]
    assert peers(stage)[0]["handshakes"] == handshakes, "the session has to live on"

    removed_at = time.monotonic()
    assert admin(stage, "remove", "router") == 0
    gateway.wait_for("end of the router", lambda: not peers(stage))
    assert time.monotonic() - removed_at < 5
    sent = int(router.show("transfer").split("\t")[0])
    assert not router.reaches(RESOURCE_ADDRESS, UNREACHABLE_S)
    assert int(router.show("transfer").split("\t")[0]) == sent, "something has come back"
    (ending,) = gateway.endings()
    assert (ending.cause, ending.initiated_by, ending.acknowledged) == (Cause.ACCESS_REVOKED, Initiator.PORTAL, None)
    assert (ending.peer, ending.path) == ("router", "wireguard")
    assert ending.rx_bytes > 0


def test_restarts_of_either_side_are_survived(stage: Stage, add: Add) -> None:
    gateway = stage.gateways[0]
    router = add("router", "--persistent-keepalive", "1")
    assert router.reaches(RESOURCE_ADDRESS)
    router.restart()
    assert router.reaches(RESOURCE_ADDRESS)

    (before,) = peers(stage)
    for name in ("peers-1", "control"):
        restart(gateway, name)
        gateway.wait_for("successor", lambda: len(peers(stage)) == 1)
        assert router.downloads(RESOURCE_ADDRESS, 1_000_000)
    (after,) = peers(stage)
    assert (after["connection"], after["handshakes"]) == (before["connection"], 0), "the session has to live on"
    assert gateway.endings() == []
    assert admin(stage, "add", "other", "--generate") == 0
    gateway.wait_for("other router", lambda: len(peers(stage)) == 2)
    assert admin(stage, "remove", "other") == 0
    gateway.wait_for("end of the other router", lambda: len(peers(stage)) == 1)

    gateway.leave("shutting_down")
    assert [one.cause for one in gateway.endings()] == [Cause.ACCESS_REVOKED, Cause.SHUTTING_DOWN]
    stage.gateways[0] = gateway = gateway.again()
    stage.players.append(gateway)
    stage.start_gateway(gateway, "--listen", str(PORT))
    assert router.reaches(RESOURCE_ADDRESS), "the gateway's key has to be the same"


def test_the_gateway_calls_a_peer_whose_address_is_known(tmp_path: Path) -> None:
    stage = Stage(make_home(), client_nat="none", gateway_nat="none")
    router: Router | None = None
    try:
        stage.prepare()
        stage.start_resource()
        stage.start_portal_and_relay()
        stage.start_gateways("--listen", str(PORT))
        file = tmp_path / "router.conf"
        endpoint = f"{stage.lab.client_site.prefix}.2:51821"
        assert admin(stage, "add", "router", "--generate", "--output", str(file), "--endpoint", endpoint) == 0
        text = "".join(line for line in file.read_text().splitlines(keepends=True) if "Endpoint" not in line)
        file.write_text(text.replace("[Peer]", "ListenPort = 51821\n\n[Peer]"))
        router = Router(stage.lab.client, file)
        stage.gateways[0].wait_for("handshake", lambda: peers(stage)[0]["state"] == "established")
        assert router.reaches(RESOURCE_ADDRESS)
        assert peers(stage)[0]["endpoint"] == endpoint
    finally:
        if router is not None:
            router.close()
        stage.close()


def test_a_gateway_without_a_port_says_what_it_lacks(stage: Stage, tmp_path: Path) -> None:
    assert admin(stage, "add", "router", "--wireguard", run_pubkey()) == 0
    gateway = stage.gateways[0]
    gateway.wait_for("router", lambda: bool(peers(stage)))
    gateway.leave("shutting_down")
    stage.gateways[0] = gateway = gateway.again()
    stage.players.append(gateway)
    stage.start_gateway(gateway)
    (problem,) = gateway.status()["problems"]
    assert "exeunt gateway run --listen" in problem["message"]
    assert peers(stage) == []


def run_pubkey() -> str:
    from exeunt.clients.portal.static_administration import new_key_pair

    return base64.b64encode(new_key_pair()[1]).decode()
