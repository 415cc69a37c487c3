"""Each worker a process of a Ray cluster, on whichever of its machines, joined by ZeroMQ over TCP.

Ray decides where a worker runs, by the `resources` of its spec, and says when a process or a machine is gone. Nothing
else goes through Ray: the workers speak to one another directly, each with a CURVE key of its own, which the supervisor
makes known to the others (`Transport.allow`). A worker's end is noticed by whichever speaks first:

- Ray, whose pending call fails: a few milliseconds after a process has ended.
- The connection, which ends with the process, or falls silent with the machine (`lifeline`). Ray takes tens of seconds
  to give up a silent machine. Until it does, replacements are placed elsewhere if there is room.

The caller connects to the cluster, with `ray.init(address=…)`, before the supervisor starts, and disconnects after it
has left. Its machine has to be one of the cluster's, and exeunt and the actors' modules have to be installed on all.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec

from ..curve import CurveKeys
from ..directories import Directories
from ..errors import LocalError
from ..events import StrangerRefused
from ..node import Node
from ..transport import Transport
from ..worker import Boot
from .engine import Worker
from .placed import PlacedWorker
from .seat import Seat, Taken, any_port, contents

logger = logging.getLogger(__name__)

_AVOID_S = 30.0  # how long a machine is avoided that fell silent; Ray has made up its mind by then
_GATHER_S = 5.0  # for a ring to come here
_NODE_ID = "ray.io/node-id"  # the label that Ray gives each machine


class Ray:
    """Has Ray place workers, and watches over them. On the supervisor's loop only."""

    kind = "ray"
    clocks_differ = True
    passes_descriptors = False

    def __init__(self, directories: Directories, *, home: Path | None = None) -> None:
        """`home`: the directory of the workers' logs and rings on their machines; None: the same paths as here.

        Raises LocalError where Ray is not installed.
        """
        self._ray = _installed()
        self._directories = directories
        self._home = home
        self._workers: dict[tuple[str, int], PlacedWorker] = {}
        self._avoided: dict[str, float] = {}
        self._leftovers: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def join(self, node: Node, epoch: int) -> str:
        """Bind a port of this machine. Raises LocalError where Ray is not connected."""
        ray = self._ray
        if not ray.is_initialized():
            raise LocalError("not connected to a Ray cluster: call ray.init(address=…) before the supervisor starts")
        if ray.util.client.ray.is_connected():
            raise LocalError("workers cannot reach a supervisor behind ray://: run it on a machine of the cluster")
        self._node = node
        self._beside = self._directories.ring_file(node.name, node.worker, epoch).name
        self._keys = CurveKeys.generate()
        self._transport = node.transport = Transport(
            any_port(ray.util.get_node_ip_address()),
            on_frame=node.handle_frame,
            loop=node.loop,
            keys=self._keys,
            codec=node.codec,
            on_lost=self._lost,
            on_refused=lambda reason: node.happened(StrangerRefused(node.worker, reason=reason)),
        )
        return self._transport.endpoint

    def endpoint(self, worker: str, epoch: int) -> str:
        """Return where that incarnation listens; nothing before it does."""
        taken = self._taken(worker, epoch)
        return taken.endpoint if taken is not None else ""

    def public_key(self, worker: str, epoch: int) -> str:
        """Return the key that it made for itself; ours for the supervisor."""
        if worker == self._node.worker:
            return self._keys.public
        taken = self._taken(worker, epoch)
        return taken.public_key if taken is not None else ""

    def machine(self, worker: str, epoch: int) -> str:
        """Return Ray's id of the machine that it runs on; nothing before it does."""
        taken = self._taken(worker, epoch)
        return taken.machine if taken is not None else ""

    def start(self, boot: Boot, on_end: Callable[[Worker], None]) -> PlacedWorker:
        """Have a worker placed; it waits until there is room for it."""
        if not boot.trace_file:
            raise LocalError("the ray engine keeps flight recorders: what it knows of a lost machine is in them")
        logs, traces = Path(boot.log_file).absolute(), Path(boot.trace_file).absolute()
        if self._home is not None:
            logs, traces = self._home / logs.name, self._home / traces.name
        boot = msgspec.structs.replace(boot, log_file=str(logs), trace_file=str(traces))
        worker = PlacedWorker(boot, self._ray)
        self._workers[boot.worker, boot.epoch] = worker

        def over(worker: PlacedWorker) -> None:
            self._over(worker)
            on_end(worker)

        worker.start(
            place=lambda: self._place(boot),
            arguments=(self._keys.public, self._beside),
            on_taken=lambda taken: self._transport.allow(boot.worker, taken.public_key),
            on_kill=lambda: self._transport.silence(boot.worker),  # or a stop would overtake Ray's kill
            on_end=over,
        )
        worker.ready.add_done_callback(lambda _: self._transport.open(boot.worker))  # watched from now on
        return worker

    async def gather(self) -> None:
        """Bring the rings of living workers here, from where files are not shared."""
        living = [worker for worker in self._workers.values() if not worker.ended.is_set()]
        await asyncio.gather(*(self._fetch(worker) for worker in living))

    def take_stock(self, workers: Iterable[Worker]) -> None:
        """Each worker looks below itself when it leaves."""

    def clear(self) -> tuple[str, ...]:
        """Return what workers had left below them, and workers whose end nobody has confirmed."""
        for task in self._tasks:
            task.cancel()
        leftovers, self._leftovers = tuple(self._leftovers), []
        self._workers.clear()
        return leftovers

    # --- inside ---

    def _taken(self, worker: str, epoch: int) -> Taken | None:
        placed = self._workers.get((worker, epoch))
        return placed.taken if placed is not None else None

    def _place(self, boot: Boot) -> Any:
        """Create the Ray actor. Away from machines that fell silent, if Ray finds room elsewhere."""
        resources = dict(boot.resources)
        strategy: Any = "SPREAD"
        now = time.monotonic()
        avoided = [machine for machine, until in self._avoided.items() if until > now]
        if avoided:
            strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
            elsewhere = strategies.NotIn(*avoided)
            strategy = strategies.NodeLabelSchedulingStrategy(hard={}, soft={_NODE_ID: elsewhere})
        options = {
            "num_cpus": resources.pop("CPU", 0.0),
            "num_gpus": resources.pop("GPU", 0.0),
            "memory": resources.pop("memory", None),
            "resources": resources,
            "max_restarts": 0,  # that is the supervisor's business
            "max_task_retries": 0,
            "scheduling_strategy": strategy,
        }
        return self._ray.remote(Seat).options(**options).remote()

    def _lost(self, worker: str, how: str) -> None:
        for placed in self._workers.values():
            if placed.boot.worker == worker and placed.taken is not None:
                placed.lost(how)

    def _over(self, worker: PlacedWorker) -> None:
        boot, taken, left = worker.boot, worker.taken, worker.left
        if left is not None:
            self._leftovers.extend(left.leftovers)
            if left.ring:
                self._keep(worker, left.ring)
        if taken is None:
            return
        if worker.survives:
            self._leftovers.append(f"{taken.pid} {boot.node}:{boot.worker} on {taken.endpoint}")
        if worker.unconfirmed:
            self._avoided[taken.machine] = time.monotonic() + _AVOID_S
            logger.warning(
                "A machine is avoided until Ray knows more of it",
                extra={"event": "machine_avoided", "machine": taken.machine, "of": boot.worker},
            )
        elif left is None and not taken.shares_files:
            self._later(self._fetch(worker))

    async def _fetch(self, worker: PlacedWorker) -> None:
        """Bring a ring here, by a Ray task on its machine: its writer may be dead."""
        taken = worker.taken
        if taken is None or taken.shares_files:
            return
        strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        there = strategies.NodeAffinitySchedulingStrategy(taken.machine, soft=False)
        task = self._ray.remote(contents).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        try:
            ring: bytes = await asyncio.wait_for(task.remote(worker.boot.trace_file), _GATHER_S)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            fields = {"of": worker.boot.worker, "error": repr(error)[:500]}
            logger.warning("A ring could not be fetched", extra={"event": "ring_missing", **fields})
        else:
            self._keep(worker, ring)

    def _keep(self, worker: PlacedWorker, ring: bytes) -> None:
        path = self._directories.ring_file(self._node.name, worker.boot.worker, worker.boot.epoch)
        new = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_bytes(ring)
            new.replace(path)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _installed() -> Any:
    """Return Ray. Untyped, so that types are checked the same with and without it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise LocalError(f"Ray is not installed ({error}): pip install 'exeunt[ray]'") from error
