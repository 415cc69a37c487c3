"""What NAT boxes are made for, and what they refuse. How each kind behaves is tested in `tests/lab`."""

import os
import socket

import pytest

from exeunt.clients.lab import Lab, Namespace, NatKind, install_nat

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]
INSIDE_PORT = 40_000


def udp(address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.settimeout(5)
    bound.bind((address, port))
    return bound


def test_two_port_restricted_nats_can_be_punched() -> None:
    """The reason for dropping what strangers send to the box: the first packet must not spoil the second's port."""
    with Lab() as lab:
        client = lab.client.run(lambda: udp("10.1.0.2", INSIDE_PORT))
        gateway = lab.gateways[0].run(lambda: udp("10.2.0.2", INSIDE_PORT))
        with client, gateway:
            client.sendto(b"dropped at the other NAT", ("203.0.113.2", INSIDE_PORT))
            gateway.sendto(b"through", ("198.51.100.2", INSIDE_PORT))
            assert client.recvfrom(100) == (b"through", ("203.0.113.2", INSIDE_PORT))
            client.sendto(b"back", ("203.0.113.2", INSIDE_PORT))
            assert gateway.recvfrom(100) == (b"back", ("198.51.100.2", INSIDE_PORT))


@pytest.mark.parametrize("kind", [NatKind.DOUBLE, NatKind.CARRIER, NatKind.DUAL_STACK, NatKind.IPV6_ONLY])
def test_a_site_of_several_parts_is_no_kind_of_one_box(kind: NatKind) -> None:
    with Namespace("box") as box, pytest.raises(ValueError, match="not a kind of one"):
        install_nat(box, "wan", "10.1.0.2", kind)


def test_a_nat_that_translates_inwards_keeps_its_ports() -> None:
    with Namespace("box") as box, pytest.raises(ValueError, match="keeps the inside ports"):
        install_nat(box, "wan", "10.1.0.2", NatKind.FULL_CONE, ports=(20_000, 30_000))
