"""Over a relay: what our tunnel gets through it, beside what the relay itself can carry for one flow.

The two ends are behind symmetric NATs, in the usual laboratory, so no direct path exists. The *ceiling* is a plain flow
of datagrams through one allocation of the same relay, ChannelData in and UDP out, in trains as we would send them:
faster and faster, until no more arrives. The datagrams are as large as those that carry a full packet of our tunnel.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import struct
import subprocess
import time
from typing import Any, Literal

import psutil
from aioice import stun
from tests.lab.relays import wait_until_it_answers

from exeunt.actors.turn.credentials import credentials
from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.stage import PORTAL_ADDRESS, RELAY_PORT, Stage
from exeunt.clients.lab import NatKind
from exeunt.clients.lab.internet import RELAY_ADDRESSES

from . import traffic
from .subjects import NotHere, environment

Kind = Literal["coturn", "embedded"]
PREFIXES: dict[Kind, str] = {"coturn": "relay", "embedded": "embedded_relay"}
"""What the figures of each kind begin with."""
DATAGRAM_BYTES = 1280 + 32
"""A full packet of the tunnel's default MTU, sealed."""
PEER_PORT = 40_000
CHANNEL = 0x4000
_UDP_SEGMENT = 103
_TRAIN = 32
_FIRST_MBIT_S, _FASTER, _LAST_MBIT_S = 40.0, 1.3, 8_000.0
_TRIAL_S, _SETTLE_S = 0.4, 0.15
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
        lab, before, moved, rates = self.stage.lab, self._spent_s(), 0, list[float]()
        for down in (True, False):
            with traffic.Stream(lab.client, lab.resource, down=down, streams=1, seconds=seconds) as stream:
                found = stream.finish()
            moved += found.total_bytes
            rates.append(found.mbit_s)
        assert {peer["path"] for peer in self.stage.client.status()["peers"]} == {"relay"}
        return {
            f"{PREFIXES[self.kind]}_tcp1_mbit_s": sum(rates) / len(rates),
            f"{PREFIXES[self.kind]}_cpu_s_per_gb": (self._spent_s() - before) / (moved / 1e9),
        }

    def ceiling(self) -> dict[str, float]:
        """What its relay carries for one flow."""
        with traffic.Program(self.stage.lab.internet, "udp-sink", RELAY_ADDRESSES[1], PEER_PORT) as sink:
            allocation = Allocation(self.stage)
            try:
                return {f"{PREFIXES[self.kind]}_ceiling_mbit_s": _most(allocation, sink)}
            finally:
                allocation.close()

    def close(self) -> None:
        """End everything. Idempotent."""
        self.stage.close()

    def _spent_s(self) -> float:
        times = self.stage.relay_process.cpu_times()
        return times.user + times.system


class Allocation:
    """A relayed address and a channel to the peer, by RFC 8656, with as little as that takes."""

    def __init__(self, stage: RelayStage) -> None:
        self._socket = stage.lab.client.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(_ANSWER_S)
        self._socket.connect((PORTAL_ADDRESS, RELAY_PORT))
        self._username, password = credentials(stage.secret, "bench", time.time(), 3600.0)
        asked = {"LIFETIME": 600, "REQUESTED-TRANSPORT": 17 << 24}
        challenge = self._ask(stun.Method.ALLOCATE, asked)
        self._realm, self._nonce = challenge.attributes["REALM"], challenge.attributes["NONCE"]
        key = f"{self._username}:{self._realm}:{password}"
        self._key = hashlib.md5(key.encode(), usedforsecurity=False).digest()
        peer = {"CHANNEL-NUMBER": CHANNEL, "XOR-PEER-ADDRESS": (RELAY_ADDRESSES[1], PEER_PORT)}
        for method, attributes in ((stun.Method.ALLOCATE, asked), (stun.Method.CHANNEL_BIND, peer)):
            answer = self._ask(method, attributes)
            if answer.message_class is not stun.Class.RESPONSE:
                raise traffic.TrafficFailed(f"the relay refuses: {answer.attributes.get('ERROR-CODE')}")
        framed = struct.pack("!HH", CHANNEL, DATAGRAM_BYTES) + os.urandom(DATAGRAM_BYTES)
        self._train = framed * _TRAIN
        segment = struct.pack("H", len(framed))
        self._segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, segment)]

    def send(self, mbit_s: float, seconds: float) -> None:
        """Send datagrams at this rate."""
        pause_s = _TRAIN * DATAGRAM_BYTES * 8 / (mbit_s * 1e6)
        began, trains = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            if now < trains * pause_s:
                time.sleep(trains * pause_s - now)
            self._socket.sendmsg([self._train], self._segment)
            trains += 1

    def close(self) -> None:
        """Have the relay let go of it."""
        try:
            self._ask(stun.Method.REFRESH, {"LIFETIME": 0})
        finally:
            self._socket.close()

    def _ask(self, method: stun.Method, attributes: dict[str, Any]) -> stun.Message:
        request = stun.Message(
            message_method=method, message_class=stun.Class.REQUEST, transaction_id=secrets.token_bytes(12)
        )
        request.attributes.update(attributes)
        if method is not stun.Method.ALLOCATE or hasattr(self, "_key"):
            request.attributes.update(USERNAME=self._username, REALM=self._realm, NONCE=self._nonce)
            request.add_message_integrity(self._key)
        self._socket.send(bytes(request))
        while True:
            answer = stun.parse_message(self._socket.recv(2048))
            if answer.transaction_id == request.transaction_id:
                return answer


def _most(allocation: Allocation, sink: traffic.Program) -> float:
    """Send faster and faster; return the highest rate that arrived, in Mbit/s."""
    best, offered = 0.0, _FIRST_MBIT_S
    while offered < _LAST_MBIT_S:
        sink.ask("")
        allocation.send(offered, _TRIAL_S)
        time.sleep(_SETTLE_S)
        arrived = sink.ask("")["received"] * DATAGRAM_BYTES * 8 / 1e6 / _TRIAL_S
        best = max(best, arrived)
        if arrived < offered * 0.7:
            break
        offered *= _FASTER
    return best
