"""The device actor: owns the worker's pump, and receives the TUN descriptor from whoever could open it.

This worker has no privileges. The network actor opens the device and hands the descriptor over a Unix socket in the
runtime's 0700 directory (SCM_RIGHTS, unix(7)). If the worker is restarted, our successor gets it from us.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from exeunt.runtime import Actor, receive
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.wakeups import add_reader

from .messages import DeviceLost, DeviceReady, Intent, SetOwner, SetResources
from .pump import Pump

logger = logging.getLogger(__name__)

LISTEN_PORT = "listen_port"
"""The node's resource that says which UDP port its connections shall have."""
_BEQUEST = "device"


class Device(Actor):
    """The end of the tunnel on this host. `node.resources["pump"]` is its pump."""

    def __init__(self, hand_over: str, owner: str = "", listen_port: int = 0) -> None:
        """`hand_over` is the path of the socket at which it receives descriptors; `owner` is told what happens.
        `listen_port` is for the worker's connections: the UDP port that they shall have, 0 for any.
        """
        super().__init__()
        self._listen_port = listen_port
        self._path = Path(hand_over)
        self._owner = owner
        self._socket: socket.socket | None = None
        self._pump: Pump | None = None

    def on_start(self) -> None:
        """Listen for a descriptor."""
        self._pump = Pump(self.node.loop, on_intent=self._on_intent, on_failed=self._on_failed)
        self.node.resources["pump"] = self._pump
        self.node.resources[LISTEN_PORT] = self._listen_port
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._path))
        add_reader(self.node.loop, self._socket.fileno(), "device hand-over", self._receive)
        bequest = self.node.deposits.inherit(_BEQUEST)
        if bequest is not None and bequest.descriptors:
            self._pump.set_device(bequest.descriptors[0])
            self.node.deposits.taken(_BEQUEST)
        if self._owner:
            self.node.ref(self._owner).tell(DeviceReady(self.ref.address.worker))

    def on_stop(self) -> None:
        """Let go of everything; if a successor is to have the device, leave it to it."""
        if self.exit_reason == HAND_OVER and self._pump is not None and self._pump.descriptor is not None:
            self.node.deposits.bequeath(_BEQUEST, b"", [self._pump.descriptor])
        self._release()

    def on_crash(self, failure: object) -> None:
        """As `on_stop`: who opened the device still has it, and hands it to our successor."""
        self._release()

    def snapshot(self) -> dict[str, Any]:
        """Say whether there is a device, and what was dropped, by reason: for `exeunt show device`."""
        pump = self._pump
        if pump is None:
            return {}
        return {"has_device": pump.descriptor is not None, "dropped": dict(pump.counters)}

    @receive(SetResources)
    def on_set_resources(self, message: SetResources) -> None:
        """Know the resources."""
        if self._pump is not None:
            self._pump.set_resources(message.resources)

    @receive(SetOwner)
    def on_set_owner(self, message: SetOwner) -> None:
        """Know whom to tell of intents, and what is not for the tunnel."""
        self._owner = message.owner
        if self._pump is not None:
            self._pump.set_sources(message.sources)

    def _on_intent(self, resource_id: str) -> None:
        if self._owner:
            self.node.ref(self._owner).tell(Intent(resource_id))

    def _on_failed(self, reason: str) -> None:
        logger.error("The tunnel device is gone", extra={"event": "device_lost", "reason": reason})
        if self._owner:
            self.node.ref(self._owner).tell(DeviceLost(reason))

    def _receive(self) -> None:
        assert self._socket is not None
        assert self._pump is not None
        try:
            _, descriptors, _, _ = socket.recv_fds(self._socket, 64, 4)
        except OSError:
            return
        for extra in descriptors[1:]:
            os.close(extra)
        if descriptors:
            self._pump.set_device(descriptors[0])
            logger.info("The tunnel device is here", extra={"event": "device_received"})

    def _release(self) -> None:
        if self._socket is not None:
            self.node.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._pump is not None:
            self._pump.close()


def hand_over(path: Path, descriptor: int) -> None:
    """Send a duplicate of a descriptor to the device actor that listens at `path`. Raises OSError when it doesn't."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(path))
        socket.send_fds(sender, [b"tun"], [descriptor])
