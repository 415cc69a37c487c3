"""Faults for living programs, made from outside with what exists: the runtime's own messages, signals, memory groups.

A message whose fields make no sense reaches its handler, which raises: that is how an exception in an actor comes
about. It is sent as a worker of the program would send it, over ZeroMQ into its private directory.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import zmq

from exeunt.actors.messages import MESSAGES as TUNNEL
from exeunt.clients.demo.stage import Player
from exeunt.runtime.batch import Batch
from exeunt.runtime.codec import Codec
from exeunt.runtime.envelope import Envelope, Kind, Message
from exeunt.runtime.messages import MESSAGES as RUNTIME
from exeunt.runtime.transport import endpoint

_MEMORY: Final = Path("/sys/fs/cgroup/memory")
_UNIFIED: Final = Path("/sys/fs/cgroup")
_LIMIT_BYTES: Final = 2 * 1024 * 1024  # with much less it is the kernel's own small allocations that fail
_FRAME_BYTES: Final = 8_000_000  # more than malloc serves from what it has, less than ZeroMQ refuses
_OOM_S: Final = 5.0
_CONNECT_MS: Final = 500


class CannotBeDone(Exception):
    """This machine does not allow the fault; says why."""


def tell(player: Player, worker: str, actor: str, message: Message) -> float:
    """Send a message to an actor of a running program; return the moment, in Unix seconds.

    What we need to write it down and to be connected, five milliseconds or twenty, is not the program's, and over by
    then.
    """
    codec = Codec([*RUNTIME, *TUNNEL])
    sender, to = f"{player.name}/stranger/harness", f"{player.name}/{worker}/{actor}"
    batch = Batch(codec)
    batch.add(Envelope(1, 1, 0, sender, to, Kind.TELL, 0, message))
    frame = codec.encode(batch.runs)
    with _line(player, worker) as line:
        moment = time.time()
        line.send(frame)
    return moment


def kill_all(processes: list[psutil.Process]) -> float:
    """Kill them so that none can react to another's death; return the moment, in Unix seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in processes:
            process.send_signal(signal.SIGSTOP)
    moment = time.time()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return moment


@contextmanager
def asleep(processes: list[psutil.Process]) -> Generator[float]:
    """Have them stand still, the first one first; yield the moment, in Unix seconds.

    They are woken up, the last one first, by a process of its own when we are done or have died, however that was: who
    stands still hears nobody, not even that it shall end.
    """
    pids = [str(process.pid) for process in reversed(processes)]
    waker = ["sh", "-c", 'read -r _; for pid; do kill -s CONT "$pid"; done', "waker", *pids]
    with subprocess.Popen(waker, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
        moment = time.time()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        yield moment


def kill(pid: int) -> float:
    """SIGKILL; return the moment, in Unix seconds."""
    moment = time.time()
    os.kill(pid, signal.SIGKILL)
    return moment


def stop(pid: int) -> None:
    """Have a process stand still; return when it does."""
    process = psutil.Process(pid)
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


def exhaust_memory(player: Player, worker: str, pid: int) -> float:
    """Have the kernel's OOM killer end a worker; return the moment at which it was sent too much.

    It is put into a memory group with next to nothing, and then sent more than that at once. What it takes to receive
    it (some milliseconds) is counted with the rest. Raises CannotBeDone where memory groups cannot be made.
    """
    watch = os.pidfd_open(pid)
    try:
        with _memory_group() as group, _line(player, worker) as line:
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
            limit = "memory.limit_in_bytes" if (group / "memory.limit_in_bytes").exists() else "memory.max"
            (group / limit).write_text(str(_LIMIT_BYTES), encoding="ascii")
            frame = bytes(_FRAME_BYTES)
            moment = time.time()
            line.send(frame)
            if select.select([watch], [], [], _OOM_S)[0]:
                return moment
    finally:
        os.close(watch)
    raise CannotBeDone("the kernel did not kill a process that is out of memory")


@contextmanager
def _memory_group() -> Generator[Path]:
    parent = _MEMORY if _MEMORY.is_dir() else _UNIFIED
    group = parent / f"exeunt-endings-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        raise CannotBeDone(f"no memory cgroup can be made here: {error.strerror}") from error
    try:
        if not any((group / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
            raise CannotBeDone("the memory controller of cgroups is not available here")
        yield group
    finally:
        _remove(group, parent)


def _remove(group: Path, parent: Path) -> None:
    """A group can be removed once the last of its processes has been reaped; who lives on goes to its parent."""
    deadline = time.monotonic() + 2.0
    while True:
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                (parent / "cgroup.procs").write_text(pid, encoding="ascii")
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _line(player: Player, worker: str) -> Generator[zmq.Socket[bytes]]:
    directory = player.paths.instance_run_dir(player.name) / "ipc"
    epochs = [int(path.suffix[1:]) for path in directory.glob(f"{worker}.*") if path.suffix[1:].isdigit()]
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    try:
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        socket.connect(endpoint(directory, worker, max(epochs)))
        monitor.poll(_CONNECT_MS)  # who does not answer in time gets it when he does
        socket.disable_monitor()
        yield socket
        socket.close(linger=500)
    finally:
        context.destroy(linger=0)
