"""What is asked of the host's network."""

from __future__ import annotations

from typing import Final

from exeunt.runtime import Message

NOBODY_THERE: Final = "nobody_there"
"""Why a device was not handed over: its worker has died, or just begins. It is open."""


class OpenDevice(Message, frozen=True):
    """Open the TUN device with these addresses (CIDR) and hand its descriptor over at that socket. Answered by
    `DeviceOpened`.

    When it is open already: set its addresses, and hand it over again. Refused as `NOBODY_THERE` when all is well but
    that nobody listens at the socket.
    """

    name: str
    addresses: tuple[str, ...]
    mtu: int
    hand_over: str


class DeviceOpened(Message, frozen=True):
    """It is open, and on its way."""

    name: str


class SetRoutes(Message, frozen=True):
    """Lead exactly these networks into the device. Answered by `RoutesSet`."""

    device: str
    networks: tuple[str, ...]


class Steer(Message, frozen=True):
    """Lead these networks into that device, and into no other of ours; by default into none: a wider route decides.
    Answered by `RoutesSet`.
    """

    networks: tuple[str, ...]
    device: str = ""


class RoutesSet(Message, frozen=True):
    """What could not be routed, and why."""

    refused: dict[str, str]


class EnableForwarding(Message, frozen=True):
    """Forward from the devices to the host's networks, for allowed pairs only. Answered by `NetworkDone`."""

    devices: tuple[str, ...]
    sources: tuple[str, ...]
    masquerade: bool = True


class AllowAccess(Message, frozen=True):
    """Let a client address reach a network. Answered by `NetworkDone`."""

    client_address: str
    network: str


class RevokeAccessTo(Message, frozen=True):
    """Take that back. Answered by `NetworkDone`."""

    client_address: str
    network: str


class NetworkDone(Message, frozen=True):
    """It has been done."""


MESSAGES: tuple[type[Message], ...] = (
    OpenDevice,
    DeviceOpened,
    SetRoutes,
    Steer,
    RoutesSet,
    EnableForwarding,
    AllowAccess,
    RevokeAccessTo,
    NetworkDone,
)
