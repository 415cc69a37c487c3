"""A program's supervisor as plain data: what `ps` and `tree` show."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil

from exeunt.runtime import Supervisor
from exeunt.runtime.messages import ActorRow


class Inspector:
    """Answers `ps` and `tree`. Kept, because a process's CPU share is counted from one question to the next."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._processes: dict[int, psutil.Process] = {}

    async def ps(self, _args: dict[str, Any]) -> list[dict[str, Any]]:
        """One row an actor, in order of worker and start."""
        rows: list[dict[str, Any]] = []
        for worker, description in (await self._supervisor.describe()).items():
            usage = self._usage(self._pid(worker))
            rows.extend(self._row(actor, worker, usage) for actor in description.actors)
        return rows

    async def tree(self, _args: dict[str, Any]) -> dict[str, Any]:
        """The supervisor, its workers, their actors."""
        described = await self._supervisor.describe()
        children = [
            {
                "name": worker,
                "kind": "worker",
                "state": "running" if worker in described else "starting",
                "pid": process.pid,
                "children": [
                    {"name": _name(actor), "kind": "actor", "state": actor.state}
                    for actor in (described[worker].actors if worker in described else ())
                    if _name(actor) != "host"
                ],
            }
            for worker, process in self._supervisor.processes.items()
        ]
        return {
            "name": self._supervisor.name,
            "kind": "supervisor",
            "state": "running",
            "pid": psutil.Process().pid,
            "strategy": "one_for_one",
            "children": children,
        }

    async def restart(self, args: dict[str, Any]) -> dict[str, Any]:
        """Restart a worker or an actor."""
        from exeunt.runtime import Refused

        target = str(args["target"])
        if not await self._supervisor.restart(target):
            raise Refused("no_such_actor", f"There is no worker or actor called {target!r}.")
        return {"target": target}

    def _pid(self, worker: str) -> int:
        process = self._supervisor.processes.get(worker)
        return process.pid if process is not None else psutil.Process().pid

    def _usage(self, pid: int) -> dict[str, Any]:
        if pid not in self._processes:
            with contextlib.suppress(psutil.Error):
                self._processes[pid] = psutil.Process(pid)
        process = self._processes.get(pid)
        if process is None:
            return {"pid": pid, "cpu_percent": None, "rss_bytes": None}
        try:
            return {"pid": pid, "cpu_percent": process.cpu_percent(), "rss_bytes": process.memory_info().rss}
        except psutil.Error:
            del self._processes[pid]
            return {"pid": pid, "cpu_percent": None, "rss_bytes": None}

    def _row(self, actor: ActorRow, worker: str, usage: dict[str, Any]) -> dict[str, Any]:
        return {
            "address": actor.address,
            "kind": actor.kind,
            "state": actor.state,
            "worker": worker,
            "mailbox": actor.mailbox,
            "handled_total": actor.handled_total,
            "restarts": self._supervisor.restarts.get(_name(actor), 0),
            "since_s": round(max(0.0, (time.time_ns() - actor.started_ns) / 1e9), 3),
            **usage,
        }


def _name(actor: ActorRow) -> str:
    return actor.address.rsplit("/", 1)[1]
