"""The stage: portal, relay, gateways and client as real programs, each in its place of the laboratory.

Each program has a home of its own, so that none finds another's files; they are spoken to as anybody would, by
their control sockets.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import psutil

from exeunt.actors.endings import Ending
from exeunt.actors.network import leftovers as network_leftovers
from exeunt.runtime.control import ControlClient, ControlError, ControlUnavailable

from ..contract import Leftovers
from ..lab import Lab, Namespace, NatKind
from ..lab.namespace import occupants
from ..lab.topology import INTERNET_ADDRESSES, RESOURCE_ADDRESS, RESOURCE_NETWORK
from ..paths import Paths, current
from ..portal import administration
from ..portal.store import Store
from .home import remove

PORTAL_ADDRESS: Final = INTERNET_ADDRESSES[0]
PORTAL_PORT: Final = 8080
RELAY_PORT: Final = 3478
RESOURCE_NAME: Final = "files"

_START_S: Final = 20.0
_POLL_S: Final = 0.01
_LEAVE_S: Final = 6.0


class StageError(Exception):
    """A program did not do what the play asks of it; the message says which, and the end of its output."""


class Player:
    """One program on the stage."""

    def __init__(self, name: str, place: Namespace, home: Path, module: str = "exeunt.clients") -> None:
        self.name = name
        self.place = place
        self.home = home
        self.module = module
        """What is run: the command line, unless a test brings a program of its own."""
        self.process: subprocess.Popen[bytes] | None = None
        self._told = False
        self.workers: list[int] = []
        """Pids of its worker processes, as last seen."""
        home.mkdir(mode=0o700, exist_ok=True)

    def again(self) -> Player:
        """Return the same program, not started, with the same home: for one that has left."""
        return Player(self.name, self.place, self.home, self.module)

    @property
    def paths(self) -> Paths:
        """Its directories."""
        return current({"EXEUNT_HOME": str(self.home)})

    def start(self, *argv: str, environ: dict[str, str] | None = None) -> None:
        """Start `exeunt ARGV…` at its place."""
        env = {**os.environ, "EXEUNT_HOME": str(self.home), **(environ or {})}
        output = (self.home / "output").open("wb")
        with output:
            self.process = self.place.popen(
                [sys.executable, "-m", self.module, *argv, "--instance", self.name],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is for the demo; it tells the programs itself
            )

    def ask(self, command: str, args: dict[str, Any] | None = None, timeout_s: float = 5.0) -> Any:
        """Ask its control socket. Raises ControlError, ControlUnavailable."""
        with ControlClient(self.paths.control_socket(self.name)) as control:
            return control.request(command, args, timeout_s)

    def wait_for(self, what: str, test: Callable[[], bool]) -> None:
        """Wait until `test` is true. Raises StageError when the program ends first, or it takes too long."""
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(ControlUnavailable, ControlError):
                if test():
                    return
            if self.process is not None and self.process.poll() is not None:
                raise StageError(f"{self.name} ended with {self.process.returncode} before {what}.\n{self.output()}")
            if time.monotonic() > deadline:
                raise StageError(f"{self.name}: no {what} within {_START_S:g} s.\n{self.output()}")
            time.sleep(_POLL_S)

    def status(self) -> dict[str, Any]:
        """Return its session's status."""
        answer: dict[str, Any] = self.ask("status")
        return answer

    def note_workers(self) -> None:
        """Remember the pids of its workers."""
        self.workers = sorted({int(row["pid"]) for row in self.ask("ps")} - {self.pid})

    @property
    def pid(self) -> int:
        """Its supervisor's pid; 0 before it started."""
        return self.process.pid if self.process is not None else 0

    def leave(self, cause: str) -> tuple[str | None, float]:
        """Ask it to leave and wait until its process is gone; return the trace's id and the milliseconds it took."""
        assert self.process is not None
        began = time.monotonic()
        answer = self.ask("stop", {"reason": cause})
        self.process.wait(_LEAVE_S)
        return answer.get("trace"), (time.monotonic() - began) * 1000

    def terminate(self) -> None:
        """SIGTERM, once: a second one would force it."""
        if self.process is not None and self.process.poll() is None and not self._told:
            self._told = True
            self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Have it leave; kill it if it does not."""
        if self.process is None:
            return
        self.terminate()
        try:
            self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def endings(self) -> list[Ending]:
        """Return the endings that it has recorded so far."""
        try:
            lines = self.paths.endings_file(self.name).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.json.decode(line, type=Ending) for line in lines]

    def output(self) -> str:
        """Return the end of what it printed."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join((self.home / "output").read_text(errors="replace").splitlines()[-15:])
        return ""


