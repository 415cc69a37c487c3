"""The peer-connection actor, with a path agent in memory: its endings, its timers, and that nothing is left of it."""

# pyright: reportPrivateUsage=false

import asyncio
import gc
import socket
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.actors.notes import Notes

from exeunt.actors.device.pump import Pump
from exeunt.actors.endings import Cause, Ending, Initiator
from exeunt.actors.ice import Address, Callbacks, IceConfig, IceServer, Lost, NeverConnected, Route, Sockets
from exeunt.actors.ice import Path as IcePath
from exeunt.actors.ice.agent import Credentials
from exeunt.actors.messages import MESSAGES
from exeunt.actors.peer import farewell, gate, path_mtu, paths, tunnel_of
from exeunt.actors.peer.actor import PeerConnection
from exeunt.actors.peer.messages import (
    AddCandidates,
    Close,
    DescribePeer,
    Hint,
    Moved,
    PeerConfig,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    PeerPathChanged,
    Ping,
    Pong,
    RelayServer,
    RestartPath,
    SetNetworks,
    SetServers,
    WillHeard,
)
from exeunt.actors.portal.actor_messages import PortalSay
from exeunt.actors.portal.messages import IceCandidates, RestartIce
from exeunt.actors.timing import DOUBT_S, LINGER_S, PROBE_S, STALL_S
from exeunt.actors.wireguard import CookieChecker, DropReason, Limits
from exeunt.actors.wireguard.testing import ipv4_packet, public_key
from exeunt.runtime import Actor, Message, Refused, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.log import rfc3339
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node

KEYS = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
PATH = IcePath("direct", "host", "host", ("192.0.2.1", 1), ("192.0.2.2", 2), 1.0)


class PlayedAgent:
    """A path that is there when the test says so; datagrams cross in memory."""

    made: "dict[str, PlayedAgent]"
    gather_error: Exception | None = None
    connect_error: Exception | None = None
    watches = False

    @property
    def arrived_from(self) -> Address | None:
        return None if self.path is None else self.path.remote

    def __init__(self, config: IceConfig, callbacks: Callbacks, *, sockets: Sockets) -> None:
        self.config, self.callbacks = config, callbacks
        self.made[config.role] = self
        self.found = asyncio.Event()
        self.fails = False
        self.closed = 0
        self.hints: list[bool] = []
        self.counters = Counter[str]()
        self.path: IcePath | None = None if config.resume is None else PATH
        self.last_alive: float | None = None
        self.remote: list[tuple[str | None, int]] = []
        self.withdrawn: list[tuple[str, int]] = []
        self.restarts: dict[int, asyncio.Future[IcePath]] = {}
        self.servers: tuple[IceServer, ...] = ()
        self.way: Route | None = Route("udp4", ("192.0.2.9", 4500), "192.0.2.1", b"", "direct")
        self.is_relayed = False
        self.cut = False
        self.marks: list[int] = []
        """Of the trains that were sent."""
        self.marked = 0
        """What comes is marked so."""
        self.other: Callable[[], PlayedAgent | None] = lambda: self.made.get(
            "controlled" if config.role == "controlling" else "controlling"
        )

    async def gather(self) -> None:
        if self.gather_error is not None:
            raise self.gather_error
        self.callbacks.on_candidate("candidate:1", 0)
        self.callbacks.on_candidate("", 0)

    async def connect(self, timeout_s: float) -> IcePath:
        if self.connect_error is not None:
            raise self.connect_error
        await self.found.wait()
        if self.fails:
            raise NeverConnected("timed_out", "nobody answered")
        self.path = PATH
        self.callbacks.on_path(PATH)
        return PATH

    async def restart(self, credentials: Credentials, timeout_s: float, generation: int) -> IcePath:
        self.callbacks.on_candidate(f"candidate:{credentials.local_username}", generation)
        outcome: asyncio.Future[IcePath] = asyncio.get_running_loop().create_future()
        self.restarts[generation] = outcome
        self.path = path = await outcome
        self.callbacks.on_path(path)
        return path

    def send(self, datagram: bytes) -> None:
        other = self.other()
        if other is not None and not self.cut and not other.closed and not self.closed:
            asyncio.get_running_loop().call_soon(other.take, bytes(datagram))

    @property
    def channel(self) -> int | None:
        return None

    def send_train(self, train: memoryview, stride: int, total: int, ecn: int = 0) -> int:
        self.marks.append(ecn)
        for at in range(0, total, stride):
            self.send(bytes(train[at : min(at + stride, total)]))
        return -(-total // stride)

    def take(self, datagram: bytes) -> None:
        if not self.closed:
            self.callbacks.on_datagrams(memoryview(bytearray(datagram)), array("I", (0, len(datagram))), self.marked)

    def add_remote_candidate(self, candidate: str | None, generation: int = 0) -> None:
        self.remote.append((candidate, generation))

    def withdraw_remote_candidate(self, candidate: str, generation: int = 0) -> None:
        self.withdrawn.append((candidate, generation))

    def snapshot(self) -> bytes | None:
        return None if self.path is None or self.is_relayed else b"the path"

    def route(self) -> Route | None:
        return None if self.path is None else self.way

    def channel_descriptor(self, channel: str) -> int | None:
        return {"udp4": 7, "relay-0.1": 8}.get(channel)

    def claim_indices(self, prefix: int) -> None:
        """Datagrams come from the other played agent alone."""

    def set_servers(self, servers: tuple[IceServer, ...]) -> None:
        self.servers = servers

    def note_alive(self) -> None:
        self.last_alive = time.monotonic()

    def hint(self, urgent: bool = False) -> None:
        self.hints.append(urgent)

    async def close(self, timeout_s: float) -> None:
        self.closed += 1


class Owner(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Message] = []

    @receive(PeerConnected, PeerPathChanged, PeerEnded, PortalSay)
    def on_told(self, message: Message) -> None:
        self.told.append(message)

    def of(self, kind: Any) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]


