"""On a Ray cluster of several machines (local nodes, each with an address of its own): placed, lost, replaced."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
import zmq.utils.monitor
from tests.runtime.conftest import (
    RAY_IS_MISSING,
    SupervisorFactory,
    our_processes,
    ray_cluster,
    until,
    wait_for_ends,
)
from tests.runtime.troupe import Ended, EndedList, Finish, Number, Open, Relay, Say, WatchIt

from exeunt.runtime import ActorDead, ChildSpec, Directories, Message, Ref, Restart, Supervisor, WorkerSpec, lifeline
from exeunt.runtime import supervisor as supervisor_module
from exeunt.runtime.curve import CurveKeys
from exeunt.runtime.engine import Ray
from exeunt.runtime.errors import LocalError
from exeunt.runtime.events import StrangerRefused
from exeunt.runtime.recorder import read_ring
from exeunt.runtime.trace import group, load
from exeunt.runtime.transport import Transport

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, RAY_IS_MISSING]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three machines: 127.0.0.2, where we are, and one each with a cellar and an attic."""
    with ray_cluster({"cellar": 4}, {"attic": 4}) as cluster:
        yield cluster


def child(name: str, worker: str, actor: str = "Player", **options: Any) -> ChildSpec:
    return ChildSpec(id=name, worker=worker, start=f"tests.runtime.troupe:{actor}", **options)


def workers(**resources: str) -> list[WorkerSpec]:
    return [WorkerSpec(name=name, resources={place: 1}) for name, place in resources.items()]


