"""What is said to the device actor, and by it."""

from __future__ import annotations

from exeunt.runtime import Message


class SetResources(Message, frozen=True):
    """These are the resources: network to id. A packet for one that nobody carries becomes an `Intent`."""

    resources: dict[str, str]


class SetOwner(Message, frozen=True):
    """Tell this actor of intents, and of the device's loss."""

    owner: str
    sources: tuple[str, ...] = ()
    """Only what this host sends from these addresses is for the tunnel; none are named: whatever comes is, as for who
    forwards. Our own checks of a path, to an address that a resource's network has too, are led into the device as
    well, with another source: they would travel through the tunnel that they are to find a way for.
    """


class Intent(Message, frozen=True):
    """To the owner: a packet wants this resource, and no connection carries it."""

    resource_id: str


class DeviceReady(Message, frozen=True):
    """To the owner: the device actor of this worker has started, and knows nothing yet. After the first start it has
    been restarted, and what it had is to be given to it again.
    """

    worker: str


class DeviceLost(Message, frozen=True):
    """To the owner: the device is gone; nothing goes in or out any more."""

    reason: str


MESSAGES: tuple[type[Message], ...] = (SetResources, SetOwner, Intent, DeviceReady, DeviceLost)