class Side:
    """One end: a node, its pump, the owner, and the connection's actor."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.node = Node(name, "peers-1", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
        self.pump = self.node.resources["pump"] = Pump(self.node.loop, on_intent=lambda _resource: None)
        self.owner = Owner()
        self.node.start(self.owner, "owner")
        self.file = directory / f"{name}.jsonl"
        self.peer = PeerConnection(**self.config())

    def config(self, **changes: Any) -> dict[str, Any]:
        other = "gateway" if self.name == "client" else "client"
        config = PeerConfig(
            connection="c-1",
            peer=other,
            peer_id=f"{other}-1",
            side=self.name,
            private_key=KEYS[self.name],
            peer_public_key=public_key(KEYS[other]),
            preshared_key=bytes(32),
            local_username="abcd",
            local_password="p" * 22,
            remote_username="efgh",
            remote_password="q" * 22,
            networks=("10.0.0.0/8",),
            owner=f"{self.name}/peers-1/owner",
            portal_link=f"{self.name}/peers-1/owner",
            endings_file=str(self.file),
        )
        return {**msgspec.structs.asdict(config), **changes}

    def begin(self) -> None:
        self.node.start(self.peer, "peer-c-1")

    @property
    def ref(self) -> Any:
        return self.node.local("peer-c-1")

    def endings(self) -> list[Ending]:
        if not self.file.exists():
            return []
        return [msgspec.json.decode(line, type=Ending) for line in self.file.read_bytes().splitlines()]

    async def over(self) -> None:
        await asyncio.wait_for(self.peer.until_ended(), 5)


@pytest.fixture
async def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Side]]:
    monkeypatch.setattr(paths, "IceAgent", PlayedAgent)
    monkeypatch.setattr(farewell, "GOODBYE_DEADLINE_S", 0.1)  # where nobody answers, real time passes
    monkeypatch.setattr(PlayedAgent, "made", {}, raising=False)
    sides = {name: Side(name, tmp_path) for name in KEYS}
    yield sides
    for side in sides.values():
        await stop_all(side.node, "shutdown", each_s=2)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [task for task in left if not task.cancelling()] == []
    gc.collect()  # a task that was forgotten while pending would complain now


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def connected(sides: dict[str, Side]) -> tuple[Side, Side]:
    for side in sides.values():
        side.begin()
    await settle()
    for agent in PlayedAgent.made.values():
        agent.found.set()
    await settle()
    return sides["client"], sides["gateway"]


async def test_a_gateway_under_load_demands_a_cookie_and_the_client_shows_it_with_its_repetition(
    sides: dict[str, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "CookieChecker", partial(CookieChecker, handshakes_per_second=0))
    monkeypatch.setattr(tunnel_of, "_LIMITS", Limits(rekey_timeout_s=0.05))
    client, gateway = await connected(sides)
    assert (client.owner.of(PeerConnected), gateway.owner.of(PeerConnected)) == ([], [])
    async with asyncio.timeout(5.0):
        while not client.owner.of(PeerConnected) or not gateway.owner.of(PeerConnected):  # noqa: ASYNC110 - a repetition is waited for
            await asyncio.sleep(0)
    tunnel = gateway.peer._machine.tunnel
    assert tunnel.drops[DropReason.UNDER_LOAD] == 1
    assert client.peer._machine.tunnel.gate is None


async def test_two_ends_connect_and_leave_with_a_goodbye(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    assert len(client.owner.of(PeerConnected)) == len(gateway.owner.of(PeerConnected)) == 1
    assert client.owner.of(PortalSay)[0].message.end is True
    answer: PeerEnded = await client.ref.ask(Close(Cause.SIGNED_OUT, Initiator.US))
    assert (answer.ending.cause, answer.ending.acknowledged, answer.ending.path) == (Cause.SIGNED_OUT, True, "direct")
    await client.over()
    await settle()
    (theirs,) = gateway.endings()
    assert (theirs.cause, theirs.initiated_by, theirs.peer) == (Cause.SIGNED_OUT, Initiator.PEER, "client")
    assert client.endings() == [answer.ending]
    assert client.owner.of(PeerEnded) == [answer]
    assert PlayedAgent.made["controlling"].closed >= 1
    assert gateway.peer.state == "running", "it lingers"


async def test_whoever_was_told_goodbye_is_gone_after_a_while(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    await client.ref.ask(Close(Cause.SIGNED_OUT))
    await settle()
    connection = gateway.peer._machine
    connection.handle_timeout(gateway.peer._now() + 10)
    gateway.peer._drain()
    await gateway.over()
    assert gateway.peer.exit_reason == "normal"
    assert len(gateway.endings()) == 1


async def close(side: Side, cause: Cause = Cause.ACCESS_REVOKED) -> Ending:
    answer: PeerEnded = await side.ref.ask(Close(cause, Initiator.PORTAL))
    return answer.ending


async def told_without_being_heard(sides: dict[str, Side]) -> tuple[Side, asyncio.Task[Ending]]:
    """The client says goodbye; what the gateway answered is lost, and the client will say it again."""
    client, gateway = await connected(sides)
    PlayedAgent.made["controlled"].cut = True
    saying = asyncio.create_task(close(client))
    await settle()
    assert [one.cause for one in gateway.endings()] == [Cause.ACCESS_REVOKED]
    assert not saying.done()
    return gateway, saying


async def test_whoever_is_to_close_what_has_ended_still_acknowledges(sides: dict[str, Side]) -> None:
    gateway, saying = await told_without_being_heard(sides)
    ending = await close(gateway)
    await settle()
    assert gateway.endings() == [ending]
    assert gateway.peer.state == "running"
    PlayedAgent.made["controlled"].cut = False
    assert (await saying).acknowledged is True


async def test_of_goodbyes_that_cross_both_are_acknowledged_though_one_answer_is_lost(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    PlayedAgent.made["controlled"].cut = True
    theirs, ours = [asyncio.create_task(close(side)) for side in (gateway, client)]
    assert (await theirs).acknowledged is True
    assert not ours.done()
    PlayedAgent.made["controlled"].cut = False
    assert (await ours).acknowledged is True


async def test_whoever_stops_still_acknowledges_for_a_moment(sides: dict[str, Side]) -> None:
    gateway, saying = await told_without_being_heard(sides)
    began = time.monotonic()
    gateway.ref.stop("shutdown")
    await settle()
    PlayedAgent.made["controlled"].cut = False
    assert (await saying).acknowledged is True
    await gateway.over()
    assert time.monotonic() - began < LINGER_S / 2
    assert PlayedAgent.made["controlled"].closed >= 1


async def test_a_stop_is_a_leave_too(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    client.ref.stop("supervisor_died")
    await client.over()
    await settle()
    assert [(one.cause, one.initiated_by) for one in client.endings()] == [
        (Cause.SUPERVISOR_DIED, Initiator.SUPERVISOR)
    ]
    assert [one.cause for one in gateway.endings()] == [Cause.SUPERVISOR_DIED]


async def test_a_handler_that_fails_tells_the_peer(sides: dict[str, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    client, gateway = await connected(sides)

    def broken(_actor: Any, _message: Any) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setitem(client.peer.lifecycle.table(), Hint, broken)
    client.ref.tell(Hint("x"))
    await client.over()
    await settle()
    assert [one.cause for one in gateway.endings()] == [Cause.WORKER_CRASHED]
    (ours,) = client.endings()
    assert ours.evidence["error"] == "RuntimeError: on purpose"
    assert len(client.owner.of(PeerEnded)) == 1


async def test_without_its_owner_it_says_goodbye_by_itself(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    client.owner.kill()
    await client.over()
    await settle()
    assert [one.cause for one in client.endings()] == [Cause.WORKER_CRASHED]
    assert [one.cause for one in gateway.endings()] == [Cause.WORKER_CRASHED]


async def test_a_lost_path_is_an_ending(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    before = rfc3339(time.time_ns())
    PlayedAgent.made["controlling"].counters.update(path_refused=2, path_unreachable=1)
    PlayedAgent.made["controlling"].callbacks.on_lost(Lost("no_answer", 15.01))
    await client.over()
    (ending,) = client.endings()
    assert ending.cause == Cause.NETWORK_LOST
    assert ending.evidence["icmp"] == 3
    assert ending.started_at < ending.evidence["last_sent_at"] < before
    assert ending.detection_ms == pytest.approx(15_010)


@pytest.mark.parametrize(
    ("error", "evidence"),
    [
        (NeverConnected("timed_out", "nobody answered"), {"ice": "timed_out", "detail": "nobody answered"}),
        (OSError("no such device"), {"ice": "error", "error": "OSError"}),
    ],
)
async def test_a_search_that_fails_is_an_ending_and_not_silence(
    sides: dict[str, Side], monkeypatch: pytest.MonkeyPatch, error: Exception, evidence: dict[str, str]
) -> None:
    monkeypatch.setattr(PlayedAgent, "connect_error", error)
    client = sides["client"]
    client.begin()
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.evidence) == (Cause.NEVER_CONNECTED, evidence)
    assert client.owner.of(PeerEnded)[0].ending == ending


async def test_without_own_candidates_the_peers_may_still_do(
    sides: dict[str, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlayedAgent, "gather_error", OSError("no such device"))
    client, gateway = await connected(sides)
    assert client.endings() == gateway.endings() == []
    assert len(client.owner.of(PeerConnected)) == 1


async def test_a_start_that_fails_leaves_nothing_and_records_nothing(sides: dict[str, Side]) -> None:
    client = sides["client"]
    client.peer = PeerConnection(**client.config(networks=("10.0.0.0/8", "nonsense")))
    client.begin()
    await client.over()
    assert client.peer.exit_reason == "crashed"
    assert client.endings() == [], "who asked for the start does that"
    assert list(client.pump._sinks) == []


async def test_networks_that_come_after_the_end_are_not_taken(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    await client.ref.ask(Close(Cause.SIGNED_OUT))
    await settle()
    gateway.ref.tell(SetNetworks(("10.0.0.0/8",)))
    await settle()
    assert gateway.peer.state == "running"
    assert list(gateway.pump._sinks) == [], "it lingers, and carries nothing any more"


async def test_packets_that_waited_for_a_connection_go_when_it_is_up(sides: dict[str, Side]) -> None:
    client, gateway = sides["client"], sides["gateway"]
    gateway.pump.attach(gateway.peer, ("10.0.0.0/8",))
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far_kernel, far_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.pump.set_resources({"10.0.0.0/8": "r-1"})
    client.pump.set_device(device.detach())
    gateway.pump.set_device(far_device.detach())
    packets = [addressed(number) for number in range(3)]
    with kernel, far_kernel:
        far_kernel.setblocking(False)
        for packet in packets:
            kernel.send(packet)
        await settle()
        await connected(sides)
        kernel.send(addressed(3))
        await settle()
        assert [far_kernel.recv(2000) for _ in range(4)] == [*packets, addressed(3)]
        for side in sides.values():
            side.pump.close()


def addressed(fill: int) -> bytes:
    """A packet from and to a network that both have."""
    packet = bytearray(ipv4_packet(60, fill))
    packet[12:20] = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return bytes(packet)


async def test_marks_of_congestion_go_out_and_come_in(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far_kernel, far_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.pump.set_device(device.detach())
    gateway.pump.set_device(far_device.detach())
    with kernel, far_kernel:
        for mark in (0, 2, 3):
            packet = bytearray(addressed(1))
            packet[1] = mark
            kernel.send(packet)
        await settle()
        agent = PlayedAgent.made["controlling"]
        assert agent.marks == [0, 2, 3]
        assert [far_kernel.recv(2000)[1] for _ in range(3)] == [0, 2, 3]
        PlayedAgent.made["controlled"].marked = 3  # a router on the way is congested
        for mark in (0, 2):
            packet = bytearray(addressed(1))
            packet[1] = mark
            kernel.send(packet)
        await settle()
        assert far_kernel.recv(2000)[1] == 3
        assert gateway.pump.counters["congested_inbound"] == 1, "who does not understand the mark is not given it"
        for side in sides.values():
            side.pump.close()


async def test_a_packet_that_needs_an_earlier_timer_gets_one(
    sides: dict[str, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_mtu, "BEGIN_S", path_mtu.SEARCH_AGAIN_S)
    client, _ = await connected(sides)
    PlayedAgent.made["controlling"].cut = True
    client.peer._alarm.ring(
        client.peer._on_timer
    )  # the handshake's; nothing is due before the peer would have been quiet for long
    before = client.peer._alarm.at
    client.peer.send_packet(ipv4_packet())
    due = client.peer._machine.poll_timeout()
    assert due is not None
    assert due[1] == "liveness"
    assert client.peer._alarm.at == due[0] < before


def test_a_pong_names_the_relays_that_it_came_through() -> None:
    path = IcePath("relay", "relay", "host", ("192.0.2.1", 50_000), ("2001:db8::2", 4), 1.0)
    assert Pong.by(2.0, path) == Pong(2.0, "relay", endpoint="[2001:db8::2]:4", local_relay="192.0.2.1:50000")
    theirs = Pong.by(2.0, IcePath("relay", "host", "relay", ("10.0.0.1", 3), ("192.0.2.1", 50_001), 1.0))
    assert (theirs.local_relay, theirs.remote_relay) == ("", "192.0.2.1:50001")


async def test_questions_are_answered(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    pong: Pong = await client.ref.ask(Ping(1.0))
    assert (pong.path, pong.rtt_ms >= 0) == ("direct", True)
    assert (pong.endpoint, pong.local_relay, pong.remote_relay) == ("192.0.2.2:2", "", "")
    description: PeerDescription = await client.ref.ask(DescribePeer())
    assert (description.state, description.path, description.endpoint) == ("established", "direct", "192.0.2.2:2")
    assert (description.generation, description.handshakes) == (0, 1)
    assert description.path_mtu_bytes is None, "no probe has gone out yet"
    assert description.last_seen_s_ago is not None
    assert 0 <= description.last_seen_s_ago < 5
    PlayedAgent.made["controlling"].cut = True
    with pytest.raises(Refused, match="within"):
        await client.ref.ask(Ping(0.02))
    waiting = client.ref.ask(Ping(5.0))
    await settle()
    PlayedAgent.made["controlling"].callbacks.on_lost(Lost("no_answer", 15.0))
    with pytest.raises(Refused, match="ended"):
        await waiting
    await client.over()


async def test_before_there_is_a_connection_a_ping_is_refused(sides: dict[str, Side]) -> None:
    client = sides["client"]
    client.begin()
    await settle()
    with pytest.raises(Refused, match="not connected"):
        await client.ref.ask(Ping(1.0))


# --- a peer that may be gone ---


def pass_time(side: Side, seconds: float) -> None:
    """Serve this side's timers as if so much time passed, each on time."""
    peer = side.peer
    until = peer._now() + seconds
    while peer._machine.state != "ended":
        due = peer._machine.poll_timeout()
        if due is None or due[0] > until:
            break
        peer._machine.handle_timeout(due[0])
        peer._drain()


