"""The specs of the tree: everything they name exists, and takes the arguments that they give."""

import importlib
from collections.abc import Iterator

import msgspec
import pytest

from exeunt.actors.loop_config import LoopConfig
from exeunt.actors.messages import MESSAGES
from exeunt.actors.peer_workers import peer_workers
from exeunt.actors.session import _MESSAGES, _PRELOAD  # pyright: ignore[reportPrivateUsage]
from exeunt.actors.timing import EVENT_LOOP_LEAVE_S, PEER_CLOSE_S
from exeunt.actors.tree import PortalConfig, children, workers
from exeunt.runtime import Actor, ChildSpec, Restart
from exeunt.runtime.loading import codec_for, load
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES


def specs(side: str, count: int = 2) -> list[ChildSpec]:
    names = peer_workers(count)
    loop = LoopConfig(
        instance="demo",
        side=side,
        private_key=bytes(range(32)),
        device="exeunt0",
        mtu=1280,
        ipc="/run/x",
        endings_file="/nowhere/endings.jsonl",
        peer_workers=names,
        lost_after_s=15.0,
    )
    portal = PortalConfig(
        url="ws://127.0.0.1:1/client/websocket", token_file="/t", name="n", external_id="e", public_key=bytes(32)
    )
    return children("demo", loop=loop, portal=portal)


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_every_child_can_be_made_from_its_spec_as_a_worker_makes_it(side: str) -> None:
    for spec in specs(side):
        args = msgspec.msgpack.decode(msgspec.msgpack.encode(spec.args))
        actor = load(spec.start)(**args)
        assert isinstance(actor, Actor), spec.id


def test_the_event_loop_reads_its_config_back_unchanged() -> None:
    spec = next(spec for spec in specs("gateway") if spec.id == "event-loop")
    actor = load(spec.start)(**msgspec.msgpack.decode(msgspec.msgpack.encode(spec.args)))
    assert actor.config.private_key == bytes(range(32))
    assert actor.config.peer_workers == ("peers-1", "peers-2")
    assert actor.config.devices == ("exeunt0", "exeunt0-2")
    assert (actor.config.side, actor.config.hand_over_of("peers-2")) == ("gateway", "/run/x/peers-2.device")


def test_each_peers_worker_has_a_device_actor_and_the_loop_finds_it() -> None:
    by_id = {spec.id: spec for spec in specs("gateway", 3)}
    loop = load(by_id["event-loop"].start)(**msgspec.msgpack.decode(msgspec.msgpack.encode(by_id["event-loop"].args)))
    for worker in ("peers-1", "peers-2", "peers-3"):
        device = by_id[loop.config.device_actor_of(worker)]
        assert (device.worker, device.args["hand_over"]) == (worker, f"/run/x/{worker}.device")
    assert by_id["watcher"].args["ignored"] == ("exeunt0", "exeunt0-2", "exeunt0-3")


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_every_child_has_a_worker_and_a_name_of_its_own(side: str) -> None:
    names = {spec.name for spec in workers(peer_workers(2))}
    assert {spec.worker for spec in specs(side)} <= names
    assert len({spec.id for spec in specs(side)}) == len(specs(side))


def test_only_the_network_worker_keeps_its_privileges() -> None:
    assert [spec.name for spec in workers(peer_workers(3)) if not spec.unprivileged] == ["network"]


def test_the_session_is_over_when_its_events_are() -> None:
    by_id = {spec.id: spec for spec in specs("client")}
    assert [spec.id for spec in by_id.values() if spec.significant] == ["network", "event-stream"]
    assert by_id["network"].restart == Restart.TEMPORARY, "its firewall has gone with it"
    assert by_id["event-loop"].restart == by_id["event-stream"].restart == Restart.TEMPORARY
    order = list(by_id)
    assert order.index("event-loop") < order.index("event-stream"), "it is watched when the stream starts"
    assert order.index("event-loop") < order.index("portal-link"), "it is told of the first join"


def test_nobody_is_killed_before_its_own_deadlines_are_over() -> None:
    by_id = {spec.id: spec for spec in specs("client")}
    assert float(by_id["event-loop"].shutdown_ms) >= EVENT_LOOP_LEAVE_S * 1000
    assert float(by_id["device"].shutdown_ms) >= PEER_CLOSE_S * 1000


def test_what_the_workers_preload_and_decode_exists() -> None:
    for module in _PRELOAD:
        load(f"{module}:__name__")
    codec_for(_MESSAGES)
    assert len(MESSAGES) == len(set(MESSAGES))
    tags = [message.__struct_config__.tag for message in MESSAGES]
    assert len(tags) == len(set(tags)), "two messages must not look the same on the wire"


def test_every_message_that_an_actor_handles_can_be_sent_from_another_worker() -> None:
    """One that is not listed is a dead letter as soon as its sender lives elsewhere, and no sooner."""
    known = {*MESSAGES, *RUNTIME_MESSAGES}
    handled = {kind for actor in all_actors(Actor) for kind in actor.receives}
    assert len(handled) > 40
    assert sorted(kind.__name__ for kind in handled - known) == []


def all_actors(above: type[Actor]) -> Iterator[type[Actor]]:
    """Every class of ours below this one that is imported when a worker is."""
    for preloaded in _PRELOAD:
        importlib.import_module(preloaded)
    for kind in above.__subclasses__():
        if kind.__module__.startswith("exeunt.actors"):
            yield kind
        yield from all_actors(kind)
