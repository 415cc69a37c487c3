"""Workers on a Ray cluster of three nodes, and one node killed. Needs the extra exeunt[ray].

    python docs/examples/ray_cluster.py

The nodes are processes of this machine, each with a loopback address of its own, as if they were three machines. Two
singers run where there is a stage: on the second node. That node is killed, and the listener, which watches both,
hears of their ends. A third node has a stage as well: there they sing again.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

from exeunt.runtime import (
    Actor,
    ActorDead,
    ChildSpec,
    Directories,
    Message,
    Ref,
    Supervisor,
    Terminated,
    WorkerSpec,
    receive,
)

SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


class Sing(Message, frozen=True):
    """Sing, and say where."""


class Listen(Message, frozen=True):
    """Watch these."""

    to: tuple[str, ...]


class Song(Message, frozen=True):
    """What was sung."""

    at: str


class Ends(Message, frozen=True):
    """How many have ended?"""

    count: int = 0


MESSAGES = (Sing, Listen, Song, Ends)


class Singer(Actor):
    """Sings."""

    @receive(Sing)
    def on_sing(self, _message: Sing) -> Song:
        """Say which machine this is."""
        return Song(ray.util.get_node_ip_address())


class Listener(Actor):
    """Counts ends."""

    ended = 0

    @receive(Listen)
    def on_listen(self, message: Listen) -> None:
        """Watch each."""
        for address in message.to:
            self.node.ref(address).watch()

    @receive(Terminated)
    def on_terminated(self, _message: Terminated) -> None:
        """Count."""
        self.ended += 1

    @receive(Ends)
    def on_ends(self, _message: Ends) -> Ends:
        """Say how many."""
        return Ends(self.ended)


async def patiently(ref: Ref, message: Message) -> Any:
    """Ask; where nobody lives just now, ask again."""
    while True:
        try:
            return await ref.ask(message)
        except ActorDead:
            await asyncio.sleep(0.01)


def program(home: Path) -> Supervisor:
    """Two singers on a stage, a listener in the hall."""
    stage, hall = {"stage": 1.0}, {"hall": 1.0}
    return Supervisor(
        "opera",
        workers=[
            WorkerSpec(name="hall", resources=hall),
            WorkerSpec(name="s1", resources=stage),
            WorkerSpec(name="s2", resources=stage),
        ],
        children=[
            ChildSpec(id="listener", worker="hall", start="ray_cluster:Listener"),
            ChildSpec(id="tosca", worker="s1", start="ray_cluster:Singer"),
            ChildSpec(id="mario", worker="s2", start="ray_cluster:Singer"),
        ],
        messages=["ray_cluster:MESSAGES"],
        directories=Directories(ipc=home / "ipc", logs=home / "log", traces=home / "trace"),
        engine="ray",
    )


async def evening(cluster: Any, home: Path) -> None:
    """Start, lose a node, go on, leave."""
    second = cluster.add_node(**SMALL, node_ip_address="127.0.0.3", resources={"stage": 2})
    opera = program(home)
    await opera.start()
    tosca, mario, listener = opera.ref("tosca"), opera.ref("mario"), opera.ref("listener")
    await listener.ask(Listen((str(tosca.address), str(mario.address))))
    print("first act:", (await tosca.ask(Sing())).at, (await mario.ask(Sing())).at)
    cluster.add_node(**SMALL, node_ip_address="127.0.0.4", resources={"stage": 2})
    cluster.remove_node(second, allow_graceful=False)
    while (await listener.ask(Ends())).count < 2:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0.01)
    print("second act:", (await patiently(tosca, Sing())).at, (await patiently(mario, Sing())).at)
    print("restarts:", opera.restarts)
    print(await opera.leave())


def main() -> None:
    """Make the cluster, and take it down."""
    # Not 127.0.0.1, which Ray replaces by the address of a network interface.
    first = {**SMALL, "node_ip_address": "127.0.0.2", "resources": {"hall": 1}}
    cluster: Any = Cluster(initialize_head=True, head_node_args=first)
    try:
        ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False, logging_level="error")
        with tempfile.TemporaryDirectory() as home:
            asyncio.run(evening(cluster, Path(home)))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    import ray_cluster  # workers import this module by its name, so that the messages' types must be its types

    ray_cluster.main()
