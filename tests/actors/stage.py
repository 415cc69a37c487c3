"""A program's four processes in one: nodes joined by memory, and actors that play everybody but the event loop.

What crosses a worker is encoded and decoded as over the real transport. `settle` waits until nobody has anything to
do; nothing here sleeps.
"""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from exeunt.actors.client_loop import ClientLoop
from exeunt.actors.device.messages import DeviceLost, DeviceReady, Intent, SetOwner, SetResources
from exeunt.actors.endings import Cause, Ending, Initiator
from exeunt.actors.event_loop import EventLoop
from exeunt.actors.loop_config import LoopConfig
from exeunt.actors.messages import MESSAGES as TUNNEL_MESSAGES
from exeunt.actors.messages import Event, IgnoreAddresses, NetworkChanged, Publish
from exeunt.actors.network.messages import (
    AllowAccess,
    DeviceOpened,
    EnableForwarding,
    NetworkDone,
    OpenDevice,
    RevokeAccessTo,
    RoutesSet,
    SetRoutes,
    Steer,
)
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
    Ping,
    Pong,
    RestartPath,
    SetNetworks,
    SetServers,
    WillHeard,
)
from exeunt.actors.peer.static_messages import StaticPeerConfig
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.actor_messages import (
    PortalClaim,
    PortalDenied,
    PortalJoined,
    PortalLeave,
    PortalLeft,
    PortalLost,
    PortalReset,
    PortalSaid,
    PortalSay,
)
from exeunt.runtime import Actor, ChildSpec, Later, Message, Refused, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.memory import MemoryNetwork, perish
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.messages import ActorStarted, StartChild
from exeunt.runtime.node import Node

NODE = "demo"
ICE = portal.IceCredentials(username="abcd", password="p" * 22)
GATEWAY_KEY = bytes(range(32))
WORKERS = ("supervisor", "network", "peers-1", "peers-2", "control")

M = TypeVar("M", bound=msgspec.Struct)


class Played(Actor):
    """Notes what it is told, in the order in which the whole stage was told."""

    def __init__(self, stage: "Stage") -> None:
        super().__init__()
        self.stage = stage

    def note(self, message: Message) -> None:
        self.stage.log.append((self.ref.address.name, message))

    def told(self, kind: type[M]) -> list[M]:
        name = self.ref.address.name
        return [message for who, message in self.stage.log if who == name and isinstance(message, kind)]


class PlayedRoot(Played):
    """Starts at once, unless it is `slow`: then when the stage says so, as for a worker that is being restarted; or, if
    that is `late`, at once, and answers then.
    """

    refuse = False
    slow = late = False

    def __init__(self, stage: "Stage") -> None:
        super().__init__(stage)
        self.waiting: dict[str, asyncio.Future[None]] = {}
        """By the child's id: set one to go on."""

    @receive(StartChild)
    def on_start_child(self, message: StartChild) -> ActorStarted | Later:
        self.note(message)
        spec = msgspec.msgpack.decode(message.spec, type=ChildSpec)
        return Later(self._wait_and_start(spec)) if self.slow or self.late else self._start(spec)

    def _start(self, spec: ChildSpec) -> ActorStarted:
        if self.refuse:
            raise Refused("start_failed", "not today")
        peer = PlayedPeer(self.stage, spec)
        self.stage.peers.append(peer)
        return ActorStarted(str(self.stage.nodes[spec.worker].start(peer, spec.id)))

    async def _wait_and_start(self, spec: ChildSpec) -> ActorStarted:
        started = self._start(spec) if self.late else None
        self.waiting[spec.id] = self.node.loop.create_future()
        try:
            await self.waiting[spec.id]
        finally:
            del self.waiting[spec.id]
        return started or self._start(spec)


class PlayedPeer(Played):
    """Ends as it is told, unless it is `mute`; if it is `late`, it ends, but does not answer."""

    def __init__(self, stage: "Stage", spec: ChildSpec) -> None:
        super().__init__(stage)
        self.args = spec.args
        kind = StaticPeerConfig if spec.start.endswith(":StaticPeer") else PeerConfig
        self.config: Any = msgspec.convert(spec.args, kind, builtin_types=(bytes,))
        self.mute = self.late = False
        self.is_over = False

    @receive(AddCandidates, Hint, Moved, RestartPath, SetNetworks, SetServers, WillHeard)
    def on_told(self, message: Message) -> None:
        self.note(message)

    @receive(Close)
    def on_close(self, message: Close) -> Later | PeerEnded:
        self.note(message)
        ended = PeerEnded(self.config.connection, self.ending(Cause(message.cause), Initiator(message.initiated_by)))
        if self.late:
            self.tell_owner(ended)
        if self.mute or self.late:
            return Later(asyncio.Event().wait())  # type: ignore[arg-type]
        self.over(ended)
        return ended

    @receive(Ping)
    def on_ping(self, message: Ping) -> Pong:
        return Pong(12.5, "direct")

    @receive(DescribePeer)
    def on_describe(self, message: DescribePeer) -> PeerDescription:
        return PeerDescription(
            self.config.connection, self.config.peer, "established", "direct", None, 12.5, 1.0, 10, 20
        )

    @receive(PortalReset)
    def on_crash_wanted(self, message: PortalReset) -> None:
        raise RuntimeError("on purpose")

    def connect(self) -> None:
        self.tell_owner(PeerConnected(self.config.connection, "direct", 20.0))

    def end(self, cause: Cause, by: Initiator = Initiator.PEER) -> None:
        self.over(PeerEnded(self.config.connection, self.ending(cause, by)))

    def over(self, ended: PeerEnded) -> None:
        if not self.is_over:
            self.is_over = True
            self.tell_owner(ended)
            self.ref.stop("normal")

    def tell_owner(self, message: Message) -> None:
        self.node.ref(self.config.owner).tell(message)

    def ending(self, cause: Cause, by: Initiator) -> Ending:
        return Ending(
            connection=self.config.connection,
            peer=self.config.peer,
            side=self.args.get("side", "gateway"),
            cause=cause,
            initiated_by=by,
            evidence={},
            detection_ms=0.0,
            acknowledged=True,
            started_at="2026-01-01T00:00:00Z",
            ended_at="2026-01-01T00:00:01Z",
            last_seen_at=None,
            rx_bytes=0,
            tx_bytes=0,
            path="direct",
        )


