"""Over a relay: what our tunnel gets through it, beside what the relay itself can carry for one flow.

The two ends are behind symmetric NATs, in the usual laboratory, so no direct path exists. What the relay itself can
carry is its `ceiling`.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Literal

import psutil
from tests.lab.relays import wait_until_it_answers

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import PORTAL_ADDRESS, RELAY_PORT, Stage
from exeunt.clients.lab import NatKind

from . import ceiling, traffic
from .subjects import NotHere, environment

Kind = Literal["coturn", "embedded"]
PREFIXES: dict[Kind, str] = {"coturn": "relay", "embedded": "embedded_relay"}
"""What the figures of each kind begin with."""
_ANSWER_S = 5.0


class RelayStage(Stage):
    """Our programs where only a relay helps."""

    def __init__(self, kind: Kind) -> None:
        if kind == "coturn" and shutil.which("turnserver") is None:
            raise NotHere("coturn is not installed")
        self.kind = kind
        self._coturn: subprocess.Popen[bytes] | None = None
        super().__init__(make_home(), client_nat=NatKind.SYMMETRIC, gateway_nat=NatKind.SYMMETRIC)

    @property
    def secret(self) -> str:
        """What the relay's credentials are made from."""
        return self._secret

    @property
    def relay_process(self) -> psutil.Process:
        """The relay's process, without its supervisor if it has one."""
        return psutil.Process(self._coturn.pid if self._coturn is not None else self.relay.pid)

    def _start_relay(self) -> None:
        if self.kind == "embedded":
            super()._start_relay()
            return
        configuration = [
            f"listening-ip={PORTAL_ADDRESS}",
            f"relay-ip={PORTAL_ADDRESS}",
            f"listening-port={RELAY_PORT}",
            "use-auth-secret",
            f"static-auth-secret={self._secret}",
            "realm=exeunt",
            "no-cli",
            "no-tls",
            "no-dtls",
            "no-software-attribute",
            "log-file=stdout",
            "simple-log",
            f"pidfile={self.home}/coturn.pid",
            f"userdb={self.home}/coturn.db",
        ]
        path = self.home / "coturn.conf"
        path.write_text("\n".join(configuration) + "\n")
        self._coturn = self.lab.internet.popen(
            ["turnserver", "-c", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _wait_for_relay(self) -> None:
        if self._coturn is None:
            super()._wait_for_relay()
        else:
            wait_until_it_answers(self.lab.internet, PORTAL_ADDRESS, self._coturn)


class Relayed:
    """One of our subjects over one kind of relay."""

    def __init__(self, name: str, kind: Kind) -> None:
        """Raises NotHere."""
        self.name = name
        self.kind: Kind = kind
        self.stage = RelayStage(kind)
        try:
            with environment(name):
                self.stage.start_all()
            self.stage.open_socket(_ANSWER_S).close()
        except BaseException:
            self.close()
            raise

    def tcp1(self, seconds: float) -> dict[str, float]:
        """One stream each way; what the relay's process spent on it."""
        lab, before, moved, rates = self.stage.lab, self._spent_s(), 0, dict[str, float]()
        for way in ("down", "up"):
            with traffic.Stream(lab.client, lab.resource, down=way == "down", streams=1, seconds=seconds) as stream:
                found = stream.finish()
            moved += found.total_bytes
            rates[way] = found.mbit_s
        assert {peer["path"] for peer in self.stage.client.status()["peers"]} == {"relay"}
        prefix = PREFIXES[self.kind]
        return {
            **_both_ways(f"{prefix}_tcp1", rates),
            f"{prefix}_cpu_s_per_gb": (self._spent_s() - before) / (moved / 1e9),
        }

    def ceiling(self) -> dict[str, float]:
        """What its relay carries for one flow: the mean of both ways, and each."""
        return _both_ways(f"{PREFIXES[self.kind]}_ceiling", ceiling.measure(self.stage.lab, self.stage.secret))

    def close(self) -> None:
        """End everything. Idempotent."""
        self.stage.close()

    def _spent_s(self) -> float:
        times = self.stage.relay_process.cpu_times()
        return times.user + times.system


def _both_ways(name: str, rates: dict[str, float]) -> dict[str, float]:
    """The mean of both ways, and each."""
    ways = {f"{name}_{way}_mbit_s": rate for way, rate in rates.items()}
    return {f"{name}_mbit_s": sum(rates.values()) / len(rates), **ways}
