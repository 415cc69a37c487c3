"""A flood of initiations over ICE: cookies bound to where they came from, and no Diffie-Hellman for who shows none."""

import itertools
import random
from array import array
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.actors.peer.pair import PRIVATE_KEYS, ConnectionPair

from exeunt.actors.ice import Address, Path
from exeunt.actors.peer.gate import PathGate, gate_of
from exeunt.actors.peer.messages import PeerConfig
from exeunt.actors.wireguard import (
    Admitted,
    CookieChecker,
    DropReason,
    MessageType,
    PrefixedIndices,
    Refused,
    Tunnel,
    classify,
    handshake,
)
from exeunt.actors.wireguard.noise import exchange
from exeunt.actors.wireguard.testing import public_key
from exeunt.actors.wireguard.timing import HANDSHAKES_PER_SECOND

HERE: Address = ("198.51.100.2", 4500)
ELSEWHERE: Address = ("198.51.100.3", 4500)
RELAYED: Address = ("203.0.113.9", 49152)
GATEWAY_KEY = public_key(PRIVATE_KEYS["gateway"])


def path_to(remote: Address) -> Path:
    return Path("direct", "host", "prflx", ("192.0.2.1", 51820), remote, 1.0)


class PlayedAgent:
    """What a gate asks of an agent."""

    def __init__(self, source: Address | None = HERE, path: Path | None = None) -> None:
        self.arrived_from: Address | None = source
        self.path: Path | None = path or path_to(HERE)


def counting_bytes() -> Callable[[int], bytes]:
    count = itertools.count(1)
    return lambda size: next(count).to_bytes(size, "big")


def checker_of(handshakes_per_second: int = HANDSHAKES_PER_SECOND) -> CookieChecker:
    return CookieChecker(GATEWAY_KEY, handshakes_per_second=handshakes_per_second, random_bytes=counting_bytes())


def stranger() -> Tunnel:
    """Somebody who knows the gateway's public key, and nothing else."""
    return Tunnel(
        private_key=b"\x66" * 32,
        peer_public_key=GATEWAY_KEY,
        initiator=True,
        allocate_index=PrefixedIndices(0x666666),
        rng=random.Random(1),
    )


