"""What Ray places on a machine: the process of one worker.

A seat is a Ray actor: a plain class whose methods Ray calls, one after another, on the main thread of a process
that it started for nobody else. `take` makes the worker's node, and says where it listens and
by which key it is known; the secret half never leaves the process. `live` then runs the node's loop until the
supervisor says leave. After that Ray has nothing to do with it: what actors say goes from node to node.

A worker is an orphan when its connection to the supervisor is lost (`lifeline`): its actors say their goodbyes and it
leaves, as a worker of `processes` does. Ray also kills the seats of a program that has ended, and is mostly faster.
SIGTERM is ignored as there: it is how Ray begins to kill, and nobody says goodbye who is killed.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec

from .. import log
from ..curve import CurveKeys
from ..directories import Directories
from ..events import StrangerRefused
from ..loading import codec_for
from ..node import Node
from ..privileges import drop_capabilities
from ..process import families, kill_remaining
from ..recorder import Recorder
from ..transport import Transport
from ..wakeups import new_event_loop
from ..worker import Boot, name_process, serve

logger = logging.getLogger(__name__)


class Taken(msgspec.Struct, frozen=True):
    """Where a worker has come to live."""

    pid: int
    machine: str
    """Ray's id of it."""
    endpoint: str
    public_key: str
    shares_files: bool
    """Whether the supervisor sees what the worker writes."""


class Left(msgspec.Struct, frozen=True):
    """How a worker left."""

    code: int
    leftovers: tuple[str, ...]
    """What had to be killed below it."""
    ring: bytes
    """Its flight recorder, where the supervisor does not see it."""


class Seat:
    """The process of one worker. Its methods run on the process's main thread.

    None of them is `async`: Ray would run them all on a loop and a thread of its own.
    """

    def take(self, document: bytes, supervisor_key: str, beside: str) -> Taken:
        """Be this worker (a `Boot`). `beside`: the name of a ring that is here if files are shared."""
        boot = self._boot = msgspec.msgpack.decode(document, type=Boot)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        name_process(f"{boot.node}:{boot.worker}")
        ring = Path(boot.trace_file)
        ring.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._shares_files = (ring.parent / beside).exists()
        if not self._shares_files:
            Directories(ipc=ring.parent, logs=ring.parent, traces=ring.parent).sweep(boot.node, (boot.worker,))
        log.configure(Path(boot.log_file), level=boot.log_level, node=boot.node, worker=boot.worker, pid=os.getpid())
        if boot.unprivileged:
            drop_capabilities()
        loop = self._loop = new_event_loop()
        asyncio.set_event_loop(loop)
        self._orphaned = asyncio.Event()
        self._recorder = Recorder(ring, worker=boot.worker, epoch=boot.epoch)
        codec = codec_for(boot.messages, clocks_differ=True)
        self._node = Node(boot.node, boot.worker, codec=codec, loop=loop, recorder=self._recorder)
        keys = CurveKeys.generate()
        machine, host = _here()
        self._transport = self._node.transport = Transport(
            any_port(host),
            on_frame=self._node.handle_frame,
            loop=loop,
            keys=keys,
            codec=codec,
            on_lost=self._lost,
            on_refused=self._refused,
        )
        self._node.worker_up("supervisor", boot.supervisor, supervisor_key)
        return Taken(os.getpid(), machine, self._transport.endpoint, keys.public, self._shares_files)

    def live(self) -> Left:
        """Run until the worker is to end."""
        code = self._loop.run_until_complete(serve(self._node, self._boot, self._orphaned))
        leftovers = kill_remaining(families([os.getpid()]))
        self._recorder.close()
        self._transport.close()  # last: to the supervisor this is our end
        logging.shutdown()
        return Left(code, leftovers, b"" if self._shares_files else Path(self._boot.trace_file).read_bytes())

    def rest(self) -> None:
        """Wait to be killed: so the supervisor sees the end of the process, and not only that of its work."""
        threading.Event().wait()

    # --- inside ---

    def _refused(self, reason: str) -> None:
        self._node.happened(StrangerRefused(self._node.worker, reason=reason))

    def _lost(self, worker: str, how: str) -> None:
        if worker == "supervisor":
            self._orphaned.set()
        else:
            logger.warning("Another worker is not reached", extra={"event": "worker_lost", "of": worker, "reason": how})


def any_port(host: str) -> str:
    """Return the ZeroMQ endpoint for any free port of an address."""
    return f"tcp://[{host}]:0" if ":" in host else f"tcp://{host}:0"


def _here() -> tuple[str, str]:
    """Return Ray's id of this machine, and its address."""
    ray: Any = importlib.import_module("ray")
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def contents(path: str) -> bytes:
    """Return what a file has, on whichever machine this is called."""
    return Path(path).read_bytes()
