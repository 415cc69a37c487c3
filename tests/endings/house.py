"""Where the rows are played: a stage on which one client after another connects, and what can be done to it.

Each run has a client of its own, a fresh process, so no run inherits anything from the one before; portal, relay and
gateways stay. Blocking; a house is used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import psutil

from exeunt.actors.endings import Ending
from exeunt.actors.network.errors import NetworkError
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import RESOURCE_NAME, Player, Stage, StageError
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store

from . import coturn
from .coturn import Coturn
from .expected import Variant

LOSS_PERCENT: Final = 20
TCP_PAUSE_S: Final = 2.0
"""TCP waits twice as long after each loss in a row, up to two minutes: with that, a download on a line that loses a
fifth would tell of TCP and not of the tunnel. Kernels before 6.15 have no such limit, and downloads may be late there.
"""
_CONNECT_S: Final = 60.0
_RESTART_S: Final = 30.0
_POLL_S: Final = 0.01


@dataclass(frozen=True)
class Needs:
    """What a row needs of its house; a house serves all rows that need the same."""

    gateways: int = 1
    lifetime_s: float | None = None
    """How long the portal's authorizations last; None: for ever."""
    tls: bool = False
    """Whether the relay is one that is reached over TLS."""


@dataclass(frozen=True)
class Link:
    """The connection that a row is about to end."""

    id: str
    gateway: str
    path: str
    rtt_ms: float


class House(Stage):
    """A stage for rows. `play` is done by `rows`."""

    def __init__(self, needs: Needs) -> None:
        super().__init__(make_home(), gateways=needs.gateways)
        self.needs = needs
        if needs.tls:
            relay = Coturn(self.lab, self.home / "relay")
            self.players[self.players.index(self.relay)] = self.relay = relay
            self.environ["SSL_CERT_FILE"] = str(relay.certificate)
        self.variant = Variant.PLAIN
        self.tree: list[psutil.Process] = []
        """The client's processes, its supervisor first."""
        self.roamed = 2
        """Last byte of the client's public address."""

    def open(self) -> None:
        """Bring everybody but the client onto the stage."""
        if self.needs.lifetime_s is not None:
            self.portal.module = "tests.endings.short_lived"
        self.prepare()
        for place in (self.lab.client, self.lab.resource):
            with contextlib.suppress(NetworkError):
                place.configure(sysctls={"ipv4/tcp_rto_max_ms": f"{TCP_PAUSE_S * 1000:.0f}"})
        self.start_resource()
        self.start_portal_and_relay()
        self.start_gateways()

    # --- the client ---

    def enter(self, variant: Variant, options: tuple[str, ...] = ()) -> None:
        """Have a new client, with these options, sign in, on a network as the variant has it."""
        self.variant = variant
        self.lab.lose(self.lab.client_site, LOSS_PERCENT if variant is Variant.LOSS else 0)
        self.client = self.client.again()
        self.start_client(*options, *(["--relay-only"] if variant.is_relayed else []))
        supervisor = psutil.Process(self.client.pid)
        self.tree = [supervisor, *supervisor.children(recursive=True)]

    def connect(self) -> Link:
        """Have a packet to the resource bring the connection about. On a bad line it may take several."""
        deadline = time.monotonic() + _CONNECT_S
        while True:
            with contextlib.suppress(OSError):
                self.open_socket(3.0).close()
            for peer in self.client.status()["peers"]:
                if peer["state"] == "established" and peer["rtt_ms"] is not None:
                    return self._link(peer)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no connection within {_CONNECT_S:g} s\n{self.client.output()}")

    def wait_for_direct_path(self) -> None:
        """Where datagrams are lost, a connection may begin over the relay and then move. Raises StageError if not."""

        def is_direct() -> bool:
            return any(one["path"] == "direct" for one in self.client.status()["peers"])

        self.client.wait_for("direct path", is_direct)

    def gateway(self, link: Link) -> Player:
        """The gateway of that connection."""
        return next(one for one in self.gateways if one.name == link.gateway)

    def ending_of(self, player: Player, link: Link) -> Ending | None:
        """What a program has recorded of that connection."""
        return next((one for one in player.endings() if one.connection == link.id), None)

    def wait_for_ending(self, player: Player, link: Link, limit_s: float) -> Ending | None:
        """Wait for that record; None when it does not come in time."""
        deadline = time.monotonic() + limit_s
        while True:
            ending = self.ending_of(player, link)
            if ending is not None or time.monotonic() > deadline:
                return ending
            time.sleep(_POLL_S)

    # --- what is done to it ---

    def permit_again(self) -> None:
        """Give the client back what `revoke` took: its token, its access."""
        with contextlib.closing(Store(self.database)) as store:
            now = time.time()
            self._tokens["client"] = administration.renew_token(store, "client-1", now_unix=now).token
            administration.set_policy(store, "client-1", RESOURCE_NAME, allowed=True)

    def restart(self, player: Player, target: str) -> float:
        """Have `exeunt restart` done in a program; return the moment at which it began, once the successors live.

        Raises StageError when it fails.
        """
        argv = [sys.executable, "-m", "exeunt.clients", "restart", target, "--instance", player.name]
        environ = {**os.environ, "EXEUNT_HOME": str(player.home)}
        moment = time.time()
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=_RESTART_S)
        if done.returncode != 0:
            raise StageError(f"exeunt restart {target} of {player.name}: {done.stderr or done.stdout}")
        player.note_workers()
        return moment

    def worker_pid(self, player: Player, worker: str) -> int:
        """Return the pid of a program's worker."""
        rows: list[dict[str, Any]] = player.ask("ps")
        return next(int(row["pid"]) for row in rows if row["worker"] == worker)

    def _add_relay(self, store: Store) -> None:
        if self.needs.tls:
            administration.add_relay(store, coturn.ADDRESS, coturn.RELAY_SECRET, "tls")
        else:
            super()._add_relay(store)

    def _start_relay(self) -> None:
        if self.needs.tls:
            self.relay.start()
        else:
            super()._start_relay()

    def _wait_for_relay(self) -> None:
        if not self.needs.tls:
            super()._wait_for_relay()

    def _link(self, peer: dict[str, Any]) -> Link:
        if self.variant.is_relayed and peer["path"] != "relay":
            raise AssertionError(f"a client that may only use relays has a {peer['path']} path")
        return Link(str(peer["connection"]), str(peer["peer"]), str(peer["path"]), float(peer["rtt_ms"]))
