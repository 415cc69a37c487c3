"""The device actor: takes a descriptor, makes intents of packets, and says when the device is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.actors.notes import Notes

from exeunt.actors.device.actor import Device, hand_over
from exeunt.actors.device.messages import DeviceLost, DeviceReady, Intent, SetOwner, SetResources
from exeunt.actors.messages import MESSAGES
from exeunt.runtime import Actor, Message, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node

PACKET = bytes([0x45, 0, 0, 20]) + bytes(8) + bytes([100, 64, 0, 1]) + bytes([10, 0, 0, 1])


class Owner(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Message] = []

    @receive(Intent, DeviceReady, DeviceLost)
    def on_told(self, message: Message) -> None:
        self.told.append(message)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node("n", "peers-1", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
    yield node
    await stop_all(node, "shutdown", each_s=0.2)


@pytest.fixture
async def owner(node: Node, tmp_path: Path) -> Owner:
    owner, device = Owner(), Device(str(tmp_path / "d"))
    ref = node.start(owner, "owner")
    node.start(device, "device")
    await device.started
    node.local("device").tell(SetOwner(str(ref)))
    node.local("device").tell(SetResources({"10.0.0.0/8": "r-1"}))
    await settle()
    return owner


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def given_device(tmp_path: Path) -> socket.socket:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    hand_over(tmp_path / "d", device.fileno())
    device.close()
    return kernel


async def test_a_packet_that_nobody_carries_becomes_an_intent(node: Node, owner: Owner, tmp_path: Path) -> None:
    kernel = given_device(tmp_path)
    await settle()
    kernel.send(PACKET)
    await settle()
    assert owner.told == [Intent("r-1")]
    kernel.close()


async def test_a_device_that_goes_away_is_told(node: Node, owner: Owner, tmp_path: Path) -> None:
    kernel = given_device(tmp_path)
    await settle()
    kernel.close()
    await settle()
    assert owner.told == [DeviceLost("end of file")]


async def test_an_actor_that_crashes_lets_go_and_its_successor_says_that_it_needs_everything_again(
    node: Node, owner: Owner, tmp_path: Path
) -> None:
    kernel = given_device(tmp_path)
    await settle()
    node.local("device").tell(SetResources({"nonsense": "r-1"}))
    await settle()
    assert kernel.recv(10) == b"", "the descriptor is closed"
    assert not (tmp_path / "d").exists()
    kernel.close()
    successor = Device(str(tmp_path / "d"), owner="n/peers-1/owner")
    node.start(successor, "device")
    await settle()
    assert owner.told == [DeviceReady("peers-1")]
    kernel = given_device(tmp_path)
    await settle()
    assert node.resources["pump"].descriptor is not None
    kernel.close()


async def test_a_stop_lets_go_of_everything_quietly(node: Node, owner: Owner, tmp_path: Path) -> None:
    kernel = given_device(tmp_path)
    await settle()
    node.local("device").stop()
    await settle()
    assert kernel.recv(10) == b""
    assert owner.told == []
    with pytest.raises(OSError, match=r"No such file|refused"):
        hand_over(tmp_path / "d", kernel.fileno())
    kernel.close()


async def test_a_device_that_cannot_listen_does_not_start(node: Node, tmp_path: Path) -> None:
    device = Device(str(tmp_path / ("x" * 200)))
    node.start(device, "device")
    await settle()
    assert device.exit_reason == "crashed"


async def test_a_successor_of_a_restarted_worker_has_the_device(node: Node, owner: Owner, tmp_path: Path) -> None:
    node.deposits = notes = Notes()
    kernel = given_device(tmp_path)
    await settle()
    node.resources["pump"].pause()
    kernel.send(PACKET)  # it waits in the kernel
    node.local("device").stop("hand_over")
    await settle()
    assert notes.left
    successor = Device(str(tmp_path / "d"), owner="n/peers-1/owner")
    node.start(successor, "device")
    await successor.started
    node.local("device").tell(SetResources({"10.0.0.0/8": "r-1"}))
    await settle()
    kernel.send(PACKET)
    await settle()
    assert owner.told == [DeviceReady("peers-1"), Intent("r-1")]
    assert notes.taken_keys == ["device"]
    kernel.close()