class PlayedNetwork(Played):
    def __init__(self, stage: "Stage") -> None:
        super().__init__(stage)
        self.firewall: set[tuple[str, str]] = set()
        self.refuses: Callable[[Message], bool] = lambda _message: False
        self.refusal = Refused("FirewallRefused", "the kernel refused")
        self.refused_routes: dict[str, str] = {}

    @receive(OpenDevice)
    def on_open(self, message: OpenDevice) -> DeviceOpened:
        self._take(message)
        return DeviceOpened(message.name)

    @receive(SetRoutes, Steer)
    def on_routes(self, message: SetRoutes | Steer) -> RoutesSet:
        self._take(message)
        return RoutesSet(self.refused_routes)

    @receive(EnableForwarding, AllowAccess, RevokeAccessTo)
    def on_firewall(self, message: EnableForwarding | AllowAccess | RevokeAccessTo) -> NetworkDone:
        self._take(message)
        if isinstance(message, AllowAccess):
            self.firewall.add((message.client_address, message.network))
        elif isinstance(message, RevokeAccessTo):
            self.firewall.discard((message.client_address, message.network))
        return NetworkDone()

    def _take(self, message: Message) -> None:
        self.note(message)
        if self.refuses(message):
            raise self.refusal


class PlayedDevice(Played):
    @receive(SetOwner, SetResources)
    def on_told(self, message: Message) -> None:
        self.note(message)

    def want(self, resource_id: str) -> None:
        owner = self.told(SetOwner)[-1].owner
        self.node.ref(owner).tell(Intent(resource_id))

    def restart(self) -> None:
        self.node.ref(self.told(SetOwner)[-1].owner).tell(DeviceReady(self.ref.address.worker))

    def lose(self) -> None:
        self.node.ref(self.told(SetOwner)[-1].owner).tell(DeviceLost("File descriptor in bad state"))


class PlayedPortalLink(Played):
    answers = True

    @receive(PortalSay, PortalClaim, PortalReset)
    def on_told(self, message: Message) -> None:
        self.note(message)

    @receive(PortalLeave)
    def on_leave(self, message: PortalLeave) -> PortalLeft:
        self.note(message)
        if not self.answers:
            raise Refused("closed", "the link to the portal is closed")
        return PortalLeft(True)

    def said(self, kind: type[M]) -> list[M]:
        return [message.message for message in self.told(PortalSay) if isinstance(message.message, kind)]


class PlayedWatcher(Played):
    @receive(IgnoreAddresses)
    def on_ignore(self, message: IgnoreAddresses) -> None:
        self.note(message)

    def notice(self, reason: str) -> None:
        self.node.local("event-loop").tell(NetworkChanged(reason))


class PlayedStream(Played):
    @receive(Publish)
    def on_publish(self, message: Publish) -> None:
        self.note(message)

    def events(self, kind: type[M]) -> list[M]:
        return [message.event for message in self.told(Publish) if isinstance(message.event, kind)]

    @property
    def all(self) -> list[Event]:
        return [message.event for message in self.told(Publish)]


