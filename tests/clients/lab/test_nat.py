"""The NAT boxes behave as RFC 4787 says of their kinds, seen from sockets on both sides."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from exeunt.clients.lab import Lab, Namespace, NatKind, install_nat

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]
Address = tuple[str, int]
PORT, OTHER_PORT = 3478, 3479
INSIDE_PORT = 40_000


class Outside:
    """A client behind the NAT, and three places on the internet: two addresses, the first with two ports."""

    def __init__(self, lab: Lab) -> None:
        self.client = lab.client.run(lambda: udp("10.1.0.2", INSIDE_PORT))
        self.first = lab.internet.run(lambda: udp("192.0.2.1", PORT))
        self.first_other_port = lab.internet.run(lambda: udp("192.0.2.1", OTHER_PORT))
        self.second = lab.internet.run(lambda: udp("192.0.2.2", PORT))

    def mapped(self, place: socket.socket) -> Address:
        """Where the client appears to come from, at this place."""
        self.client.sendto(b"who am I?", place.getsockname())
        address: Address = place.recvfrom(100)[1]
        return address

    def admitted(self, place: socket.socket, to: Address) -> bool:
        """Whether a datagram from here comes in; one that must come in is sent behind it to end the wait."""
        place.sendto(b"stranger", to)
        self.first.sendto(b"friend", to)
        stranger = self.client.recvfrom(100)[0] == b"stranger"
        if stranger:
            assert self.client.recvfrom(100)[0] == b"friend"
        return stranger

    def close(self) -> None:
        for each in (self.client, self.first, self.first_other_port, self.second):
            each.close()


def udp(address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.settimeout(5)
    bound.bind((address, port))
    return bound


@pytest.fixture
def behind() -> Iterator[Callable[[NatKind], Outside]]:
    opened: list[Lab | Outside] = []

    def build(kind: NatKind) -> Outside:
        lab = Lab(client_nat=kind)
        opened.append(lab)
        outside = Outside(lab)
        opened.append(outside)
        return outside

    yield build
    for each in reversed(opened):
        each.close()


@pytest.mark.parametrize(
    ("kind", "one_mapping", "other_address_admitted", "other_port_admitted"),
    [
        (NatKind.FIREWALL, True, False, False),
        (NatKind.NONE, True, True, True),
        (NatKind.FULL_CONE, True, True, True),
        (NatKind.ADDRESS_RESTRICTED, True, False, True),
        (NatKind.PORT_RESTRICTED, True, False, False),
        (NatKind.SYMMETRIC, False, False, False),
        (NatKind.DOUBLE, True, False, False),
    ],
)
def test_mapping_and_filtering(
    behind: Callable[[NatKind], Outside],
    kind: NatKind,
    one_mapping: bool,
    other_address_admitted: bool,
    other_port_admitted: bool,
) -> None:
    outside = behind(kind)
    address = outside.mapped(outside.first)
    public = "198.51.100.2" if kind.translates else "10.1.0.2"
    assert address[0] == public
    assert outside.admitted(outside.second, address) == other_address_admitted
    assert outside.admitted(outside.first_other_port, address) == other_port_admitted
    assert (outside.mapped(outside.second) == address) == one_mapping
    assert (address[1] == INSIDE_PORT) == one_mapping


def test_udp_can_be_blocked_while_tcp_passes() -> None:
    with Lab(client_nat="udp_blocked") as lab, lab.internet.run(lambda: udp("192.0.2.1", PORT)) as place:
        with lab.client.run(lambda: udp("10.1.0.2", INSIDE_PORT)) as client:
            client.sendto(b"lost", place.getsockname())
        server = lab.internet.run(lambda: socket.create_server(("192.0.2.1", 443)))
        with server, lab.client.run(lambda: socket.create_connection(("192.0.2.1", 443), timeout=5)) as connection:
            assert connection.getpeername() == ("192.0.2.1", 443)
        place.setblocking(False)  # the datagram left before the connection, so it had its time
        with pytest.raises(BlockingIOError):
            place.recv(100)


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


def test_a_double_nat_is_no_kind_of_one_box() -> None:
    with Namespace("box") as box, pytest.raises(ValueError, match="two boxes"):
        install_nat(box, "wan", "10.1.0.2", NatKind.DOUBLE)
