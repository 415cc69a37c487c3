"""The workers of a program as nodes on one loop, joined by memory, with faults on request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from .. import memory
from ..envelope import Message
from ..host import stop_all
from ..node import Node
from ..recorder import Recorder
from ..ref import Ref
from .faults import Faults
from .idle import wait_until_idle

_CANCEL_S = 0.1  # for an actor to notice that it was killed


class MemoryNetwork:
    """Nodes that know each other. An asynchronous context manager: at its end every actor is stopped."""

    def __init__(self, *workers: str, name: str = "test", messages: Sequence[type[Message]] = ()) -> None:
        """Make a node for each worker. `messages` are the types that may cross, beside the runtime's own."""
        self.name = name
        self.faults = Faults(messages)
        """What happens to messages between workers."""
        self.nodes: dict[str, Node] = {}
        """The living, by worker."""
        self._network = memory.MemoryNetwork()
        self._network.route = self.faults.route
        for worker in workers:
            self.add(worker)

    def add(self, worker: str, *, recorder: Recorder | None = None) -> Node:
        """Add a worker and introduce it to the others; also one of a name that was killed, as its successor.

        Raises ValueError when it lives.
        """
        node = Node(self.name, worker, codec=self.faults.codec, recorder=recorder)
        self._network.join(node, worker)
        for other in self.nodes.values():
            other.worker_up(worker, worker)
            node.worker_up(other.worker, other.worker)
        self.nodes[worker] = node
        return node

    def ref(self, address: str, *, seen_from: str = "") -> Ref:
        """Return a ref to `worker/name` as held by the worker `seen_from` (the first, if not said)."""
        node = self.nodes[seen_from] if seen_from else next(iter(self.nodes.values()))
        return node.ref(f"{self.name}/{address}")

    async def kill(self, worker: str) -> None:
        """Let a worker die as by SIGKILL, and the others be told, as a supervisor would. Raises KeyError when it does
        not live.
        """
        node = self.nodes.pop(worker)
        ring = str(node.recorder.path) if node.recorder is not None else ""
        tasks = memory.perish(node)
        for other in self.nodes.values():
            other.worker_down(worker, ring)
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)

    async def until_idle(self, within_s: float = 5.0) -> None:
        """Return when nobody has anything to do; see `wait_until_idle`."""
        await wait_until_idle(self.nodes.values(), within_s)

    async def close(self) -> None:
        """Stop every actor, and leave. What a test did to the network is no hindrance."""
        self.faults.lift_all()
        for node in self.nodes.values():
            await stop_all(node, "shutdown", each_s=_CANCEL_S)
            if node.transport is not None:
                node.transport.close()
        self.nodes.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