def initiation_of(tunnel: Tunnel, now: float) -> bytes:
    tunnel.handle_timeout(now)
    tunnel.connect(now)
    datagram = tunnel.poll_transmit()
    assert datagram is not None
    return datagram


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The public keys of all Diffie-Hellman computations of handshakes, in their order."""
    found: list[bytes] = []

    def counted(private: X25519PrivateKey, public: bytes) -> bytes:
        found.append(bytes(public))
        return exchange(private, public)

    monkeypatch.setattr(handshake, "exchange", counted)
    return found


def guarded(agent: PlayedAgent | None = None) -> ConnectionPair:
    """A pair whose gateway has a gate, whose agent says that all comes from `HERE`."""
    pair = ConnectionPair()
    pair.gateway.tunnel.gate = PathGate(checker_of(), agent or PlayedAgent())
    return pair


def config_of(side: str, private_key: bytes) -> PeerConfig:
    return PeerConfig(
        connection="c-1",
        peer="other",
        peer_id="other-1",
        side=side,
        private_key=private_key,
        peer_public_key=bytes(32),
        preshared_key=bytes(32),
        local_username="abcd",
        local_password="p" * 22,
        remote_username="efgh",
        remote_password="q" * 22,
        owner="",
        portal_link="",
        endings_file="",
    )


def give(pair: ConnectionPair, datagram: bytes) -> list[bytes]:
    """Give the gateway a datagram of the path; return what it sends."""
    buffer = memoryview(bytearray(datagram))
    out = memoryview(bytearray(4096))
    pair.gateway.handle_datagrams(buffer, array("I", (0, len(datagram))), out, pair.now)
    return list(iter(pair.gateway.poll_transmit, None))


def test_beyond_the_limit_a_flood_costs_no_computation(exchanges: list[bytes]) -> None:
    pair = guarded()
    pair.connect()
    flood = initiation_of(stranger(), pair.now)
    exchanges.clear()
    replies: list[bytes] = []
    for _ in range(10_000):  # ten seconds of a thousand each
        pair.now += 0.001
        replies += give(pair, flood)
    assert len(exchanges) == HANDSHAKES_PER_SECOND
    assert {classify(reply) for reply in replies} == {MessageType.COOKIE_REPLY}
    assert len(replies) == 10_000 - HANDSHAKES_PER_SECOND
    assert max(len(reply) for reply in replies) < len(flood)
    drops = pair.gateway.tunnel.drops
    assert drops[DropReason.BAD_HANDSHAKE] == HANDSHAKES_PER_SECOND
    assert pair.gateway.state == "established"


def test_an_honest_client_connects_while_a_flood_is_going_on(exchanges: list[bytes]) -> None:
    pair = guarded()
    flood = initiation_of(stranger(), pair.now)
    for _ in range(2 * HANDSHAKES_PER_SECOND):
        give(pair, flood)
    exchanges.clear()
    pair.connect()
    assert pair.client.state == "connecting"
    assert classify(pair.carried[-1][1]) is MessageType.COOKIE_REPLY
    assert exchanges == exchanges_of_client(exchanges)
    for _ in range(1200):  # five seconds until the repetition
        pair.advance(0.005)
        for _ in range(2):
            give(pair, flood)
    assert pair.client.state == pair.gateway.state == "established"
    initiations = [one for side, one in pair.carried if side == "client" and classify(one) is MessageType.INITIATION]
    assert [one[-16:] == bytes(16) for one in initiations] == [True, False]


def exchanges_of_client(exchanges: list[bytes]) -> list[bytes]:
    """Those that a client's initiation takes: with the gateway's static key."""
    return [public for public in exchanges if public == GATEWAY_KEY]


def test_clients_that_all_come_back_at_once_are_no_load() -> None:
    checker = checker_of(handshakes_per_second=5)
    for number in range(50):
        pair = ConnectionPair(seed=number + 1)
        pair.gateway.tunnel.gate = PathGate(checker, PlayedAgent())
        pair.connect()
        assert pair.client.state == pair.gateway.state == "established"
    assert not checker.is_under_load(1000.0)


def test_what_was_recorded_and_is_sent_again_is_load() -> None:
    pair = guarded()
    pair.connect()
    recorded = pair.carried[0][1]
    assert classify(recorded) is MessageType.INITIATION
    sent = [one for _ in range(2 * HANDSHAKES_PER_SECOND) for one in give(pair, recorded)]
    assert {classify(one) for one in sent} == {MessageType.COOKIE_REPLY}


def test_load_is_that_of_all_connections_with_one_key() -> None:
    resources: dict[str, object] = {}
    flood = initiation_of(stranger(), 50.0)
    one, other = (gate_of(resources, config_of("gateway", PRIVATE_KEYS["gateway"]), PlayedAgent()) for _ in range(2))
    elsewhere = gate_of(resources, config_of("gateway", b"\x23" * 32), PlayedAgent())
    assert one is not None
    assert other is not None
    assert elsewhere is not None
    assert gate_of(resources, config_of("client", b"\x11" * 32), PlayedAgent()) is None
    for _ in range(HANDSHAKES_PER_SECOND):
        assert one.admit(flood, b"", 50.0) == Admitted()
    assert isinstance(other.admit(flood, b"", 50.0), Refused)
    verdict = elsewhere.admit(flood, b"", 50.0)
    assert isinstance(verdict, Refused)
    assert verdict.reason is DropReason.BAD_MAC1


@pytest.mark.parametrize(
    ("first", "then", "admitted"),
    [
        (HERE, HERE, True),
        (HERE, ("198.51.100.2", 4501), False),
        (HERE, ELSEWHERE, False),
        (RELAYED, RELAYED, True),
        (RELAYED, HERE, False),
        (("2001:db8::1", 4500), ("2001:db8::1", 4500), True),
    ],
)
def test_a_cookie_proves_the_address_that_the_message_came_from(first: Address, then: Address, admitted: bool) -> None:
    agent = PlayedAgent(first, path_to(first))
    gate = PathGate(checker_of(0), agent)
    client = stranger()
    verdict = gate.admit(initiation_of(client, 50.0), b"", 50.0)
    assert isinstance(verdict, Refused)
    assert verdict.cookie_reply is not None
    client.handle_datagram(verdict.cookie_reply, 50.0)
    client.handle_timeout(56.0)
    second = client.poll_transmit()
    assert second is not None
    agent.arrived_from = then
    assert (gate.admit(second, b"", 56.0) == Admitted()) is admitted


@pytest.mark.parametrize("path", [None, path_to(ELSEWHERE)])
def test_nobody_is_sent_a_reply_that_he_did_not_ask_for(path: Path | None) -> None:
    agent = PlayedAgent()
    agent.path = path
    verdict = PathGate(checker_of(0), agent).admit(initiation_of(stranger(), 50.0), b"", 50.0)
    assert verdict == Refused(DropReason.UNDER_LOAD)
