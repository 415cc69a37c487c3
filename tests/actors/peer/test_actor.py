"""The peer-connection actor, with a path agent in memory: its endings, its timers, and that nothing is left of it."""

# pyright: reportPrivateUsage=false

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exeunt.actors.device.pump import Pump
from exeunt.actors.endings import Cause, Ending, Initiator
from exeunt.actors.ice import Callbacks, IceConfig, Lost, NeverConnected, Sockets
from exeunt.actors.ice import Path as IcePath
from exeunt.actors.messages import MESSAGES
from exeunt.actors.peer import actor as peer_actor
from exeunt.actors.peer import machine
from exeunt.actors.peer.actor import PeerConnection
from exeunt.actors.peer.messages import (
    Close,
    DescribePeer,
    Hint,
    PeerConfig,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    Ping,
    Pong,
    SetNetworks,
)
from exeunt.actors.portal.actor_messages import PortalSay
from exeunt.actors.wireguard.testing import ipv4_packet, public_key
from exeunt.runtime import Actor, Message, Refused, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node

KEYS = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
PATH = IcePath("direct", "host", "host", ("192.0.2.1", 1), ("192.0.2.2", 2), 1.0)


class PlayedAgent:
    """A path that is there when the test says so; datagrams cross in memory."""

    made: "dict[str, PlayedAgent]"
    gather_error: Exception | None = None
    connect_error: Exception | None = None

    def __init__(self, config: IceConfig, callbacks: Callbacks, *, sockets: Sockets) -> None:
        self.config, self.callbacks = config, callbacks
        self.made[config.role] = self
        self.found = asyncio.Event()
        self.closed = 0
        self.hints = 0
        self.cut = False
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
        self.callbacks.on_path(PATH)
        return PATH

    def send(self, datagram: bytes) -> None:
        other = self.other()
        if other is not None and not self.cut and not other.closed and not self.closed:
            asyncio.get_running_loop().call_soon(other.take, bytes(datagram))

    def take(self, datagram: bytes) -> None:
        if not self.closed:
            self.callbacks.on_datagram(datagram)

    def add_remote_candidate(self, candidate: str | None) -> None:
        """Paths come from the test."""

    def claim_indices(self, prefix: int) -> None:
        """Datagrams come from the other played agent alone."""

    def note_alive(self) -> None:
        """Nobody watches."""

    def hint(self) -> None:
        self.hints += 1

    async def close(self, timeout_s: float) -> None:
        self.closed += 1


class Owner(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Message] = []

    @receive(PeerConnected, PeerEnded, PortalSay)
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
    monkeypatch.setattr(peer_actor, "IceAgent", PlayedAgent)
    monkeypatch.setattr(machine, "GOODBYE_DEADLINE_S", 0.1)  # where nobody answers, real time passes
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
    PlayedAgent.made["controlling"].callbacks.on_lost(Lost("no_answer", 15.01))
    await client.over()
    (ending,) = client.endings()
    assert ending.cause == Cause.NETWORK_LOST
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


async def test_a_packet_that_needs_an_earlier_timer_gets_one(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    PlayedAgent.made["controlling"].cut = True
    client.peer._on_timer()  # the handshake's; nothing is due before the session expires
    before = client.peer._timer_at
    client.peer.send_packet(ipv4_packet())
    due = client.peer._machine.poll_timeout()
    assert due is not None
    assert due[1] == "peer silent after data"
    assert client.peer._timer_at == due[0] < before, "not only when the session expires, minutes later"


async def test_questions_are_answered(sides: dict[str, Side]) -> None:
    client, _ = await connected(sides)
    pong: Pong = await client.ref.ask(Ping(1.0))
    assert (pong.path, pong.rtt_ms >= 0) == ("direct", True)
    description: PeerDescription = await client.ref.ask(DescribePeer())
    assert (description.state, description.path, description.endpoint) == ("established", "direct", "192.0.2.2:2")
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
