"""Roaming, rebinding, renumbering and pulled plugs do to datagrams what they do in the world."""

from __future__ import annotations

import socket

import pytest

from exeunt.clients.lab import Impairment, Lab, LabError, NatKind
from exeunt.clients.lab.internet import RELAY_ADDRESSES, RELAY_ADDRESSES6

from .behaviour import INSIDE_PORT, udp
from .conftest import BuildLab

RELAY = RELAY_ADDRESSES[0]
PORT = 3478


def source(client: socket.socket, place: socket.socket) -> tuple[str, int]:
    """Where the client's datagrams come from."""
    client.sendto(b"hello", place.getsockname()[:2])
    host, port = place.recvfrom(100)[1][:2]
    return str(host), int(port)


@pytest.mark.parametrize("kind", ["port_restricted", "symmetric", "double", "carrier", "dual_stack"])
def test_a_nat_that_was_restarted_has_other_ports_and_knows_nobody(build_lab: BuildLab, kind: str) -> None:
    lab = build_lab(kind)
    with udp(lab.relay, RELAY, PORT) as place, udp(lab.client, "10.1.0.2", INSIDE_PORT) as client:
        seen = [source(client, place)]
        for _ in range(2):
            lab.rebind(lab.client_site)
            place.sendto(b"lost", seen[-1])
            seen.append(source(client, place))
            place.sendto(b"reply", seen[-1])
            assert client.recv(100) == b"reply"
        assert {host for host, _ in seen} == {"198.51.100.2"}
        assert len({port for _, port in seen}) == 3


def test_a_rebound_nat_maps_and_filters_as_before(build_lab: BuildLab) -> None:
    from .behaviour import Probe
    from .test_nat_behaviour import PORT_RESTRICTED

    lab = build_lab()
    lab.rebind(lab.client_site)
    with Probe(lab.client, "10.1.0.2", lab.relay, RELAY_ADDRESSES) as probe:
        assert probe.mapped(probe.first)[1] != INSIDE_PORT
        assert probe.behaviour() == PORT_RESTRICTED


@pytest.mark.parametrize("kind", ["full_cone", "none", "ipv6_only"])
def test_what_has_no_ports_of_its_own_cannot_be_rebound(build_lab: BuildLab, kind: str) -> None:
    lab = build_lab(kind)
    with pytest.raises(ValueError, match="ports"):
        lab.rebind(lab.client_site)


@pytest.mark.parametrize("kind", ["full_cone", "address_restricted", "symmetric", "fw", "carrier"])
def test_a_site_that_roams_comes_from_another_address_and_is_reached_at_it(build_lab: BuildLab, kind: str) -> None:
    lab = build_lab(kind)
    own = f"{lab.client_site.prefix}.2"
    with udp(lab.relay, RELAY, PORT) as place, udp(lab.client, own, INSIDE_PORT) as client:
        before = source(client, place)
        address = lab.roam(lab.client_site, 77)
        place.sendto(b"lost", before)
        after = source(client, place)
        assert after[0] == (address if lab.client_site.kind.translates else own)
        place.sendto(b"reply", after)
        assert client.recv(100) == b"reply"


def test_a_firewall_that_roams_forgets_whom_it_let_in(build_lab: BuildLab) -> None:
    lab = build_lab("fw")
    with udp(lab.relay, RELAY, PORT) as place, udp(lab.client, "198.19.1.2", INSIDE_PORT) as client:
        address = source(client, place)
        assert address == ("198.19.1.2", INSIDE_PORT)
        lab.roam(lab.client_site, 77)
        place.sendto(b"lost", address)
        source(client, place)
        place.sendto(b"reply", address)
        assert client.recv(100) == b"reply"


@pytest.mark.parametrize("kind", ["dual_stack", "full_cone"])
def test_a_host_gets_another_address(build_lab: BuildLab, kind: str) -> None:
    lab = build_lab(kind)
    own = lab.renumber(lab.client_site, 44)
    assert own == ["10.1.0.44", *(["2001:db8:1:1::2c"] if kind == "dual_stack" else [])]
    for address, server in zip(own, [RELAY, RELAY_ADDRESSES6[0]], strict=False):
        with udp(lab.relay, server, PORT) as place, udp(lab.client, address, INSIDE_PORT) as client:
            mapped = source(client, place)
            if kind == "full_cone":  # also for those that come unasked
                with udp(lab.relay, RELAY_ADDRESSES[1], PORT) as stranger:
                    stranger.sendto(b"unasked", mapped)
                    assert client.recv(100) == b"unasked"
    with pytest.raises(OSError, match="assign"):
        udp(lab.client, "10.1.0.2")


@pytest.mark.parametrize("kind", ["port_restricted", "dual_stack", "ipv6_only"])
def test_an_interface_goes_down_and_comes_back(build_lab: BuildLab, kind: str) -> None:
    lab = build_lab(kind)
    server, own = (RELAY_ADDRESSES6[0], "2001:db8:1:1::2") if kind == "ipv6_only" else (RELAY, "10.1.0.2")
    with udp(lab.relay, server, PORT) as place:
        lab.unplug(lab.client_site)
        with (
            udp(lab.client, "::" if kind == "ipv6_only" else "0.0.0.0") as client,
            pytest.raises(OSError, match="unreachable"),
        ):
            client.sendto(b"nowhere", (server, PORT))
        lab.plug_in(lab.client_site)
        with udp(lab.client, own) as client:
            source(client, place)


def test_several_laboratories_stand_side_by_side(build_lab: BuildLab) -> None:
    one, other = build_lab(), build_lab()
    with udp(one.relay, RELAY, PORT) as here, udp(other.relay, RELAY, PORT) as there:
        for lab, place in ((one, here), (other, there)):
            with udp(lab.client, "10.1.0.2", INSIDE_PORT) as client:
                assert source(client, place) == ("198.51.100.2", INSIDE_PORT)
        one.close()
        with udp(other.client, "10.1.0.2", INSIDE_PORT) as client:
            source(client, there)


def test_what_cannot_be_done_is_refused(build_lab: BuildLab) -> None:
    lab = build_lab(NatKind.IPV6_ONLY)
    with pytest.raises(LabError, match="no NAT"):
        lab.roam(lab.client_site, 77)
    with pytest.raises(LabError, match="plain cable"):
        lab.impair(lab.client_site, Impairment(delay_ms=10))
    with Lab() as without, pytest.raises(LabError, match="needs an internet with IPv6"):
        without.add_site("third", "dual_stack")
