"""The portal link's actor: what it leaves to a successor, and what that one does with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.actors.notes import Notes

from exeunt.actors.messages import MESSAGES
from exeunt.actors.portal import actor
from exeunt.actors.portal.actor import PortalLink
from exeunt.actors.portal.actor_messages import PortalClaim, PortalLinkStarted, PortalSay
from exeunt.actors.portal.events import LinkState
from exeunt.actors.portal.messages import ConnectionEnded, FromPeer, LastWill, LiveConnection
from exeunt.runtime import Actor, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.messages import LastWords
from exeunt.runtime.node import Node

ENDED = ConnectionEnded(connection="c-1", cause="idle")
CLAIM = PortalClaim({"c-2": ("client-1", ("r-1",))})
CLAIMED = LiveConnection(connection="c-2", peer_id="client-1", resource_ids=("r-1",))


class PlayedLink:
    """Notes what is done with it, in order."""

    def __init__(self, *_: object, **__: object) -> None:
        self.done: list[object] = []
        self.unsaid: list[FromPeer] = []
        self.state: LinkState = "disconnected"
        links.append(self)

    def start(self) -> None:
        self.done.append("start")
        self.state = "joined"

    def send(self, message: FromPeer, join: int | None = None) -> None:
        self.done.append(message)
        self.unsaid.append(message)

    def set_connections(self, connections: tuple[LiveConnection, ...]) -> None:
        self.done.append(connections)

    def take_unsaid(self) -> tuple[FromPeer, ...]:
        return tuple(self.unsaid)

    async def close(self) -> None:
        self.done.append("close")


class Owner(Actor):
    """Counts the links that begin."""

    begun = 0

    @receive(PortalLinkStarted)
    def on_started(self, _message: PortalLinkStarted) -> None:
        self.begun += 1


links: list[PlayedLink] = []


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(actor, "Link", PlayedLink)
    links.clear()
    node = Node("n", "control", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
    node.deposits = Notes()
    yield node
    await stop_all(node, "shutdown", each_s=0.2)


async def begin(node: Node, directory: Path) -> PortalLink:
    token = directory / "token"
    token.write_text("secret")
    arguments: dict[str, Any] = {"url": "ws://nowhere", "name": "n", "external_id": "e", "public_key": bytes(32)}
    link = PortalLink(token_file=str(token), owner="n/control/event-loop", **arguments)
    node.start(link, "portal-link")
    await link.started
    return link


async def hand_over(node: Node, link: PortalLink) -> None:
    for _ in range(50):
        await asyncio.sleep(0)
    link.ref.stop("hand_over")
    await link.until_ended()
    assert isinstance(node.deposits, Notes)
    node.deposits.succeeds = True


async def test_a_successor_claims_the_same_and_says_what_was_not_heard(node: Node, tmp_path: Path) -> None:
    link = await begin(node, tmp_path)
    link.ref.tell(CLAIM)
    link.ref.tell(PortalSay(ENDED))
    await hand_over(node, link)
    await begin(node, tmp_path)
    assert [one.done for one in links] == [["start", (CLAIMED,), ENDED, "close"], [(CLAIMED,), ENDED, "start"]]


async def test_the_last_wills_of_a_dead_worker_are_passed_on(node: Node, tmp_path: Path) -> None:
    link = await begin(node, tmp_path)
    await link.ref.ask(LastWords("peers-1", {"c-1": bytes(64), "c-2": b"\4" * 80}))
    assert links[0].done[1:] == [
        LastWill(connection="c-1", datagram=bytes(64)),
        LastWill(connection="c-2", datagram=b"\4" * 80),
    ]


@pytest.mark.parametrize("state", ["leaving", "left", "closed"])
async def test_who_has_left_does_not_join_again(node: Node, tmp_path: Path, state: LinkState) -> None:
    link = await begin(node, tmp_path)
    link.ref.tell(PortalSay(ENDED))
    links[0].state = state
    await hand_over(node, link)
    await begin(node, tmp_path)
    assert links[1].done == [()]


async def test_one_to_which_nothing_was_left_begins_anew(node: Node, tmp_path: Path) -> None:
    assert isinstance(node.deposits, Notes)
    node.deposits.succeeds = True
    node.deposits.bequeath("portal-link", b"\xc1")
    await begin(node, tmp_path)
    assert links[0].done == ["start"]


async def test_its_owner_is_told_of_one_that_knows_no_connection_and_of_no_other(node: Node, tmp_path: Path) -> None:
    owner = Owner()
    node.start(owner, "event-loop")
    link = await begin(node, tmp_path)
    await hand_over(node, link)
    assert owner.begun == 1
    link = await begin(node, tmp_path)  # it inherits
    link.ref.stop("normal")
    await link.until_ended()
    assert owner.begun == 1
    await begin(node, tmp_path)
    for _ in range(50):
        await asyncio.sleep(0)
    assert owner.begun == 2
