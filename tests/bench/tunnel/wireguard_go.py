"""wireguard-go on the same line: Debian's package of today's stable release, and the newest that a mirror has.

The newer one, with offloads, is not of this system's release. It is fetched as any package is, by `apt-get download`,
from the mirror that this system uses anyway, with lists of its own below `build/`: nothing is installed, and the
system's lists stay what they are.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import psutil

from exeunt.clients.lab import Namespace

from .line import CLIENT_ADDRESS, GATEWAY_ADDRESS, Line
from .subjects import NotHere, Side

SUITE = "trixie"
CACHE = Path("build/bench/wireguard-go")
PORT = 51820
INNER = {"client": "10.99.0.2", "gateway": "10.99.0.1"}
_START_S = 10.0
_FETCH_S = 120.0


class WireguardGo:
    """A pair of them, configured by `wg`, each at its default MTU of 1,420 unless another is asked for."""

    def __init__(self, name: str, program: Path, *, mtu: int | None = None) -> None:
        if shutil.which("wg") is None:
            raise NotHere("wg is not installed (Debian: wireguard-tools)")
        self.name = name
        self.line = Line()
        self.client, self.resource = self.line.client, self.line.resource
        self._pids: dict[Side, int] = {}
        try:
            self.line.masquerade()
            suffix = secrets.token_hex(3)  # the directory of its control sockets is shared by all namespaces
            devices: dict[Side, str] = {"client": f"wgc{suffix}", "gateway": f"wgg{suffix}"}
            for side, device in devices.items():
                self._start(side, self._place(side), program, device)
            self._configure(devices, mtu)
        except BaseException:
            self.close()
            raise

    def processes(self, side: Side) -> list[psutil.Process]:
        return [psutil.Process(self._pids[side])]

    def close(self) -> None:
        self.line.close()

    def _place(self, side: Side) -> Namespace:
        return self.client if side == "client" else self.line.gateway

    def _start(self, side: Side, place: Namespace, program: Path, device: str) -> None:
        process = place.popen(
            [program, "--foreground", device],
            env={**os.environ, "LOG_LEVEL": "error"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._pids[side] = process.pid
        deadline = time.monotonic() + _START_S
        while not Path(f"/var/run/wireguard/{device}.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotHere(f"{program} did not start")
            time.sleep(0.01)

    def _configure(self, devices: dict[Side, str], mtu: int | None) -> None:
        private = {side: _output("wg", "genkey") for side in devices}
        public = {side: _output("wg", "pubkey", given=key) for side, key in private.items()}
        ends: tuple[tuple[Side, Side, list[str]], ...] = (
            ("client", "gateway", ["endpoint", f"{GATEWAY_ADDRESS}:{PORT}", "allowed-ips", "0.0.0.0/0"]),
            ("gateway", "client", ["endpoint", f"{CLIENT_ADDRESS}:{PORT}", "allowed-ips", f"{INNER['client']}/32"]),
        )
        for side, other, peer in ends:
            device, place = devices[side], self._place(side)
            settings = ["listen-port", str(PORT), "private-key", "/dev/stdin", "peer", public[other], *peer]
            place.run(partial(_output, "wg", "set", device, *settings, given=private[side]))
            if mtu is not None:
                place.run(partial(_output, "ip", "link", "set", device, "mtu", str(mtu)))
            place.configure(addresses={device: [f"{INNER[side]}/24"]})
        self.line.route_through(devices["client"])


def newest() -> Path:
    """Return the program of `SUITE`, fetched if it isn't there yet. Raises NotHere."""
    program = (CACHE / "unpacked/usr/bin/wireguard-go").resolve()
    if not program.exists():
        _fetch()
    return program


def installed() -> Path:
    """Return this system's own. Raises NotHere."""
    found = shutil.which("wireguard-go")
    if found is None:
        raise NotHere("wireguard-go is not installed")
    return Path(found)


def _fetch() -> None:
    if shutil.which("apt-get") is None:
        raise NotHere("it is a Debian package, and apt-get is not here")
    try:
        mirror = _mirror()
        for directory in ("lists/partial", "cache/archives/partial"):
            (CACHE / directory).mkdir(parents=True, exist_ok=True)
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (CACHE / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} {SUITE} main\n")
        here = CACHE.resolve()
        options = [
            f"Dir::Etc::SourceList={here}/sources.list",
            "Dir::Etc::SourceParts=-",
            f"Dir::State::Lists={here}/lists",
            f"Dir::Cache={here}/cache",
            "APT::Sandbox::User=root",
        ]
        apt = ["apt-get", *(word for option in options for word in ("-o", option))]
        _output(*apt, "-qq", "update")
        _output(*apt, "-qq", "download", "wireguard-go", where=CACHE)
        package = max(CACHE.glob("wireguard-go_*.deb"))
        _output("dpkg-deb", "-x", str(package), str(CACHE / "unpacked"))
        shutil.rmtree(CACHE / "lists")
        shutil.rmtree(CACHE / "cache")
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise NotHere(f"the package of {SUITE} could not be fetched: {error}") from error


def _mirror() -> str:
    """The address of the Debian mirror that this system uses."""
    lines = _output("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)").splitlines()
    return next(line.split()[2] for line in lines if line.startswith("Debian Debian "))


def _output(*argv: str, given: str = "", where: Path | None = None) -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=True, timeout=_FETCH_S, cwd=where)
    return done.stdout.strip()
