"""No packet goes to or comes from an address that its peer may not use: both directions, both families.

There is an honest client with a device, and an intruder with a token of its own, who keeps no rule but the protocol's.
Each test ends with a packet that may pass, by the same way: what was sent before it would have arrived before it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from tests.system.inner_packets import Listener, Tap, udp_packet, wait_until

from exeunt.actors.network.firewall import table_name
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import PORTAL_ADDRESS, PORTAL_PORT, Player, Stage
from exeunt.clients.lab import Namespace
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store

ROOT = Path(__file__).parents[2]
CLIENT_DEVICE, GATEWAY_DEVICE = "exeunt0", "exeunt-gw0"
PORT = 9_999
RESOURCE6, RESOURCE6_NETWORK, UNGRANTED6 = "fd00:20::10", "fd00:20::/64", "fd00:21::10"
GATEWAY_LAN, GATEWAY_LAN6, GATEWAY_SITE = "10.20.0.2", "fd00:20::2", "10.2.0.2"
STRANGERS = ("198.51.100.77", "2001:db8:77::1")
SECRET_SERVICE = "10.99.0.1"
"""An address of the gateway's host that no resource has."""


class House:
    """The stage, with IPv6 behind the gateway, an intruder, and who listens where."""

    def __init__(self, stage: Stage, undo: ExitStack) -> None:
        """What is opened is closed by `undo`."""
        self.stage = stage
        stage.prepare()
        with closing(Store(stage.database)) as store:
            administration.add_resource(store, "six", RESOURCE6_NETWORK, site=None)
            self.token = administration.add_client(store, "intruder", now_unix=0).token
            rows = [*administration.peers(store, "client"), *administration.peers(store, "gateway")]
        self.addresses = {row.name: (row.address_ipv4, row.address_ipv6) for row in rows}
        resource, gateway = stage.lab.resource, stage.lab.gateways[0]
        resource.configure(addresses={"lan": [f"{RESOURCE6}/64", f"{UNGRANTED6}/64"]})
        gateway.configure(addresses={"lan": [f"{GATEWAY_LAN6}/64", f"{SECRET_SERVICE}/32", "fd00:21::2/64"]})
        stage.start_resource()
        stage.start_portal_and_relay()
        stage.start_gateways()
        stage.start_client()
        places = {"resource": resource, "gateway": gateway, "client": stage.lab.client, "internet": stage.lab.internet}
        self.listeners = {name: undo.enter_context(closing(Listener(each, PORT))) for name, each in places.items()}
        self.gateway_tap = undo.enter_context(closing(Tap(gateway, GATEWAY_DEVICE)))
        self.client_tap = undo.enter_context(closing(Tap(stage.lab.client, CLIENT_DEVICE)))
        self._intruder = self._let_in(undo)

    def intrude(self, *packets: bytes) -> None:
        """Have the intruder send these inner packets."""
        self._tell([packet.hex() for packet in packets])
        assert self._answer() == {"sent": len(packets)}

    def speak(self, place: str, destination: str, payload: bytes) -> None:
        """Have an honest program at a place send a datagram."""
        self.listeners[place].answer(payload, (_mapped(destination), PORT))

    def dropped(self, player: Player, reason: str) -> int:
        """What a program's pump has dropped for this reason."""
        account: dict[str, Any] = player.ask("show", {"actor": "device"})["snapshot"]
        return int(account["dropped"].get(reason, 0))

    def refused(self) -> int:
        """Packets that the gateway's firewall has dropped."""
        table = table_name(self.stage.gateways[0].name)
        listing = self.stage.lab.gateways[0].run(lambda: _run("nft", "--json", "list", "table", "inet", table))
        rules = [entry["rule"]["expr"] for entry in json.loads(listing)["nftables"] if "rule" in entry]
        dropping = [rule for rule in rules if any("drop" in part for part in rule)]
        return sum(part["counter"]["packets"] for rule in dropping for part in rule if "counter" in part)

    def _let_in(self, undo: ExitStack) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = self.stage.lab.client.popen(
            [sys.executable, "-m", "tests.system.intruder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        undo.enter_context(process)  # closes its input, which has it leave, and waits
        self._intruder = process
        url = f"ws://{PORTAL_ADDRESS}:{PORTAL_PORT}/v1/client"
        self._tell({"url": url, "name": "intruder", "token": self.token})
        assert self._answer() == {"connected": True}
        return process

    def _tell(self, words: object) -> None:
        assert self._intruder.stdin is not None
        self._intruder.stdin.write(json.dumps(words) + "\n")
        self._intruder.stdin.flush()

    def _answer(self) -> object:
        assert self._intruder.stdout is not None
        return json.loads(self._intruder.stdout.readline())


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with ExitStack() as undo:
        stage = undo.enter_context(Stage(make_home(), client_nat="none", gateway_nat="none"))
        yield House(stage, undo)


def _mapped(address: str) -> str:
    return address if ":" in address else f"::ffff:{address}"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_client_cannot_speak_as_somebody_else(house: House) -> None:
    """The gateway's pump drops it, and counts it; its kernel never sees it."""
    lie, truth = b"I am another one", b"it is me"
    gateway = house.stage.gateways[0]
    house.speak("client", RESOURCE_ADDRESS, b"hello")  # the honest client's connection: its addresses lead to it
    house.listeners["resource"].wait_for(b"hello")
    foreign = [*house.addresses["client-1"], *house.addresses["gateway-1"], *STRANGERS, RESOURCE_ADDRESS, RESOURCE6]
    lies = [udp_packet(source, _resource_of(source), PORT, lie) for source in foreign]
    mine, _ = house.addresses["intruder"]
    before = house.dropped(gateway, "spoofed_inbound")
    house.intrude(*lies, udp_packet(mine, RESOURCE_ADDRESS, PORT, truth))
    house.listeners["resource"].wait_for(truth)
    assert lie not in house.listeners["resource"].payloads
    assert house.gateway_tap.saw(lie) == []
    assert len(house.gateway_tap.saw(truth)) == 1
    assert house.client_tap.saw(lie) == []
    assert house.dropped(gateway, "spoofed_inbound") >= before + len(lies)


def test_what_is_not_granted_is_not_forwarded(house: House) -> None:
    """Nor taken in by the gateway itself. The honest client is granted IPv6; the intruder has not asked for it."""
    lie, truth = b"let me in", b"granted"
    for address in (RESOURCE_ADDRESS, RESOURCE6):
        house.speak("client", address, truth)
        wait_until(lambda at=address: _came_for(house, at), f"{address} is not reached")  # type: ignore[misc]
    mine, mine6 = house.addresses["intruder"]
    theirs, theirs6 = house.addresses["client-1"]
    wanted4 = [theirs, PORTAL_ADDRESS, GATEWAY_SITE, SECRET_SERVICE, house.addresses["gateway-1"][0]]
    wanted6 = [theirs6, RESOURCE6, UNGRANTED6, GATEWAY_LAN6, house.addresses["gateway-1"][1]]
    lies = [udp_packet(mine, address, PORT, lie) for address in wanted4]
    lies += [udp_packet(mine6, address, PORT, lie) for address in wanted6]
    before = house.refused()
    house.intrude(*lies, udp_packet(mine, RESOURCE_ADDRESS, PORT, b"last"))
    house.listeners["resource"].wait_for(b"last")
    assert len(house.gateway_tap.saw(lie)) == len(lies)
    assert {name: lie in one.payloads for name, one in house.listeners.items()} == dict.fromkeys(house.listeners, False)
    assert house.client_tap.saw(lie) == []
    assert house.refused() >= before + len(lies)


def test_what_a_resource_says_to_one_client_reaches_no_other(house: House) -> None:
    """An answer goes to who asked, and to a client that has not asked goes nothing, whatever address it is sent to."""
    lie, truth = b"not for you", b"for you"
    asked = house.listeners["resource"]
    mine, _ = house.addresses["intruder"]
    theirs, theirs6 = house.addresses["client-1"]
    _lead(house.stage.lab.resource, house.addresses["gateway-1"])
    house.intrude(udp_packet(mine, RESOURCE_ADDRESS, PORT, b"a question"))
    asked.wait_for(b"a question")
    asked_from = next(source for payload, source in asked.heard if payload == b"a question")
    asked.answer(lie, asked_from)  # for the intruder
    before = house.refused()
    for address in (theirs, theirs6):
        house.speak("resource", address, lie)  # nobody asked
    wait_until(lambda: house.refused() >= before + 2, "the firewall has not dropped both")
    house.speak("client", RESOURCE_ADDRESS, b"and mine")
    asked.wait_for(b"and mine")
    asked.answer(truth, next(source for payload, source in asked.heard if payload == b"and mine"))
    house.listeners["client"].wait_for(truth)
    assert lie not in house.listeners["client"].payloads
    assert house.client_tap.saw(lie) == []
    assert len(house.client_tap.saw(truth)) == 1


def test_a_gateway_cannot_speak_as_somebody_else(house: House) -> None:
    """The client's pump takes from a gateway only what comes from its resources."""
    lie, truth = b"I am everybody", b"from the resource"
    client = house.stage.client
    for address in (RESOURCE_ADDRESS, RESOURCE6):
        house.speak("client", address, b"hello")
        wait_until(lambda at=address: _came_for(house, at), f"{address} is not reached")  # type: ignore[misc]
    theirs, theirs6 = house.addresses["client-1"]
    before = house.dropped(client, "spoofed_inbound")
    foreign = ["127.0.0.1", PORTAL_ADDRESS, theirs, *STRANGERS, UNGRANTED6, theirs6]
    for source in foreign:
        packet = udp_packet(source, theirs6 if ":" in source else theirs, PORT, lie)
        house.stage.lab.gateways[0].run(lambda packet=packet: _send_by_device(packet))  # type: ignore[misc]
    wait_until(lambda: house.dropped(client, "spoofed_inbound") >= before + len(foreign), "not all were dropped")
    assert house.client_tap.saw(lie) == []
    honest = udp_packet(RESOURCE_ADDRESS, theirs, PORT, truth)
    house.stage.lab.gateways[0].run(lambda: _send_by_device(honest))
    house.listeners["client"].wait_for(truth)
    assert lie not in house.listeners["client"].payloads


def _resource_of(source: str) -> str:
    return RESOURCE6 if ":" in source else RESOURCE_ADDRESS


def _came_for(house: House, address: str) -> bool:
    lan = GATEWAY_LAN6 if ":" in address else f"::ffff:{GATEWAY_LAN}"
    house.listeners["resource"].listen()
    return any(source[0] == lan for _, source in house.listeners["resource"].heard)


def _lead(resource: Namespace, networks: tuple[str, str]) -> None:
    """Give the resource routes to the tunnel's addresses, which it should not have."""
    ipv4, ipv6 = networks
    resource.run(lambda: _run("ip", "route", "add", f"{ipv4.rsplit('.', 2)[0]}.0.0/16", "via", GATEWAY_LAN))
    resource.run(lambda: _run("ip", "-6", "route", "add", f"{ipv6.split(':')[0]}::/16", "via", GATEWAY_LAN6))


def _send_by_device(packet: bytes) -> None:
    """Send a packet as it is out of the tunnel's device (packet(7))."""
    protocol = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.sendto(packet, (GATEWAY_DEVICE, protocol))
