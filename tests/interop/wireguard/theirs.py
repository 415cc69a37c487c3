"""Their end: wireguard-go in a namespace, configured with `wg` as anybody would."""

import base64
import os
import secrets
import subprocess
import time
from pathlib import Path

from tests.interop.wireguard.ours import OUR_KEY, THEIR_KEY

from exeunt.actors.network.links import Links
from exeunt.actors.wireguard.testing import public_key
from exeunt.clients.lab import Namespace
from exeunt.clients.lab.devices import switch_on

_START_S = 10.0


class Theirs:
    """A running wireguard-go whose only peer is ours. Blocking; close it."""

    def __init__(self, place: Namespace, binary: str, scratch: Path, *, inner: tuple[str, ...], outer: str) -> None:
        self.place = place
        self.outer = outer
        self.name = f"exwg{secrets.token_hex(4)}"  # their control socket's path is the host's, not the namespace's
        self._scratch = scratch
        self._log = (scratch / f"{self.name}.log").open("wb")
        self._process = place.popen(
            [binary, "-f", self.name],
            env={**os.environ, "LOG_LEVEL": "verbose"},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait()
            self._set("private-key", self._file("private", THEIR_KEY))
            place.run(lambda: self._switch_on(inner))
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> tuple[str, int]:
        """Where it listens."""
        return self.outer, int(_run("wg", "show", self.name, "listen-port"))

    def know_us(
        self,
        *,
        allowed: tuple[str, ...],
        endpoint: tuple[str, int] | None = None,
        preshared_key: bytes | None = None,
        persistent_keepalive_s: int | None = None,
    ) -> None:
        """Make us its peer, or change what it knows of us."""
        words = ["allowed-ips", ",".join(allowed)]
        if endpoint is not None:
            words += ["endpoint", f"{endpoint[0]}:{endpoint[1]}"]
        if preshared_key is not None:
            words += ["preshared-key", self._file("preshared", preshared_key)]
        if persistent_keepalive_s is not None:
            words += ["persistent-keepalive", str(persistent_keepalive_s)]
        self._set("peer", base64.b64encode(public_key(OUR_KEY)).decode(), *words)

    def move(self) -> None:
        """Go on at another port. We are not told."""
        self._set("listen-port", "0")

    def show(self, what: str) -> str:
        """Return what `wg show` says of its peer: endpoints, transfer, latest-handshakes…"""
        return _run("wg", "show", self.name, what).split("\t", 1)[1].strip()

    def log(self) -> str:
        """Return what it has written."""
        return Path(self._log.name).read_text()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(5)
        self._log.close()

    def _set(self, *words: str) -> None:
        _run("wg", "set", self.name, *words)

    def _file(self, name: str, key: bytes) -> str:
        path = self._scratch / f"{self.name}.{name}"
        path.write_bytes(base64.b64encode(key))
        return str(path)

    def _switch_on(self, addresses: tuple[str, ...]) -> None:
        with Links() as links:
            switch_on(links, self.name, addresses)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while subprocess.run(["wg", "show", self.name], capture_output=True, check=False).returncode != 0:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, timeout=10, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
