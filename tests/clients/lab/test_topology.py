"""The laboratory as a whole: who reaches whom, faults and their end, and what is left of it (nothing)."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exeunt.actors.network import leftovers
from exeunt.clients.lab import Lab, Namespace, occupants
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]
PORT = 9000


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(gateways=2) as built:
        yield built


def udp(namespace: Namespace, address: str, *, buffer_bytes: int = 0) -> socket.socket:
    def inside() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.settimeout(5)
        if buffer_bytes:
            bound.setsockopt(socket.SOL_SOCKET, 33, buffer_bytes)  # SO_RCVBUFFORCE
        bound.bind((address, PORT))
        return bound

    return namespace.run(inside)


def test_both_sites_reach_the_internet_and_not_each_other(lab: Lab) -> None:
    with udp(lab.internet, "192.0.2.1") as portal, udp(lab.client, "10.1.0.2") as client:
        client.sendto(b"from the client", portal.getsockname())
        assert portal.recvfrom(100) == (b"from the client", ("198.51.100.2", PORT))
        for number, namespace in enumerate(lab.gateways, start=2):
            with udp(namespace, f"10.2.0.{number}") as gateway:
                client.sendto(b"lost", gateway.getsockname())  # a private address: the internet swallows it
                gateway.sendto(b"from a gateway", portal.getsockname())
                payload, sender = portal.recvfrom(100)
                assert (payload, sender[0]) == (b"from a gateway", "203.0.113.2")
                portal.sendto(b"answer", sender)
                assert gateway.recvfrom(100) == (b"answer", portal.getsockname())


def test_gateways_reach_the_resource_and_it_answers_only_its_own_network(lab: Lab) -> None:
    with udp(lab.resource, RESOURCE_ADDRESS) as resource:
        for number, namespace in enumerate(lab.gateways, start=2):
            with udp(namespace, f"10.20.0.{number}") as gateway:
                gateway.sendto(b"hello", resource.getsockname())
                assert resource.recvfrom(100) == (b"hello", gateway.getsockname())
                resource.sendto(b"welcome", gateway.getsockname())
                assert gateway.recv(100) == b"welcome"
        with pytest.raises(OSError, match="unreachable"):
            resource.sendto(b"nowhere", ("100.96.0.5", PORT))


@pytest.mark.slow
def test_a_share_of_the_datagrams_is_lost(lab: Lab) -> None:
    with udp(lab.internet, "192.0.2.1", buffer_bytes=1 << 24) as place, udp(lab.client, "10.1.0.2") as client:
        lab.lose(lab.client_site, 20)
        for _ in range(2000):
            client.sendto(b"datagram", place.getsockname())
        lab.lose(lab.client_site, 0)
        client.sendto(b"the end", place.getsockname())
        received = iter(lambda: place.recv(100), b"the end")
        # Binomial, n = 2000, p = 0.2: 400 lost, standard deviation 18; six of those on either side.
        assert 290 < 2000 - sum(1 for _ in received) < 510


def test_a_cut_is_silent_and_heals(lab: Lab) -> None:
    with udp(lab.internet, "192.0.2.1") as place, udp(lab.client, "10.1.0.2") as client:
        client.sendto(b"before", place.getsockname())
        payload, sender = place.recvfrom(100)
        assert payload == b"before"
        lab.cut(lab.client_site)
        lab.cut(lab.client_site)
        client.sendto(b"lost", place.getsockname())
        place.sendto(b"lost", sender)
        lab.heal(lab.client_site)
        lab.heal(lab.client_site)
        client.sendto(b"after", place.getsockname())
        place.sendto(b"after, too", sender)
        assert place.recv(100) == b"after"
        assert client.recv(100) == b"after, too"


@pytest.mark.parametrize("kind", ["port_restricted", "none"])
def test_a_site_roams_to_another_address(kind: str) -> None:
    own = "198.19.1.2" if kind == "none" else "10.1.0.2"
    with Lab(client_nat=kind) as lab, udp(lab.internet, "192.0.2.1") as place, udp(lab.client, own) as client:
        for last_byte in (77, 78):
            client.sendto(b"before", place.getsockname())
            place.recv(100)
            address = lab.roam(lab.client_site, last_byte)
            client.sendto(b"after", place.getsockname())
            payload, sender = place.recvfrom(100)
            assert payload == b"after"
            assert sender[0] == (own if kind == "none" else address)
            place.sendto(b"answer", sender)
            assert client.recv(100) == b"answer"


def test_it_vanishes_when_it_is_closed() -> None:
    descriptors, threads, host = descriptor_count(), threading.active_count(), leftovers()
    lab = Lab(gateways=2, client_nat="double")
    identities = [namespace.identity for namespace in lab.namespaces]
    assert len(set(identities)) == 8
    child = lab.gateways[1].popen(["sleep", "600"])
    assert occupants(identities) == {lab.gateways[1].identity: [child.pid]}
    lab.close()
    lab.close()
    assert occupants(identities) == {}
    assert (descriptor_count(), threading.active_count()) == (descriptors, threads)
    assert leftovers() == host


def test_a_lab_that_cannot_be_built_is_not_half_there() -> None:
    threads = threading.active_count()
    with pytest.raises(ValueError, match="gateways"):
        Lab(gateways=3)
    with pytest.raises(ValueError, match="carrier pigeon"):
        Lab(client_nat="carrier pigeon")
    with pytest.raises(ValueError, match="100 %"), Lab() as lab:
        lab.lose(lab.client_site, 101)
    assert threading.active_count() == threads


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
