"""A portal machine on a real (temporary) database, with a clock that only moves when told."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from exeunt.actors.portal.codec import encode
from exeunt.actors.portal.messages import (
    AuthorizationCreated,
    Authorize,
    Authorized,
    FromPeer,
    FromPortal,
    Join,
    Joined,
    LiveConnection,
    RequestAuthorization,
)
from exeunt.actors.portal.static import Listener
from exeunt.clients.portal import administration
from exeunt.clients.portal.events import (
    ClosedHow,
    CloseSession,
    ConnectionMade,
    EndReported,
    Fact,
    ListenerKnown,
    SessionFact,
    TellEvidence,
    Transmit,
)
from exeunt.clients.portal.machine import PortalMachine
from exeunt.clients.portal.rows import NewPeer
from exeunt.clients.portal.store import SessionEvent, Store

M = TypeVar("M")
UNIX = 1_800_000_000.0


class Peer:
    """A peer's side of one session with the machine."""

    def __init__(self, rig: "Rig", made: NewPeer, key: bytes) -> None:
        self.rig = rig
        self.made = made
        self.id = made.id
        self.key = key
        rig.sessions += 1
        self.session = rig.sessions
        self.inbox: list[FromPortal] = []
        self.closed: CloseSession | None = None

    def open(self) -> None:
        identity = self.rig.store.authenticate(self.made.token)
        assert identity is not None
        self.rig.peers[self.session] = self
        self.rig.machine.handle_opened(self.session, identity, self.rig.now)
        self.rig.drain()

    def say(self, message: FromPeer) -> None:
        self.raw(encode(message))

    def raw(self, frame: str | bytes) -> None:
        self.rig.machine.handle_frame(self.session, frame, self.rig.now)
        self.rig.drain()

    def join(
        self,
        *connections: LiveConnection,
        version: str = "0.1.0",
        complete: bool = True,
        listener: Listener | None = None,
    ) -> Joined:
        self.open()
        self.say(
            Join(
                name=self.made.name,
                external_id="device",
                public_key=self.key,
                version=version,
                connections=connections,
                complete=complete,
                listener=listener,
            )
        )
        return self.take(Joined)

    def lose(self, how: ClosedHow = "reset") -> None:
        self.rig.machine.handle_closed(self.session, how, self.rig.now)
        self.rig.drain()

    def take(self, kind: type[M]) -> M:
        """The oldest message of a kind."""
        for message in self.inbox:
            if isinstance(message, kind):
                self.inbox.remove(message)
                return message
        raise AssertionError(f"no {kind.__name__} in {self.inbox}")

    def take_all(self) -> list[FromPortal]:
        taken, self.inbox = self.inbox, []
        return taken


class Rig:
    """The machine, its database and its clock."""

    def __init__(self, path: Path) -> None:
        self.now: float = 100.0
        self.path = path
        self.store = Store(path)
        self.admin = Store(path)
        first = administration.initialize(self.admin, path, UNIX)
        self.client_made, self.gateway_made = first.client, first.gateway
        self.web = administration.add_resource(self.admin, "web", "10.20.0.0/24", site=None)
        self.sessions = 0
        self.peers: dict[int, Peer] = {}
        self.facts: list[SessionFact] = []
        self.restart()

    def restart(self) -> None:
        """A portal that remembers only what is in the database."""
        self.peers.clear()
        self.machine = PortalMachine(self.store.directory(), rng=random.Random(1), unix_offset_s=UNIX - 100.0)

    def peer(self, made: NewPeer, key: bytes = b"k" * 32) -> Peer:
        return Peer(self, made, key)

    def add_gateway(self, name: str, site: str | None = None) -> NewPeer:
        made = administration.add_gateway(self.admin, name, site=site, now_unix=UNIX)
        self.reload()
        return made

    def add_client(self, name: str) -> NewPeer:
        made = administration.add_client(self.admin, name, now_unix=UNIX)
        self.reload()
        return made

    def revoke(self, target: str) -> None:
        administration.revoke(self.admin, target, now_unix=UNIX)
        self.reload()

    def reload(self) -> None:
        self.machine.handle_directory(self.store.directory(), self.now)
        self.drain()

    def run_until(self, moment: float) -> None:
        while (timeout := self.machine.poll_timeout()) is not None and timeout[0] <= moment:
            self.now = timeout[0]
            self.machine.handle_timeout(self.now)
            self.drain()
        self.now = moment

    def drain(self) -> None:
        while (output := self.machine.poll_transmit()) is not None:
            peer = self.peers.get(output.session)
            if peer is not None and isinstance(output, Transmit):
                encode(output.message)
                peer.inbox.append(output.message)
            elif peer is not None and isinstance(output, CloseSession):
                peer.closed = output
            elif peer is not None and isinstance(output, TellEvidence):
                peer.inbox.append(self.store.endings.evidence(output.ref, output.connection, output.peer_id))
        while (fact := self.machine.poll_event()) is not None:
            self.keep(fact)

    def keep(self, fact: Fact) -> None:
        at = self.unix()
        match fact:
            case SessionFact():
                self.facts.append(fact)
                self.store.record(SessionEvent(at, fact.kind, fact.peer_id, fact.detail, fact.connection))
            case ConnectionMade():
                self.store.endings.add(fact.connection, fact.client_id, fact.gateway_id, at)
            case EndReported():
                self.store.endings.report(fact.connection, fact.peer_id, fact.cause, fact.report, at)
            case ListenerKnown():
                self.store.static_peers.set_listener(fact.gateway_id, fact.listener)

    def unix(self) -> float:
        return UNIX + self.now - 100.0

    def connect(self, client: Peer, gateway: Peer, resource_id: str | None = None) -> AuthorizationCreated:
        """A client asks, the gateway confirms, the client is told."""
        client.say(RequestAuthorization(resource_id=resource_id or self.web.id))
        gateway.say(Authorized(ref=gateway.take(Authorize).ref))
        return client.take(AuthorizationCreated)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "portal.db")
    yield made
    made.store.close()
    made.admin.close()
