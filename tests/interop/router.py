"""A router that speaks plain WireGuard: wireguard-go in a namespace, set up with what `exeunt admin peer add` wrote."""

from __future__ import annotations

import configparser
import contextlib
import os
import secrets
import socket
import struct
import subprocess
import time
from pathlib import Path

from tests.system.test_live_restart import fetch

from exeunt.actors.network.links import STATIC_PROTOCOL, Links
from exeunt.clients.demo.resource import content
from exeunt.clients.lab import Namespace
from exeunt.clients.lab.devices import switch_on

START_S = 10.0
REACH_S = 20.0
"""More than a handshake that has to be repeated, on a machine that is busy."""


class Router:
    """It runs from the beginning; close it. Blocking."""

    def __init__(self, place: Namespace, configuration: Path) -> None:
        self.place = place
        self.name = f"exwg{secrets.token_hex(4)}"  # its control socket's path is the host's, not the namespace's
        self._configuration = configuration
        self._log = configuration.with_suffix(".log").open("wb")
        self._process = self._start()

    def restart(self) -> None:
        """Lose all sessions, as a router does whose power was cut."""
        self._process.kill()
        self._process.wait(5)
        self._process = self._start()

    def show(self, what: str) -> str:
        """Return what `wg show` says of its peer: endpoints, transfer, latest-handshakes…"""
        return run("wg", "show", self.name, what).split("\t", 1)[1].strip()

    def handshakes(self) -> int:
        """Return when the latest handshake was, in Unix seconds; 0: never."""
        return int(self.show("latest-handshakes"))

    def move(self) -> None:
        """Go on at another port. The gateway is not told."""
        run("wg", "set", self.name, "listen-port", str(20_000 + secrets.randbelow(10_000)))

    def forget_endpoint(self) -> None:
        """Know the gateway's key only: it has to begin."""
        config = self._read()
        config.remove_option("Peer", "Endpoint")
        with self._configuration.open("w") as file:
            config.write(file)

    def allow(self, network: str) -> None:
        """Send what is for this network into the tunnel, too, whoever allowed that."""
        config = self._read()
        networks = f"{config['Peer']['AllowedIPs']}, {network}"
        config["Peer"]["AllowedIPs"] = networks
        with self._configuration.open("w") as file:
            config.write(file)
        run("wg", "set", self.name, "peer", config["Peer"]["PublicKey"], "allowed-ips", networks.replace(" ", ""))
        self.place.run(lambda: self._route([network]))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(5)
        self._log.close()

    # --- traffic ---

    def reaches(self, address: str, timeout_s: float = REACH_S) -> bool:
        """Whether a TCP connection comes about; a handshake that is due comes first."""

        def attempt() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((address, 80), timeout_s):
                return True
            return False

        return self.place.run(attempt)

    def pings(self, address: str, timeout_s: float = REACH_S) -> bool:
        """Whether an ICMP echo is answered (RFC 792)."""

        def attempt() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
                deadline = time.monotonic() + timeout_s
                while time.monotonic() < deadline:
                    line.settimeout(1.0)
                    line.sendto(_echo_request(), (address, 0))
                    with contextlib.suppress(TimeoutError):
                        packet, (source, _) = line.recvfrom(2048)
                        if source == address and packet[20] == 0:
                            return True
            return False

        return self.place.run(attempt)

    def downloads(self, address: str, size: int) -> bool:
        """Whether a file arrives intact."""

        def attempt() -> bytes:
            with socket.create_connection((address, 80), REACH_S) as line:
                return fetch(line, size)[0]

        return self.place.run(attempt) == content(size)

    # --- inside ---

    def _start(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "LOG_LEVEL": "verbose"}
        process = self.place.popen(
            ["wireguard-go", "-f", self.name], env=env, stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_S
        while subprocess.run(["wg", "show", self.name], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < deadline, Path(self._log.name).read_text()
            time.sleep(0.01)
        config = self._read()
        stripped = self._configuration.with_suffix(".stripped")
        stripped.write_text(run("wg-quick", "strip", str(self._configuration)))
        run("wg", "setconf", self.name, str(stripped))
        addresses = _listed(config["Interface"]["Address"])
        networks = _listed(config["Peer"]["AllowedIPs"])

        def inside() -> None:
            with Links() as links:
                switch_on(links, self.name, addresses)
            self._route(networks)

        self.place.run(inside)
        return process

    def _route(self, networks: list[str]) -> None:
        with Links(route_protocol=STATIC_PROTOCOL) as links:
            for network in networks:
                links.add_route(network, self.name)

    def _read(self) -> configparser.ConfigParser:
        config = configparser.ConfigParser()
        config.optionxform = str  # type: ignore[assignment,method-assign]  # wg(8) knows its keys in any case; people don't
        config.read(self._configuration)
        return config


def run(*command: str) -> str:
    """Run a program to its end, and return what it said."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=10, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


def _echo_request() -> bytes:
    words = [0x0800, 0, 0x6578, 1]
    total = sum(words)
    words[1] = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack(">4H", *words)