async def test_a_last_will_that_the_portal_brings_ends_it(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    will = client.peer._machine.seal_last_will(client.peer._now())
    assert will is not None
    gateway.ref.tell(WillHeard(will[:-1] + bytes(1)))
    await settle()
    assert gateway.peer._machine.state == "established"
    gateway.ref.tell(WillHeard(will))
    await gateway.over()
    (ending,) = gateway.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert (ending.acknowledged, ending.detection_ms) == (None, None)


async def test_a_process_that_died_is_called_that_after_the_probes(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    PlayedAgent.made["controlling"].cut = PlayedAgent.made["controlled"].cut = True
    gateway.ref.tell(Hint("the link was reset", "reset"))
    await settle()
    assert PlayedAgent.made["controlled"].hints == [True], "ICE checks urgently, too"
    pass_time(gateway, PROBE_S + 0.2)
    await gateway.over()
    (ending,) = gateway.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.PROCESS_DIED, Initiator.NETWORK)
    assert ending.evidence["told"] == "the link was reset"
    assert ending.acknowledged is None
    assert client.endings() == []


async def test_a_word_of_the_portal_that_nobody_knows_yet_is_a_hint(sides: dict[str, Side]) -> None:
    _, gateway = await connected(sides)
    PlayedAgent.made["controlling"].cut = True
    gateway.ref.tell(Hint("said by a portal of 2030", "vanished"))
    await settle()
    pass_time(gateway, DOUBT_S + 0.2)
    await settle()
    assert gateway.endings() == []
    assert [one.message.reason for one in said(gateway, RestartIce)] == ["said by a portal of 2030"]


async def test_what_ice_hears_counts_as_a_sign_of_life(sides: dict[str, Side]) -> None:
    _, gateway = await connected(sides)
    agent = PlayedAgent.made["controlled"]
    agent.cut = PlayedAgent.made["controlling"].cut = True
    gateway.ref.tell(Hint("the link was reset", "reset"))
    await settle()
    agent.last_alive = gateway.peer._now() + 0.5
    gateway.peer._alarm.ring(gateway.peer._on_timer)
    pass_time(gateway, 5.0)
    assert gateway.endings() == []


# --- other paths ---


def said(side: Side, kind: Any) -> list[Any]:
    return [one for one in side.owner.of(PortalSay) if isinstance(one.message, kind)]


def restart(generation: int = 1) -> RestartPath:
    return RestartPath(
        generation=generation,
        local_username=f"loc{generation}",
        local_password="p" * 22,
        remote_username=f"rem{generation}",
        remote_password="q" * 22,
    )


async def test_a_host_that_moved_checks_at_once_and_asks_for_a_restart(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    client.ref.tell(Moved("addresses changed"))
    await settle()
    assert PlayedAgent.made["controlling"].hints == [True]
    (asked,) = said(client, RestartIce)
    assert asked.message == RestartIce(connection="c-1", reason="addresses changed")


async def test_a_restart_finds_another_path_and_the_session_lives_on(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    agent = PlayedAgent.made["controlling"]
    client.ref.tell(restart())
    await settle()
    tagged = [one.message for one in said(client, IceCandidates) if one.message.generation == 1]
    assert tagged == [IceCandidates(connection="c-1", candidates=("candidate:loc1",), generation=1)]
    relayed = IcePath("relay", "relay", "host", ("192.0.2.9", 9), ("192.0.2.2", 2), 30.0)
    agent.restarts[1].set_result(relayed)
    await settle()
    assert client.owner.of(PeerPathChanged) == [PeerPathChanged("c-1", "relay")]
    description: PeerDescription = await client.ref.ask(DescribePeer())
    assert (description.path, description.generation, description.state) == ("relay", 1, "established")
    assert len(client.owner.of(PeerConnected)) == len(gateway.owner.of(PeerConnected)) == 1
    pong: Pong = await client.ref.ask(Ping(1.0))
    assert pong.path == "relay"


async def test_an_echo_of_an_old_restart_begins_nothing(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    client.ref.tell(restart(2))
    client.ref.tell(restart(1))
    client.ref.tell(restart(2))
    await settle()
    assert list(PlayedAgent.made["controlling"].restarts) == [2]


async def test_a_restart_that_finds_nothing_ends_nothing(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    agent = PlayedAgent.made["controlling"]
    client.ref.tell(restart())
    await settle()
    agent.restarts[1].set_exception(NeverConnected("timed_out", "nobody answered"))
    await settle()
    assert client.endings() == []
    assert not client.peer._machine.restarts.is_under_way


async def test_a_restart_saves_a_connection_whose_first_search_finds_nothing(sides: dict[str, Side]) -> None:
    for side in sides.values():
        side.begin()
    await settle()
    client, agent = sides["client"], PlayedAgent.made["controlling"]
    client.ref.tell(restart())
    await settle()
    agent.fails = True
    agent.found.set()
    await settle()
    assert client.endings() == []
    agent.restarts[1].set_exception(NeverConnected("timed_out", "nobody answered"))
    await client.over()
    (ending,) = client.endings()
    assert ending.cause == Cause.NEVER_CONNECTED
    assert ending.evidence["generation"] == 1


async def test_candidates_carry_their_generation_both_ways(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    agent = PlayedAgent.made["controlling"]
    client.ref.tell(AddCandidates(("candidate:a", "candidate:b"), end=True, generation=3, withdrawn=("candidate:z",)))
    await settle()
    assert agent.remote == [("candidate:a", 3), ("candidate:b", 3), (None, 3)]
    assert agent.withdrawn == [("candidate:z", 3)]
    agent.callbacks.on_candidate("candidate:c", 3)
    agent.callbacks.on_withdrawn("candidate:d", 2)
    agent.callbacks.on_candidate("", 3)
    await settle()
    assert [one.message for one in said(client, IceCandidates)[1:]] == [
        IceCandidates(connection="c-1", generation=2, withdrawn=("candidate:d",)),
        IceCandidates(connection="c-1", candidates=("candidate:c",), end=True, generation=3),
    ]


async def test_relays_that_change_are_handed_to_ice(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    client.ref.tell(
        SetServers((RelayServer(host="192.0.2.5", port=3478), RelayServer(host="r", port=443, transport="tls")))
    )
    await settle()
    assert [(one.kind, one.host, one.transport) for one in PlayedAgent.made["controlling"].servers] == [
        ("stun", "192.0.2.5", "udp"),
        ("turn", "192.0.2.5", "udp"),
        ("turn", "r", "tls"),
    ]


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_lost_relay_is_the_end_only_when_nothing_else_is_found(is_over: bool, sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    agent = PlayedAgent.made["controlling"]
    if is_over:
        agent.callbacks.on_lost(Lost("relay_lost", 0.0))
    else:
        agent.callbacks.on_broken("relay_lost")
    await settle()
    assert client.endings() == []
    assert [one.message.reason for one in said(client, RestartIce)] == ["the relay was lost"]
    agent.cut = PlayedAgent.made["controlled"].cut = True
    pass_time(client, 6.0)
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.RELAY_LOST, Initiator.NETWORK)


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_relay_that_is_only_silent_leaves_the_cause_to_the_timeout(
    is_over: bool, sides: dict[str, Side]
) -> None:
    client, _ = await connected(sides)
    agent = PlayedAgent.made["controlling"]
    agent.cut = PlayedAgent.made["controlled"].cut = True
    if is_over:
        agent.callbacks.on_lost(Lost("relay_silent", 0.0))
    else:
        agent.callbacks.on_broken("relay_silent")
    pass_time(client, 6.0)
    await settle()
    assert client.endings() == []
    pass_time(client, 20.0)
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.NETWORK_LOST, Initiator.NETWORK)


async def test_a_text_for_people_reaches_them(sides: dict[str, Side]) -> None:
    client, gateway = await connected(sides)
    await gateway.ref.ask(Close(Cause.SHUTTING_DOWN, text="upgrade"))
    await settle()
    assert client.endings()[0].evidence == {"told": "goodbye: shutting_down", "text": "upgrade"}


async def test_an_idle_connection_ends_as_configured(sides: dict[str, Side]) -> None:
    client = sides["client"]
    client.peer = PeerConnection(**client.config(idle_after_s=30.0))
    client, gateway = await connected(sides)
    PlayedAgent.made["controlled"].last_alive = PlayedAgent.made["controlling"].last_alive = None
    client.peer._machine.handle_alive(client.peer._now() + 40)
    pass_time(client, 31.0 - STALL_S / 2)
    await client.over()
    await settle()
    assert [(one.cause, one.initiated_by) for one in client.endings()] == [(Cause.IDLE, Initiator.US)]
    assert [(one.cause, one.initiated_by) for one in gateway.endings()] == [(Cause.IDLE, Initiator.PEER)]


async def test_its_last_will_follows_the_path_and_the_session_and_goes_with_it(sides: dict[str, Side]) -> None:
    notes = sides["client"].node.deposits = Notes()
    client, gateway = await connected(sides)
    descriptor, first, where = notes.words["c-1"]
    assert (descriptor, where) == (7, {"destination": ("192.0.2.9", 4500), "source": "192.0.2.1", "told": None})
    agent = PlayedAgent.made["controlling"]
    agent.way = Route("relay-0.1", None, None, b"\x40\x00", "relay")
    agent.callbacks.on_path(PATH)
    assert notes.words["c-1"] == (8, agent.way.frame(first), {"destination": None, "source": None, "told": None})
    gateway.peer._machine.tunnel._responder._accepted_at = 0.0  # two initiations in a moment are one too many
    client.peer._machine.tunnel.connect(time.monotonic())
    client.peer._alarm.ring(client.peer._on_timer)
    await settle()
    _, second, _ = notes.words["c-1"]
    assert second != agent.way.frame(first)
    await client.ref.ask(Close(Cause.SIGNED_OUT))
    assert notes.words == {}
    PlayedAgent.made["controlled"].take(second[4:])
    await settle()
    (theirs,) = gateway.endings()
    assert theirs.cause is Cause.SIGNED_OUT, "who has said goodbye needs nobody to speak for it"


async def test_a_last_will_is_an_ending_at_the_other_side(sides: dict[str, Side]) -> None:
    notes = sides["client"].node.deposits = Notes()
    _, gateway = await connected(sides)
    _, will, _ = notes.words["c-1"]
    for _ in range(8):
        PlayedAgent.made["controlled"].take(will)
    await settle()
    (theirs,) = gateway.endings()
    assert (theirs.cause, theirs.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert (theirs.detection_ms, theirs.acknowledged) == (None, None)


async def test_a_successor_goes_on_and_the_peer_notices_nothing(sides: dict[str, Side]) -> None:
    notes = sides["client"].node.deposits = Notes()
    client, gateway = await connected(sides)
    before = client.peer
    client.peer.send_packet(ipv4_packet())
    await settle()
    client.ref.stop("hand_over")
    await client.over()
    assert client.endings() == []
    assert client.owner.of(PeerEnded) == []
    assert set(notes.left) == {"c-1", "sockets"}
    assert "c-1" in notes.words, "if nobody takes over, the peer is told"
    client.node.resources.pop("sockets")
    client.node.resources.pop("sockets_left")
    client.peer = PeerConnection(**client.config(inherits=True))
    client.begin()
    await settle()
    assert notes.taken_keys == ["sockets", "c-1"]
    assert PlayedAgent.made["controlling"].config.resume == b"the path"
    assert client.peer._indices.prefix == before._indices.prefix
    pong: Pong = await client.ref.ask(Ping())
    assert pong.path == "direct"
    assert len(client.owner.of(PeerConnected)) == 1, "it has been up all the time"
    answer: PeerEnded = await client.ref.ask(Close(Cause.SIGNED_OUT))
    assert answer.ending.acknowledged
    assert answer.ending.tx_bytes > before._machine.tunnel.tx_bytes
    await settle()
    assert [ending.cause for ending in gateway.endings()] == [Cause.SIGNED_OUT]


async def test_without_a_path_that_could_go_along_the_successor_asks_for_another(sides: dict[str, Side]) -> None:
    notes = sides["client"].node.deposits = Notes()
    client, _ = await connected(sides)
    PlayedAgent.made["controlling"].is_relayed = True
    client.ref.stop("hand_over")
    await client.over()
    assert client.endings() == []
    client.node.resources.clear()
    client.pump = client.node.resources["pump"] = Pump(client.node.loop, on_intent=lambda _resource: None)
    client.peer = PeerConnection(**client.config(inherits=True))
    client.begin()
    await settle()
    assert PlayedAgent.made["controlling"].config.resume is None
    (wanted,) = [say.message for say in client.owner.of(PortalSay) if isinstance(say.message, RestartIce)]
    assert wanted.connection == "c-1"
    assert notes.taken_keys == ["sockets", "c-1"]
    assert client.peer._machine.state == "established"


async def test_the_owners_hand_over_is_not_its_death(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    client.node.mail.expect([str(client.owner.ref)])
    client.owner.ref.stop("hand_over")
    await settle()
    assert client.peer.state == "running"
    assert client.endings() == []
    client.owner = Owner()
    client.node.start(client.owner, "owner")
    await settle()
    client.owner.kill()
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.evidence["owner"]) == (Cause.WORKER_CRASHED, "killed")


async def test_an_owner_without_a_successor_has_died(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    client.owner.ref.stop("hand_over")
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.evidence["owner"]) == (Cause.WORKER_CRASHED, "no_such_actor")


async def test_a_connection_that_is_still_being_made_takes_its_leave(sides: dict[str, Side]) -> None:
    client = sides["client"]
    client.node.deposits = notes = Notes()
    client.begin()
    await settle()
    client.ref.stop("hand_over")
    await client.over()
    (ending,) = client.endings()
    assert (ending.cause, ending.acknowledged) == (Cause.SHUTTING_DOWN, None)
    assert set(notes.left) == {"sockets"}


async def test_a_successor_to_whom_nothing_was_left_does_not_start(sides: dict[str, Side]) -> None:
    client = sides["client"]
    client.node.deposits = notes = Notes()
    notes.bequeath("c-1", b"\xc1nonsense")
    for _ in range(2):
        client.peer = PeerConnection(**client.config(inherits=True))
        client.begin()
        await settle()
        assert client.peer.exit_reason == "crashed"
    assert client.endings() == []