class Stage:
    """The fakes, and one event loop among them."""

    def __init__(self, directory: Path) -> None:
        codec = Codec([*RUNTIME_MESSAGES, *TUNNEL_MESSAGES])
        self.log: list[tuple[str, Message]] = []
        self.peers: list[PlayedPeer] = []
        self.nodes = {worker: Node(NODE, worker, codec=codec) for worker in WORKERS}
        self.memory = MemoryNetwork()
        for worker, node in self.nodes.items():
            self.memory.join(node, worker)
        for node in self.nodes.values():
            for worker in WORKERS:
                node.worker_up(worker, worker)
        self.root = PlayedRoot(self)
        self.network = PlayedNetwork(self)
        self.device, self.second_device = PlayedDevice(self), PlayedDevice(self)
        self.link = PlayedPortalLink(self)
        self.stream = PlayedStream(self)
        self.watcher = PlayedWatcher(self)
        self.nodes["supervisor"].start(self.root, "root")
        self.nodes["network"].start(self.network, "network")
        self.nodes["peers-1"].start(self.device, "device")
        self.nodes["peers-2"].start(self.second_device, "device-2")
        self.nodes["control"].start(self.link, "portal-link")
        self.nodes["control"].start(self.stream, "event-stream")
        self.nodes["control"].start(self.watcher, "watcher")
        self.joins = 0
        self.endings_file = directory / "endings.jsonl"
        self.loop: Any = None
        """The event loop that was started last."""

    def start(self, kind: type[EventLoop], **changes: Any) -> Any:
        """Start the event loop; return the actor."""
        config = LoopConfig(
            instance=NODE,
            side="client" if kind is ClientLoop else "gateway",
            private_key=b"\x11" * 32,
            device="exeunt0",
            mtu=1280,
            ipc="/nowhere",
            endings_file=str(self.endings_file),
            peer_workers=("peers-1",),
            lost_after_s=15.0,
        )
        loop = kind(**{**msgspec.structs.asdict(config), **changes})
        self.nodes["control"].start(loop, "event-loop")
        self.loop = loop
        return loop

    async def settle(self) -> None:
        """Until nobody has anything to do, or waits for somebody who won't answer."""
        quiet = 0
        for _ in range(3000):
            await asyncio.sleep(0)
            busy = self.memory.under_way or any(
                not actor.lifecycle.is_idle for node in self.nodes.values() for actor in node.actors.values()
            )
            quiet = 0 if busy else quiet + 1
            if quiet == 5:
                return

    async def tell(self, message: Message) -> None:
        """Tell the event loop something, and let everything happen that follows."""
        self.nodes["control"].local("event-loop").tell(message)
        await self.settle()

    async def say(self, message: portal.FromPortal) -> None:
        """The portal says something."""
        await self.tell(PortalSaid(message))

    async def join(self, *resources: portal.Resource, **changes: Any) -> None:
        self.joins += 1
        await self.tell(PortalJoined(joined(*resources, **changes), self.joins))

    async def lose_link(self) -> None:
        await self.tell(PortalLost("refused", True, 1.0))

    async def deny(self, *, requires_sign_in: bool) -> None:
        await self.tell(PortalDenied("your token has expired", requires_sign_in))

    async def want(self, resource_id: str) -> None:
        self.device.want(resource_id)
        await self.settle()

    async def go_on(self, *connections: str) -> None:
        """The supervisor starts what it was asked for, in this order, or all of it."""
        for name in [f"peer-{one}" for one in connections] or list(self.root.waiting):
            self.root.waiting[name].set_result(None)
            await self.settle()

    async def kill_worker(self, worker: str) -> None:
        """SIGKILL: its actors are gone without a word, and the others are told."""
        node = self.nodes.pop(worker)
        for other in self.nodes.values():
            other.worker_down(worker)
        perish(node)
        await self.settle()

    def endings(self) -> list[Ending]:
        """What the event loop itself has written."""
        if not self.endings_file.exists():
            return []
        return [msgspec.json.decode(line, type=Ending) for line in self.endings_file.read_bytes().splitlines()]

    async def close(self) -> None:
        for node in self.nodes.values():
            await stop_all(node, "shutdown", each_s=0.2)


def resource(number: int, address: str, kind: str = "cidr") -> portal.Resource:
    return portal.Resource(id=f"r-{number}", name=f"resource {number}", type=kind, address=address, site="hq")


def joined(*resources: portal.Resource, **changes: Any) -> portal.Joined:
    fields: dict[str, Any] = {
        "peer_id": "me",
        "name": "me",
        "address_ipv4": "100.64.0.1",
        "address_ipv6": "fd65:7865:756e::1",
        "resources": resources,
    }
    return portal.Joined(**{**fields, **changes})


def created(connection: str, resource_id: str, gateway: str = "gw-1") -> portal.AuthorizationCreated:
    return portal.AuthorizationCreated(
        connection=connection,
        resource_id=resource_id,
        gateway_id=gateway,
        gateway_name=f"name of {gateway}",
        gateway_public_key=GATEWAY_KEY,
        gateway_address_ipv4="100.64.0.9",
        gateway_address_ipv6="fd65:7865:756e::9",
        preshared_key=b"\x07" * 32,
        local_ice=ICE,
        remote_ice=ICE,
    )


def authorize(
    connection: str,
    to: portal.Resource,
    *,
    client: str = "cl-1",
    address: str = "100.64.0.2",
    expires_at: int | None = None,
) -> portal.Authorize:
    return portal.Authorize(
        ref=f"ask-{connection}-{to.id}",
        connection=connection,
        client=portal.Client(
            id=client, name=f"name of {client}", public_key=GATEWAY_KEY, address_ipv4=address, address_ipv6=""
        ),
        resource=to,
        preshared_key=b"\x07" * 32,
        local_ice=ICE,
        remote_ice=ICE,
        expires_at=expires_at,
    )
