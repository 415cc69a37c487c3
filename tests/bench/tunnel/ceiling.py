"""What a relay carries for one flow, without a tunnel: the measure of what our tunnel gets through it.

The flow meets what the tunnel meets. One end has the allocation and speaks ChannelData, the other sends to the relayed
address and gets plain UDP from it, each behind its symmetric NAT. Its datagrams are as large as those that carry a full
packet of the tunnel, they are sent in trains as long as ours, and some come back, as many as acknowledgements. What
counts is what arrives at the far end, both ways one after the other, at the highest rate that loses less than 0.5 %.

What a relay reads one by one the kernel has cut apart at its socket: no relay gets trains that does not ask for them
(`UDP_GRO`). But a train comes to that socket all at once, which no cable of finite speed does, and coturn's socket for
what comes from peers has room for some 55 datagrams of this size. Our tunnel meets the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import time
from collections.abc import Generator
from typing import Any

from aioice import stun

from exeunt.actors.turn.credentials import credentials
from exeunt.actors.wireguard.timing import INNER_MTU_BYTES
from exeunt.clients.demo.stage import PORTAL_ADDRESS, RELAY_PORT
from exeunt.clients.lab import Lab, Namespace

from . import traffic

DATAGRAM_BYTES = INNER_MTU_BYTES + 32
"""A full packet of the tunnel's default MTU, sealed."""
TRAIN = 45
"""Datagrams: as many of these as one call sends. A frame of 64 kB, as the tunnel gets them from the device, has a few
more."""
CHANNEL = 0x4000
TRIAL_S = 1.0
_FIRST_RATE = 16_000.0
"""Datagrams a second, which every relay carries."""
_ANSWER_S = 5.0


def measure(lab: Lab, secret: str, train: int = TRAIN) -> dict[str, float]:
    """Return the rates in Mbit/s of payload: `down` to the allocation's end, `up` from it. Raises TrafficFailed."""
    with _ends(lab, secret, train) as ends:
        pace = {"down": (ends[1], ends[0]), "up": ends}
        return {way: _loss_free(*pair) * DATAGRAM_BYTES * 8 / 1e6 for way, pair in pace.items()}


def _loss_free(source: traffic.Program, sink: traffic.Program) -> float:
    return traffic.loss_free_between(sink, source, TRIAL_S, _FIRST_RATE)


@contextlib.contextmanager
def _ends(lab: Lab, secret: str, train: int) -> Generator[tuple[traffic.Program, traffic.Program]]:
    """The client's end, which has the allocation, and the gateway's."""
    place = lab.gateways[0]
    with contextlib.ExitStack() as stack:
        allocation = Allocation(lab.client, secret)
        stack.callback(allocation.close)
        far = stack.enter_context(_socket(place))
        allocation.let_in(far, lab.gateway_site.public + ".2")
        ends = [
            stack.enter_context(
                traffic.Program(
                    where, "udp-end", sock.fileno(), channel, DATAGRAM_BYTES, train, inherits=(sock.fileno(),)
                )
            )
            for where, sock, channel in ((lab.client, allocation.socket, CHANNEL), (place, far, 0))
        ]
        yield ends[0], ends[1]


def _socket(place: Namespace) -> socket.socket:
    made = place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.settimeout(_ANSWER_S)
    return made


class Allocation:
    """A relayed address and a channel to the peer, by RFC 8656, with as little as that takes."""

    def __init__(self, place: Namespace, secret: str) -> None:
        """Raises TrafficFailed."""
        self.socket = _socket(place)
        self.socket.connect((PORTAL_ADDRESS, RELAY_PORT))
        self._username, password = credentials(secret, "bench", time.time(), 3600.0)
        self._key = b""
        asked = {"LIFETIME": 600, "REQUESTED-TRANSPORT": 17 << 24}
        challenge = self._ask(stun.Method.ALLOCATE, asked)
        self._realm, self._nonce = challenge.attributes["REALM"], challenge.attributes["NONCE"]
        key = f"{self._username}:{self._realm}:{password}"
        self._key = hashlib.md5(key.encode(), usedforsecurity=False).digest()
        self._address = self._grant(stun.Method.ALLOCATE, asked).attributes["XOR-RELAYED-ADDRESS"]

    def let_in(self, peer: socket.socket, host: str) -> None:
        """Have a peer behind a NAT with this address connect to the relayed address, and bind the channel to it."""
        self._grant(stun.Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": (host, 0)})
        peer.connect(self._address)
        peer.send(b"here I am")
        seen = stun.parse_message(self.socket.recv(2048)).attributes["XOR-PEER-ADDRESS"]
        self._grant(stun.Method.CHANNEL_BIND, {"CHANNEL-NUMBER": CHANNEL, "XOR-PEER-ADDRESS": seen})

    def close(self) -> None:
        """Have the relay let go of it."""
        try:
            self._ask(stun.Method.REFRESH, {"LIFETIME": 0})
        finally:
            self.socket.close()

    def _grant(self, method: stun.Method, attributes: dict[str, Any]) -> stun.Message:
        answer = self._ask(method, attributes)
        if answer.message_class is not stun.Class.RESPONSE:
            raise traffic.TrafficFailed(f"the relay refuses: {answer.attributes.get('ERROR-CODE')}")
        return answer

    def _ask(self, method: stun.Method, attributes: dict[str, Any]) -> stun.Message:
        request = stun.Message(
            message_method=method, message_class=stun.Class.REQUEST, transaction_id=secrets.token_bytes(12)
        )
        request.attributes.update(attributes)
        if self._key:
            request.attributes.update(USERNAME=self._username, REALM=self._realm, NONCE=self._nonce)
            request.add_message_integrity(self._key)
        self.socket.send(bytes(request))
        while True:
            answer = self.socket.recv(65_535)
            if answer[8:20] == request.transaction_id:
                return stun.parse_message(answer)
