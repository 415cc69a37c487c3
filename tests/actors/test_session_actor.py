"""The front door of a session: it answers while the event loop works, and when that is gone."""

import pytest
from tests.actors.stage import Stage, resource

from exeunt.actors.client_loop import ClientLoop
from exeunt.actors.messages import DescribeSession, PingPeer, SetInternetResource, StopSession, TunInterfaceUpdated
from exeunt.actors.portal.actor_messages import PortalLeave
from exeunt.actors.session_actor import SessionActor
from exeunt.runtime import Ref, Refused


def door(stage: Stage) -> Ref:
    return stage.nodes["control"].start(SessionActor("demo/control/event-loop"), "session")


async def test_commands_and_questions_reach_the_event_loop(stage: Stage) -> None:
    stage.start(ClientLoop)
    session = door(stage)
    await stage.join(resource(1, "0.0.0.0/0"))
    assert (await session.ask(DescribeSession())).session == "connected"
    session.tell(SetInternetResource(True))
    await stage.settle()
    assert stage.stream.events(TunInterfaceUpdated)[-1].config.routes == ("0.0.0.0/0",)
    with pytest.raises(Refused, match="no connection"):
        await session.ask(PingPeer("nobody"))


async def test_the_first_stop_counts(stage: Stage) -> None:
    stage.start(ClientLoop)
    session = door(stage)
    await stage.join()
    session.tell(StopSession("signed_out"))
    session.tell(StopSession("shutting_down"))
    await stage.settle()
    assert [one.reason for one in stage.link.told(PortalLeave)] == ["signed_out"]
    assert (await session.ask(DescribeSession())).session == "leaving"
    with pytest.raises(Refused, match="over"):
        await session.ask(PingPeer("gw-1"))


async def test_a_cause_that_is_none_is_refused_and_does_not_begin_a_leave(stage: Stage) -> None:
    loop = stage.start(ClientLoop)
    session = door(stage)
    await stage.join()
    with pytest.raises(Refused, match="bored"):
        await session.ask(StopSession("bored"))
    assert loop.state == "running"
    session.tell(StopSession("signed_out"))
    await stage.settle()
    assert loop.state == "exited"
