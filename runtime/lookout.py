"""How a supervisor looks into its workers: on the way that disturbs them least.

A worker in this process (the inline engine, and the supervisor's own node) is looked at directly. A process of this
machine has a side door (`side_door`). Any other worker is asked through its host, as everything else is, and so only
answers while its loop turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from .engine import Worker
from .engine.inline import InlineWorker
from .errors import ActorDead, AskTimeout, ExeuntError
from .facts import Look, Seen, Snapshot, TakeSnapshot, What, look
from .node import Node
from .ref import Ref
from .side_door import dump_path, knock, signalled_dump, socket_path
from .stacks import Stacks, parse_dump
from .supervisor import Supervisor

T = TypeVar("T")

LOOK_S = 0.5  # a side door takes a millisecond, unless something keeps the interpreter's lock
SNAPSHOT_S = 2.0  # a snapshot may take a second; its worker is to say so rather than we

SUPERVISOR = "supervisor"
"""The name of the supervisor's own node among the workers."""


class Lookout:
    """Looks into the workers of one supervisor. On its loop only."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def workers(self) -> list[str]:
        """Who can be looked into: the supervisor's own node, and the living workers."""
        return [SUPERVISOR, *self._supervisor.processes]

    def nodes_here(self) -> list[Node]:
        """The nodes of this process."""
        inline = [worker.node for worker in self._supervisor.processes.values() if isinstance(worker, InlineWorker)]
        return [self._supervisor.node, *(node for node in inline if node is not None)]

    async def at(self, worker: str, question: Look, type_: type[T]) -> T:
        """Look into one worker. Raises AskTimeout when it does not answer, ActorDead when it does not live."""
        here = {node.worker: node for node in self.nodes_here()}.get(worker)
        if here is not None:
            return msgspec.msgpack.decode(look(here, question), type=type_)
        process = self._process(worker)
        door = socket_path(self._ipc, worker, process.boot.epoch)
        if door.exists():
            seen = await knock(door, msgspec.json.encode(question), timeout_s=LOOK_S)
        else:
            answer: Seen = await self._host(worker).ask(question, timeout_s=LOOK_S)
            seen = bytes(answer.document)
        return msgspec.msgpack.decode(seen, type=type_)

    async def everywhere(self, what: What, type_: type[T], workers: Iterable[str] | None = None) -> dict[str, T]:
        """Look into all workers at once; those that do not answer are left out."""
        names = self.workers if workers is None else list(workers)
        looks = await asyncio.gather(*(self.at(name, Look(what), type_) for name in names), return_exceptions=True)
        found: dict[str, T] = {}
        for name, seen in zip(names, looks, strict=True):
            if not isinstance(seen, BaseException):
                found[name] = seen
            elif not isinstance(seen, ExeuntError):
                raise seen
        return found

    async def stacks(self, worker: str) -> Stacks:
        """Return a worker's stacks; where its Python does not answer, what a signal had written without Python.

        Raises Unavailable when even that fails.
        """
        try:
            return await self.at(worker, Look("stacks"), Stacks)
        except AskTimeout:
            process = self._process(worker)
            dump = await signalled_dump(dump_path(self._ipc, worker, process.boot.epoch), process.pid)
            return parse_dump(dump, process.pid)

    async def snapshot(self, worker: str, name: str) -> Snapshot:
        """Have an actor describe its own state. Whatever is in the way of that is the answer."""
        if worker == SUPERVISOR:
            return Snapshot()
        try:
            answer: Snapshot = await self._host(worker).ask(TakeSnapshot(name), timeout_s=SNAPSHOT_S)
        except AskTimeout:
            return Snapshot(error="its worker does not answer: something blocks its loop")
        except ExeuntError as error:
            return Snapshot(error=str(error))
        return answer

    @property
    def _ipc(self) -> Path:
        return self._supervisor.directories.ipc

    def _process(self, worker: str) -> Worker:
        process = self._supervisor.processes.get(worker)
        if process is None:
            raise ActorDead(f"worker {worker} does not live")
        return process

    def _host(self, worker: str) -> Ref:
        return self._supervisor.node.ref(f"{self._supervisor.name}/{worker}/host")