async def answer(ref: Ref, message: Message) -> Any:
    """Ask until the actor that is being restarted answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ref.ask(message, timeout_s=30)
            except ActorDead:
                await asyncio.sleep(0)


def machines(supervisor: Supervisor) -> dict[str, str]:
    """Return the address of the machine of each worker."""
    engine = supervisor.engine
    endpoints = {name: engine.endpoint(name, worker.boot.epoch) for name, worker in supervisor.processes.items()}
    return {name: endpoint.removeprefix("tcp://").split(":")[0] for name, endpoint in endpoints.items()}


def events_of(directories: Directories, worker: str) -> list[str]:
    log = directories.log_file("t", worker)
    return [json.loads(line).get("event", "") for line in log.read_text().splitlines()]


async def test_without_a_cluster_it_says_what_to_do(supervise: SupervisorFactory) -> None:
    with pytest.raises(LocalError, match=r"call ray\.init"):
        await supervise(engine="ray")


async def test_workers_are_where_their_resources_are(
    supervise: SupervisorFactory, cluster: Any, directories: Directories
) -> None:
    supervisor = await supervise(
        child("a", "w1"),
        child("b", "w2"),
        child("c", "w3", "Watcher"),
        workers=[*workers(w1="cellar", w2="attic"), WorkerSpec(name="w3", resources={"node:127.0.0.2": 0.01})],
        engine="ray",
    )
    assert machines(supervisor) == {"w1": "127.0.0.3", "w2": "127.0.0.4", "w3": "127.0.0.2"}
    assert (await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))).text == "hello"
    watcher = supervisor.ref("c")
    await watcher.ask(WatchIt("t/w1/a"))
    await watcher.ask(Relay("t/w1/a", "behind the watch"))
    await supervisor.ref("a").ask(Finish("normal"))
    ended: EndedList = await watcher.ask(Ended(1))
    assert [(one.address, one.reason) for one in ended.ended] == [("t/w1/a", "normal")]
    pids = [worker.pid for worker in supervisor.processes.values()]
    for name in supervisor.processes:
        assert "connection_refused" not in events_of(directories, name)  # each knew the others before they came
    assert not [event for event in supervisor.node.events.recent if isinstance(event, StrangerRefused)]
    outcome = await supervisor.leave()
    assert (outcome.failed, outcome.leftovers, our_processes()) == (False, (), [])
    await wait_for_ends(pids)
    (trace,) = [
        trace for trace in group(load(directories.traces)) if trace.root.to == "t/w1/a" and len(trace.spans) == 4
    ]
    hops = [(span.message, span.worker, span.outcome) for span in trace.spans]
    assert sorted(hops) == sorted(
        [("Relay", "w1", "ok"), ("Say", "w2", "ok"), ("Said", "w1", "ok"), ("Said", "supervisor", "ok")]
    )


async def test_the_workers_of_a_lost_machine_are_replaced_on_another(
    supervise: SupervisorFactory, cluster: Any
) -> None:
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    doomed = cluster.add_node(**node, node_ip_address="127.0.0.5", resources={"stage": 2})
    supervisor = await supervise(
        child("a", "w1"),
        child("gate", "w2", "Gate"),
        child("watcher", "w3", "Watcher"),
        workers=workers(w1="stage", w2="stage", w3="cellar"),
        engine="ray",
    )
    assert machines(supervisor) == {"w1": "127.0.0.5", "w2": "127.0.0.5", "w3": "127.0.0.3"}
    spare = cluster.add_node(**node, node_ip_address="127.0.0.6", resources={"stage": 2})
    watcher = supervisor.ref("watcher")
    for name in ("t/w1/a", "t/w2/gate"):
        await watcher.ask(WatchIt(name))
    waiting = supervisor.ref("gate").ask(Open(), timeout_s=60)
    told = watcher.ask(Ended(2), timeout_s=60)
    first = dict(supervisor.processes)

    cluster.remove_node(doomed, allow_graceful=False)
    with pytest.raises(ActorDead, match="its worker died"):
        await waiting
    await told
    assert await answer(supervisor.ref("a"), Number(1)) == Number(1)
    assert await answer(supervisor.ref("gate"), Number(2)) == Number(2)
    assert machines(supervisor) == {"w1": "127.0.0.6", "w2": "127.0.0.6", "w3": "127.0.0.3"}
    assert all(first[name].ended.is_set() for name in ("w1", "w2"))
    assert not first["w3"].ended.is_set()
    assert supervisor.restarts == {"w1": 1, "w2": 1, "a": 1, "gate": 1}

    await watcher.ask(WatchIt("t/w1/a"))  # across, to the successor
    await watcher.ask(Relay("t/w1/a", "behind the watch"))
    await supervisor.ref("a").ask(Finish("normal"))
    ended: EndedList = await watcher.ask(Ended(3), timeout_s=30)
    assert sorted((one.address, one.reason) for one in ended.ended) == [
        ("t/w1/a", "normal"),
        ("t/w1/a", "worker_died"),
        ("t/w2/gate", "worker_died"),
    ]
    outcome = await supervisor.leave()
    assert (outcome.failed, outcome.leftovers, our_processes()) == (False, (), [])
    cluster.remove_node(spare, allow_graceful=True)


async def test_a_worker_that_falls_silent_is_lost(
    supervise: SupervisorFactory, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "HEARTBEAT_MS", 50)
    monkeypatch.setattr(lifeline, "HEARTBEAT_TIMEOUT_MS", 300)
    monkeypatch.setattr(lifeline, "SILENT_S", 0.2)
    supervisor = await supervise(child("a", "w1"), workers=workers(w1="cellar"), engine="ray")
    first = supervisor.processes["w1"]
    os.kill(first.pid, signal.SIGSTOP)
    try:
        await first.ended.wait()
        assert first.exit_reason == f"lost: {lifeline.SILENT}"
        assert (await answer(supervisor.ref("a"), Say("?"))).pid != first.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGCONT)
    await wait_for_ends([first.pid])  # Ray's kill has reached it, or it has found itself cut off
    assert not (await supervisor.leave()).failed


@pytest.mark.parametrize("of", ["supervisor", "w1"])
async def test_a_stranger_is_refused_and_counted(
    supervise: SupervisorFactory, cluster: Any, directories: Directories, of: str
) -> None:
    supervisor = await supervise(child("a", "w1"), workers=workers(w1="cellar"), engine="ray")
    transport = supervisor.node.transport
    assert isinstance(transport, Transport)
    epoch = supervisor.processes["w1"].boot.epoch
    at = {"supervisor": transport.endpoint, "w1": supervisor.engine.endpoint("w1", epoch)}[of]
    server_key = supervisor.engine.public_key(of, epoch)
    keys = CurveKeys.generate()
    with zmq.asyncio.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.curve_serverkey, stranger.curve_publickey = server_key.encode(), keys.public.encode()
        stranger.curve_secretkey = keys.secret.encode()
        monitor = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        stranger.connect(at)
        event = zmq.utils.monitor.parse_monitor_message(await monitor.recv_multipart())
        stranger.disable_monitor()
        monitor.close()
    assert event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
    if of == "supervisor":
        await until(lambda: transport.refused_total >= 1)
        assert StrangerRefused in [type(event) for event in supervisor.node.events.recent]
    else:
        await until(lambda: "connection_refused" in events_of(directories, "w1"))
    assert (await supervisor.ref("a").ask(Say("x"))).text == "x"
    await supervisor.leave()


async def test_rings_come_from_where_files_are_not_shared(
    supervise: SupervisorFactory, cluster: Any, directories: Directories, tmp_path: Path
) -> None:
    engine = Ray(directories, home=tmp_path / "elsewhere")
    supervisor = await supervise(
        child("a", "w1"), child("b", "w2"), workers=workers(w1="cellar", w2="attic"), engine=engine
    )
    epochs = {name: worker.boot.epoch for name, worker in supervisor.processes.items()}
    rings = {name: directories.ring_file("t", name, epoch) for name, epoch in epochs.items()}
    await supervisor.ref("a").ask(Relay("t/w2/b", "hello"))
    assert not any(ring.exists() for ring in rings.values())
    await engine.gather()  # of the living
    assert "Relay" in {record.message for record in read_ring(rings["w1"]).records}
    rings["w1"].unlink()
    supervisor.processes["w1"].kill()
    await until(rings["w1"].exists)  # of the dead
    assert "Relay" in {record.message for record in read_ring(rings["w1"]).records}
    await answer(supervisor.ref("a"), Number(1))
    await supervisor.ref("b").ask(Number(1))
    await supervisor.leave()  # of those who leave
    assert "Number" in {record.message for record in read_ring(rings["w2"]).records}
    assert sorted(path.name for path in (tmp_path / "elsewhere").glob("*.log")) == ["t.w1.log", "t.w2.log"]


async def test_a_worker_for_which_there_is_no_room_is_waited_for(
    supervise: SupervisorFactory, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "START_TIMEOUT_S", 0.5)
    with pytest.raises(TimeoutError):
        await supervise(child("a", "w1"), workers=workers(w1="ballroom"), engine="ray")
    assert our_processes() == []


async def test_what_a_worker_leaves_below_it_is_killed_and_named(supervise: SupervisorFactory, cluster: Any) -> None:
    supervisor = await supervise(
        child("a", "w1", "Parent", restart=Restart.TEMPORARY), workers=workers(w1="cellar"), engine="ray"
    )
    sleeper: Number = await supervisor.ref("a").ask(Finish())
    outcome = await supervisor.leave()
    assert outcome.leftovers == (f"{sleeper.n} sleep",)
    await wait_for_ends([sleeper.n])


async def test_the_workers_of_a_killed_supervisor_leave(cluster: Any, tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runtime.orphans", str(tmp_path), cluster.address),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        line = b""
        while not line.startswith(b"["):  # Ray prints news of the cluster in between
            line = await program.stdout.readline()
            assert line, "it has ended"
    finally:
        os.kill(program.pid, signal.SIGKILL)
        await program.communicate()
    await wait_for_ends(json.loads(line))
    assert our_processes() == []
    assert (tmp_path / "chronicle").read_text().split()[:1] == ["+c"]
