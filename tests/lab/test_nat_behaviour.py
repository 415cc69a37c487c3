"""Each kind of NAT maps and filters as it says, seen from sockets on both sides."""

from __future__ import annotations

import socket

import pytest

from exeunt.clients.lab import Lab, NatKind
from exeunt.clients.lab.internet import RELAY_ADDRESSES, RELAY_ADDRESSES6

from .behaviour import INSIDE_PORT, Behaviour, Dependence, Probe, udp
from .conftest import BuildLab

OPEN = Behaviour(Dependence.NONE, Dependence.NONE)
ADDRESS_RESTRICTED = Behaviour(Dependence.NONE, Dependence.ADDRESS)
PORT_RESTRICTED = Behaviour(Dependence.NONE, Dependence.ADDRESS_AND_PORT)
SYMMETRIC = Behaviour(Dependence.ADDRESS_AND_PORT, Dependence.ADDRESS_AND_PORT)

IPV4 = {
    NatKind.NONE: OPEN,
    NatKind.FIREWALL: PORT_RESTRICTED,
    NatKind.FULL_CONE: OPEN,
    NatKind.ADDRESS_RESTRICTED: ADDRESS_RESTRICTED,
    NatKind.PORT_RESTRICTED: PORT_RESTRICTED,
    NatKind.SYMMETRIC: SYMMETRIC,
    NatKind.DOUBLE: PORT_RESTRICTED,
    NatKind.CARRIER: PORT_RESTRICTED,
    NatKind.CARRIER_SYMMETRIC: SYMMETRIC,
    NatKind.DUAL_STACK: PORT_RESTRICTED,
}
NO_UDP = {NatKind.UDP_BLOCKED, NatKind.TCP_443}
PUBLIC = {"client": "198.51.100.2", "gateway": "203.0.113.2"}


def test_every_kind_is_tested() -> None:
    assert set(IPV4) | NO_UDP | {NatKind.IPV6_ONLY} == set(NatKind)


@pytest.mark.parametrize("side", PUBLIC)
@pytest.mark.parametrize(("kind", "expected"), IPV4.items())
def test_mapping_and_filtering(build_lab: BuildLab, kind: NatKind, expected: Behaviour, side: str) -> None:
    lab = build_lab(kind if side == "client" else NatKind.NONE, kind if side == "gateway" else NatKind.NONE)
    site = lab.client_site if side == "client" else lab.gateway_site
    own = f"{site.prefix}.2"
    with Probe(site.host, own, lab.relay, RELAY_ADDRESSES) as probe:
        address, port = probe.mapped(probe.first)
        assert address == (PUBLIC[side] if kind.translates else own)
        assert (port == INSIDE_PORT) == (expected.mapping is Dependence.NONE)
        assert probe.behaviour() == expected


@pytest.mark.parametrize("kind", [NatKind.IPV6_ONLY, NatKind.DUAL_STACK])
def test_ipv6_is_not_translated_and_only_replies_come_in(build_lab: BuildLab, kind: NatKind) -> None:
    lab = build_lab(kind)
    own = "2001:db8:1:1::2"
    with Probe(lab.client, own, lab.relay, RELAY_ADDRESSES6) as probe:
        assert probe.mapped(probe.first) == (own, INSIDE_PORT)
        assert probe.behaviour() == PORT_RESTRICTED


def test_a_site_without_ipv4_has_none(build_lab: BuildLab) -> None:
    lab = build_lab(NatKind.IPV6_ONLY)
    with udp(lab.client, "0.0.0.0") as client, pytest.raises(OSError, match="unreachable"):
        client.sendto(b"nowhere", (RELAY_ADDRESSES[0], 3478))


def test_what_was_never_asked_for_is_kept_out(build_lab: BuildLab) -> None:
    """A mapping of one port says nothing of another; and only an open site is reached without any."""
    for kind, is_open in [(NatKind.PORT_RESTRICTED, False), (NatKind.FIREWALL, False), (NatKind.NONE, True)]:
        lab = build_lab(kind)
        own = f"{lab.client_site.prefix}.2"
        with udp(lab.client, own, INSIDE_PORT) as inside, udp(lab.relay, RELAY_ADDRESSES[0], 3478) as place:
            to = ("198.51.100.2" if kind.translates else own, INSIDE_PORT)
            place.sendto(b"unasked", to)
            inside.sendto(b"hello", place.getsockname())
            place.sendto(b"reply", place.recvfrom(100)[1])
            assert inside.recv(100) == (b"unasked" if is_open else b"reply")


@pytest.mark.parametrize(("kind", "port_3478"), [(NatKind.UDP_BLOCKED, True), (NatKind.TCP_443, False)])
def test_where_udp_is_blocked_tcp_passes(build_lab: BuildLab, kind: NatKind, port_3478: bool) -> None:
    lab = build_lab(kind)
    address = RELAY_ADDRESSES[0]
    with udp(lab.relay, address, 3478) as place, udp(lab.client, "10.1.0.2") as client:
        client.sendto(b"lost", place.getsockname())
        assert tcp_reaches(lab, address, 443)
        assert tcp_reaches(lab, address, 3478) == port_3478
        place.setblocking(False)  # the datagram left before the connections, so it had its time
        with pytest.raises(BlockingIOError):
            place.recv(100)


def tcp_reaches(lab: Lab, address: str, port: int) -> bool:
    """Whether the client can connect there. A dropped SYN is sent again after a second, so half of one suffices."""
    server = lab.relay.run(lambda: socket.create_server((address, port)))
    with server:
        try:
            connection = lab.client.run(lambda: socket.create_connection((address, port), timeout=0.5))
        except TimeoutError:
            return False
        with connection:
            return bool(connection.getpeername() == (address, port))


def test_a_carrier_has_the_addresses_that_rfc_6598_sets_aside(build_lab: BuildLab) -> None:
    lab = build_lab(NatKind.CARRIER)
    home = lab.client_site.home
    assert home is not None
    # The carrier's NAT is endpoint-independent: the home's router itself is reached by anybody, through its mapping.
    with Probe(home, "100.64.1.2", lab.relay, RELAY_ADDRESSES) as probe:
        assert probe.mapped(probe.first) == ("198.51.100.2", INSIDE_PORT)
