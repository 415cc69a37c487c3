"""`exeunt check` behind real NATs names what it is behind: with our relay, and with coturn."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aioice import stun

from exeunt.clients.lab import Lab, Namespace, NatKind, connect

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]
FIRST, SECOND = "192.0.2.1", "192.0.2.2"
RELAY = f"{FIRST}:3478"
EXEUNT = [sys.executable, "-m", "exeunt.clients"]
READY_S = 20.0
LONGEST_MS = 4000.0
"""Of its own clock: that leaves a second of the promised five to the interpreter's start."""

NAMES = {
    NatKind.NONE: ("open", "endpoint_independent", "endpoint_independent"),
    NatKind.FIREWALL: ("firewall", "endpoint_independent", "address_and_port_dependent"),
    NatKind.FULL_CONE: ("full_cone", "endpoint_independent", "endpoint_independent"),
    NatKind.ADDRESS_RESTRICTED: ("address_restricted", "endpoint_independent", "address_dependent"),
    NatKind.PORT_RESTRICTED: ("port_restricted", "endpoint_independent", "address_and_port_dependent"),
    NatKind.SYMMETRIC: ("symmetric", "address_and_port_dependent", "address_and_port_dependent"),
    NatKind.DOUBLE: ("port_restricted", "endpoint_independent", "address_and_port_dependent"),
}


def answers(place: Namespace, address: tuple[str, int]) -> bool:
    """Whether a STUN server answers there, seen from within `place`."""
    with place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.settimeout(0.1)
        asking.sendto(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)), address)
        try:
            return len(asking.recv(2048)) > 0
        except (TimeoutError, ConnectionRefusedError):
            return False


def until_answered(place: Namespace, *addresses: tuple[str, int]) -> None:
    ends_at = time.monotonic() + READY_S
    while not all(answers(place, address) for address in addresses):
        assert time.monotonic() < ends_at, "the relay did not start"


@contextmanager
def our_relay(place: Namespace, home: Path, *arguments: str, host: str = FIRST) -> Generator[None]:
    environment = os.environ | {"EXEUNT_HOME": str(home), "EXEUNT_RELAY_SECRET": "a secret for two programs"}
    command = [*EXEUNT, "relay", "run", "--listen", f"{host}:3478", *arguments, "--quiet"]
    process = place.popen(command, env=environment)
    try:
        until_answered(place, (host, 3478))
        yield
    finally:
        process.terminate()
        process.wait(READY_S)


@contextmanager
def coturn(place: Namespace, directory: Path, *arguments: str) -> Generator[None]:
    program = shutil.which("turnserver")
    assert program is not None
    options = [
        *(f"--listening-ip={FIRST}", "--listening-port=3478", f"--relay-ip={FIRST}", "--realm=exeunt", "-n"),
        *("--use-auth-secret", "--static-auth-secret=a secret for two programs", "--no-cli", "--no-tls", "--no-dtls"),
        *(f"--pidfile={directory}/pid", f"--userdb={directory}/db", "--log-file=stdout", "--simple-log"),
        *arguments,
    ]
    process = place.popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_answered(place, (FIRST, 3478))
        yield
    finally:
        process.terminate()
        process.wait(READY_S)


def check(lab: Lab, home: Path, *arguments: str, relay: str = RELAY) -> dict[str, Any]:
    return check_at(lab.client, home, relay, *arguments)


def check_at(place: Namespace, home: Path, relay: str, *arguments: str) -> dict[str, Any]:
    """Run the command at a place: its document's data. It takes less than five seconds."""
    command = [*EXEUNT, "check", "--relay", relay, "--json", *arguments]
    environment = os.environ | {"EXEUNT_HOME": str(home)}
    process = place.popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    document = msgspec.json.decode(out, type=dict[str, Any])
    assert document["schema"] == "exeunt.check/1", err
    data: dict[str, Any] = document["data"]
    assert process.returncode == (1 if data["verdict"] == "problem" else 0)
    assert data["duration_ms"] < LONGEST_MS
    return data


def verdicts(data: dict[str, Any]) -> dict[str, str]:
    return {finding["examination"]: finding["verdict"] for finding in data["findings"]}


@pytest.mark.parametrize("kind", NAMES)
def test_our_relay_names_the_nat(kind: NatKind, tmp_path: Path) -> None:
    with Lab(client_nat=kind) as lab, our_relay(lab.internet, tmp_path / "r", "--other-listen", f"{SECOND}:3479"):
        data = check(lab, tmp_path / "c")
    (nat,) = data["measured"]["nats"]
    assert (nat["name"], nat["mapping"], nat["filtering"]) == NAMES[kind]
    assert nat["found_by"] == "rfc5780"
    assert nat["translated"] == kind.translates
    assert nat["public_address"] == ("198.51.100.2" if kind.translates else "198.19.1.2")
    assert verdicts(data)["nat"] == ("warning" if kind is NatKind.SYMMETRIC else "ok")
    assert verdicts(data)["udp"] == verdicts(data)["mtu"] == verdicts(data)["relays"] == "ok"
    assert [mtu["packet_bytes"] for mtu in data["measured"]["path_mtus"]] == [1500]


@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn's turnserver is not installed")
@pytest.mark.parametrize("kind", [NatKind.NONE, NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC, NatKind.FULL_CONE])
def test_coturn_names_the_nat(kind: NatKind, tmp_path: Path) -> None:
    second = ("--listening-ip=" + SECOND, "--alt-listening-port=3479")
    with Lab(client_nat=kind) as lab, coturn(lab.internet, tmp_path, *second):
        data = check(lab, tmp_path / "c")
    (nat,) = data["measured"]["nats"]
    assert (nat["name"], nat["mapping"], nat["filtering"]) == NAMES[kind]
    reached = {each["transport"]: each["rtt_ms"] for each in data["measured"]["relays"]}
    assert reached["udp"] is not None
    assert reached["tcp"] is not None


