"""A peers worker is restarted: its successor goes on with the connections, and nobody records an ending."""

from __future__ import annotations

import pytest
from tests.actors.stage import PlayedPeer, Stage
from tests.actors.test_client_loop import WEB, connected

from exeunt.actors.device.messages import DeviceReady
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.messages import ConnectionEnded, ConnectionEstablished, StopSession, TakeOverOverdue
from exeunt.actors.peer.messages import Close, SetNetworks
from exeunt.actors.portal import messages as portal
from exeunt.runtime.messages import StartChild


async def hand_over(stage: Stage, peer: PlayedPeer) -> None:
    """What a restarted worker's actors do: they end without a word."""
    peer.ref.stop("hand_over")
    await stage.settle()


async def succeed(stage: Stage) -> None:
    """The successor's device actor is there."""
    await stage.tell(DeviceReady("peers-1"))


async def test_a_connection_goes_on_and_nobody_is_told(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    before = len(stage.link.said(portal.ConnectionEnded)), len(stage.stream.events(ConnectionEstablished))
    await hand_over(stage, peer)
    await succeed(stage)
    successor = stage.peers[-1]
    assert successor is not peer
    assert successor.config.inherits
    assert not peer.config.inherits
    assert successor.config.connection == peer.config.connection
    assert successor.config.preshared_key == peer.config.preshared_key
    assert successor.told(SetNetworks)[-1].networks == ("10.0.0.0/24",)
    successor.connect()
    await stage.settle()
    assert stage.endings() == []
    assert stage.stream.events(ConnectionEnded) == []
    assert (len(stage.link.said(portal.ConnectionEnded)), len(stage.stream.events(ConnectionEstablished))) == before


async def test_a_connection_that_was_taken_over_ends_like_any_other(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await hand_over(stage, peer)
    await succeed(stage)
    await stage.kill_worker("peers-1")
    (ending,) = stage.endings()
    assert (ending.cause, ending.evidence) == (Cause.WORKER_CRASHED, {"actor": "worker_died"})


async def test_a_packet_that_comes_meanwhile_asks_for_nothing(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    requests = len(stage.link.said(portal.RequestAuthorization))
    await hand_over(stage, peer)
    await stage.want("r-1")
    assert len(stage.link.said(portal.RequestAuthorization)) == requests


@pytest.mark.parametrize("why", ["refused", "overdue"])
async def test_a_connection_that_nobody_takes_over_has_crashed(stage: Stage, why: str) -> None:
    peer = await connected(stage, WEB)
    await hand_over(stage, peer)
    if why == "refused":
        stage.root.refuse = True
        await succeed(stage)
    else:
        await stage.tell(TakeOverOverdue(peer.config.connection))
    (ending,) = stage.endings()
    assert (ending.cause, ending.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert "not_taken_over" in ending.evidence
    await stage.tell(TakeOverOverdue(peer.config.connection))
    assert len(stage.endings()) == 1


async def test_the_deadline_of_one_that_was_taken_over_means_nothing(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await hand_over(stage, peer)
    await succeed(stage)
    await stage.tell(TakeOverOverdue(peer.config.connection))
    assert stage.endings() == []


async def test_what_ends_it_meanwhile_reaches_the_successor(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await hand_over(stage, peer)
    await stage.say(portal.AccessRevoked(connection=peer.config.connection, resource_id="r-1"))
    await succeed(stage)
    assert [close.cause for close in stage.peers[-1].told(Close)] == ["access_revoked"]
    assert stage.endings() == []


async def test_who_leaves_meanwhile_records_what_it_knows(stage: Stage) -> None:
    peer = await connected(stage, WEB)
    await hand_over(stage, peer)
    await stage.tell(StopSession("signed_out"))
    (ending,) = stage.endings()
    assert (ending.cause, ending.acknowledged) == (Cause.SIGNED_OUT, False)


async def test_only_what_was_handed_over_is_started_again(stage: Stage) -> None:
    await connected(stage, WEB)
    started = len(stage.root.told(StartChild))
    await succeed(stage)  # only the device's actor was restarted
    assert len(stage.root.told(StartChild)) == started
