"""An app with the session inside: one process, one loop; `test_embedded` runs it in the client's namespace.

It opens its own TUN device and hands it over, as an app does to which the system gives one. It prints one JSON
document about what it saw.
"""

import asyncio
import concurrent.futures
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from exeunt.actors.endings import Cause
from exeunt.actors.messages import ConnectionEnded, ResourcesUpdated, TunInterfaceUpdated
from exeunt.actors.network.host import HostNetwork
from exeunt.actors.session import EventStream, Session, SessionConfig
from exeunt.clients.demo.resource import download
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.runtime import Directories

DEVICE = "app0"


class App:
    """What the app knows."""

    def __init__(self, home: Path, portal_url: str, size: int, *, own_device: bool) -> None:
        self.home = home
        self.size = size
        self.own_device = own_device
        self.config = SessionConfig(
            side="client",
            instance="app",
            portal_url=portal_url,
            token_file=home / "token",
            name="app",
            external_id="app-1",
            directories=Directories(ipc=home / "ipc", logs=home / "log", traces=home / "trace"),
            endings_file=home / "endings.jsonl",
            device=DEVICE,
            manages_device=not own_device,
        )
        self.ready = asyncio.Event()
        self.report: dict[str, Any] = {"events": [], "endings": []}
        # The system's side: netlink must not be used on a thread where a loop runs.
        self.system = concurrent.futures.ThreadPoolExecutor(1)
        self.host = HostNetwork("app")
        self.has_device = False

    async def run(self) -> None:
        session, events = await Session.connect(self.config, engine="inline")
        following = asyncio.create_task(self.follow(session, events))
        await asyncio.wait_for(self.ready.wait(), 20)
        got = await asyncio.to_thread(download, RESOURCE_ADDRESS, self.size, open_socket=connect)
        description = await session.describe()
        self.report |= {
            "sha256_ok": got.sha256_ok,
            "children": [child.pid for child in psutil.Process().children(recursive=True)],
            "workers": {name: worker.pid for name, worker in session.supervisor.processes.items()},
            "actors_on": sorted({thread.name for thread in threading.enumerate()}),
            "peers": [peer.peer for peer in description.peers],
        }
        session.stop(Cause.SIGNED_OUT)
        await following
        outcome = await session.ended()
        self.report |= {"failed": outcome.failed, "reason": outcome.reason, "leftovers": outcome.leftovers}
        self.report["tasks"] = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    async def follow(self, session: Session, events: EventStream) -> None:
        async for event in events:
            self.report["events"].append(type(event).__name__)
            if isinstance(event, TunInterfaceUpdated):
                await self.set_up(session, event)
            elif isinstance(event, ConnectionEnded):
                ending = event.ending
                self.report["endings"].append([ending.cause, ending.initiated_by, ending.acknowledged])
            elif isinstance(event, ResourcesUpdated) and not self.own_device and event.resources:
                self.ready.set()

    async def set_up(self, session: Session, event: TunInterfaceUpdated) -> None:
        """Do what the system does for an app: a device with addresses and routes."""
        config = event.config
        if not self.own_device:
            if config.routes:
                self.ready.set()
            return
        loop = asyncio.get_running_loop()
        if not self.has_device:
            self.has_device = True
            descriptor = await loop.run_in_executor(
                self.system, self.host.open_device, config.device, config.addresses, config.mtu
            )
            session.set_tun(descriptor)
        for route in config.routes:
            await loop.run_in_executor(self.system, self.host.add_route, route, config.device)
        if config.routes:
            self.ready.set()


def connect(timeout_s: float) -> socket.socket:
    return socket.create_connection((RESOURCE_ADDRESS, 80), timeout_s)


def main() -> None:
    home, portal_url, size, device = sys.argv[1:]
    (Path(home) / "token").write_text(os.environ.pop("APP_TOKEN"))
    app = App(Path(home), portal_url, int(size), own_device=device == "own")
    asyncio.run(app.run())
    app.system.submit(app.host.close).result()
    app.system.shutdown()
    print(json.dumps(app.report))


if __name__ == "__main__":
    main()
