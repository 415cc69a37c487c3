"""The host's network changed and put back, on the real kernel: a gateway between a TUN device and a resource."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from exeunt.actors.device import DeviceBusy, read_header
from exeunt.actors.network import HostNetwork, InstanceBusy, InvalidNetwork, NetworkRefused, leftovers
from exeunt.actors.network.firewall import FirewallLegacy
from exeunt.actors.network.host import HostLegacy
from exeunt.actors.network.links import Links
from exeunt.actors.network.sysctl import read_sysctl
from exeunt.clients.lab import Namespace, connect

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing the host's network needs root"),
]
DEVICE = "exeunt0"
CLIENT, OTHER_CLIENT = "100.96.0.5", "100.96.0.6"
RESOURCE, GATEWAY = "10.20.0.10", "10.20.0.2"
PORT = 7000


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with Namespace("host") as namespace:
        yield namespace


def test_a_device_has_its_addresses_and_routes_and_leaves_nothing(inside: Namespace) -> None:
    def story() -> None:
        with HostNetwork("client") as network, Links() as links:
            fd = network.open_device(DEVICE, ["100.96.0.2/32", "fd00:2021::2/128"], 1280)
            assert links.addresses(DEVICE) == {"100.96.0.2/32", "fd00:2021::2/128"}
            network.add_route("10.20.0.0/24", DEVICE)
            network.add_route("10.20.0.0/24", DEVICE)
            network.add_route("fd00:20::/64", DEVICE)
            network.set_addresses(DEVICE, ["100.96.0.3/32", "fd00:2021::2/128"])
            assert links.addresses(DEVICE) == {"100.96.0.3/32", "fd00:2021::2/128"}
            network.remove_route("fd00:20::/64", DEVICE)
            network.remove_route("fd00:20::/64", DEVICE)
            assert leftovers() == [f"device {DEVICE}", "route 10.20.0.0/24"]
            duplicate = os.dup(fd)  # a worker that still holds the device does not keep it alive
        network.close()
        assert leftovers() == []
        os.close(duplicate)

    inside.run(story)


def test_a_device_makes_up_no_addresses_of_its_own(inside: Namespace) -> None:
    def story() -> None:
        with HostNetwork("client") as network:
            network.open_device(DEVICE, ["fd00:2021::2/128"], 1280)
            rows = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
            assert [row.split()[0] for row in rows if DEVICE in row] == ["fd002021" + "0" * 23 + "2"]

    inside.run(story)


def test_a_device_that_cannot_be_configured_is_not_left_behind(inside: Namespace) -> None:
    def story() -> None:
        with HostNetwork("client") as network:
            with pytest.raises(InvalidNetwork):
                network.open_device(DEVICE, ["100.96.0.300/32"], 1280)
            with pytest.raises(NetworkRefused):
                network.open_device(DEVICE, ["ff02::7/128"], 1280)
            assert leftovers() == []
            network.open_device(DEVICE, [], 1280)
            with pytest.raises(DeviceBusy):
                HostNetwork("other").open_device(DEVICE, [], 1280)

    inside.run(story)


def test_a_route_of_the_hosts_own_is_not_replaced(inside: Namespace) -> None:
    def story() -> None:
        with HostNetwork("client") as network:
            network.open_device(DEVICE, ["100.96.0.2/32"], 1280)
            network.open_device("exeunt1", ["100.96.0.3/32"], 1280)
            network.add_route("10.20.0.0/24", DEVICE)
            with pytest.raises(NetworkRefused) as caught:
                network.add_route("10.20.0.0/24", "exeunt1")
            assert caught.value.errno == errno.EEXIST
            with pytest.raises(InvalidNetwork):
                network.add_route("10.20.0.1/24", DEVICE)
            with pytest.raises(InvalidNetwork):
                network.add_route("10.20.0.0/24", "eth7")

    inside.run(story)


@dataclass
class Gateway:
    """A gateway with a TUN device on one side and a resource, which knows no way back, on the other."""

    namespace: Namespace
    network: HostNetwork
    tun_fd: int
    resource: socket.socket

    def from_tunnel(self, payload: bytes, *, source: str = CLIENT, destination: str = RESOURCE) -> None:
        os.write(self.tun_fd, udp_packet(source, destination, payload))

    def to_tunnel(self) -> tuple[str, str, bytes]:
        """The next packet that the kernel routes into the tunnel: source, destination, UDP payload."""
        assert select.select([self.tun_fd], [], [], 5)[0], "nothing came out of the tunnel"
        packet = os.read(self.tun_fd, 2000)
        header = read_header(packet)
        assert header is not None
        return str(ip_address(header.source)), str(ip_address(header.destination)), packet[28:]


def udp_packet(source: str, destination: str, payload: bytes) -> bytes:
    """IPv4 and UDP, port 7000 on both sides, without the UDP checksum (RFC 768: zero means none)."""
    port = PORT.to_bytes(2, "big")
    datagram = port + port + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    return ipv4_packet(source, destination, 17, datagram)


def ipv4_packet(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    head = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\0\0\0\0\x40" + bytes([protocol]) + b"\0\0"
    head += ip_address(source).packed + ip_address(destination).packed
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + body


def udp6_packet(source: str, destination: str, payload: bytes) -> bytes:
    """IPv6 and UDP; here the checksum is not optional (RFC 8200, section 8.1)."""
    size, port = (8 + len(payload)).to_bytes(2, "big"), PORT.to_bytes(2, "big")
    addresses = ip_address(source).packed + ip_address(destination).packed
    pseudo = addresses + b"\0\0" + size + b"\0\0\0\x11"
    checksum = internet_checksum(pseudo + port + port + size + b"\0\0" + payload).to_bytes(2, "big")
    return b"\x60\0\0\0" + size + b"\x11\x40" + addresses + port + port + size + checksum + payload


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def udp_socket(address: str) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(5)
    udp.bind((address, PORT))
    return udp


@pytest.fixture
def gateway(inside: Namespace) -> Iterator[Gateway]:
    with Namespace("resource") as lan, HostNetwork("gateway") as network:
        connect(inside, "eth0", lan, "eth0")
        inside.configure(addresses={"eth0": [f"{GATEWAY}/24"]})
        lan.configure(addresses={"eth0": [f"{RESOURCE}/24"]})

        def begin() -> int:
            fd = network.open_device(DEVICE, ["100.96.0.1/32"], 1280)
            network.add_route("100.96.0.0/11", DEVICE)
            network.enable_forwarding([DEVICE], sources=["100.96.0.0/11"], masquerade=True)
            return fd

        fd = inside.run(begin)
        with lan.run(lambda: udp_socket(RESOURCE)) as resource:
            yield Gateway(inside, network, fd, resource)
        inside.run(network.close)
        assert inside.run(leftovers) == []


def test_a_permitted_client_reaches_the_resource_masqueraded(gateway: Gateway) -> None:
    gateway.from_tunnel(b"too early")
    gateway.network.allow(CLIENT, f"{RESOURCE}/32")
    gateway.from_tunnel(b"not me", source=OTHER_CLIENT)
    gateway.from_tunnel(b"hello")
    payload, sender = gateway.resource.recvfrom(100)
    assert (payload, sender[0]) == (b"hello", GATEWAY)
    gateway.resource.sendto(b"welcome", sender)
    assert gateway.to_tunnel() == (RESOURCE, CLIENT, b"welcome")


def test_revoking_ends_an_established_connection_in_both_directions(gateway: Gateway) -> None:
    gateway.network.allow(CLIENT, "10.20.0.0/24")
    gateway.network.allow(OTHER_CLIENT, "10.20.0.0/24")
    gateway.from_tunnel(b"1")
    payload, sender = gateway.resource.recvfrom(100)
    assert payload == b"1"
    gateway.from_tunnel(b"2", source=OTHER_CLIENT)
    payload, other_sender = gateway.resource.recvfrom(100)
    assert payload == b"2"
    gateway.network.revoke(CLIENT, "10.20.0.0/24")
    gateway.from_tunnel(b"3")
    gateway.from_tunnel(b"4", source=OTHER_CLIENT)
    assert gateway.resource.recvfrom(100) == (b"4", other_sender)
    gateway.resource.sendto(b"5", sender)
    gateway.resource.sendto(b"6", other_sender)
    assert gateway.to_tunnel() == (RESOURCE, OTHER_CLIENT, b"6")


def test_networks_within_one_another_come_and_go(gateway: Gateway) -> None:
    network = gateway.network
    for cidr in ("10.20.0.10/32", "10.0.0.0/8", "10.20.0.0/24", "0.0.0.0/0", "10.20.0.0/24"):
        network.allow(CLIENT, cidr)
    for cidr in ("0.0.0.0/0", "10.20.0.0/24", "10.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"):
        network.revoke(CLIENT, cidr)
    gateway.from_tunnel(b"still permitted by /32")
    assert gateway.resource.recvfrom(100)[0] == b"still permitted by /32"
    network.allow("fd00::5", "fd20::/16")
    network.allow("fd00::5", "::/0")
    with pytest.raises(InvalidNetwork):
        network.allow(CLIENT, "fd20::/16")
    with pytest.raises(InvalidNetwork):
        network.allow("nobody", "10.0.0.0/8")


def test_the_gateways_own_services_are_not_for_clients(gateway: Gateway) -> None:
    gateway.network.allow(CLIENT, f"{RESOURCE}/32")
    with gateway.namespace.run(lambda: udp_socket("0.0.0.0")) as own:
        gateway.from_tunnel(b"let me in", destination="100.96.0.1")
        gateway.from_tunnel(b"or here", destination=GATEWAY)
        gateway.network.allow(CLIENT, f"{GATEWAY}/32")
        gateway.from_tunnel(b"as a resource", destination=GATEWAY)
        assert own.recvfrom(100)[0] == b"as a resource"


def test_ping_reaches_the_gateway_itself(gateway: Gateway) -> None:
    echo = b"\x08\0\0\0\0\x01\0\x01"
    echo = echo[:2] + internet_checksum(echo).to_bytes(2, "big") + echo[4:]
    os.write(gateway.tun_fd, ipv4_packet(CLIENT, "100.96.0.1", 1, echo))
    assert select.select([gateway.tun_fd], [], [], 5)[0]
    assert os.read(gateway.tun_fd, 2000)[20:21] == b"\0"


def test_ipv6_is_permitted_masqueraded_and_refused_alike(inside: Namespace) -> None:
    def begin() -> int:
        fd = network.open_device(DEVICE, ["fd00:2021::1/128"], 1280)
        network.add_route("fd00:2021::/64", DEVICE)
        network.enable_forwarding([DEVICE], sources=["fd00:2021::/64"], masquerade=True)
        network.allow("fd00:2021::5", "fd20::/64")
        return fd

    def udp6() -> socket.socket:
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.settimeout(5)
        udp.bind(("fd20::10", PORT))
        return udp

    with Namespace("resource") as lan, HostNetwork("gateway") as network:
        connect(inside, "eth0", lan, "eth0")
        for namespace, address in ((inside, "fd20::2/64"), (lan, "fd20::10/64")):
            namespace.configure(sysctls={"ipv6/conf/eth0/disable_ipv6": "0"}, addresses={"eth0": [address]})
        fd = inside.run(begin)
        with lan.run(udp6) as resource:
            os.write(fd, udp6_packet("fd00:2021::6", "fd20::10", b"not permitted"))
            os.write(fd, udp6_packet("fd00:2021::5", "fd20::10", b"hello"))
            payload, sender = resource.recvfrom(100)
            assert (payload, sender[0]) == (b"hello", "fd20::2")
            resource.sendto(b"welcome", sender)
            assert select.select([fd], [], [], 5)[0]
            packet = os.read(fd, 2000)
            header = read_header(packet)
            assert header is not None
            assert (header.destination, packet[48:]) == (ip_address("fd00:2021::5").packed, b"welcome")
        inside.run(network.close)
        assert inside.run(lambda: read_sysctl("ipv6/conf/all/forwarding")) == "0"


def test_clients_do_not_reach_one_another(gateway: Gateway) -> None:
    gateway.network.allow(CLIENT, "0.0.0.0/0")
    gateway.from_tunnel(b"psst", destination=OTHER_CLIENT)
    gateway.from_tunnel(b"hello")
    sender = gateway.resource.recvfrom(100)[1]
    gateway.resource.sendto(b"first to come out", sender)
    assert gateway.to_tunnel()[2] == b"first to come out"


def test_forwarding_is_switched_on_for_the_versions_asked_for_and_back_off(gateway: Gateway) -> None:
    run = gateway.namespace.run
    assert run(lambda: read_sysctl("ipv4/ip_forward")) == "1"
    assert run(lambda: read_sysctl("ipv6/conf/all/forwarding")) == "0"
    run(gateway.network.close)
    run(gateway.network.close)
    assert run(lambda: read_sysctl("ipv4/ip_forward")) == "0"
    with pytest.raises(InvalidNetwork):
        gateway.network.allow(CLIENT, "10.0.0.0/8")


def test_a_second_program_of_the_same_instance_is_told_so(gateway: Gateway) -> None:
    def story() -> None:
        with HostNetwork("gateway") as second:
            second.open_device("exeunt1", [], 1280)
            with pytest.raises(InstanceBusy, match="exeunt_gateway"):
                second.enable_forwarding(["exeunt1"], sources=["100.96.0.0/11"], masquerade=True)
        with HostNetwork("gateway-2") as other:
            other.open_device("exeunt1", [], 1280)
            other.enable_forwarding(["exeunt1"], sources=[], masquerade=False)
            assert "table exeunt_gateway_2" in leftovers("gateway-2")

    gateway.namespace.run(story)


@pytest.mark.slow
def test_a_successor_goes_on_with_all_of_it_and_puts_it_back(gateway: Gateway) -> None:
    """Nothing is interrupted while both have the descriptors, nor when the predecessor lets go of its own."""
    host = gateway.namespace
    gateway.network.allow(CLIENT, f"{RESOURCE}/32")
    gateway.from_tunnel(b"before")
    sender = gateway.resource.recvfrom(100)[1]
    left, descriptors = gateway.network.legacy()
    document, duplicates = msgspec.msgpack.encode(left), [os.dup(one) for one in descriptors]
    host.run(gateway.network.let_go)
    host.run(gateway.network.close)
    assert host.run(leftovers) == [f"device {DEVICE}", "route 100.96.0.0/11", "table exeunt_gateway"]
    successor = HostNetwork("gateway")
    opened = successor.adopt(msgspec.msgpack.decode(document, type=HostLegacy), duplicates)
    assert list(opened) == [DEVICE]
    gateway.tun_fd = opened[DEVICE]
    gateway.from_tunnel(b"after")
    assert gateway.resource.recvfrom(100) == (b"after", sender)
    gateway.resource.sendto(b"welcome", sender)
    assert gateway.to_tunnel() == (RESOURCE, CLIENT, b"welcome")
    successor.allow(OTHER_CLIENT, f"{RESOURCE}/32")
    successor.revoke(CLIENT, f"{RESOURCE}/32")
    gateway.from_tunnel(b"revoked")
    gateway.from_tunnel(b"allowed", source=OTHER_CLIENT)
    assert gateway.resource.recv(100) == b"allowed"
    with pytest.raises(InvalidNetwork):
        host.run(lambda: successor.enable_forwarding([DEVICE], sources=["100.96.0.0/11"], masquerade=True))
    assert host.run(lambda: read_sysctl("ipv4/ip_forward")) == "1"
    host.run(successor.close)
    assert host.run(leftovers) == []
    assert host.run(lambda: read_sysctl("ipv4/ip_forward")) == "0"


def test_nobody_adopts_what_makes_no_sense(gateway: Gateway) -> None:
    left, descriptors = gateway.network.legacy()
    for nonsense, count in (
        (left, 1),
        (left, 3),
        (msgspec.structs.replace(left, firewall=None), 2),
        (msgspec.structs.replace(left, firewall=FirewallLegacy({"nobody": ()})), 2),
    ):
        duplicates = [os.dup(one) for one in (*descriptors, descriptors[0])[:count]]
        with pytest.raises(ValueError, match="makes no sense"):
            HostNetwork("gateway").adopt(nonsense, duplicates)
        for one in duplicates:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one)
    assert gateway.namespace.run(leftovers) == [f"device {DEVICE}", "route 100.96.0.0/11", "table exeunt_gateway"]


def test_nothing_survives_sigkill(inside: Namespace) -> None:
    code = """
import sys
from exeunt.actors.network import HostNetwork
network = HostNetwork("gateway")
network.open_device("exeunt0", ["100.96.0.1/32"], 1280)
network.add_route("100.96.0.0/11", "exeunt0")
network.enable_forwarding(["exeunt0"], sources=["100.96.0.0/11"], masquerade=True)
network.allow("100.96.0.5", "10.0.0.0/8")
print("ready", flush=True)
sys.stdin.read()
"""
    child = inside.popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    with child.stdin, child.stdout:
        assert child.stdout.readline() == b"ready\n"
        assert inside.run(leftovers) == ["device exeunt0", "route 100.96.0.0/11", "table exeunt_gateway"]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert inside.run(leftovers) == []