class Stage:
    """Everything that a scene needs, from the laboratory to a signed-in client. A context manager."""

    def __init__(
        self,
        home: Path,
        *,
        gateways: int = 1,
        client_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateway_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        keep_home: bool = False,
        lab: Lab | None = None,
    ) -> None:
        """Build it, or take a laboratory that is there, and is then closed with the stage."""
        self.home = home
        self._keep_home = keep_home
        self._before = set(network_leftovers())
        self.lab = lab or Lab(gateways=gateways, client_nat=client_nat, gateway_nat=gateway_nat)
        self._identities = {namespace.identity: namespace.name for namespace in self.lab.namespaces}
        place = self.lab.relay  # in the internet, or behind a wire of its own
        self.portal = Player("portal", place, home / "portal")
        self.relay = Player("relay", place, home / "relay")
        self.gateways = [
            Player(f"gateway-{number}", place, home / f"gateway-{number}")
            for number, place in enumerate(self.lab.gateways, start=1)
        ]
        self.client = Player("client", self.lab.client, home / "client")
        self.players = [self.portal, self.relay, *self.gateways, self.client]
        self._tokens: dict[str, str] = {}
        self.environ: dict[str, str] = {}
        """Of the client and the gateways, besides what every program has."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the programs ---

    def prepare(self) -> None:
        """Fill the portal's database: a site, the gateways, a client, the resource, the relay."""
        paths = self.portal.paths
        paths.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._secret = secrets.token_urlsafe(32)
        now = time.time()
        with contextlib.closing(Store(self.database)) as store:
            first = administration.initialize(store, self.database, now)
            self._tokens = {"gateway-1": first.gateway.token, "client": first.client.token}
            for gateway in self.gateways[1:]:
                added = administration.add_gateway(store, gateway.name, site=None, now_unix=now)
                self._tokens[gateway.name] = added.token
            administration.add_resource(store, RESOURCE_NAME, RESOURCE_NETWORK, site=None)
            self._add_relay(store)

    @property
    def database(self) -> Path:
        """The portal's database."""
        return self.portal.paths.state_dir / "portal.db"

    def start_portal_and_relay(self) -> None:
        """Start both, and wait until they answer."""
        self._start_relay()
        self._start_portal()
        self._wait_for_relay()
        self._wait_for_portal()

    def start_relay(self) -> None:
        """Start the relay, and wait until it answers."""
        self._start_relay()
        self._wait_for_relay()

    def start_portal(self) -> None:
        """Start the portal, and wait until it answers."""
        self._start_portal()
        self._wait_for_portal()

    def start_resource(self) -> None:
        """Start the HTTP server in the gateway's network."""
        self._server = self.lab.resource.popen(
            [sys.executable, "-m", "exeunt.clients.demo.resource", RESOURCE_ADDRESS],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start_gateways(self, *options: str) -> None:
        """Start the gateways, and wait until the portal knows them."""
        for gateway in self.gateways:
            self._start_session(gateway, "gateway", *options)
        for gateway in self.gateways:
            self._wait_for_session(gateway)

    def start_gateway(self, gateway: Player, *options: str) -> None:
        """Start one gateway, and wait until the portal knows it."""
        self._start_session(gateway, "gateway", *options)
        self._wait_for_session(gateway)

    def start_client(self, *options: str) -> None:
        """Start the client, and wait until it is signed in."""
        self._start_session(self.client, "client", *options)
        self._wait_for_session(self.client)

    def start_all(self) -> None:
        """Bring everybody onto the stage."""
        self.prepare()
        self.start_resource()
        self.start_portal_and_relay()
        self.start_gateways()
        self.start_client()

    def open_socket(self, timeout_s: float) -> socket.socket:
        """Connect to the resource, as a program on the client's machine would."""
        return self.lab.client.run(lambda: socket.create_connection((RESOURCE_ADDRESS, 80), timeout_s))

    def revoke(self, target: str) -> None:
        """Revoke in the portal's database, as `exeunt admin revoke` does."""
        with contextlib.closing(Store(self.database)) as store:
            administration.revoke(store, target, now_unix=time.time())

    # --- the end ---

    def end_programs(self) -> None:
        """Have everybody leave: the client and the gateways, then the portal and the relay that they take leave of."""
        for leaving in ([self.client, *self.gateways], [self.portal, self.relay]):
            for player in leaving:
                player.terminate()
            for player in leaving:
                player.end()

    def leftovers(self) -> Leftovers:
        """Say what is still there after `end_programs` and `close` that was not there before."""
        pids = [pid for player in self.players for pid in (player.pid, *player.workers) if pid]
        processes = [f"{pid}" for pid in pids if _lives(pid)]
        namespaces = [self._identities[one] for one, inside in occupants(self._identities).items() if inside]
        found: dict[str, list[str]] = {"device": [], "route": [], "table": []}
        for line in network_leftovers():
            if line not in self._before:
                found[line.split(" ", 1)[0]].append(line)
        sockets = [str(path) for player in self.players for path in _sockets(player.paths.run_dir)]
        return Leftovers(
            processes=processes,
            namespaces=namespaces,
            devices=found["device"],
            routes=found["route"],
            rules=found["table"],
            sockets=sockets,
        )

    def close(self) -> None:
        """End every program, take the laboratory down, remove the home. Idempotent."""
        self.end_programs()
        self.lab.close()
        if not self._keep_home:
            remove(self.home)
            for player in self.players:  # where the home's path is too long for a socket's, they are elsewhere
                remove(player.paths.run_dir)

    # --- inside ---

    def _start_session(self, player: Player, program: str, *options: str) -> None:
        url = f"ws://{PORTAL_ADDRESS}:{PORTAL_PORT}"
        environ = {**self.environ, "EXEUNT_TOKEN": self._tokens[player.name]}
        # A play knows who is who: on every machine one worker has the gateway's clients, unless somebody wants more.
        environ["EXEUNT_WORKERS"] = os.environ.get("EXEUNT_WORKERS") or "1"
        player.start(program, "run", "--portal", url, "--name", player.name, *options, environ=environ)

    @staticmethod
    def _wait_for_session(player: Player) -> None:
        player.wait_for("session", lambda: player.status()["session"] == "connected")
        player.note_workers()

    def _add_relay(self, store: Store) -> None:
        administration.add_relay(store, f"{PORTAL_ADDRESS}:{RELAY_PORT}", self._secret)

    def _start_relay(self) -> None:
        environ = {"EXEUNT_RELAY_SECRET": self._secret}
        self.relay.start("relay", "run", "--listen", f"{PORTAL_ADDRESS}:{RELAY_PORT}", environ=environ)

    def _start_portal(self) -> None:
        listen = f"{PORTAL_ADDRESS}:{PORTAL_PORT}"
        self.portal.start("portal", "run", "--listen", listen, "--database", str(self.database))

    def _wait_for_relay(self) -> None:
        self.relay.wait_for("first answer", lambda: bool(self.relay.ask("hello")))

    def _wait_for_portal(self) -> None:
        self.portal.wait_for("first answer", lambda: bool(self.portal.ask("hello")))
        self.portal.wait_for("listening socket", self._portal_listens)

    def _portal_listens(self) -> bool:
        try:
            self.portal.place.run(lambda: socket.create_connection((PORTAL_ADDRESS, PORTAL_PORT), 0.5).close())
        except OSError:
            return False
        return True


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()] if directory.exists() else []
