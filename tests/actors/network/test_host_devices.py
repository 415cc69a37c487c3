"""A gateway whose workers have a TUN device each, on the real kernel: one firewall for all, host routes that steer."""

# pyright: reportPrivateUsage=false

import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.actors.network.test_host import (
    CLIENT,
    DEVICE,
    GATEWAY,
    OTHER_CLIENT,
    RESOURCE,
    internet_checksum,
    ipv4_packet,
    udp_packet,
    udp_socket,
)

from exeunt.actors.network import leftovers
from exeunt.actors.network.actor import Network
from exeunt.actors.network.links import Links
from exeunt.actors.network.messages import NOBODY_THERE, EnableForwarding, OpenDevice, SetRoutes, Steer
from exeunt.actors.network.sysctl import read_sysctl
from exeunt.clients.lab import Namespace, connect
from exeunt.runtime import Refused

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing the host's network needs root"),
]


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


@dataclass
class Spread:
    """A gateway with two devices, and its resource; what comes out of each device is read from that one."""

    namespace: Namespace
    actor: Network
    tun: tuple[int, int]
    resource: socket.socket

    def steer(self, device: str = "") -> dict[str, str]:
        return self.namespace.run(lambda: self.actor.on_steer(Steer((f"{CLIENT}/32",), device))).refused

    def gives(self, device: int) -> bytes:
        """The next packet that the kernel routes into that device; nothing has come out of the other."""
        ready = select.select(self.tun, [], [], 5)[0]
        assert ready == [self.tun[device]]
        return os.read(self.tun[device], 2000)


@pytest.fixture
def spread(inside: Namespace) -> Iterator[Spread]:
    actor = Network("gateway")
    network = actor._host
    with Namespace("resource") as lan:
        connect(inside, "eth0", lan, "eth0")
        inside.configure(addresses={"eth0": [f"{GATEWAY}/24"]}, sysctls={"ipv4/conf/all/rp_filter": "1"})
        lan.configure(addresses={"eth0": [f"{RESOURCE}/24"]})

        def begin() -> tuple[int, int]:
            one, two = (network.open_device(name, ["100.96.0.1/32"], 1280) for name in (DEVICE, f"{DEVICE}-2"))
            actor.on_set_routes(SetRoutes(DEVICE, ("100.96.0.0/11",)))
            actor.on_enable_forwarding(EnableForwarding((DEVICE, f"{DEVICE}-2"), ("100.96.0.0/11",)))
            return one, two

        tun = inside.run(begin)
        with lan.run(lambda: udp_socket(RESOURCE)) as resource:
            yield Spread(inside, actor, tun, resource)
        inside.run(network.close)
        assert inside.run(leftovers) == []
        assert inside.run(lambda: read_sysctl("ipv4/ip_forward")) == "0"


def test_the_rules_hold_for_each_of_two_devices(spread: Spread) -> None:
    """And the reverse path is the one that a host route leads: without it a strict host drops what comes."""
    assert spread.steer(f"{DEVICE}-2") == {}
    spread.actor._host.allow(CLIENT, f"{RESOURCE}/32")
    spread.actor._host.allow(OTHER_CLIENT, f"{RESOURCE}/32")
    for device, client in ((1, CLIENT), (0, OTHER_CLIENT)):
        os.write(spread.tun[device], udp_packet("100.96.0.7", RESOURCE, b"permitted to nobody"))
        os.write(spread.tun[device], udp_packet(client, "100.96.0.1", b"not for clients"))
        os.write(spread.tun[device], udp_packet(client, RESOURCE, b"hello"))
        payload, sender = spread.resource.recvfrom(100)
        assert (payload, sender[0]) == (b"hello", GATEWAY)
        spread.resource.sendto(b"welcome", sender)
        assert spread.gives(device)[28:] == b"welcome"


def test_clients_of_different_devices_do_not_reach_one_another(spread: Spread) -> None:
    assert spread.steer(f"{DEVICE}-2") == {}
    for client in (CLIENT, OTHER_CLIENT):
        spread.actor._host.allow(client, "0.0.0.0/0")
    os.write(spread.tun[0], udp_packet(OTHER_CLIENT, CLIENT, b"psst"))
    os.write(spread.tun[1], udp_packet(CLIENT, OTHER_CLIENT, b"psst"))
    for device, client in ((1, CLIENT), (0, OTHER_CLIENT)):
        os.write(spread.tun[device], udp_packet(client, RESOURCE, b"hello"))
        spread.resource.sendto(b"first to come out", spread.resource.recvfrom(100)[1])
        assert spread.gives(device)[28:] == b"first to come out"


def test_the_gateway_answers_a_ping_by_the_device_that_it_came_from(spread: Spread) -> None:
    assert spread.steer(f"{DEVICE}-2") == {}
    echo = b"\x08\0\0\0\0\x01\0\x01"
    echo = echo[:2] + internet_checksum(echo).to_bytes(2, "big") + echo[4:]
    for device, client in ((1, CLIENT), (0, OTHER_CLIENT)):
        os.write(spread.tun[device], ipv4_packet(client, "100.96.0.1", 1, echo))
        answer = spread.gives(device)
        assert (answer[20:21], answer[12:16]) == (b"\0", ip_address("100.96.0.1").packed)


def test_a_connection_follows_its_client_to_another_device(spread: Spread) -> None:
    spread.actor._host.allow(CLIENT, f"{RESOURCE}/32")
    os.write(spread.tun[0], udp_packet(CLIENT, RESOURCE, b"by the first"))
    sender = spread.resource.recvfrom(100)[1]
    for device, name in ((1, f"{DEVICE}-2"), (1, f"{DEVICE}-2"), (0, ""), (0, "")):
        assert spread.steer(name) == {}
        spread.resource.sendto(name.encode(), sender)
        assert spread.gives(device)[28:] == name.encode()
    assert "route 100.96.0.5/32" not in spread.namespace.run(leftovers)


def test_a_device_that_nobody_takes_is_open_and_is_taken_later(inside: Namespace, tmp_path: Path) -> None:
    actor = Network("gateway")
    ask = OpenDevice(DEVICE, ("100.96.0.1/32",), 1280, str(tmp_path / "peers-2.device"))
    with pytest.raises(Refused) as caught:
        inside.run(lambda: actor.on_open_device(ask))
    assert caught.value.code == NOBODY_THERE
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(ask.hand_over)
        assert inside.run(lambda: actor.on_open_device(ask)).name == DEVICE
        _, descriptors, _, _ = socket.recv_fds(taker, 64, 1)
    os.close(descriptors[0])
    inside.run(actor._host.close)
    assert inside.run(leftovers) == []


def test_a_route_of_the_hosts_own_is_not_taken_over_by_steering(spread: Spread) -> None:
    def obstruct() -> None:
        with Links(route_protocol=4) as links:
            links.add_route(f"{CLIENT}/32", "eth0")

    spread.namespace.run(obstruct)
    refused = spread.steer(f"{DEVICE}-2")
    assert list(refused) == [f"{CLIENT}/32"]
    assert "exists" in refused[f"{CLIENT}/32"]
    assert spread.steer() == {}