@pytest.mark.parametrize(("kind", "name"), [(NatKind.PORT_RESTRICTED, "cone"), (NatKind.SYMMETRIC, "symmetric")])
def test_two_relays_with_one_address_each_tell_the_mapping(kind: NatKind, name: str, tmp_path: Path) -> None:
    with (
        Lab(client_nat=kind) as lab,
        our_relay(lab.internet, tmp_path / "1"),
        our_relay(lab.internet, tmp_path / "2", host=SECOND),
    ):
        data = check(lab, tmp_path / "c", relay=f"{RELAY},{SECOND}:3478")
    (nat,) = data["measured"]["nats"]
    assert (nat["name"], nat["filtering"], nat["found_by"]) == (name, None, "comparison")


def test_blocked_udp_is_a_problem_that_is_known_in_time(tmp_path: Path) -> None:
    with Lab(client_nat=NatKind.UDP_BLOCKED) as lab, our_relay(lab.internet, tmp_path / "r"):
        data = check(lab, tmp_path / "c")
    assert data["verdict"] == "problem"
    assert verdicts(data) | {"udp": "problem", "nat": "unknown", "relays": "problem"} == verdicts(data)
    reasons = {each["transport"]: each["reason"] for each in data["measured"]["relays"]}
    assert reasons == {"udp": "no answer", "tcp": "refused", "tls": "refused"}


@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn's turnserver is not installed")
def test_blocked_udp_with_a_relay_over_tcp_is_only_slow(tmp_path: Path) -> None:
    with Lab(client_nat=NatKind.UDP_BLOCKED) as lab, coturn(lab.internet, tmp_path):
        data = check(lab, tmp_path / "c", relay=f"{RELAY},tcp:{RELAY}")
    assert verdicts(data)["udp"] == "warning"
    assert verdicts(data)["relays"] == "warning"


def test_a_narrow_path_is_measured(tmp_path: Path) -> None:
    with Lab(client_nat=NatKind.PORT_RESTRICTED, mtu=1400) as lab, our_relay(lab.internet, tmp_path / "r"):
        data = check(lab, tmp_path / "c")
    assert [mtu["packet_bytes"] for mtu in data["measured"]["path_mtus"]] == [1400]
    assert verdicts(data)["mtu"] == "ok"


def test_ipv6_is_examined_like_ipv4(tmp_path: Path) -> None:
    """Without any NAT or firewall: a cable between two hosts, which have IPv6 only."""
    first, second = "2001:db8::1", "2001:db8::2"
    with Namespace("client") as client, Namespace("relay") as place:
        connect(client, "eth0", place, "eth0")
        with_ipv6 = {"ipv6/conf/eth0/disable_ipv6": "0", "ipv6/conf/eth0/accept_dad": "0"}
        client.configure(sysctls=with_ipv6, addresses={"eth0": ["2001:db8::9/64"]})
        place.configure(sysctls=with_ipv6, addresses={"eth0": [f"{first}/64", f"{second}/64"]})
        listen = ["--listen-ipv6", f"[{first}]:3478", "--other-listen-ipv6", f"[{second}]:3479"]
        with our_relay(place, tmp_path / "r", *listen, host="127.0.0.1"):
            data = check_at(client, tmp_path / "c", f"[{first}]:3478")
    (nat,) = data["measured"]["nats"]
    assert (nat["family"], nat["name"], nat["public_address"]) == (6, "open", "2001:db8::9")
    assert data["measured"]["path_mtus"] == [{"relay": f"[{first}]:3478", "family": 6, "packet_bytes": 1500}]
    assert verdicts(data) | {"ipv6": "ok", "nat_ipv6": "ok", "udp": "ok", "mtu": "ok"} == verdicts(data)


def test_the_portal_and_its_clock_are_examined(tmp_path: Path) -> None:
    environment = os.environ | {"EXEUNT_HOME": str(tmp_path / "p")}
    subprocess.run([*EXEUNT, "admin", "init", "--json"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with Lab(client_nat=NatKind.PORT_RESTRICTED) as lab:
        command = [*EXEUNT, "portal", "run", "--listen", f"{FIRST}:8080"]
        portal = lab.internet.popen(command, env=environment, stderr=subprocess.PIPE)
        assert portal.stderr is not None
        with portal.stderr:
            assert b"ready" in portal.stderr.readline()
            data = check(lab, tmp_path / "c", "--portal", f"ws://{FIRST}:8080")
            portal.terminate()
            portal.wait(READY_S)
    assert verdicts(data) | {"portal": "ok", "clock": "ok"} == verdicts(data)
    clock = data["measured"]["clock"]
    assert abs(clock["offset_ms"]) <= clock["error_ms"]


def test_a_network_that_swallows_everything_is_known_in_time(tmp_path: Path) -> None:
    """Names that no resolver looks up, addresses where nobody is, a portal that does not answer."""
    with Lab(client_nat=NatKind.PORT_RESTRICTED) as lab:
        lab.cut(lab.client_site)
        relays = f"{RELAY},tls:{RELAY},relay.example:3478"
        data = check(lab, tmp_path / "c", "--portal", f"ws://{FIRST}:8080", relay=relays)
    assert verdicts(data)["portal"] == "problem"
    assert all(each["reason"] for each in data["measured"]["relays"])
