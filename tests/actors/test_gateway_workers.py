"""A gateway with two workers for its peers, among fakes: who gets a client, and where the kernel is told to lead it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.actors.notes import Notes
from tests.actors.stage import Stage, authorize, resource
from tests.actors.test_control_succession import succeed

from exeunt.actors.device.messages import SetOwner
from exeunt.actors.endings import Cause
from exeunt.actors.gateway_loop import CLIENT_NETWORKS, GatewayLoop
from exeunt.actors.messages import DescribeSession, Disconnected, StopSession
from exeunt.actors.network.messages import NOBODY_THERE, EnableForwarding, OpenDevice, SetRoutes, Steer
from exeunt.actors.peer.messages import SetNetworks
from exeunt.runtime import Refused
from exeunt.runtime.messages import StartChild

WEB = resource(1, "10.0.0.0/24")
WORKERS = ("peers-1", "peers-2")


@pytest.fixture
async def gateway(stage: Stage) -> GatewayLoop:
    loop: GatewayLoop = stage.start(GatewayLoop, peer_workers=WORKERS)
    await stage.join(WEB)
    return loop


async def come(stage: Stage, number: int, connection: str = "") -> None:
    connection = connection or f"c-{number}"
    await stage.say(authorize(connection, WEB, client=f"cl-{number}", address=f"100.64.0.{number}"))


def workers_of(stage: Stage) -> list[str]:
    return [peer.ref.address.worker for peer in stage.peers]


def led(stage: Stage) -> dict[str, str]:
    """Where host routes lead after all that the network was told."""
    table: dict[str, str] = {}
    for message in stage.network.told(Steer):
        for network in message.networks:
            table.pop(network, None)
            if message.device:
                table[network] = message.device
    return table


async def test_each_worker_has_a_device_and_one_firewall_is_for_all(stage: Stage, gateway: GatewayLoop) -> None:
    opened = [(one.name, one.hand_over) for one in stage.network.told(OpenDevice)]
    assert opened == [("exeunt0", "/nowhere/peers-1.device"), ("exeunt0-2", "/nowhere/peers-2.device")]
    assert len({one.addresses for one in stage.network.told(OpenDevice)}) == 1
    (forwarding,) = stage.network.told(EnableForwarding)
    assert forwarding.devices == ("exeunt0", "exeunt0-2")
    assert [(one.device, one.networks) for one in stage.network.told(SetRoutes)] == [("exeunt0", CLIENT_NETWORKS)]
    for device in (stage.device, stage.second_device):
        assert device.told(SetOwner)[-1].owner == str(gateway.ref)


async def test_clients_are_spread_and_led_to_their_workers(stage: Stage, gateway: GatewayLoop) -> None:
    for number in range(2, 6):
        await come(stage, number)
    assert Counter(workers_of(stage)) == {"peers-1": 2, "peers-2": 2}
    assert led(stage) == {"100.64.0.3/32": "exeunt0-2", "100.64.0.5/32": "exeunt0-2"}
    order = [type(message) for _, message in stage.log if isinstance(message, (Steer, StartChild))]
    assert order == [StartChild, Steer, StartChild, StartChild, Steer, StartChild], "led there before it begins"


async def test_a_route_goes_with_its_connection_and_the_place_is_given_away(stage: Stage, gateway: GatewayLoop) -> None:
    await come(stage, 2)
    await come(stage, 3)
    stage.peers[1].end(Cause.SIGNED_OUT)
    await stage.settle()
    assert led(stage) == {}
    await come(stage, 4)
    assert workers_of(stage)[-1] == "peers-2"
    assert led(stage) == {"100.64.0.4/32": "exeunt0-2"}


async def test_a_client_that_comes_anew_is_led_to_its_new_worker_only(stage: Stage, gateway: GatewayLoop) -> None:
    await come(stage, 2)
    await come(stage, 3)
    stage.peers[1].mute = True  # its goodbye takes time
    stage.peers[0].end(Cause.SIGNED_OUT)
    await stage.settle()
    await come(stage, 3, "c-3-again")
    assert workers_of(stage) == ["peers-1", "peers-2", "peers-1"]
    assert led(stage) == {}
    await come(stage, 5)
    await come(stage, 6)
    told = len(stage.network.told(Steer))
    stage.peers[1].end(Cause.REPLACED)
    await stage.settle()
    assert len(stage.network.told(Steer)) == told, "the old one's end changes nothing"


async def test_a_worker_that_dies_takes_only_its_own(stage: Stage, gateway: GatewayLoop) -> None:
    for number in range(2, 6):
        await come(stage, number)
    await stage.kill_worker("peers-2")
    endings = {ending.connection: ending.cause for ending in stage.endings()}
    assert endings == {"c-3": Cause.WORKER_CRASHED, "c-5": Cause.WORKER_CRASHED}
    assert sorted(gateway.peers) == ["c-2", "c-4"]
    assert led(stage) == {}
    await come(stage, 3, "c-3-again")
    assert workers_of(stage)[-1] == "peers-1", "nobody is sent to a worker that is not there"


async def test_a_worker_that_is_back_gets_its_own_device_and_clients_again(stage: Stage, gateway: GatewayLoop) -> None:
    await come(stage, 2)
    await come(stage, 3)
    stage.peers[1].ref.stop("hand_over")
    await stage.settle()
    before = len(stage.network.told(OpenDevice))
    stage.second_device.restart()
    await stage.settle()
    assert [one.name for one in stage.network.told(OpenDevice)[before:]] == ["exeunt0-2"]
    assert stage.peers[-1].config.inherits
    assert stage.peers[-1].told(SetNetworks)[-1].networks == ("100.64.0.3/32",)
    assert stage.peers[0].told(SetNetworks) == [], "the other worker's are left alone"
    assert led(stage) == {"100.64.0.3/32": "exeunt0-2"}
    assert stage.endings() == []
    stage.peers[-1].end(Cause.SIGNED_OUT)
    await stage.settle()
    await come(stage, 4)
    assert workers_of(stage)[-1] == "peers-2"


async def test_a_worker_that_dies_again_before_it_has_its_device_is_waited_for(
    stage: Stage, gateway: GatewayLoop
) -> None:
    await come(stage, 2)
    stage.network.refuses = lambda message: isinstance(message, OpenDevice)
    stage.network.refusal = Refused(NOBODY_THERE, "connection refused")
    stage.second_device.restart()
    await stage.settle()
    assert gateway.session == "connected"
    assert stage.stream.events(Disconnected) == []
    stage.network.refuses = lambda _message: False
    before = len(stage.network.told(OpenDevice))
    stage.second_device.restart()
    await stage.settle()
    assert [one.name for one in stage.network.told(OpenDevice)[before:]] == ["exeunt0-2"]


async def test_a_device_that_cannot_be_had_ends_the_session(stage: Stage, gateway: GatewayLoop) -> None:
    stage.network.refuses = lambda message: isinstance(message, OpenDevice)
    stage.second_device.restart()
    await stage.settle()
    assert stage.stream.events(Disconnected)


async def test_a_route_that_is_refused_is_a_problem_that_is_told(stage: Stage, gateway: GatewayLoop) -> None:
    await come(stage, 2)
    stage.network.refused_routes = {"100.64.0.3/32": "File exists"}
    await come(stage, 3)
    description: Any = await stage.nodes["control"].local("event-loop").ask(DescribeSession())
    assert description.problems == ("A client could not be led to its worker: 100.64.0.3/32: File exists.",)
    stage.network.refused_routes = {}
    stage.peers[1].end(Cause.SIGNED_OUT)
    await stage.settle()
    assert gateway.problems == {}


async def test_leaving_takes_no_route_away_one_by_one(stage: Stage, gateway: GatewayLoop) -> None:
    await come(stage, 2)
    await come(stage, 3)
    told = len(stage.network.told(Steer))
    await stage.tell(StopSession(Cause.SHUTTING_DOWN))
    assert len(stage.endings()) == 0
    assert len(stage.network.told(Steer)) == told


async def test_the_successor_of_the_loop_knows_where_its_clients_are_led(stage: Stage, gateway: GatewayLoop) -> None:
    notes = stage.nodes["control"].deposits = Notes()
    await come(stage, 2)
    await come(stage, 3)
    await succeed(stage, notes, GatewayLoop, peer_workers=WORKERS)
    assert led(stage) == {"100.64.0.3/32": "exeunt0-2"}
    await come(stage, 4)
    assert workers_of(stage) == ["peers-1", "peers-2", "peers-1"]
    stage.peers[1].end(Cause.SIGNED_OUT)
    await stage.settle()
    assert led(stage) == {}
