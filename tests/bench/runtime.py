"""The runtime beside raw pyzmq and pykka, in one run, rounds interleaved: medians, and their range."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pykka
import zmq

from exeunt.runtime import ChildSpec, Directories, Ref, Supervisor, WorkerSpec
from exeunt.runtime.codec import Codec
from exeunt.runtime.node import Node
from exeunt.runtime.worker import new_event_loop

from .cast import MESSAGES, AsyncEcho, Count, Echo, Note, Ping
from .report import Figure, Report

ROUNDS = 5
ASKS = 2_000
OUTSTANDING = 100
TELLS = 100_000


def raw_echo(address: str) -> None:
    """A ROUTER that sends everything back, blocking: the least that a round trip by ZeroMQ can cost."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(address)
        while True:
            identity, body = router.recv_multipart()
            if body == b"stop":
                return
            router.send_multipart([identity, body])


class RawPeer:
    """A blocking DEALER to `raw_echo` in another process."""

    def __init__(self, directory: str) -> None:
        address = f"ipc://{directory}/raw"
        self._process = multiprocessing.get_context("spawn").Process(target=raw_echo, args=(address,), daemon=True)
        self._process.start()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(address)
        self.round_trip()

    def round_trip(self) -> None:
        self._socket.send(bytes(64))
        self._socket.recv()

    def close(self) -> None:
        self._socket.send(b"stop")
        self._process.join()
        self._socket.close()
        self._context.term()


class PykkaEcho(pykka.ThreadingActor):
    """pykka's own, in process."""

    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        return message


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def latencies(ref: Ref, count: int) -> list[float]:
    took: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        await ref.ask(Ping(number))
        took.append((time.perf_counter() - began) * 1e6)
    return took


async def asks_per_s(ref: Ref) -> float:
    async def one_after_another() -> None:
        for number in range(ASKS // OUTSTANDING * 5):
            await ref.ask(Ping(number))

    began = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(OUTSTANDING)))
    return ASKS * 5 / (time.perf_counter() - began)


async def tells_per_s(ref: Ref) -> float:
    before = (await ref.ask(Count(), timeout_s=60)).number
    began = time.perf_counter()
    for number in range(TELLS):
        ref.tell(Note(number))
        if number % 1000 == 0:
            await asyncio.sleep(0)
    after = (await ref.ask(Count(), timeout_s=60)).number
    assert after - before == TELLS, "no tell may be lost"
    return TELLS / (time.perf_counter() - began)


async def measure(report: Report, directory: str) -> None:
    root = Path(directory)
    supervisor = Supervisor(
        "bench",
        workers=[WorkerSpec(name="w1")],
        children=[ChildSpec(id="echo", worker="w1", start="tests.bench.cast:Echo")],
        directories=Directories(ipc=root / "ipc", logs=root / "log", traces=root / "trace"),
        messages=["tests.bench.cast:MESSAGES"],
        rng=random.Random(1),
    )
    began = time.perf_counter()
    await supervisor.start()
    report.add(Figure("worker_start_ms", "exeunt", [(time.perf_counter() - began) * 1000], "ms"))
    far = supervisor.ref("echo")
    near_node = Node("bench", "near", codec=Codec(MESSAGES))
    near = near_node.start(Echo(), "echo")
    near_async = near_node.start(AsyncEcho(), "async-echo")
    threaded = PykkaEcho.start()
    raw = RawPeer(directory)
    series: dict[tuple[str, str, str], list[float]] = {}

    def note(name: str, subject: str, unit: str, value: float) -> None:
        series.setdefault((name, subject, unit), []).append(value)

    for _ in range(ROUNDS):
        took = [timed(raw.round_trip) for _ in range(ASKS)]
        note("ask_p50_us", "pyzmq", "us", statistics.median(took))
        note("ask_p99_us", "pyzmq", "us", percentile(took, 0.99))
        took = await latencies(far, ASKS)
        note("ask_p50_us", "exeunt", "us", statistics.median(took))
        note("ask_p99_us", "exeunt", "us", percentile(took, 0.99))
        note("asks_per_s", "exeunt", "1/s", await asks_per_s(far))
        note("tells_per_s", "exeunt", "1/s", await tells_per_s(far))
        note("local_ask_p50_us", "exeunt", "us", statistics.median(await latencies(near, ASKS)))
        note("local_ask_p50_us", "exeunt async", "us", statistics.median(await latencies(near_async, ASKS)))
        took = [timed(lambda: threaded.ask(1)) for _ in range(ASKS)]
        note("local_ask_p50_us", "pykka", "us", statistics.median(took))
    for (name, subject, unit), values in series.items():
        report.add(Figure(name, subject, values, unit))
    await kills(report, supervisor)
    raw.close()
    threaded.stop()
    await supervisor.leave()


async def kills(report: Report, supervisor: Supervisor) -> None:
    """How soon a killed worker is noticed (a pending ask fails), and its actor answers again."""
    noticed: list[float] = []
    replaced: list[float] = []
    ref = supervisor.ref("echo")
    for _ in range(3):
        began = time.perf_counter()
        supervisor.processes["w1"].kill()
        noticed.append(await until(lambda: ref.ask(Ping(0), timeout_s=5), began, alive=False))
        replaced.append(await until(lambda: ref.ask(Ping(0), timeout_s=1), began, alive=True))
    report.add(Figure("kill_noticed_ms", "exeunt", noticed, "ms"))
    report.add(Figure("kill_replaced_ms", "exeunt", replaced, "ms"))


async def until(ask: Callable[[], Awaitable[object]], began: float, *, alive: bool) -> float:
    """Ask until it answers (or fails); return the milliseconds since `began`."""
    while True:
        try:
            await ask()
            answered = True
        except Exception:  # noqa: BLE001 - any failure means "not there"
            answered = False
        if answered is alive:
            return (time.perf_counter() - began) * 1000
        await asyncio.sleep(0)


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def run() -> Report:
    """Measure the runtime."""
    report = Report("runtime")
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(measure(report, directory))
    return report
